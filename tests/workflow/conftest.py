"""A small copy of the project that the workflow tests drive: same rules and code, one seed, one epoch."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from project import Project

ROOT = Path(__file__).resolve().parents[2]
PROFILE = {
    "name": "archive",
    "results": "results",
    "artefacts": ["dica table-1", "dica figure-2"],
    "determinism": "seeded",
    "tracker": "tensorboard",
    "methods": ["drc", "imc-swav", "kmeans"],
    "recorded_methods": ["drc", "imc-swav", "kmeans"],
    "recorded_datasets": ["digits"],
    "overrides": {"drc": {"epochs": 1}, "imc-swav": {"epochs": 1, "epoch_batches": 2}},
}
CLAIMS = {
    "dica-1": {
        "says": "DRC beats K-means on the digits.",
        "place": "nowhere, for a test",
        "kind": "dominance",
        "metric": "acc",
        "at": {"paper": {"artefact": "dica table-1", "rows": ["drc", "kmeans"]}},
    },
}


@pytest.fixture(scope="session")
def checkout(tmp_path_factory) -> Project:
    """The working tree without results or data, as a fresh Git repository."""
    project = Project(tmp_path_factory.mktemp("checkout") / "a project")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True, capture_output=True, check=True
    )
    for name in listed.stdout.splitlines():
        if not name.startswith(("results/", "dvc.lock")) and (ROOT / name).is_file():
            (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, project.folder / name)
    project.run("git", "init", "-q", "-b", "main")
    project.commit("start")
    project.compile()
    return project


@pytest.fixture(scope="session")
def small(checkout: Project, tmp_path_factory) -> Project:
    """The same with a profile of three short runs."""
    project = checkout.copy(tmp_path_factory.mktemp("small") / "project")
    (project.folder / "params/archive.yaml").write_text(yaml.safe_dump(PROFILE, sort_keys=False))

    def one_seed(body: dict) -> None:
        for artefact in body["artefacts"].values():
            artefact["seeds"] = 1
            kept = [row for row in artefact["rows"] if row["method"] in PROFILE["methods"]]
            artefact["rows"] = [{key: value for key, value in row.items() if key != "seeds"} for row in kept]

    project.edit("params/artefacts/dica.yaml", one_seed)
    shutil.rmtree(project.folder / "params/claims")  # they are about rows that are not there
    (project.folder / "params/claims").mkdir()
    (project.folder / "params/claims/dica.yaml").write_text(yaml.safe_dump({"paper": "dica", "claims": CLAIMS}))
    (project.folder / "README.md").write_text("# Three short runs\n")  # without the tables of the archive
    project.commit("small profile")
    return project


@pytest.fixture(scope="session")
def finished(small: Project, tmp_path_factory) -> Project:
    """The small project after `dvc repro`, everything committed: made once for all workers, each has its copy."""
    place = tmp_path_factory.getbasetemp()
    made = (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "finished-once"
    with FileLock(f"{made}.lock"):
        if not made.exists():
            project = small.copy(tmp_path_factory.mktemp("made") / "project")
            project.run("dvc", "repro")
            project.commit("results")
            project.folder.rename(made)
    return Project(made).copy(tmp_path_factory.mktemp("finished") / "project")
