"""The ledger of claims: what the papers assert, and what the runs of a plan say of it, at every rung.

``results/claims.csv`` has one row a claim and rung, ``results/claims.md`` is the same to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dica.files import UserError, atomic_write_text, read_csv, write_csv
from dica.plan.claims import Claim, Member, alike, load_claims, own_entries
from dica.plan.planned import Run, load_runs
from dica.plan.rungs import RUNGS
from dica.scores import claims as tests
from dica.scores.stats import holm
from dica.tables.cells import LOWER_IS_BETTER, published_number

CSV, MARKDOWN = "claims.csv", "claims.md"
COLUMNS = (
    *("claim", "paper", "rung", "kind", "metric", "says", "place", "datasets", "verdict"),
    *("comparison", "effect", "low", "high", "p", "p_holm", "seeds", "seeds_needed", "reason"),
    *("epochs", "printed", "cells", "runs"),
)
SUPPORTS, CONTRADICTS = "supports", "contradicts"


def ledger(plan: dict[str, Any], root: Path, results: str) -> list[dict[str, str]]:
    """Return one row a claim and rung, in the order of the papers and of their claims; all of it text.

    Raises
    ------
    UserError
        For a bad declaration, or a run without the metric that a claim is about.
    """
    if "dataset" in plan.get("substitute", {}):  # everything is on other data, nothing at the rung of its name
        return []
    runs = {run.plan["id"]: run for run in load_runs(plan, root, results)}
    groups = alike(plan)

    def done(member: Member) -> list[Run]:
        own = own_entries(plan, member)
        return [run for entry in groups[own[0]["id"]] if (run := runs[entry["id"]]).metrics is not None] if own else []

    found = [_Found(claim, done, root) for claim in load_claims(root, shown=plan["artefacts"])]
    for family in _families(found):
        for one, corrected in zip(family, holm([one.p for one in family]), strict=True):
            one.corrected, one.family = corrected, len(family)
    return [one.row() for one in found]


def _families(found: Sequence[_Found]) -> list[list[_Found]]:
    """Return the tested claims by paper and rung: what is corrected for together."""
    families: dict[tuple[str, str], list[_Found]] = {}
    for one in found:
        if one.decision.p is not None:
            families.setdefault((one.claim.paper, one.claim.rung), []).append(one)
    return list(families.values())


class _Found:
    """A claim with its runs and what they say; the correction comes last."""

    def __init__(self, claim: Claim, done: Callable[[Member], list[Run]], root: Path) -> None:
        self.claim, self.root = claim, root
        self.corrected: float | None = None
        self.family = 1
        self.done = {member.address: done(member) for member in claim.members}
        groups = [{_name(group, member): self._values(member) for member in group} for group in claim.groups]
        self.decision = tests.decide(claim.kind, claim.direction, claim.margin, groups)

    @property
    def p(self) -> float:
        """The p value before the correction; 1 where nothing was tested."""
        return 1.0 if self.decision.p is None else self.decision.p

    def _values(self, member: Member) -> dict[int, float]:
        sign = -1.0 if member.metric in LOWER_IS_BETTER else 1.0
        return {run.plan["seed"]: sign * run.value(member.metric) for run in self.done[member.address]}

    def row(self) -> dict[str, str]:
        """Return the row of claims.csv."""
        claim, decision, shown = self.claim, self.decision, self.decision.shown
        verdict = decision.verdict(self.corrected)
        needed = tests.seeds_needed(decision, self.family) if verdict == tests.UNDECIDED else None
        runs = dict.fromkeys(run.path for found in self.done.values() for run in found)
        numbers = {
            "effect": shown.effect if shown else None,
            "low": shown.low if shown else None,
            "high": shown.high if shown else None,
            "p": decision.p,
            "p_holm": self.corrected,
        }
        return {
            **dict.fromkeys(COLUMNS, ""),
            **{name: getattr(claim, name) for name in ("paper", "rung", "metric", "says", "place")},
            "claim": claim.name,
            "kind": f"{claim.kind} {claim.direction}".strip(),
            "datasets": " ".join(dict.fromkeys(member.column.dataset for member in claim.members)),
            "verdict": verdict,
            "comparison": shown.what if shown else "",
            **{name: "" if value is None else f"{value:.6g}" for name, value in numbers.items()},
            "seeds": str(min(len(found) for found in self.done.values())),
            "seeds_needed": "" if needed is None else str(needed),
            "reason": decision.reason or self._absent(),
            "epochs": self._epochs(),
            "printed": _printed(claim, self.root),
            "cells": "; ".join(member.address for member in claim.members),
            "runs": " ".join(runs),
        }

    def _epochs(self) -> str:
        """Return for how many epochs each row was trained, where they are not as many for all."""
        found = {
            member.row.key: runs[0].plan["params"]["epochs"]
            for member in self.claim.members
            if (runs := self.done[member.address]) and "epochs" in runs[0].plan["params"]
        }
        unlike = len(set(found.values())) > 1
        return ", ".join(f"{name} {epochs}" for name, epochs in found.items()) if unlike else ""

    def _absent(self) -> str:
        absent = [address for address, found in self.done.items() if not found]
        return f"no run of {', '.join(absent)}" if absent and len(absent) < len(self.done) else ""


def _name(group: Sequence[Member], member: Member) -> str:
    """Return what a comparison calls a member: its row, with its data set where the rows are one and the same."""
    keys = [other.row.key for other in group]
    if len(set(keys)) == len(keys):
        return member.row.key
    return f"{member.row.key} {member.column.key}" if len(set(keys)) == 1 else member.address


def _printed(claim: Claim, root: Path) -> str:
    """Return whether the numbers that the paper prints say the same; empty where it prints none or only some."""
    if claim.rung != "paper":
        return ""
    kind = "worst" if claim.kind == "stability" else claim.kind  # of deviations the smallest one
    said = []
    for group in claim.groups:
        values = {}
        for member in group:
            number = _number(member, claim.kind == "stability", root)
            if number is None:
                return ""
            values[_name(group, member)] = number
        said.append(tests.said_by(kind, claim.direction, claim.margin, values))
    return SUPPORTS if all(said) else CONTRADICTS


def _number(member: Member, deviation: bool, root: Path) -> float | None:
    """Return a printed mean or deviation, the sign such that the larger one is the better one."""
    number = published_number(member.artefact, member.row, member.column, member.metric, root)
    text = (number.std if deviation else number.value) if number else ""
    sign = -1.0 if member.metric in LOWER_IS_BETTER and not deviation else 1.0
    return sign * float(text) if text else None


def write_ledger(rows: Sequence[dict[str, str]], folder: Path) -> list[Path]:
    """Write claims.csv and claims.md and return their paths."""
    write_csv(list(rows), COLUMNS, folder / CSV)
    atomic_write_text(folder / MARKDOWN, markdown(rows))
    return [folder / CSV, folder / MARKDOWN]


def read_ledger(path: Path) -> list[dict[str, str]]:
    """Read claims.csv.

    Raises
    ------
    UserError
        If it is missing or has other columns.
    """
    rows = list(read_csv(path))
    if rows and tuple(rows[0]) != COLUMNS:
        raise UserError(f"{path}: has other columns than expected; build it again: snakemake --cores all light")
    return rows


def counts(rows: Sequence[dict[str, str]]) -> dict[str, dict[str, int]]:
    """Return the number of claims by rung and verdict."""
    return {
        rung: {mark: sum((row["rung"], row["verdict"]) == (rung, mark) for row in rows) for mark in tests.VERDICTS}
        for rung in RUNGS
        if any(row["rung"] == rung for row in rows)
    }


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """Return the ledger to be read: one line a claim, its verdict at each rung that has one."""
    rungs = [rung for rung in RUNGS if any(row["rung"] == rung for row in rows)]
    lines = [
        f"| Claim | In our words | Place | {' | '.join(f'{rung.capitalize()}' for rung in rungs)} |",
        f"|:--|:--|:--|{':--|' * len(rungs)}",
    ]
    by_claim: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        by_claim.setdefault(row["claim"], {})[row["rung"]] = row
    for name, found in by_claim.items():
        first = next(iter(found.values()))
        cells = [_cell(found[rung]) if rung in found else "–" for rung in rungs]
        lines.append(f"| {name} | {first['says']} | {first['place']} | {' | '.join(cells)} |")
    meaning = [f"{rung.capitalize()}: {tests.MEANING[rung]}" for rung in rungs]
    tail = ["Generated from `claims.csv`. Trace a claim: `dica audit claim drc-1`"]
    return "\n".join([*lines, "", "\n".join(meaning), "", tests.RULE, "", *tail, ""])


def overview(rows: Sequence[dict[str, str]]) -> str:
    """Return the verdicts by paper, and every decided claim in a line, for README."""
    tested = [rung for rung in RUNGS if any(row["rung"] == rung and row["verdict"] != tests.NOT_RUN for row in rows)]
    lines = [
        f"| Paper | Claims | {' | '.join(f'{rung}: {mark}' for rung in tested for mark in tests.VERDICTS)} |",
        f"|:--|--:|{'--:|' * len(tested) * len(tests.VERDICTS)}",
    ]
    for paper in dict.fromkeys(row["paper"] for row in rows):
        mine = [row for row in rows if row["paper"] == paper]
        found = counts(mine)
        cells = [str(found.get(rung, {}).get(mark, 0)) for rung in tested for mark in tests.VERDICTS]
        lines.append(f"| {paper} | {len({row['claim'] for row in mine})} | {' | '.join(cells)} |")
    decided = [row for row in rows if row["verdict"] in (tests.HOLDS, tests.FAILS)]
    told = [f"- {row['claim']}, {row['rung']}: {_cell(row)}. {row['says']}" for row in decided]
    return "\n".join([*lines, "", *(told or ["No claim is decided yet."])])


def _cell(row: dict[str, str]) -> str:
    if not row["effect"]:
        said = row["reason"] if row["verdict"] != tests.NOT_RUN else ""
        return f"{row['verdict']}: {said}" if said else row["verdict"]
    effect, low, high = (float(row[name]) for name in ("effect", "low", "high"))
    unit = "log2 of a ratio of deviations " if row["kind"].startswith("stability") else ""
    interval = f"{unit}{effect:+.3f} ({low:+.3f} to {high:+.3f}), {row['seeds']} seeds"
    near = low * high > 0 and row["verdict"] == tests.UNDECIDED  # the interval is of this claim alone
    corrected = f", corrected p {float(row['p_holm']):.2f}" if near else ""
    return f"**{row['verdict']}** {interval}{corrected}{unlike_epochs(row)}"


def unlike_epochs(row: dict[str, str]) -> str:
    """Return what follows a verdict on rows that were not trained for as many epochs, or nothing."""
    return f"; epochs: {row['epochs']}" if row["epochs"] else ""
