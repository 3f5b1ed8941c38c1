# Shared by all: the validated profile, the plan, wildcards and input functions.

import shlex
import sys
from pathlib import Path

ROOT = Path(workflow.basedir)
# The code of this checkout runs, whichever copy of the package happens to be installed.
sys.path.insert(0, str(ROOT / "src"))
# (A prefix replaces Snakemake's own strict mode, without which a failure before a pipe goes unnoticed.)
shell.prefix(f"set -euo pipefail; export PYTHONPATH={shlex.quote(str(ROOT / 'src'))}; ")

from dica.plan.artefacts import analyses, analysis_path, load_artefacts
from dica.plan.own import own_analyses, own_outputs
from dica.plan.parameters import load_datasets, load_method, load_profile
from dica.data.prepared import is_current
from dica.files import UserError, canonical_json
from dica.plan.plan import (
    id_pattern,
    make_plan,
    note_losses,
    source_folder,
    write_if_changed,
    write_plan,
    write_recorded,
)
from dica.engine.launch import command, gpu_request
from dica.tables.links import all_pages
from dica.runs.files import RECORD, RESULT_FILES
from dica.engine.slots import TWELFTHS

if workflow.config_settings.config:
    raise WorkflowError(
        "--config changes nothing here: copy a profile such as params/demo.yaml and give --configfile"
    )

try:
    # One reader for Snakemake and `dica`: the profile counts as it stands, it is not merged with another one.
    PROFILE = load_profile(
        [ROOT / "params/archive.yaml", *workflow.overwrite_configfiles][-1], ROOT
    )
    PLAN = make_plan(PROFILE, ROOT)
    SUBSTITUTE = PROFILE.get("substitute")
    ARTEFACTS = load_artefacts(ROOT, PROFILE["artefacts"], SUBSTITUTE)
    DATASETS = load_datasets(ROOT)
except UserError as error:
    raise WorkflowError(str(error))

RESULTS = PROFILE["results"]
METHODS = PROFILE["methods"]
PAPERS = sorted({artefact.paper for artefact in ARTEFACTS})
TABLES = [a for a in ARTEFACTS if a.kind == "table" and a.regenerated]
FIGURES = [a for a in ARTEFACTS if a.kind == "figure" and a.regenerated]
PAGES = all_pages(PAPERS, [run["method"] for run in PLAN["runs"]])


class Planned(dict):
    """The planned runs by id; asking for another one is a mistake in the request, not in the workflow."""

    def __missing__(self, run_id):
        raise WorkflowError(
            f"run {run_id} is not in the plan of profile {PROFILE['name']} ({PLAN_FILE})"
        )


CONFIGS = Planned((run["id"], run) for run in PLAN["runs"])

missing = sorted({run["method"] for run in PLAN["runs"]} - set(METHODS))
if missing:
    raise WorkflowError(
        f"profile {PROFILE['name']}: methods: {', '.join(missing)} must be listed, artefacts need them"
    )

# Both are written while parsing, and only if there is something new. Every aggregate depends on them, so that an edited
# parameter, a failed run or a removed one rebuilds the tables even where Snakemake's own metadata are lost.
PLAN_FILE = f"{RESULTS}/plan.json"
LOSSES_FILE = f"{RESULTS}/state/losses.json"
write_plan(PLAN, ROOT / PLAN_FILE)
write_recorded(PLAN, METHODS, PROFILE["recorded_datasets"], ROOT / RESULTS / "plans")
note_losses(PLAN, ROOT, RESULTS, ROOT / LOSSES_FILE)

# What is complete is a plain file to Snakemake, made by no rule: no edited rule, lost metadata or new environment can
# ever retrain a finished run or prepare the same images twice. (The run id answers for the parameters.)
UNFINISHED = [
    run["id"]
    for run in PLAN["runs"]
    if not all(
        (ROOT / run["path"] / name).is_file() for name in (*RESULT_FILES, RECORD)
    )
]
UNFINISHED_ID = id_pattern(UNFINISHED, sorted(set(CONFIGS) - set(UNFINISHED)))
UNPREPARED = [name for name, entry in DATASETS.items() if not is_current(ROOT, entry)]
for (
    name
) in (
    UNPREPARED
):  # newer than arrays that were prepared for another declaration, so that these are replaced
    write_if_changed(
        ROOT / RESULTS / "state" / f"{name}.json", canonical_json(DATASETS[name])
    )


wildcard_constraints:
    method="|".join(METHODS),
    dataset="|".join(DATASETS),
    seed=r"\d+",
    id="[0-9a-f]{12}",
    paper="|".join(PAPERS) or "none",
    table="|".join({artefact.name for artefact in TABLES}) or "none",
    figure="|".join({artefact.name for artefact in FIGURES}) or "none",


