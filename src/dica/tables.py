"""From stored metrics to cells.csv: one row a number, ours beside the published one, with its verdict.

Only runs of the current plan are read, by id: results of older parameters never show.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dica import published as printed
from dica.artefacts import Artefact, Column, Row, load_artefacts, planned
from dica.files import IntegrityError, UserError, atomic_write_text, read_json
from dica.stats import mean, spread, verdict

CELL_COLUMNS = [
    *("paper", "artefact", "row", "label", "dataset", "dataset_label", "metric", "statistic", "method", "variant"),
    *("value", "spread", "best", "n", "runs", "seeds_planned"),
    *("published", "published_std", "published_statistic", "published_note"),
    *("trained_on", "evaluated_on", "protocol", "verdict", "reason"),
]
NUMBERS = ("value", "spread", "best")
DIGITS = 10  # of our numbers in cells.csv; the audit compares with the same rounding


def results_of(plan_path: Path, root: Path) -> str:
    """Return the results root that a plan file lies in, relative to the project root."""
    folder = plan_path.resolve().parent
    if not folder.is_relative_to(root.resolve()):
        raise UserError(f"{plan_path}: is not inside the project {root}")
    return folder.relative_to(root.resolve()).as_posix()


def artefacts_of(plan: dict[str, Any], root: Path, only: Sequence[str] | None = None) -> list[Artefact]:
    """Return the declared artefacts that the plan's runs are needed by, ordered by paper.

    Parameters
    ----------
    only
        Paper and name of a single artefact.

    Raises
    ------
    UserError
        If no run of the plan is needed by that artefact.
    """
    wanted = {address for run in plan["runs"] for address in run["needed_by"]}
    if only is not None:
        if " ".join(only) not in wanted:
            raise UserError(f"plan: no run is needed by {' '.join(only)!r}; there are: {', '.join(sorted(wanted))}")
        wanted = {" ".join(only)}
    papers = sorted({address.split(" ")[0] for address in wanted})
    return [artefact for artefact in load_artefacts(root, papers) if artefact.address in wanted]


@dataclass(frozen=True)
class Run:
    """A planned run with what is known of it: its metrics, or why it failed, or neither."""

    plan: dict[str, Any]
    metrics: dict[str, Any] | None
    failure: str | None

    @property
    def path(self) -> str:
        """Folder relative to the project root."""
        return self.plan["path"]

    def value(self, metric: str) -> float:
        """Headline number of a finished run."""
        return float(self.metrics["headline"][metric])


def load_plan(path: Path | str) -> dict[str, Any]:
    """Read plan.json, the list of all runs that are asked for."""
    plan = read_json(path)
    if not isinstance(plan, dict) or "runs" not in plan:
        raise UserError(f"{path}: is not a plan (no key 'runs'); `snakemake -n` writes it")
    return plan


def load_runs(plan: dict[str, Any], root: Path, results: str) -> list[Run]:
    """Read what exists of every planned run.

    Raises
    ------
    IntegrityError
        If a metrics file belongs to another run than its folder.
    """
    return [_load_run(entry, root, root / results / "state") for entry in plan["runs"]]


def _load_run(entry: dict[str, Any], root: Path, state: Path) -> Run:
    path = root / entry["path"] / "metrics.json"
    if path.is_file():
        metrics = read_json(path)
        if metrics.get("id") != entry["id"]:
            raise IntegrityError(f"{path}: is of run {metrics.get('id')}, its folder of run {entry['id']}")
        return Run(entry, metrics, None)
    failed = state / entry["id"] / "failed.json"
    reason = str(read_json(failed).get("reason") or "no reason recorded") if failed.is_file() else None
    return Run(entry, None, reason)


def cells(plan: dict[str, Any], root: Path, results: str, artefacts: Sequence[Artefact]) -> pd.DataFrame:
    """Return one row for each (table, row, data set, metric): our number, the published one and the verdict.

    Parameters
    ----------
    plan
        Content of plan.json.
    root
        Project root; run folders in the plan are relative to it.
    results
        Results root of the profile, relative to `root`; holds `state/<id>/failed.json` of failed runs.
    artefacts
        Declared artefacts; figures are skipped.

    Returns
    -------
    DataFrame
        Columns `CELL_COLUMNS`. Numbers are fractions; `published` and `published_std` are text as printed.

    Raises
    ------
    UserError
        If a declaration names a published method that its table does not have.
    """
    by_id = {run.plan["id"]: run for run in load_runs(plan, root, results)}
    rows = [
        _cell(artefact, row, column, metric, runs, root)
        for artefact in artefacts
        if artefact.kind == "table"
        for row in artefact.rows
        for column in artefact.columns
        for runs in [[by_id[entry["id"]] for entry in planned(plan, artefact, row, column.dataset)]]
        for metric in artefact.metrics
    ]
    return _typed(pd.DataFrame(rows, columns=CELL_COLUMNS))


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    for name in CELL_COLUMNS:
        if name in NUMBERS:
            frame[name] = pd.to_numeric(frame[name].replace("", None))
        elif name in ("n", "seeds_planned"):
            frame[name] = frame[name].astype(int)
        else:
            frame[name] = frame[name].astype(str)
    return frame


def _cell(artefact: Artefact, row: Row, column: Column, metric: str, runs: list[Run], root: Path) -> dict[str, Any]:
    done = [run for run in runs if run.metrics is not None]
    values = [run.value(metric) for run in done]
    number = _published(artefact, row, column, metric, root)
    theirs = artefact.protocol_of(row, column) if row.method else {}
    ours = _own_protocol(runs)
    mark, reason = _verdict(artefact, row, values, runs, number, theirs)
    shown = (max(values) if row.statistic == "best" else mean(values)) if values else None
    return {
        "paper": artefact.paper,
        "artefact": artefact.name,
        "row": row.key,
        "label": row.label,
        "dataset": column.dataset,
        "dataset_label": column.label,
        "metric": metric,
        "statistic": row.statistic,
        "method": row.method or "",
        "variant": row.variant if row.method else "",
        "value": None if shown is None else round(shown, DIGITS),
        "spread": round(spread(values), DIGITS) if len(values) > 1 else None,
        "best": round(max(values), DIGITS) if values else None,
        "n": len(values),
        "runs": " ".join(run.path for run in done),
        "seeds_planned": len(runs),
        "published": number.value if number else "",
        "published_std": number.std if number else "",
        "published_statistic": number.statistic if number else "",
        "published_note": number.note if number else "",
        "trained_on": ours.get("trained_on", ""),
        "evaluated_on": ours.get("evaluated_on", ""),
        "protocol": _protocol_text(ours, theirs if number else {}),
        "verdict": mark,
        "reason": reason,
    }


def _published(artefact: Artefact, row: Row, column: Column, metric: str, root: Path) -> printed.Published | None:
    if row.published_method is None:
        return None
    rows = printed.load_published(root, artefact.published_file)
    name = row.published_metrics.get(metric, metric if not row.published_metrics else "")
    return printed.find(
        rows,
        row.published_paper,
        row.published_table,
        row.published_method,
        column.published_dataset,
        name,
        row.statistic,
    )


def _own_protocol(runs: list[Run]) -> dict[str, Any]:
    """Return what our runs of a cell train and are evaluated on; they share all parameters but the seed."""
    if not runs:
        return {}
    params = runs[0].plan["params"]
    evaluated = [run.metrics["evaluated_on"] for run in runs if run.metrics]
    return {
        "trained_on": params.get("train_split", ""),
        "evaluated_on": evaluated[0] if evaluated else params.get("eval_split", ""),
        "epochs": params.get("epochs"),
    }


def _protocol_text(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    def sentence(who: str, facts: dict[str, Any]) -> str:
        parts = [f"{key.replace('_', ' ')} {facts[key]}" for key in ("trained_on", "evaluated_on") if facts.get(key)]
        parts += [f"{facts['epochs']} epochs"] if facts.get("epochs") else []
        return f"{who}: {', '.join(parts)}" if parts else ""

    return "; ".join(text for text in (sentence("here", ours), sentence("paper", theirs)) if text)


def protocol_difference(ours: dict[str, Any], theirs: dict[str, Any], has_test: bool) -> str:
    """Return how the images differ that a number was trained or evaluated on, or an empty text.

    Without a test split `all` and `train` are the same images. What the paper does not state is not compared.
    """

    def plain(value: str) -> str:
        return value if has_test else value.replace("all", "train")

    for key, verb in (("trained_on", "trained"), ("evaluated_on", "evaluated")):
        here, there = ours.get(key), theirs.get(key)
        if here and there and plain(here) != plain(there):
            return f"{verb} on {here} here, on {there} in the paper"
    return ""


def _verdict(
    artefact: Artefact,
    row: Row,
    values: list[float],
    runs: list[Run],
    number: printed.Published | None,
    theirs: dict[str, Any],
) -> tuple[str, str]:
    if row.method is None:
        return "published only", ""
    failures = sorted({run.failure for run in runs if run.failure})
    if not values:
        return ("failed", "; ".join(failures)) if failures else ("not run", "")
    has_test = any("test" in run.metrics["splits"] for run in runs if run.metrics)
    difference = protocol_difference(_own_protocol(runs), theirs, has_test)
    text = printed.to_scale(number.value, artefact.scale) if number else ""
    std = printed.to_scale(number.std, artefact.scale) if number else ""
    statistic = number.statistic if number else row.statistic
    result = verdict(
        values,
        float(text) if text else None,
        float(std) if std else None,
        None if statistic == "single" else theirs.get("seeds"),
        statistic,
        artefact.scale,
        printed.decimals(text),
        not difference,
        difference if number else "no published number for this data set",
    )
    reason = [result.reason]
    if len(values) < len(runs):
        reason += [f"{len(values)} of {len(runs)} seeds", *failures]
    return result.mark, "; ".join(part for part in reason if part)


def cells_text(frame: pd.DataFrame) -> str:
    """Return cells as CSV with bytes that depend on their content alone."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(frame.columns)
    for record in frame.astype(object).itertuples(index=False):
        writer.writerow(["" if pd.isna(value) else value for value in record])
    return out.getvalue()


