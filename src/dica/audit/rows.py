"""The rows of cells.csv as the audit compares them: read as text, named, and without what only one machine knows."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from dica.files import IntegrityError
from dica.tables.cells import CELL_COLUMNS


def cell_name(row: dict) -> str:
    """Return ``row/column/metric``, the address of a cell inside its table."""
    return f"{row['row']}/{row['column']}/{row['metric']}"


def read_cells(path: Path) -> list[dict[str, str]]:
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        rows = parse(text)
    except csv.Error as error:
        raise IntegrityError(f"{path}: not readable as CSV ({error}); build the tables again") from None
    if text.partition("\n")[0].split(",") != CELL_COLUMNS or any(None in row for row in rows):
        raise IntegrityError(f"{path}: has other columns than expected; build the tables again")
    return rows


def parse(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), restval=""))


def cell_key(row: dict) -> tuple[str, ...]:
    return tuple(row[name] for name in ("paper", "artefact", "row", "column", "metric"))


def verdicts(rows: list[dict], stored: dict[tuple, dict]) -> dict[str, list[str]]:
    """Return verdicts and reasons of the rebuilt rows, the stored ones where only the machine of the runs knows."""
    found: dict[str, list[str]] = {"verdict": [], "reason": []}
    for row in rows:
        old = stored.get(cell_key(row), row)
        chosen = old if _verdict_known_here(row) == _verdict_known_here(old) else row
        for name, texts in found.items():
            texts.append(chosen[name])
    return found


def _verdict_known_here(row: dict) -> tuple[str, str]:
    """Return verdict and reason without what only the machine of the runs knows: whether and why others failed."""
    if row["verdict"] in ("failed", "not run"):
        return "no run", ""
    if row["n"] == row["seeds_planned"]:
        return row["verdict"], row["reason"]
    seeds = f"{row['n']} of {row['seeds_planned']} seeds"
    before, found, _ = row["reason"].partition(seeds)
    return row["verdict"], before + found
