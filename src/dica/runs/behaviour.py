"""Whether the code of today behaves as the code of a stored run did: told from its text, else from golden traces.

A golden trace is the history of losses of a method's first steps on a tiny data set (``tests/golden``); of a method
that is fitted in one go, what the fit says and the cluster of each image. The tests hold it. Variants that differ in
numbers alone share one. A run's record names the trace that its method had (`trace_of`).
Its text may change and its trace stay: then the run still stands for the code. What a trace does not reach (other
devices, many epochs, prediction) it cannot vouch for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from dica.files import canonical_json, read_json, sha256_bytes
from dica.runs.files import PACKAGE

SAME, REWRITTEN, OTHER, UNKNOWN = "same code", "same behaviour", "other behaviour", "unknown behaviour"
BEHAVIOURS = (SAME, REWRITTEN, OTHER, UNKNOWN)
# What writes a number down, plans it or finds a device for it, in contrast to what decides it. A name that is not here
# counts as deciding, as do names of modules that have been moved since.
BOOKKEEPING = (
    *(f"src/dica/{room}/" for room in ("runs", "plan", "scores", "tables", "figures", "report", "audit", "cli", "own")),
    *(f"src/dica/{name}.py" for name in ("__init__", "files", "validation", "scripting", "torchrun", "analyse")),
    *(f"src/dica/engine/{name}.py" for name in ("__init__", "slots", "launch", "memory", "observer", "heat_maps")),
    *(f"src/dica/{room}/__init__.py" for room in ("data", "losses", "views", "networks")),
    *(f"src/dica/{name}.py" for name in ("record", "runid", "runfiles", "slots", "observe")),  # before the rooms
    *(f"src/dica/{name}.py" for name in ("apply", "measure", "estimator")),
)
TRACES = PACKAGE / "methods" / "traces"  # a file a method
EARLIER = PACKAGE / "runs" / "earlier_traces.json"  # of commits whose runs have records that name no trace
Digest = Callable[[str], str | None]  # of a source file now, None where there is none of that name


@dataclass(frozen=True)
class Behaviour:
    """How a run's code compares with today's: one of `SAME`, `REWRITTEN`, `OTHER`, `UNKNOWN`, and why."""

    answer: str
    detail: str = ""

    @property
    def stale(self) -> bool:
        """Whether the run no longer stands for the code."""
        return self.answer == OTHER


def decides(name: str) -> bool:
    """Whether a source file decides a run's number; `name` is its path from the project root."""
    return not name.startswith(BOOKKEEPING)


def trace_digest(history: list[dict[str, float]]) -> str:
    """Return the 16 hex digits that name a golden trace."""
    return sha256_bytes(canonical_json(history).encode())[:16]


@cache
def traces(method: str) -> dict[str, dict[str, str]]:
    """Return the golden traces that a method has today by variant: ``of``, the parameters' id, and ``digest``."""
    path = TRACES / f"{method}.json"
    return read_json(path) if path.is_file() else {}


def trace_of(method: str, variant: str) -> dict[str, str] | None:
    """Return the golden trace that covers a variant, for its run's record, or None."""
    return traces(method).get(variant)


def behaviour(method: str, variant: str, record: dict[str, Any], digest: Digest) -> Behaviour:
    """Compare the code of a run with today's.

    Parameters
    ----------
    record
        The run's record (``run.json``). Needs ``sources``; uses ``commit``, ``dirty_sha256`` and ``trace``.
    digest
        Gives the SHA-256 of a source file as it is now.
    """
    deciding = {name: found for name, found in record["sources"].items() if decides(name)}
    changed = [name for name, found in deciding.items() if digest(name) != found]
    if not changed:
        return Behaviour(SAME, f"the {len(deciding)} source files that decide the number are those of the run")
    since = f"code changed since: {_some(changed)}"
    if record.get("dirty_sha256"):
        return Behaviour(UNKNOWN, f"{since}; trained with uncommitted changes, for which no golden trace stands")
    answer, why = _by_trace(method, variant, record)
    return Behaviour(answer, f"{since}; {why}")


def _by_trace(method: str, variant: str, record: dict[str, Any]) -> tuple[str, str]:
    now, name, commit = traces(method), f"{method} ({variant})", str(record.get("commit"))[:7]
    if not now:
        return UNKNOWN, f"{method} has no golden trace"
    trace = record.get("trace")
    if trace is None:
        today = now.get(variant)
        if today and today["digest"] in _earlier_digests(method, record):
            return REWRITTEN, f"commit {commit} had the golden trace that {name} has today"
        return UNKNOWN, f"it is not known whether commit {commit} had the golden trace that {name} has today"
    if not isinstance(trace, dict) or not {"of", "digest"} <= trace.keys():
        return UNKNOWN, "its record names no golden trace"
    if any(trace["digest"] == other["digest"] for other in now.values()):
        return REWRITTEN, f"the golden trace of {name} is the same"
    if any(trace["of"] == other["of"] for other in now.values()):
        return OTHER, f"the golden trace of {name} is another one"
    return UNKNOWN, f"the golden trace of {name} is made with other parameters now"


@cache
def _earlier() -> dict[str, dict[str, list[str]]]:
    return read_json(EARLIER)


def _earlier_digests(method: str, record: dict[str, Any]) -> list[str]:
    """Return the digests of the golden traces that a method had at the commit of an older record, as far as known."""
    return _earlier().get(str(record.get("commit")), {}).get(method, [])


def _some(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def unlike_seeds(method: str, variant: str, records: dict[int, dict[str, Any]]) -> str:
    """Return that the seeds of one number were not trained by code of one behaviour, or not known to be, else nothing.

    Parameters
    ----------
    records
        The record of each seed's run, as far as it can be read.
    """
    groups: dict[Any, list[int]] = {}
    for seed, record in records.items():
        groups.setdefault(_mark(method, variant, record), []).append(seed)
    if len(groups) < 2:
        return ""
    known = all(isinstance(mark, str) for mark in groups)
    said = "behaves differently" if known else "is not known to behave alike"
    seeds = [f"seed{'s' if len(found) > 1 else ''} {', '.join(map(str, found))}" for found in groups.values()]
    return f"trained by code that {said}: {' against '.join(seeds)}"


def _mark(method: str, variant: str, record: dict[str, Any]) -> str | tuple:
    """Return what two runs of one behaviour share: the digest of a golden trace, else the text of their code."""
    if record.get("dirty_sha256") is None:
        if isinstance(trace := record.get("trace"), dict) and "digest" in trace:
            return str(trace["digest"])
        today = trace_of(method, variant)
        if record.get("trace") is None and today and today["digest"] in _earlier_digests(method, record):
            return today["digest"]
    return tuple(sorted((name, str(found)) for name, found in record["sources"].items() if decides(name)))
