"""What has become of the planned runs: done, stale (done by code of another behaviour), running, failed or missing."""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dica.files import sha256_file
from dica.runs.behaviour import OTHER, SAME, UNKNOWN, behaviour
from dica.runs.files import METRICS, RECORD, failure_reason
from dica.runs.read import TEXT, read_metrics, read_record
from dica.runs.record import collapse_note

STATES = ("done", "stale", "running", "failed", "missing")


@dataclass
class State:
    """State of one planned run (one of `STATES`) and why.

    `code` compares the code of a finished run with today's (see `dica.runs.behaviour`). `stale` runs are done too, but
    today's code behaves otherwise, or their metrics are of older conventions.
    """

    run: dict[str, Any]
    name: str
    detail: str = ""
    code: str = ""


def states(plan: dict[str, Any], root: Path, results: str) -> list[State]:
    """Return the state of every run of a plan."""
    digest = cache(lambda name: sha256_file(root / name) if (root / name).is_file() else None)
    return [State(run, *_state(run, root, root / results / "state" / run["id"], digest)) for run in plan["runs"]]


def _state(run: dict[str, Any], root: Path, state: Path, digest: Any) -> tuple[str, str, str]:
    if (root / run["path"] / RECORD).is_file():
        return _finished(run, root / run["path"], digest)
    return *_unfinished(state), ""


def _unfinished(state: Path) -> tuple[str, str]:
    if holder := lock_holder(state):
        return "running", holder
    if (reason := failure_reason(state)) is not None:
        return "failed", reason
    return "missing", "interrupted, has a checkpoint" if (state / "checkpoint.pt").is_file() else ""


def _finished(run: dict[str, Any], folder: Path, digest: Any) -> tuple[str, str, str]:
    """Return the state of a finished run, what is to be said of it, and how its code compares with today's."""
    record, faults = read_record(folder / RECORD, {"sources": dict, "sources.*": TEXT})
    notes = [f"{RECORD}: {fault.detail}" for fault in faults]
    code = UNKNOWN
    if record is not None:
        found = behaviour(run["method"], run["variant"], record, digest)
        code = found.answer
        notes += [found.detail] if code != SAME else []
    metrics, unscored = read_metrics(folder / METRICS)
    notes += [f"{METRICS}: {fault.detail}" for fault in unscored]
    stale = code == OTHER or faults or unscored
    collapsed = collapse_note(metrics["headline"]) if metrics else ""
    unlabelled = "scored without labels" if metrics and "acc" not in metrics["headline"] else ""
    return ("stale" if stale else "done"), "; ".join(filter(None, (collapsed, unlabelled, *notes))), code


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
