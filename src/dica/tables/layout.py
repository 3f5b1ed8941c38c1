"""What a table holds: the lines, cells, ranks and footnotes of a paper's layout; `dica.tables.rendering` prints it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby, product
from typing import Any

import pandas as pd

from dica.plan.artefacts import Artefact, Row, planned
from dica.plan.published import BOUNDS, PLAIN, to_scale
from dica.scores.chance import adjusted
from dica.scores.stats import RULE
from dica.tables.cells import LOWER_IS_BETTER
from dica.tables.links import runs_page
from dica.tables.words import METRIC_LABELS, notes

CONTROLS = ("random-labels", "untrained", "supervised")  # methods whose rows are a scale for the others
LEVEL_TO_SAY = 0.05  # NMI of random labels from which on a table corrects ours for it
MARKS = {  # how a verdict is written beside a number: words for people, signs where room is short (LaTeX)
    "agrees": ("agrees", r"$\approx$"),
    "worse": ("worse", r"$\prec$"),
    "better": ("better", r"$\succ$"),
    "not comparable": ("n/c", "n/c"),
    "equal": ("equal", "$=$"),
    "differs": ("differs", r"$\neq$"),
}


@dataclass(frozen=True)
class Shown:
    """One printed cell; `span` 0 = covered by the cell to its left."""

    text: str
    mark: str = ""
    notes: tuple[int, ...] = ()
    rank: str = ""
    span: int = 1
    address: str = ""
    reason: str = ""
    group: str = ""


@dataclass
class Line:
    """A printed line: the published numbers of a row, ours, or (`heading`) what the following rows share."""

    label: str
    kind: str
    cells: list[Shown] = field(default_factory=list)
    method: str = ""


@dataclass
class Header:
    """The head of a table: what its first column holds, and up to three levels of (text, columns spanned)."""

    first: str
    groups: list[tuple[str, int]] = field(default_factory=list)
    columns: list[tuple[str, int]] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    words: bool = False  # the cells hold words, not numbers

    @property
    def width(self) -> int:
        """Number of columns beside the first."""
        return sum(span for _, span in self.columns)

    @property
    def starts(self) -> set[int]:
        """Places (from 0) at which a column of several metrics begins."""
        return set(accumulate((span for _, span in self.columns[:-1]), initial=0)) if self.metrics else set()

    @property
    def flat(self) -> list[str]:
        """One line of headings, for formats that have no more."""
        groups = [text for text, span in self.groups for _ in range(span)] or [""] * self.width
        columns = [text for text, span in self.columns for _ in range(span)]
        metrics = self.metrics or [""] * self.width
        return [" ".join(part for part in parts if part) for parts in zip(groups, columns, metrics, strict=True)]


class Footnotes:
    """Numbers reasons in the order of their first use; equal ones share a number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def group_id(method: str, variant: str, dataset: str) -> str:
    """Anchor of the runs of one method, variant and data set in the report."""
    return f"runs-{method}-{variant}-{dataset}"


def group_with(run_id: str) -> str:
    """Anchor of the group that shows a finished run: a variant has several groups where tables change it."""
    return f"with-{run_id}"


def runs_link(cell: Any) -> str:
    """Return where the report shows the runs of a cell, or what is said of them where there are none."""
    first = cell.runs.split()[:1]
    anchor = group_with(first[0].rpartition("-")[2]) if first else group_id(cell.method, cell.variant, cell.dataset)
    return f"{runs_page(cell.method)}#{anchor}"


