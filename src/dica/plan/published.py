"""The printed numbers of the papers (params/published/*.csv), as text: their digits say how exact they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path

from dica.files import UserError, read_csv

COLUMNS = ("paper", "table", "setting", "method", "dataset", "metric", "statistic", "value", "std", "note")
BOUNDS = {"upper-bound": "< ", "lower-bound": "> "}  # how a number is printed that only bounds the true one
PLAIN = ("time_ratio", "p_value")  # metrics that are never in percent
Rows = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Published:
    """One printed number: fraction and spread as text, what it is, and a remark on its origin."""

    value: str
    std: str
    statistic: str
    note: str


@cache
def load_published(root: Path, file: str = "results.csv") -> tuple[dict[str, str], ...]:
    """Read a file of printed numbers.

    Raises
    ------
    UserError
        If the file is missing, lacks a column or holds a value that is no number; the message has the line.
    """
    path = root / "params" / "published" / file
    rows = tuple(read_csv(path, COLUMNS))
    for line, row in enumerate(rows, start=2):
        for name in ("value", "std"):
            if row[name]:
                _number(row[name], f"{path}:{line}: {name}")
    return rows


@cache
def of_table(root: Path, file: str, paper: str, table: str) -> tuple[dict[str, str], ...]:
    """Return the rows of one table, as `find` takes them."""
    return tuple(row for row in load_published(root, file) if (row["paper"], row["table"]) == (paper, table))


@cache
def load_counts(root: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Return the printed facts of data sets (params/published/datasets.csv) by paper and data set."""
    path = root / "params" / "published" / "datasets.csv"
    return {(row["paper"], row["dataset"]): row for row in read_csv(path, ("paper", "dataset"))}


def _number(text: str, where: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise UserError(f"{where}: {text!r} is not a number") from None


def find(
    rows: Rows, paper: str, table: str, method: str, dataset: str, metric: str, statistic: str, setting: str = ""
) -> Published | None:
    """Return the printed number of one cell, or None where the table has none.

    A `mean` falls back to a number printed without statistic (`single`) or as a bound, a `best` does not.

    Parameters
    ----------
    setting
        Value of the column `setting`; empty = whatever it is, if only one number fits.

    Raises
    ------
    UserError
        If the table holds nothing at all on the method or in the setting (a misspelt name), or several numbers fit.
    """
    of_table = [row for row in rows if (row["paper"], row["table"]) == (paper, table)]
    of_method = [row for row in of_table if row["method"] == method]
    if not of_method:
        raise UserError(f"params/published: {paper}, {table} has no method {method!r}")
    if setting and all(row["setting"] != setting for row in of_table):
        raise UserError(f"params/published: {paper}, {table} has no setting {setting!r}")
    fitting = [
        row
        for row in of_method
        if (row["dataset"], row["metric"]) == (dataset, metric) and setting in ("", row["setting"])
    ]
    for wanted in (statistic, *(("single", *BOUNDS) if statistic == "mean" else ())):
        chosen = [row for row in fitting if row["statistic"] == wanted]
        if len(chosen) > 1:
            raise UserError(f"params/published: {paper}, {table}: several {wanted} {metric} of {method} on {dataset}")
        if chosen:
            row = chosen[0]
            return Published(row["value"], row["std"], row["statistic"], row["note"])
    return None


def decimals(text: str) -> int:
    """Return the number of digits after the point of a printed number."""
    return len(text.partition(".")[2])


def to_scale(text: str, scale: str) -> str:
    """Return a fraction as the paper prints it: `0.891` is `89.1` in percent, digits kept."""
    if scale == "fraction" or not text:
        return text
    return f"{Decimal(text) * 100:.{max(decimals(text) - 2, 0)}f}"
