"""How long `dica audit --all` takes over about 200 runs: ``python benchmarks/audit.py``.

The runs are made from the committed ones in a temporary copy of the project, all of it in Git as in the archive itself:
half have 60,000 predictions, half 1,797. Writes results/audit.csv.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from common import ROOT, Told

from dica.figures import write_figures
from dica.files import sha256_file, write_json
from dica.plan.artefacts import load_artefacts
from dica.plan.parameters import load_profile
from dica.plan.plan import make_plan, write_plan
from dica.plan.planned import artefacts_of
from dica.scores.evaluation import evaluate_files
from dica.tables.cells import cells, write_cells
from dica.tables.rendering import write_tables

SEEDS = 17
SHOWN = ["dica table-1", "dica table-2", "dica figure-1", "dica figure-2"]
DONORS = {"digits": "crlc", "cifar10-jpeg": "kmeans"}


def copy_project(root: Path, project: Path) -> dict:
    """Copy what an audit reads, with a profile, tables and figures that ask for 204 runs; return their plan."""
    for part in ("params", "workflow", "src", "data/labels"):
        shutil.copytree(root / part, project / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "Snakefile", project)
    declared = project / "params/artefacts/dica.yaml"
    body = yaml.safe_load(declared.read_text())
    for name in SHOWN:
        artefact = body["artefacts"][name.split()[1]]
        artefact["seeds"] = SEEDS
        for row in artefact["rows"]:
            row.pop("seeds", None)
    declared.write_text(yaml.safe_dump(body, sort_keys=False))
    profile = project / "params/archive.yaml"
    profile.write_text(yaml.safe_dump({**yaml.safe_load(profile.read_text()), "artefacts": SHOWN}, sort_keys=False))
    return make_plan(load_profile(profile, project), project)


def write_run(root: Path, project: Path, run: dict) -> None:
    """Give a planned run the predictions and the record of a committed one."""
    donor = sorted((root / "results/runs" / DONORS[run["dataset"]] / run["dataset"]).glob("s*"))[run["seed"] % 3]
    folder = project / run["path"]
    shutil.copytree(donor, folder)
    keys = ("id", "method", "variant", "dataset", "data_id", "seed", "determinism", "params")
    config = {key: run[key] for key in keys}
    write_json(folder / "config.json", config)
    record = json.loads((folder / "run.json").read_text())
    record.update({key: config[key] for key in keys if key in record})
    record["files"]["config.json"] = sha256_file(folder / "config.json")
    write_json(folder / "run.json", record)
    labels = project / "data/labels" / f"{run['dataset']}.npz"
    evaluate_files(folder / "predictions.npz", labels, folder / "metrics.json", run["params"]["eval_split"])


def main() -> None:
    root = ROOT
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        plan = copy_project(root, project)
        for run in plan["runs"]:
            write_run(root, project, run)
        write_plan(plan, project / "results/plan.json")
        declared = artefacts_of(plan, project)
        assert declared == load_artefacts(project, SHOWN)
        frame = cells(plan, project, "results", declared)
        write_cells(frame, project / "results/tables/cells.csv")
        write_tables(declared, frame, plan, project / "results/tables")
        write_figures(declared, plan, project, "results", project / "results/figures")
        identity = ("-c", "user.name=benchmark", "-c", "user.email=benchmark")
        for command in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "results")):
            subprocess.run(["git", *identity, *command], cwd=project, check=True)
        environment = {**os.environ, "PYTHONPATH": str(project / "src"), "OMP_NUM_THREADS": "1"}
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        command = [sys.executable, "-m", "dica.cli", "audit", "--all"]
        done = subprocess.run(command, cwd=project, env=environment, text=True, capture_output=True)
        seconds, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    row = {"runs": len(plan["runs"]), "cells": len(frame), "seconds": f"{seconds:.1f}", "cpu_seconds": f"{cpu:.1f}"}
    Told("audit").add(row)


if __name__ == "__main__":
    main()
