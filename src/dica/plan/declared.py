"""What a declaration of a table or figure is made of: columns, rows, and the artefact itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Column:
    """A data set (or one setting on it) as a table shows it; `key` is its part of a cell's address."""

    key: str
    dataset: str
    published_dataset: str
    label: str
    group: str = ""
    setting: str = ""
    metrics: tuple[str, ...] = ()
    counted: str = ""
    note: str = ""
    protocol: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A line of a table or a method of a figure; `method` None = the printed number is only copied.

    `variants` (by the setting of a column) and `runs` (by metric) name other runs than `method` with `variant`.
    `datasets` are those that the row is run on, where they are not all.
    """

    key: str
    label: str
    method: str | None
    variant: str
    variants: dict[str, str]
    runs: dict[str, dict[str, Any]]
    metrics: tuple[str, ...]
    datasets: tuple[str, ...]
    statistic: str
    seeds: int
    published_method: str | None
    published_paper: str
    published_table: str
    published_metrics: dict[str, str]
    setting: str
    protocol: dict[str, Any]
    group: str = ""
    incomparable: str = ""
    stand_in: dict[str, str] | None = None
    note: str = ""


@dataclass(frozen=True)
class Artefact:
    """One declared table or figure; `paper` and `name` together are its address.

    `rung` is that of other data or a smaller budget than the paper's (see `dica.plan.rungs`); `overrides` are the
    parameters by method that it changes for its runs. `tflop` is the counted arithmetic of each run that trains, where
    that is the same for all.
    """

    paper: str
    paper_title: str
    name: str
    kind: str
    title: str
    layout: str
    plot: str | None
    options: dict[str, Any]
    reason: str
    published_file: str
    seeds: int
    metrics: tuple[str, ...]
    scale: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    protocol: dict[str, Any]
    note: str = ""
    substitute: str = ""
    rung: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    tflop: float | None = None

    @property
    def address(self) -> str:
        """`<paper> <name>`, as plans, profiles and the audit write it."""
        return f"{self.paper} {self.name}"

    @property
    def regenerated(self) -> bool:
        """Whether anything is computed for it; if not, `reason` says why."""
        return not self.reason

    def protocol_of(self, row: Row, column: Column, metric: str | None = None) -> dict[str, Any]:
        """Return the published protocol of one cell: the paper's, then the column's, the row's, the metric's."""
        own = row.runs.get(metric or "", {}).get("protocol", {})
        return {**self.protocol, **column.protocol, **row.protocol, **own}

    def names_of(self, rows: Sequence[Row]) -> list[str]:
        """Return what some rows are called in a note on them: with the group where another of the same label is not.

        A row without a group is of that of the row above it.
        """
        groups: dict[str, str] = {}
        for row in self.rows:
            groups[row.key] = row.group or next(reversed(groups.values()), "")
        keys = {row.key for row in rows}
        others = {row.label for row in self.rows if row.key not in keys}
        return [
            f"{row.label} ({groups[row.key]})" if groups[row.key] and row.label in others else row.label for row in rows
        ]

    def metrics_of(self, column: Column) -> tuple[str, ...]:
        """Return the metrics printed under one column."""
        return column.metrics or self.metrics


def column_key(dataset: str, setting: str) -> str:
    """Return the address part of a column: the data set, with its setting where it has one."""
    return "-".join([dataset, *re.findall(r"[a-z0-9]+", setting.lower())])