def build(artefact: Artefact, frame: pd.DataFrame, plan: dict[str, Any]) -> dict[str, Any]:
    """Return everything the templates print of one table.

    Parameters
    ----------
    artefact
        The declaration.
    frame
        Cells of any number of artefacts, as from `tables.cells`.
    plan
        Content of plan.json; the epochs that were used are read from it.
    """
    mine = frame[(frame["paper"] == artefact.paper) & (frame["artefact"] == artefact.name)]
    by_place = {(cell.row, cell.column, cell.metric): cell for cell in mine.itertuples(index=False)}
    footnotes = Footnotes()
    head, lines = {"grid": _grid, "significance": _matrix, "datasets": _counts, "architecture": _layers}[
        artefact.layout
    ](artefact, by_place, footnotes, plan)
    marks = {mark for line in lines for cell in line.cells if (mark := cell.mark)}
    return {
        "artefact": artefact,
        "head": head,
        "lines": lines,
        "footnotes": footnotes.texts,
        "notes": [*notes(artefact, plan), *_adjusted_notes(artefact, by_place)],
        "legend": _legend(artefact, head, lines, mine["verdict"]),
        "rule": RULE if marks & {"agrees", "worse", "better"} else "",
        "example": _example(artefact, by_place, plan),
        "marks": MARKS,
    }


# --- kinds of tables -------------------------------------------------------------------------------------------


def _grid(artefact: Artefact, by_place: dict, footnotes: Footnotes, plan: dict[str, Any]) -> tuple[Header, list[Line]]:
    """Methods by data sets: the published line of each row and, where something is run, our line below it."""
    ranks = _ranks(artefact, by_place)
    lines, group = [], ""
    for row in artefact.rows:
        if row.group and row.group != group:
            lines.append(Line(row.group, "heading"))
        group = row.group or group
        found = _row_lines(artefact, row, by_place, ranks, footnotes, plan)
        lines += [replace(line, method=row.method or "") for line in found]
    lines += _chance_lines(artefact, by_place)
    metrics = [artefact.metrics_of(column) for column in artefact.columns]
    head = Header("Method", columns=[(c.label, len(m)) for c, m in zip(artefact.columns, metrics, strict=True)])
    if any(column.group for column in artefact.columns):
        parts = groupby(zip(artefact.columns, metrics, strict=True), key=lambda pair: pair[0].group)
        head.groups = [(name, sum(len(m) for _, m in members)) for name, members in parts]
    if {len(m) for m in metrics} != {1} or len(set(metrics)) > 1:
        head.metrics = [METRIC_LABELS[name] for names in metrics for name in names]
    return head, lines


def _row_lines(
    artefact: Artefact, row: Row, by_place: dict, ranks: dict, footnotes: Footnotes, plan: dict[str, Any]
) -> list[Line]:
    """Return the published line and, for a method that is run, our line below it."""
    places = [[(row.key, c.key, metric) for metric in artefact.metrics_of(c)] for c in artefact.columns]
    flat = [place for group in places for place in group]
    lines = []
    if row.published_method:
        cells = [_published_cell(by_place[place], artefact, ranks) for place in flat]
        lines.append(Line(row.label, "published", cells))
    count = max(by_place[place].seeds_planned for place in flat)
    if count:
        what = _seeds(row, [by_place[place] for place in flat], count)
        label = f"here, {what}" if lines else f"{row.label}, {what}"
        label += _fewer_epochs(artefact, row, plan)
        groups = [[_own_cell(by_place[place], artefact, ranks, footnotes) for place in group] for group in places]
        lines.append(Line(label, "ours" if lines else "ours alone", [c for group in groups for c in _spanned(group)]))
    return lines


def _seeds(row: Row, cells: Sequence[Any], planned: int) -> str:
    """Return of how many seeds a row is, and of how many it was to be where some are not there."""
    if planned == 1:
        return "one seed"
    there = sorted({cell.n for cell in cells if cell.n})
    few = any(count < planned for count in there)
    of = f"{' or '.join(map(str, there))} of {planned}" if few else str(planned)
    return f"{'best' if row.statistic == 'best' else 'mean'} of {of}"


def _chance_lines(artefact: Artefact, by_place: dict) -> list[Line]:
    """Return what random labels reach under each column, a range where its rows differ in images or clusters."""
    found = []
    for column, metric in [(c, metric) for c in artefact.columns for metric in artefact.metrics_of(c)]:
        factor, digits = (100 if _scale(artefact, metric) == "percent" else 1), _digits(artefact, metric)
        levels = [by_place[(row.key, column.key, metric)].chance for row in artefact.rows]
        texts = sorted({f"{level * factor:.{digits}f}" for level in levels if pd.notna(level)}, key=float)
        found.append(Shown("–".join(dict.fromkeys([*texts[:1], *texts[-1:]]))))
    return [Line("Chance", "chance", found)] if any(cell.text for cell in found) else []


