"""From stored metrics to cells.csv: one row a number, ours beside the published one, with its verdict.

Only runs of the current plan are read, by id: results of older parameters never show.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from dica.data.paths import labels_file
from dica.files import UserError, atomic_write_text, load_arrays, plain_cell, read_csv, safe_cell
from dica.plan import published as printed
from dica.plan.artefacts import (
    PRINTED_NAMES,
    Artefact,
    Column,
    Row,
    headline_name,
    method_behind,
    planned,
)
from dica.plan.planned import Run, load_runs, needed_by
from dica.runs.behaviour import unlike_seeds
from dica.runs.files import TRACE
from dica.runs.record import collapse_note
from dica.scores import oracle
from dica.scores.chance import Level, of_run
from dica.scores.stats import mean, spread, t_interval, verdict
from dica.tables import facts

CELL_COLUMNS = [
    *("paper", "artefact", "row", "label", "column", "dataset", "dataset_label"),
    *("metric", "statistic", "method", "variant"),
    *("value", "spread", "best", "n", "runs", "seeds_planned", "chance", "chance_spread"),
    *("published", "published_std", "published_statistic", "published_note"),
    *("trained_on", "evaluated_on", "protocol", "verdict", "reason"),
]
NUMBERS = ("value", "spread", "best", "chance", "chance_spread")
LOWER_IS_BETTER = ("error", "time_ratio")
DIGITS = 10  # of our numbers in cells.csv; the audit compares with the same rounding


def cells(
    plan: dict[str, Any],
    root: Path,
    results: str,
    artefacts: Sequence[Artefact],
    without: Collection[tuple[str, str]] = (),
) -> pd.DataFrame:
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
    without
        (Run folder, metric) where a run lacks a metric: the audit leaves it out of that metric's cells alone.

    Returns
    -------
    DataFrame
        Columns `CELL_COLUMNS`. Numbers are fractions; `published` and `published_std` are text as printed.

    Raises
    ------
    UserError
        If a declaration names a published method that its table does not have.
    """
    own = needed_by(plan, [artefact.address for artefact in artefacts])
    by_id = {run.plan["id"]: run for run in load_runs(own, root, results)}

    def runs_of(artefact: Artefact, row: Row, column: Column, metric: str) -> list[Run]:
        entries = planned(plan, artefact, row, column.key, metric)
        return [by_id[entry["id"]] for entry in entries if (entry["path"], metric) not in without]

    rows = [_cell(*place, runs_of, root) for place in places(artefacts)]
    return _typed(pd.DataFrame(rows, columns=CELL_COLUMNS))


def places(artefacts: Iterable[Artefact]) -> Iterator[tuple[Artefact, Row, Column, str]]:
    """Yield table, row, column and metric of every cell that artefacts declare; figures have none."""
    for artefact in artefacts:
        if artefact.kind == "table" and artefact.regenerated:
            for row, column in product(artefact.rows, artefact.columns):
                yield from ((artefact, row, column, metric) for metric in artefact.metrics_of(column))


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    for name in CELL_COLUMNS:
        if name in NUMBERS:
            # floats also where all are whole: they read the same in every table
            frame[name] = pd.to_numeric(frame[name].replace("", None)).astype(float)
        elif name in ("n", "seeds_planned"):
            frame[name] = frame[name].astype(int)
        else:
            frame[name] = frame[name].astype(str)
    return frame


RunsOf = Callable[[Artefact, Row, Column, str], list[Run]]


def _cell(artefact: Artefact, row: Row, column: Column, metric: str, runs_of: RunsOf, root: Path) -> dict[str, Any]:
    method, variant = method_behind(row, column, metric) or ("", "")
    cell = {
        **dict.fromkeys(CELL_COLUMNS, ""),
        **{"paper": artefact.paper, "artefact": artefact.name, "row": row.key, "label": row.label},
        **{"column": column.key, "dataset": column.dataset, "dataset_label": column.label, "metric": metric},
        **{"statistic": row.statistic, "method": method, "variant": variant, "n": 0, "seeds_planned": 0},
    }
    if artefact.layout == "grid":
        return cell | _from_runs(artefact, row, column, metric, runs_of, root)
    return cell | facts.facts(artefact, row, column, metric, root, DIGITS)


