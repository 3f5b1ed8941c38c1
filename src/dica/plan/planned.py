"""The plan on disk, the artefacts it shows, and what exists of each planned run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dica.files import IntegrityError, UserError, read_json
from dica.plan.artefacts import (
    Artefact,
    headline_name,
    load_artefacts,
)
from dica.runs.files import METRICS, RECORD, failure_reason
from dica.runs.read import TEXT, read_record


def results_of(plan_path: Path, root: Path) -> str:
    """Return the results root that a plan file lies in, relative to the project root."""
    folder = plan_path.resolve().parent
    if not folder.is_relative_to(root.resolve()):
        raise UserError(f"{plan_path}: is not inside the project {root}")
    return folder.relative_to(root.resolve()).as_posix()


def artefacts_of(plan: dict[str, Any], root: Path, only: Sequence[str] | None = None) -> list[Artefact]:
    """Return the declared artefacts that a plan shows, ordered by paper.

    Parameters
    ----------
    only
        Paper and name of a single artefact.

    Raises
    ------
    UserError
        If the plan does not show that artefact.
    """
    wanted = set(plan["artefacts"])
    if only is not None:
        if " ".join(only) not in wanted:
            raise UserError(f"plan: does not show {' '.join(only)!r}; it shows: {', '.join(sorted(wanted))}")
        wanted = {" ".join(only)}
    papers = sorted({address.split(" ")[0] for address in wanted})
    declared = load_artefacts(root, papers, plan.get("substitute"))
    return [artefact for artefact in declared if artefact.address in wanted]


def runs_of_artefact(address: str, plan: dict[str, Any]) -> list[str]:
    """Return the folders of the runs that an artefact needs."""
    return [run["path"] for run in needed_by(plan, [address])["runs"]]


def has_something(artefact: Artefact, plan: dict[str, Any], root: Path, file: str = METRICS) -> bool:
    """Tell whether an artefact has anything to show: a finished run, printed numbers, or what needs no run.

    One that has not is a line in a list, not an empty table or picture.

    Parameters
    ----------
    file
        What a finished run has.
    """
    mine = [run for run in plan["runs"] if artefact.address in run["needed_by"]]
    if not mine or (artefact.kind == "table" and any(row.published_method for row in artefact.rows)):
        return artefact.regenerated
    return any((root / run["path"] / file).is_file() for run in mine)


@dataclass(frozen=True)
class Run:
    """A planned run with what is known of it: its metrics, or why it failed, or neither."""

    plan: dict[str, Any]
    metrics: dict[str, Any] | None
    failure: str | None

    def seconds(self, root: Path) -> float:
        """Training time, as run.json has it."""
        return float(read_json(root / self.path / RECORD)["seconds"])

    def record(self, root: Path) -> dict[str, Any] | None:
        """Return run.json, or None where it does not say what code the run was trained with."""
        return read_record(root / self.path / RECORD, {"sources": dict, "sources.*": TEXT})[0]

    @property
    def unlabelled(self) -> bool:
        """Whether it is finished, and scored without labels because its data set has none."""
        return self.metrics is not None and self.metrics["headline"].get("num_classes") == 0

    @property
    def scored(self) -> dict[str, Any]:
        """Its metrics; to be asked of finished runs alone.

        Raises
        ------
        UserError
            If it has none.
        """
        if self.metrics is None:
            raise UserError(f"{self.path}/{METRICS}: is not there; the run is not finished or not scored")
        return self.metrics

    @property
    def path(self) -> str:
        """Folder relative to the project root."""
        return self.plan["path"]

    def value(self, metric: str) -> float:
        """Headline number of a finished run.

        Raises
        ------
        UserError
            If the run was not scored with this metric (top-5 accuracy needs `top5: true`).
        """
        headline = self.scored["headline"]
        if headline_name(metric) not in headline:
            raise UserError(f"{self.path}/{METRICS}: has no {headline_name(metric)!r}, which a table shows")
        return float(headline[headline_name(metric)])


def load_plan(path: Path | str) -> dict[str, Any]:
    """Read plan.json, the list of all runs that are asked for."""
    plan = read_json(path)
    lacking = [key for key in ("profile", "artefacts", "runs") if not isinstance(plan, dict) or key not in plan]
    if lacking:
        raise UserError(f"{path}: is not a plan (no key {lacking[0]!r}); `snakemake -n` writes it")
    return plan


def scored_runs(plan: dict[str, Any], root: Path, address: str = "") -> list[dict[str, Any]]:
    """Return the plan's runs that have metrics, in the order of the plan: those of one artefact, or all."""
    runs = (needed_by(plan, [address]) if address else plan)["runs"]
    return [run for run in runs if (root / run["path"] / METRICS).is_file()]


def load_runs(plan: dict[str, Any], root: Path, results: str) -> list[Run]:
    """Read what exists of every planned run; of a plan with fewer runs, of those.

    Raises
    ------
    IntegrityError
        If a metrics file belongs to another run than its folder.
    """
    return [_load_run(entry, root, root / results / "state") for entry in plan["runs"]]


def needed_by(plan: dict[str, Any], addresses: Collection[str]) -> dict[str, Any]:
    """Return a plan with the runs alone that some artefacts need."""
    return {**plan, "runs": [run for run in plan["runs"] if not set(addresses).isdisjoint(run["needed_by"])]}


def _load_run(entry: dict[str, Any], root: Path, state: Path) -> Run:
    path = root / entry["path"] / METRICS
    if path.is_file():
        metrics = read_json(path)
        if not isinstance(metrics, dict):
            raise UserError(f"{path}: is not a JSON object; score the run again")
        if metrics.get("id") != entry["id"]:
            raise IntegrityError(f"{path}: is of run {metrics.get('id')}, its folder of run {entry['id']}")
        return Run(entry, metrics, None)
    return Run(entry, None, failure_reason(state / entry["id"]))
