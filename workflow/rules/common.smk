# Shared by all: the profile with its plan (`dica.plan.work`), wildcards and input functions.

import sys
from pathlib import Path

from snakemake.logging import logger

ROOT = Path(workflow.basedir)
# The code of this checkout runs, whichever copy of the package happens to be installed.
sys.path.insert(0, str(ROOT / "src"))

from dica.data.paths import labels_file, manifest_file
from dica.engine.launch import command, gpu_request
from dica.engine.slots import TWELFTHS
from dica.files import UserError, canonical_json
from dica.once import prefix, start
from dica.plan.made import TOLD
from dica.plan.parameters import load_method
from dica.plan.own import own_outputs
from dica.plan.progress import log_of, tell
from dica.plan.work import ANY_ID, NONE, Work, require_plain_start
from dica.runs.files import CONFIG, METRICS, PREDICTIONS, RECORD
from dica.tables.links import all_pages


def told(function, *arguments):
    """Call a function of the package; a mistake of the user is one line."""
    try:
        return function(*arguments)
    except UserError as error:
        raise WorkflowError(str(error))


SOFTWARE = workflow.deployment_settings.deployment_method
told(require_plain_start, ROOT, workflow.config_settings.config, SOFTWARE)
shell.prefix(prefix(ROOT))
# One reader for Snakemake and `dica`: the profile counts as it stands, it is not merged with another one.
profile_file = [ROOT / "params/archive.yaml", *workflow.overwrite_configfiles][-1]
WORK = told(Work, ROOT, Path(profile_file), not workflow.is_main_process)
told(WORK.note)
for line in WORK.warnings:
    logger.warning(line)

PROFILE, RESULTS = WORK.profile, WORK.results
PLAN_FILE, CELLS = WORK.plan_file, f"{RESULTS}/tables/cells.csv"
RUN = f"{RESULTS}/runs/{{method}}/{{dataset}}/s{{seed}}-{{id}}"  # the folder of one
LOG = log_of({name: f"{{{name}}}" for name in ("method", "dataset", "seed", "id")})
PAPERS = sorted({artefact.paper for artefact in WORK.artefacts})
TABLES, FIGURES = WORK.shown("table"), WORK.shown("figure")
PAGES = all_pages(PAPERS, [run["method"] for run in WORK.plan["runs"]])


wildcard_constraints:
    method="|".join(WORK.methods) or NONE,
    dataset="|".join(WORK.datasets),
    seed=r"\d+",
    id=ANY_ID,
    paper="|".join(PAPERS) or NONE,
    table="|".join({artefact.name for artefact in TABLES}) or NONE,
    figure="|".join({artefact.name for artefact in FIGURES}) or NONE,


def as_it_is():
    """Tell whether nothing is to be trained. The targets are known when inputs are resolved, not before."""
    return bool({"light", "deposit"} & set(workflow.dag_settings.targets))


def made(kind):
    """Return an input function for the tables or figures that are made, see `Work.made_files`."""
    return lambda wildcards: WORK.made_files(kind, as_it_is())


def made_of(target, *files, scored=True):
    """Return an input function for what `target(wildcards)` is made of: scores of its runs and further files.

    While it is up to date by content, what is there is `ancient`: a clone has new file times and nothing to do.
    """

    def inputs(wildcards):
        what = target(wildcards)
        names = [PLAN_FILE, WORK.changes_file]
        names += WORK.scores(what, as_it_is()) if scored else []
        for file in files:
            found = file(wildcards) if callable(file) else file
            names += [found] if isinstance(found, str) else found
        there = WORK.is_current(what, as_it_is())
        return [
            ancient(str(name)) if there and (ROOT / name).is_file() else str(name)
            for name in names
        ]

    return inputs


def resource(name):
    """Return an input function for one entry of a method's `resources` block."""
    return lambda wildcards: load_method(wildcards.method, ROOT)["resources"][name]


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


def analysed_run(wildcards):
    """Return the planned run behind the analysis of these wildcards."""
    return told(WORK.analysed, wildcards.analysis)