def _adjusted_notes(artefact: Artefact, by_place: dict) -> list[str]:
    """Return our NMI corrected for chance (AMI), for columns in which random labels reach an NMI worth the name."""
    found = []
    for column in artefact.columns if artefact.layout == "grid" else ():
        shown = [
            (artefact.names_of([row])[0], cell)
            for row in artefact.rows
            if (cell := by_place.get((row.key, column.key, "nmi"))) and cell.n and cell.chance >= LEVEL_TO_SAY
        ]
        if shown:
            values = ", ".join(f"{name} {adjusted(cell.value, cell.chance):.3f}" for name, cell in shown)
            level = max(cell.chance for _, cell in shown)
            where = f"{column.group} {column.label}".strip()
            found.append(
                f"{where}: NMI counts chance, random labels reach {level:.3f} of 1. Corrected for it (AMI, of clusters "
                f"of equal sizes) ours are: {values}."
            )
    return found


def _matrix(artefact: Artefact, by_place: dict, *_: Any) -> tuple[Header, list[Line]]:
    """P values between rows: the published line, and below it what the printed numbers give."""
    lines = []
    for row in artefact.rows:
        cells = [by_place[row.key, column.key, "p_value"] for column in artefact.columns]
        lines.append(Line(row.label, "published", [Shown(cell.published or "–") for cell in cells]))
        ours = [Shown(_plain(cell, 4), cell.verdict, reason=cell.published_note) for cell in cells]
        lines.append(Line("recomputed", "ours", ours))
    return Header("Method", columns=[(column.label, 1) for column in artefact.columns]), lines


def _plain(cell: Any, digits: int) -> str:
    return "" if pd.isna(cell.value) else f"{cell.value:,.{digits}f}"


def _counts(artefact: Artefact, by_place: dict, *_: Any) -> tuple[Header, list[Line]]:
    """Data sets by counts: each printed number, with ours where it is another one."""
    lines = []
    for column in artefact.columns:
        cells = [by_place[artefact.rows[0].key, column.key, metric] for metric in artefact.metrics]
        lines.append(Line(column.label, "published", [_count_cell(cell) for cell in cells]))
    return Header("Data set", columns=[(METRIC_LABELS[metric], 1) for metric in artefact.metrics]), lines


def _count_cell(cell: Any) -> Shown:
    if not cell.published:
        return Shown("")
    text = f"{int(cell.published):,}" if cell.published.isdecimal() else cell.published
    if cell.verdict == "differs":
        text += f" (here {_plain(cell, 0)})"
    return _unmarked(Shown(text, cell.verdict, reason=cell.published_note))


def _unmarked(cell: Shown) -> Shown:
    """Leave the mark to the few entries that differ, where nearly all are equal."""
    return replace(cell, mark="" if cell.mark == "equal" else cell.mark)


def _layers(artefact: Artefact, by_place: dict, *_: Any) -> tuple[Header, list[Line]]:
    """Networks by layers: each printed layer, with ours where it is another one."""
    lines = []
    for row in artefact.rows:
        cells = [by_place[row.key, column.key, "layer"] for column in artefact.columns]
        shown = [_unmarked(Shown(c.published + (f" ({c.reason})" if c.reason else ""), c.verdict)) for c in cells]
        lines.append(Line(row.label, "published", shown))
    return Header("Layer", columns=[(column.label, 1) for column in artefact.columns], words=True), lines


# --- cells of a grid -------------------------------------------------------------------------------------------


def _fewer_epochs(artefact: Artefact, row: Row, plan: dict[str, Any]) -> str:
    """Return a remark for the line's label where our runs are not as long as the paper's."""
    pairs = {
        (run["params"].get("epochs"), artefact.protocol_of(row, column).get("epochs"))
        for column in artefact.columns
        for run in planned(plan, artefact, row, column.key)
    }
    unlike = {(here, paper) for here, paper in pairs if here and paper and here != paper}
    if not unlike:
        return ""
    here, paper = unlike.pop()
    return ", other epochs than the paper" if len(pairs) > 1 else f", {here} of {paper} epochs"


