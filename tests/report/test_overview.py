"""Which tables the overview begins with."""

from __future__ import annotations

import pandas as pd

from dica.report.pages import _headline_tables


def cells(*tables: tuple[str, str, str, list[int]]) -> pd.DataFrame:
    """Cells of tables: paper, name, data set, and the runs behind each cell; of two methods, unless it is table-8."""
    names = {"table-8": ["kmeans"]}
    lines = [
        (*table[:3], name, n) for table in tables for name in names.get(table[1], ["kmeans", "drc"]) for n in table[3]
    ]
    return pd.DataFrame(lines, columns=["paper", "artefact", "dataset", "method", "n"])


def test_the_overview_shows_tables_of_different_images_own_ones_first() -> None:
    digits, small = ("dica", "table-1", "digits", [3, 3]), ("dica", "table-6", "cifar10-jpeg-small", [1, 0, 0])
    also, whole = ("dica", "table-3", "digits", [3, 3]), ("dica", "table-14", "cifar10-jpeg", [1, 1, 0])
    assert _headline_tables(cells(("drc", "table-1", "cifar10", [3]), digits, also, small, whole)) == [
        "dica table-1", "dica table-14"]  # fmt: skip
    assert _headline_tables(cells(digits, also, small)) == ["dica table-1", "dica table-6"]
    assert _headline_tables(cells(("dica", "table-2", "cifar10-jpeg", [0, 0]))) == []
    starts = ("dica", "table-8", "cifar10-jpeg", [1, 1])
    assert _headline_tables(cells(digits, starts, whole)) == ["dica table-1", "dica table-14"]
