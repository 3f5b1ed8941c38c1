"""Runs on a user's own images (`dica cluster`): which analyses they need, and the profile that asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dica.data.catalog import OWN
from dica.data.paths import OWN_PREFIX
from dica.files import read_json
from dica.plan.artefacts import analysis_path
from dica.plan.plan import OWN_RUNS, write_if_changed

MOST_COUNTS = 100  # numbers of clusters that are tried at most


def profile_path(name: str) -> Path:
    """Return where the profile of a user's images lies, relative to the project root."""
    return OWN / name / "profile.yaml"


def results_folder(name: str) -> str:
    """Return where the results of a user's images go, relative to the project root."""
    return f"results/own/{name}"


def own_runs(profile: dict[str, Any], plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the planned runs that the profile itself names, by seed; not those that they build on."""
    method = profile["runs"]["method"] if "runs" in profile else None
    mine = [run for run in plan["runs"] if OWN_RUNS in run["needed_by"] and run["method"] == method]
    return sorted(mine, key=lambda run: run["seed"])


def own_analyses(profile: dict[str, Any], plan: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the analyses that the page of those runs shows: kinds of `dica.analyse`, each with its run."""
    kind = "counts" if "counts" in profile.get("runs", {}) else "outlook"
    return [(kind, run) for run in own_runs(profile, plan)]


def own_outputs(profile: dict[str, Any]) -> list[str]:
    """Return what the page and the table of those runs are called: of clusters, or of numbers of clusters."""
    return ["how-many.html", "how-many.csv"] if "counts" in profile["runs"] else ["index.html", "assignments.csv"]


def analysis_file(profile: dict[str, Any], kind: str, run: dict[str, Any], root: Path) -> Path:
    """Return the file of an analysis of a planned run."""
    return root / analysis_path(profile["results"], kind, run["path"])


def make_profile(name: str, runs: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Return the profile of a user's images.

    Parameters
    ----------
    name
        What the images are called.
    runs
        `method`, `seeds` and, to try numbers of clusters, `counts`.
    overrides
        The recipe: parameters of the method, over its defaults.
    """
    return {
        "name": profile_path(name).relative_to("params").with_suffix("").as_posix(),
        "results": results_folder(name),
        "artefacts": [],
        "determinism": "seeded",
        "methods": [runs["method"]],
        "recorded_datasets": [],
        "runs": {"method": runs["method"], "dataset": f"{OWN_PREFIX}{name}", **runs},
        "overrides": {runs["method"]: overrides},
    }


def write_yaml(path: Path, comment: str, body: dict[str, Any]) -> bool:
    """Write a parameter file with a comment of one or more lines in front, if it differs; return whether it did."""
    lines = "".join(f"# {line}\n" for line in comment.splitlines())
    return write_if_changed(path, lines + yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=120))


def read_request(root: Path, name: str) -> dict[str, Any]:
    """Return what was asked for the last time, with what was found of the images; empty at first."""
    path = root / OWN / name / "request.json"
    return read_json(path) if path.is_file() else {}