def write_cells(frame: pd.DataFrame, path: Path | str) -> None:
    """Write cells.csv."""
    atomic_write_text(path, cells_text(frame))


def read_cells(path: Path | str) -> pd.DataFrame:
    """Read cells.csv as `cells` returned it; text stays text.

    Raises
    ------
    UserError
        If the file is missing or is not a cell list.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as cells ({error})") from None
    if list(frame.columns) != CELL_COLUMNS:
        raise UserError(f"{path}: has other columns than expected; rebuild it with: snakemake --cores all light")
    return _typed(frame)


def summarise(
    method: str, plan: dict[str, Any], root: Path, results: str, datasets: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return mean and spread of a method's finished runs by data set and variant: numbers only, for `dvc metrics`.

    With `datasets`, only those are summarised: the file then depends on nothing that a rule does not wait for.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in load_runs(plan, root, results):
        if run.plan["method"] != method or (datasets and run.plan["dataset"] not in datasets):
            continue
        if run.metrics is not None:
            groups.setdefault((run.plan["dataset"], run.plan["variant"]), []).append(run)
    summary: dict[str, Any] = {}
    for (dataset, variant), runs in sorted(groups.items()):
        entry = summary.setdefault(dataset, {}).setdefault(variant, {})
        for metric in ("acc", "nmi", "ari"):
            values = [run.value(metric) for run in runs]
            entry[metric] = {"mean": round(mean(values), DIGITS)}
            if len(values) > 1:
                entry[metric]["std"] = round(spread(values), DIGITS)
        entry["n"] = len(runs)
    return summary
