"""What has been measured, in numbers and one sentence: for the report's landing page and README."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from dica.files import UserError
from dica.plan.artefacts import Artefact
from dica.plan.estimate import Estimator, remaining, summary
from dica.plan.made import shown_file
from dica.plan.planned import has_something, scored_runs
from dica.plan.rungs import RUNGS
from dica.scores.claims import FAILS, HOLDS, MEANING, NOT_RUN, RULE, UNDECIDED
from dica.tables.claims import CSV, counts, read_ledger

OWN = "dica"  # what compares methods of several papers
JPEG = "cifar10-jpeg"  # real images, not those of any paper


def rung_of(artefact: Artefact, dataset: str) -> str:
    """Return at which rung an artefact's runs on a data set are."""
    if artefact.rung:
        return artefact.rung
    if dataset == "digits" or artefact.substitute:
        return "digits" if "digits" in (dataset, artefact.substitute) else "scaled"
    return "scaled" if dataset.startswith(JPEG) else "paper"


class Evidence:
    """Counts over a plan's artefacts, cells and claims.

    Parameters
    ----------
    artefacts, frame
        What is declared, and its cells.
    plan, root, results
        The plan, the project root and the results root relative to it.
    """

    def __init__(
        self, artefacts: Sequence[Artefact], frame: pd.DataFrame, plan: dict[str, Any], root: Path, results: str
    ) -> None:
        self.artefacts = [artefact for artefact in artefacts if artefact.regenerated]
        self.frame, self.plan, self.root, self.results = frame, plan, root, results

    @cached_property
    def ledger(self) -> list[dict[str, str]]:
        """The stored ledger of claims; empty where there is none."""
        path = self.root / self.results / CSV
        return read_ledger(path) if path.is_file() else []

    @cached_property
    def numbers(self) -> dict[str, int]:
        """How many numbers the papers print, how many of them can be run here, and how many numbers were measured."""
        by_address = {artefact.address: artefact for artefact in self.artefacts}
        printed = self.frame[(self.frame["published"] != "") & (self.frame["paper"] != OWN)]
        found = {"printed in the papers' tables": len(printed), "that can be run": int((printed["method"] != "").sum())}
        measured = dict.fromkeys(RUNGS, 0)
        for cell in self.frame[(self.frame["n"] > 0) & (self.frame["method"] != "")].itertuples(index=False):
            artefact = by_address.get(f"{cell.paper} {cell.artefact}")
            measured[rung_of(artefact, cell.dataset) if artefact else "paper"] += 1
        return found | {f"measured, {RUNGS[rung]}": count for rung, count in measured.items()}

    @cached_property
    def shown(self) -> dict[str, int]:
        """How many tables and figures have something measured, at their highest rung."""
        found = dict.fromkeys(RUNGS, 0)
        for artefact in self.artefacts:
            rungs = {rung_of(artefact, run["dataset"]) for run in scored_runs(self.plan, self.root, artefact.address)}
            if rungs:
                found[next(rung for rung in RUNGS if rung in rungs)] += 1
        return found

    @property
    def verdicts(self) -> dict[str, dict[str, int]]:
        """The number of claims by rung and verdict."""
        return counts(self.ledger)

    def sentence(self) -> str:
        """Return in one sentence what was measured."""
        numbers = list(self.numbers.values())
        claims = len({row["claim"] for row in self.ledger})
        text = (
            f"Of {numbers[0]:,} numbers that the papers print, {numbers[1]:,} can be run here; measured so "
            f"far: {numbers[2]:,} with a paper's data and budget, {numbers[3]:,} on other real images or with a "
            f"smaller budget, {numbers[4]:,} on the digits."
        )
        if not claims:
            return text
        parts = []
        for rung, by in self.verdicts.items():
            untested = claims - sum(by.values()) + by[NOT_RUN]
            if untested < claims:
                words = [f"{by[HOLDS]} hold", f"{by[FAILS]} fail", f"{by[UNDECIDED]} are undecided"]
                words += [f"{untested} are not tested"] if untested else []
                parts.append(f"on the {RUNGS[rung].removeprefix('the ')} {', '.join(words[:-1])} and {words[-1]}")
        return f"{text} Of {claims} claims of the papers, {'; '.join(parts) or 'none has been tested yet'}."

    def context(self) -> dict[str, Any]:
        """Return what the page of the claims shows."""
        return {
            "heading": "Claims of the papers",
            "ledger": self.ledger,
            "verdicts": self.verdicts,
            "rungs": {rung: (words, MEANING[rung]) for rung, words in RUNGS.items()},
            "rule": RULE,
            "file": f"../{CSV}",
        }

    @cached_property
    def _estimator(self) -> Estimator:
        return Estimator(self.root, self.results)

    def has_something(self, artefact: Artefact) -> bool:
        """Tell whether an artefact is printed or drawn."""
        return has_something(artefact, self.plan, self.root)

    def not_run(self, artefact: Artefact) -> dict[str, str]:
        """Return the command that would make an artefact of which nothing was run, and what it would take."""
        runs = [run for run in self.plan["runs"] if artefact.address in run["needed_by"]]
        ending = {"table": "md", "figure": "svg"}[artefact.kind]
        option = "" if self.plan["profile"] == "archive" else f" --configfile params/{self.plan['profile']}.yaml"
        target = shown_file(self.results, artefact.kind, artefact.paper, artefact.name, ending)
        return {
            "command": f"snakemake --cores all --resources gpu=1{option} -- {target}",
            "estimate": self._estimate(runs),
        }

    def _estimate(self, runs: list[dict[str, Any]]) -> str:
        """Return what runs take: on the device that most were timed on, else what their counted arithmetic takes."""
        device = next(iter(self._estimator.devices), None)
        try:
            totals = summary(self._estimator.costs(runs, device), 1) if device else None
            if totals is not None and totals["timed"] and not totals["counted"]:
                rest = f", {totals['unknown']} of them not timed" if totals["unknown"] else ""
                about = "roughly" if totals["rough"] else "about"
                return f"{_runs(len(runs))}{rest}, {about} {_time(totals['device_hours'])} on {device}"
            name, flops, hours, left = remaining(runs, self.plan["on_gpu"], self.root)
        except (UserError, KeyError):  # a data set that is no longer declared
            return f"{_runs(len(runs))}; no finished run tells how long they take"
        rest = f", {left} of them not counted" if left else ""
        return (
            f"{_runs(len(runs))}{rest}, {flops / 1e15:,.0f} PFLOP counted, about {_time(hours)} on an {name} as stated"
        )


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _time(hours: float) -> str:
    if hours >= 10:
        return f"{hours:,.0f} hours"
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