def _published_cell(cell: Any, artefact: Artefact, ranks: dict) -> Shown:
    if not cell.published:
        return Shown("")
    scale = _scale(artefact, cell.metric)
    text = BOUNDS.get(cell.published_statistic, "") + to_scale(cell.published, scale)
    if cell.published_std:
        text += f" ± {to_scale(cell.published_std, scale)}"
    return Shown(text, rank=ranks.get(("published", *_place(cell)), ""), reason=cell.published_note)


def _own_cell(cell: Any, artefact: Artefact, ranks: dict, footnotes: Footnotes) -> Shown:
    if not cell.seeds_planned:
        return Shown("")
    address = f"{artefact.address} {cell.row}/{cell.column}/{cell.metric}"
    group = runs_link(cell)
    if not cell.n:
        why = (footnotes.number(cell.reason),) if cell.verdict == "failed" else ()
        return Shown(cell.verdict, cell.verdict, why, address=address, reason=cell.reason, group=group)
    factor = 100 if _scale(artefact, cell.metric) == "percent" else 1
    digits = _digits(artefact, cell.metric)
    text = f"{cell.value * factor:z.{digits}f}"  # z: no negative zero
    if cell.n > 1 and cell.statistic != "best":
        text += f" ± {cell.spread * factor:.{digits}f}"
    notes = []
    mark = cell.verdict
    if not any(row.published_method for row in artefact.rows):
        mark = ""  # no paper has such a table: the legend says so once
    elif mark == "not comparable":
        notes.append(footnotes.number(cell.reason.split("; ")[0]))
    if collapsed := re.findall(r"seed \d+ collapsed: [^;]*", cell.reason):
        notes.append(footnotes.number("; ".join(collapsed)))
    if unlike := re.search(r"trained by code that [^;]*", cell.reason):
        notes.append(footnotes.number(unlike[0]))
    if cell.n < cell.seeds_planned:
        notes.append(footnotes.number(f"{cell.n} of {cell.seeds_planned} seeds{_why(cell)}"))
    rank = ranks.get(("ours", *_place(cell)), "")
    facts = [f"best {cell.best * factor:.{digits}f}, n = {cell.n}", cell.protocol, cell.reason]
    return Shown(text, mark, tuple(notes), rank, 1, address, "; ".join(part for part in facts if part), group)


def _why(cell: Any) -> str:
    """Return why seeds are lacking, as the reason of a cell says it."""
    failures = cell.reason.partition(f"{cell.n} of {cell.seeds_planned} seeds")[2]
    return failures


def _spanned(cells: list[Shown]) -> list[Shown]:
    """Merge neighbouring cells of a data set that say nothing but `not run` or `failed`."""
    merged = []
    for _, run in groupby(cells, key=lambda cell: cell.text if cell.mark in ("not run", "failed") else id(cell)):
        group = list(run)
        merged += [replace(cell, span=0 if k else len(group)) for k, cell in enumerate(group)]
    return merged


def _place(cell: Any) -> tuple[str, str, str]:
    return cell.row, cell.column, cell.metric


def _scale(artefact: Artefact, metric: str) -> str:
    return "fraction" if metric in PLAIN else artefact.scale


def _digits(artefact: Artefact, metric: str) -> int:
    if metric == "error":
        return 2 if artefact.scale == "percent" else 4
    return 1 if artefact.scale == "percent" or metric in PLAIN else 3


def _blocks(artefact: Artefact) -> list[list[str]]:
    """Return the keys of the rows that compete: those under one heading, which asks one question, but for controls."""
    blocks: list[list[str]] = []
    group = ""
    for row in artefact.rows:
        if not blocks or (row.group and row.group != group):
            blocks.append([])
        group = row.group or group
        blocks[-1] += [] if row.published_metrics or row.method in CONTROLS else [row.key]
    return blocks


