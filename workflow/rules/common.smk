# Shared by all: the validated profile, the plan, wildcards and input functions.

import shlex
import sys
from pathlib import Path

# The code of this checkout runs, whichever copy of the package happens to be installed.
SOURCE = str(Path(workflow.basedir) / "src")
sys.path.insert(0, SOURCE)
shell.prefix(f"export PYTHONPATH={shlex.quote(SOURCE)}; ")

from dica.artefacts import load_artefacts
from dica.config import load_datasets, load_method, validate_profile
from dica.data.prepared import is_current
from dica.files import UserError
from dica.identity import make_plan, write_plan

ROOT = Path(workflow.basedir)

try:
    validate_profile(config, "the profile (--configfile)", ROOT)
    PLAN = make_plan(config, ROOT)
    ARTEFACTS = load_artefacts(ROOT, config["artefacts"])
except UserError as error:
    raise WorkflowError(str(error))

RESULTS = config["results"]
METHODS = config["methods"]
PAPERS = sorted({artefact.paper for artefact in ARTEFACTS})
TABLES = [artefact for artefact in ARTEFACTS if artefact.kind == "table"]
FIGURES = [artefact for artefact in ARTEFACTS if artefact.kind == "figure"]
PLAN_FILE = f"{RESULTS}/plan.json"
# Written while parsing, and only if its content changes: every aggregate depends on it, so that an edited parameter
# rebuilds the tables even where Snakemake's own metadata are lost.
write_plan(PLAN, ROOT / PLAN_FILE)

# What is complete is a plain file to Snakemake, made by no rule: no edited rule, lost metadata or new environment can
# ever retrain a finished run or prepare the same images twice. (The run id answers for the parameters.)
RUN_FILES = ["config.json", "history.csv", "predictions.npz", "run.json"]
UNFINISHED = [
    run["id"]
    for run in PLAN["runs"]
    if not all((ROOT / run["path"] / name).is_file() for name in RUN_FILES)
]
UNPREPARED = [
    name for name, entry in load_datasets(ROOT).items() if not is_current(ROOT, entry)
]


wildcard_constraints:
    method="|".join(METHODS),
    dataset="|".join(load_datasets(ROOT)),
    seed=r"\d+",
    id="[0-9a-f]{12}",
    paper="|".join(PAPERS),
    table="|".join({artefact.name for artefact in TABLES}) or "none",
    figure="|".join({artefact.name for artefact in FIGURES}) or "none",


def run_files(name, keep=lambda run, wildcards: True):
    """Return an input function: one file of every planned run that `keep(run, wildcards)` accepts.

    With the target `light` only of those that are there, so that nothing is trained. (The targets are known when
    inputs are resolved, not yet when this file is read.)
    """

    def files(wildcards):
        runs = [run for run in PLAN["runs"] if keep(run, wildcards)]
        found = [f"{run['path']}/{name}" for run in runs]
        if "light" in workflow.dag_settings.targets:
            found = [file for file in found if Path(file).is_file()]
        return found

    return files


def resource(name):
    """Return an input function for one entry of a method's `resources` block."""
    return lambda wildcards: load_method(wildcards.method, ROOT)["resources"][name]