def _from_runs(
    artefact: Artefact, row: Row, column: Column, metric: str, runs_of: RunsOf, root: Path
) -> dict[str, Any]:
    """Return the columns of cells.csv that depend on runs and on the printed number."""
    runs = runs_of(artefact, row, column, metric)
    done = [run for run in runs if run.metrics is not None]
    values = _values(artefact, row, column, metric, runs_of, root)
    number = published_number(artefact, row, column, metric, root)
    theirs = artefact.protocol_of(row, column, metric) if runs else {}
    ours = _own_protocol(runs)
    level = _chance(done, column, metric, root)
    mark, reason = _verdict(artefact, row, metric, values, runs, number, theirs, root, level)
    best = best_of(values, metric) if values else None
    shown = (best if row.statistic == "best" else mean(values)) if values else None
    return {
        "value": None if shown is None else round(shown, DIGITS),
        "spread": round(spread(values), DIGITS) if len(values) > 1 else None,
        "best": None if best is None else round(best, DIGITS),
        "n": len(values),
        "runs": " ".join(run.path for run in done),
        "seeds_planned": len(runs),
        "chance": None if level is None else round(level.mean, DIGITS),
        "chance_spread": None if level is None or level.sd is None else round(level.sd, DIGITS),
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


def _values(artefact: Artefact, row: Row, column: Column, metric: str, runs_of: RunsOf, root: Path) -> list[float]:
    """Return the numbers of a cell's finished runs, by seed."""
    done = [run for run in runs_of(artefact, row, column, metric) if run.metrics is not None]
    if metric != "time_ratio":
        return [run.value(metric) for run in done if not run.unlabelled]
    name = artefact.options.get("reference")
    reference = next((other for other in artefact.rows if other.key == name), None)
    if reference is None:
        raise UserError(f"{artefact.address}: options.reference: {name!r} is no row; time_ratio is relative to one")
    base = [run.seconds(root) for run in runs_of(artefact, reference, column, metric) if run.metrics is not None]
    return [run.seconds(root) / mean(base) for run in done] if base else []


def best_of(values: Sequence[float], metric: str) -> float:
    """Return the best of some numbers of a metric."""
    return (min if metric in LOWER_IS_BETTER else max)(values)


def published_number(artefact: Artefact, row: Row, column: Column, metric: str, root: Path) -> printed.Published | None:
    if row.published_method is None:
        return None
    name = PRINTED_NAMES.get(metric, metric)
    name = row.published_metrics.get(metric, name if not row.published_metrics else "")
    return printed.find(
        printed.of_table(root, artefact.published_file, row.published_paper, row.published_table),
        row.published_paper,
        row.published_table,
        row.published_method,
        column.published_dataset,
        name,
        row.statistic,
        row.setting or column.setting,
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
    metric: str,
    values: list[float],
    runs: list[Run],
    number: printed.Published | None,
    theirs: dict[str, Any],
    root: Path,
    level: Level | None,
) -> tuple[str, str]:
    if not runs:
        return "published only", ""
    failures = sorted({run.failure for run in runs if run.failure})
    if not values and any(run.unlabelled for run in runs):
        return "no labels", "its images have no labels; results/own has what can be said without (`dica cluster`)"
    if not values:
        return ("failed", "; ".join(failures)) if failures else ("not run", "")
    text = printed.to_scale(number.value, artefact.scale) if number else ""
    std = printed.to_scale(number.std, artefact.scale) if number else ""
    statistic = number.statistic if number else row.statistic
    difference = _difference(artefact, row, metric, runs, number, theirs)
    result = verdict(
        values,
        float(text) if text else None,
        float(std) if std else None,
        None if statistic == "single" else theirs.get("seeds"),
        statistic,
        artefact.scale,
        printed.decimals(text),
        not difference,
        difference,
        metric in LOWER_IS_BETTER,
    )
    # The audit takes what follows the count of seeds for a fact of this machine alone: collapses come before it.
    notes = [(run.plan["seed"], collapse_note(run.metrics["headline"])) for run in runs if run.metrics]
    reason = [result.reason, *(f"seed {seed} {note}" for seed, note in notes if note), _unlike_code(runs, root)]
    if number and (chosen := theirs.get("selection")):
        reason.append(f"the paper's number may be chosen with labels: {chosen} (authors' code)")
        reason += _so_chosen(metric, runs, root)
    reason += [f"no better than random labels ({level.mean:.3f})"] if level and not _above(values, level) else []
    if len(values) < len(runs):
        reason += [f"{len(values)} of {len(runs)} seeds", *failures]
    return result.mark, "; ".join(part for part in reason if part)


def _so_chosen(metric: str, runs: list[Run], root: Path) -> list[str]:
    """Return what choosing with labels would make of our numbers, in words: no verdict uses it."""
    name, found = headline_name(metric), []
    done = [run for run in runs if run.metrics and not run.unlabelled]
    if name not in oracle.SCORES:
        return []
    traces = [(root / run.path / TRACE, root / labels_file(run.plan["dataset"])) for run in done]
    if done and all(trace.is_file() and labels.is_file() for trace, labels in traces):
        best = [oracle.best_epoch(load_arrays(trace), load_arrays(labels), name) for trace, labels in traces]
        known = [score for score in best if score is not None]
        found += [f"{mean(known):.3f} at the best epoch"] if len(known) == len(done) else []
    heads = [run.metrics["heads"] for run in done if run.metrics and "heads" in run.metrics]
    if heads and len(heads) == len(done) and name in oracle.KEPT:
        by_label, all_heads = (mean([each[kind][name] for each in heads]) for kind in ("oracle", "mean"))
        found.append(f"{by_label:.3f} with the best of {heads[0]['count']} heads, whose mean is {all_heads:.3f}")
    return [f"ours would be {', '.join(found)}; no verdict uses that"] if found else []


def _unlike_code(runs: list[Run], root: Path) -> str:
    """Return that the code of a number's seeds does not behave alike, or is not known to, else nothing.

    A record that cannot be read is left out; `dica status` and the audit tell of it.
    """
    found = {run.plan["seed"]: run.record(root) for run in runs if run.metrics}
    known = {seed: record for seed, record in found.items() if record}
    return unlike_seeds(runs[0].plan["method"], runs[0].plan["variant"], known)


def _chance(done: list[Run], column: Column, metric: str, root: Path) -> Level | None:
    """Return what random labels reach where the finished runs of a cell are scored; None where that is not known."""
    if not done:
        return None
    return of_run(done[0].scored, root / labels_file(column.dataset)).get(headline_name(metric))


def _above(values: list[float], level: Level) -> bool:
    """Tell whether the interval of our mean (of one run: its number) lies above what random labels reach."""
    low = t_interval(values)[0] if len(values) > 1 else values[0]
    return low > level.mean + 2 * (level.sd or 0)


def _difference(
    artefact: Artefact,
    row: Row,
    metric: str,
    runs: list[Run],
    number: printed.Published | None,
    theirs: dict[str, Any],
) -> str:
    """Return why our number cannot be compared with the printed one, or an empty text."""
    if artefact.substitute:
        return f"on {artefact.substitute}, other data than the paper's"
    if number is None:
        return "no published number for this data set"
    if row.incomparable:
        return row.incomparable
    if metric == "time_ratio":
        return "time depends on the machine"
    if number.statistic in printed.BOUNDS:
        return "the paper prints a bound"
    has_test = any("test" in run.metrics["splits"] for run in runs if run.metrics)
    return protocol_difference(_own_protocol(runs), theirs, has_test)


def cells_text(frame: pd.DataFrame) -> str:
    """Return cells as CSV with bytes that depend on their content alone."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(frame.columns)
    for record in frame.astype(object).itertuples(index=False):
        writer.writerow(["" if pd.isna(value) else safe_cell(value) for value in record])
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
    frame = pd.DataFrame(read_csv(path))
    if list(frame.columns) != CELL_COLUMNS:
        raise UserError(f"{path}: has other columns than expected; rebuild it with: snakemake --cores all light")
    try:
        return _typed(frame.map(plain_cell))
    except ValueError as error:
        raise UserError(f"{path}: not readable as cells ({error})") from None


def summarise(
    method: str, plan: dict[str, Any], root: Path, results: str, datasets: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return mean and spread of a method's finished runs by data set and variant: numbers only, for `dvc metrics`.

    With `datasets`, only those are summarised: the file then depends on nothing that a rule does not wait for.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    asked = [run for run in plan["runs"] if run["method"] == method and (not datasets or run["dataset"] in datasets)]
    for run in load_runs({**plan, "runs": asked}, root, results):
        if run.metrics is not None and not run.unlabelled:
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