def as_it_is():
    """Tell whether nothing is to be trained, for the targets `light` and `deposit`.

    The targets are known when inputs are resolved, not yet when this file is read.
    """
    return bool({"light", "deposit"} & set(workflow.dag_settings.targets))


def scores(keep=lambda run, wildcards: True):
    """Return an input function: metrics.json of every planned run that `keep(run, wildcards)` accepts.

    With the targets of `as_it_is` only of runs that are trained, so that nothing else is.
    """

    def files(wildcards):
        runs = [run for run in PLAN["runs"] if keep(run, wildcards)]
        if as_it_is():
            runs = [
                run
                for run in runs
                if (ROOT / run["path"] / "predictions.npz").is_file()
            ]
        return [f"{run['path']}/metrics.json" for run in runs]

    return files


def needed_by(run, wildcards):
    """Tell whether the table or figure of these wildcards shows a run."""
    name = wildcards.get("table") or wildcards.get("figure")
    return f"{wildcards.paper} {name}" in run["needed_by"]


def recorded(run, wildcards):
    """Tell whether `dvc repro` records a run: by method, and by the data sets that the profile lists."""
    return (
        run["method"] == wildcards.method
        and run["dataset"] in PROFILE["recorded_datasets"]
    )


def labels_or_images(wildcards):
    """Labels come with a clone; where they do not, preparing the data set makes them."""
    labels = f"data/labels/{wildcards.dataset}.npz"
    return (
        labels
        if (ROOT / labels).is_file()
        else f"data/prepared/{wildcards.dataset}/manifest.json"
    )


def resource(name):
    """Return an input function for one entry of a method's `resources` block."""
    return lambda wildcards: load_method(wildcards.method, ROOT)["resources"][name]


def source_files(wildcards):
    """Return record and weights of the run that a run builds on; nothing for most."""
    folder = source_folder(CONFIGS[wildcards.id], RESULTS)
    if not folder:
        return []
    weights = f"{models_folder(folder)}/weights.safetensors"
    source = CONFIGS[wildcards.id]["params"]["source"]["id"]
    if source not in UNFINISHED and not (ROOT / weights).is_file():
        raise WorkflowError(
            f"run {wildcards.id} builds on {folder}, whose weights are not here: put {weights} back, or move that"
            " folder away, so that the run is trained again"
        )
    return [f"{folder}/run.json", weights]


def models_folder(folder):
    """Return the folder of a run's weights."""
    return f"{RESULTS}/models/{Path(folder).relative_to(f'{RESULTS}/runs')}"


def source_options(wildcards):
    """Return what tells `dica.train` where the run lies that a run builds on."""
    folder = source_folder(CONFIGS[wildcards.id], RESULTS)
    if not folder:
        return ""
    return f"--source {shlex.quote(folder)} --source-models {shlex.quote(models_folder(folder))}"


def gpu_resource(name):
    """Return an input function for `gpu` or `gpu_twelfths`, see `dica.engine.launch.gpu_request`."""
    return lambda wildcards: gpu_request(
        load_method(wildcards.method, ROOT), remote=not workflow.local_exec
    )[name]


# `--resources gpu=N` counts devices; runs that share one are counted in twelfths of it.
if "gpu" in workflow.global_resources:
    workflow.register_resource(
        "gpu_twelfths", TWELFTHS * workflow.global_resources["gpu"].value
    )


ANALYSES = {
    analysis_path(RESULTS, kind, run["path"]): (kind, run)
    for artefact in FIGURES
    for kind, run in analyses(PLAN, artefact)
} | {
    analysis_path(RESULTS, kind, run["path"]): (kind, run)
    for kind, run in own_analyses(PROFILE, PLAN)
}
# `tables` of dvc.yaml depends on the folder, whether or not anything is in it.
(ROOT / RESULTS / "analyses").mkdir(parents=True, exist_ok=True)
UNANALYSED = [path for path in ANALYSES if not (ROOT / path).is_file()]


def analysed_run(wildcards):
    """Return the planned run behind the analysis of these wildcards."""
    return ANALYSES[f"{RESULTS}/analyses/{wildcards.analysis}.npz"][1]


def figure_analyses(wildcards):
    """Return what the figure of these wildcards needs and can have: what is there, or can be made of weights."""
    artefact = next(
        a for a in FIGURES if (a.paper, a.name) == (wildcards.paper, wildcards.figure)
    )
    files = []
    for kind, run in analyses(PLAN, artefact):
        path = analysis_path(RESULTS, kind, run["path"])
        weights = "stages.npz" if kind == "stages" else "weights.safetensors"
        possible = not as_it_is() and (
            run["id"] in UNFINISHED
            or (ROOT / models_folder(run["path"]) / weights).is_file()
        )
        if possible or (ROOT / path).is_file():
            files.append(path)
    return files