def _ranks(artefact: Artefact, by_place: dict) -> dict[tuple, str]:
    """Return best and second of every column, among the published numbers and among ours, within each block of rows.

    A number that stands in a column of another name (a supervised probe under ACC) does not compete, nor does a bound.
    Our best runs compete among themselves.
    """
    ranks: dict[tuple, str] = {}
    for column, rows in product(artefact.columns, _blocks(artefact)):
        for metric in artefact.metrics_of(column):
            if metric == "time_ratio":
                continue
            digits = _digits(artefact, metric) + (2 if _scale(artefact, metric) == "percent" else 0)
            found = [by_place[key, column.key, metric] for key in rows]
            printed = [cell for cell in found if cell.published and cell.published_statistic not in BOUNDS]
            published = {("published", *_place(cell)): float(cell.published) for cell in printed}
            ours = {("ours", *_place(cell)): round(cell.value, digits) for cell in found if cell.n}
            best = {("ours", *_place(cell)) for cell in found if cell.statistic == "best"}
            for scores in (published, *_apart(ours, best)):
                top = sorted(set(scores.values()), reverse=metric not in LOWER_IS_BETTER)[:2]
                names = dict(zip(top, ("best", "second"), strict=False)) if len(top) > 1 else {}
                ranks |= {key: names[score] for key, score in scores.items() if score in names}
    return ranks


def _apart(scores: dict[tuple, float], some: set[tuple]) -> tuple[dict[tuple, float], dict[tuple, float]]:
    """Return the scores that are not among some keys, and those that are."""
    return {k: v for k, v in scores.items() if k not in some}, {k: v for k, v in scores.items() if k in some}


def _legend(artefact: Artefact, head: Header, lines: list[Line], verdicts: pd.Series) -> str:
    """Return what the signs of a table mean, for the signs it has."""
    if artefact.layout != "grid":
        counts = verdicts.value_counts()
        known = [
            f"{counts[mark]} {word}" for mark, word in (("equal", "equal"), ("differs", "different")) if mark in counts
        ]
        return f"The paper's entries, with this archive's where they are others; {' and '.join(known)}."
    shown = [cell for line in lines for cell in line.cells]
    has_published = any(line.kind == "published" for line in lines)
    parts = ["In percent." if artefact.scale == "percent" else "Fractions of 1."]
    if not head.metrics:
        parts.insert(0, f"Metric: {METRIC_LABELS[artefact.metrics_of(artefact.columns[0])[0]]}.")
    if any("nmi_geometric" in artefact.metrics_of(column) for column in artefact.columns):
        parts.append("NMI is normalised by the geometric mean of the entropies.")
    if not has_published:
        parts.append("There is no published number to compare with.")
    if any(cell.rank for cell in shown):
        within = " of its block" if len(_blocks(artefact)) > 1 else ""
        apart = " (published and ours apart)" if has_published else ""
        among = "; our best runs among themselves" if any(row.statistic == "best" for row in artefact.rows) else ""
        parts.append(f"Bold: best{within}, underlined: second best{apart}{among}.")
    if any("±" in cell.text for line in lines if line.kind.startswith("ours") for cell in line.cells):
        parts.append("Ours: mean ± sample standard deviation over seeds.")
    if any(cell.mark == "not comparable" for cell in shown):
        parts.append("n/c: not comparable.")
    return " ".join(parts)


def profile_option(plan: dict[str, Any], option: str) -> str:
    """Return the option that names a profile other than the archive's own, or an empty text."""
    return "" if plan["profile"] == "archive" else f" {option} params/{plan['profile']}.yaml"


def audit_command(address: str, plan: dict[str, Any]) -> str:
    """Return the command that traces one cell, `<paper> <artefact> <row>/<dataset>/<metric>`."""
    return f"dica audit {address}{profile_option(plan, '--profile')}"


def _example(artefact: Artefact, by_place: dict, plan: dict[str, Any]) -> str:
    """Return the audit command of the first cell with a number, else of the first one that is run here."""
    own = [cell for cell in by_place.values() if cell.method]
    first = next((cell for cell in own if cell.n), own[0] if own else None)
    return audit_command(f"{artefact.address} {'/'.join(_place(first))}", plan) if first else ""
