"""What has become of the planned runs: done, running, failed, missing or stale."""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dica.files import read_json, sha256_file
from dica.runs.read import METRICS_KEYS, read_record
from dica.runs.record import collapse_note

STATES = ("done", "stale", "running", "failed", "missing")


@dataclass
class State:
    """State of one planned run (one of `STATES`) and why; `stale` runs are done too, by code that changed since."""

    run: dict[str, Any]
    name: str
    detail: str = ""


def states(plan: dict[str, Any], root: Path, results: str) -> list[State]:
    """Return the state of every run of a plan."""
    digest = cache(lambda name: sha256_file(root / name) if (root / name).is_file() else None)
    return [State(run, *_state(run, root, root / results / "state" / run["id"], digest)) for run in plan["runs"]]


def _state(run: dict[str, Any], root: Path, state: Path, digest: Any) -> tuple[str, str]:
    if (root / run["path"] / "run.json").is_file():
        why, collapsed = _outdated(root / run["path"], digest)
        return ("stale" if why else "done"), "; ".join(filter(None, (collapsed, why)))
    if holder := lock_holder(state):
        return "running", holder
    if (state / "failed.json").is_file():
        return "failed", str(read_json(state / "failed.json").get("reason"))
    return "missing", "interrupted, has a checkpoint" if (state / "checkpoint.pt").is_file() else ""


def _outdated(folder: Path, digest: Any) -> tuple[str, str]:
    """Return what has changed since a run was trained or scored, or nothing, and whether it collapsed."""
    record, faults = read_record(folder / "run.json", {"sources": dict})
    reasons = [f"run.json: {fault.detail}" for fault in faults]
    changed = [name for name, found in record["sources"].items() if digest(name) != found] if record else []
    if changed:
        reasons.append(f"code changed since: {', '.join(changed)}")
    metrics, faults = read_record(folder / "metrics.json", METRICS_KEYS)
    reasons += [f"metrics.json: {fault.detail}" for fault in faults]
    return "; ".join(reasons), collapse_note(metrics["headline"]) if metrics and not faults else ""


def lock_holder(state: Path) -> str:
    """Return who trains the run whose state folder this is, or nothing."""
    if not (state / "lock").is_file():
        return ""
    with open(state / "lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.read().strip() or "another process"
    return ""
