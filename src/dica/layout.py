"""How a table looks: the lines, ranks and footnotes of a paper's layout, rendered as Markdown, LaTeX and HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from dica.artefacts import Artefact, Row, planned
from dica.files import atomic_write_text
from dica.published import to_scale
from dica.stats import RULE
from dica.tables import cells_text

METRIC_LABELS = {"acc": "ACC", "nmi": "NMI", "ari": "ARI"}
MARKS = {  # how a verdict is written beside a number: words for people, signs where room is short (LaTeX)
    "agrees": ("agrees", r"$\approx$"),
    "below": ("below", r"$\downarrow$"),
    "above": ("above", r"$\uparrow$"),
    "not comparable": ("n/c", "n/c"),
}
FORMATS = ("md", "tex", "html", "csv")


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
    """A printed line: the published numbers of a row, or ours."""

    label: str
    kind: str
    cells: list[Shown] = field(default_factory=list)


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
    ranks = _ranks(artefact, by_place)
    footnotes = Footnotes()
    lines = []
    for row in artefact.rows:
        lines += _row_lines(artefact, row, by_place, ranks, footnotes, plan)
    marks = {mark for line in lines for cell in line.cells if (mark := cell.mark)}
    return {
        "artefact": artefact,
        "groups": [(column.label, [METRIC_LABELS[m] for m in artefact.metrics]) for column in artefact.columns],
        "lines": lines,
        "footnotes": footnotes.texts,
        "notes": _notes(artefact, plan),
        "legend": _legend(artefact, any(line.kind == "published" for line in lines), lines),
        "rule": RULE if marks & {"agrees", "below", "above"} else "",
        "example": _example(artefact, by_place, plan),
        "marks": MARKS,
    }


def _row_lines(
    artefact: Artefact, row: Row, by_place: dict, ranks: dict, footnotes: Footnotes, plan: dict[str, Any]
) -> list[Line]:
    """Return the published line and, for a method that is run, our line below it."""
    places = [(row.key, column.key, metric) for column in artefact.columns for metric in artefact.metrics]
    lines = []
    if row.published_method:
        cells = [_published_cell(by_place[place], artefact, ranks) for place in places]
        lines.append(Line(row.label, "published", cells))
    if row.method:
        count = max(by_place[place].seeds_planned for place in places)
        what = f"{'best' if row.statistic == 'best' else 'mean'} of {count}"
        label = f"here, {what}" if lines else f"{row.label}, {what}"
        label += _fewer_epochs(artefact, row, plan)
        cells = [_own_cell(by_place[place], artefact, ranks, footnotes) for place in places]
        lines.append(Line(label, "ours" if lines else "ours alone", _spanned(cells, len(artefact.metrics))))
    return lines


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
    text = to_scale(cell.published, artefact.scale)
    if cell.published_std:
        text += f" ± {to_scale(cell.published_std, artefact.scale)}"
    return Shown(text, rank=ranks.get(("published", *_place(cell)), ""), reason=cell.published_note)


def _own_cell(cell: Any, artefact: Artefact, ranks: dict, footnotes: Footnotes) -> Shown:
    address = f"{artefact.address} {cell.row}/{cell.column}/{cell.metric}"
    group = group_id(cell.method, cell.variant, cell.dataset)
    if not cell.n:
        notes = (footnotes.number(cell.reason),) if cell.verdict == "failed" else ()
        return Shown(cell.verdict, cell.verdict, notes, address=address, reason=cell.reason, group=group)
    factor, digits = (100 if artefact.scale == "percent" else 1), _digits(artefact)
    text = f"{cell.value * factor:.{digits}f}"
    if cell.n > 1 and cell.statistic != "best":
        text += f" ± {cell.spread * factor:.{digits}f}"
    notes = []
    mark = cell.verdict
    if not any(row.published_method for row in artefact.rows):
        mark = ""  # no paper has such a table: the legend says so once
    elif mark == "not comparable":
        notes.append(footnotes.number(cell.reason.split("; ")[0]))
    if cell.n < cell.seeds_planned:
        notes.append(footnotes.number("; ".join(cell.reason.split("; ")[1:])))
    rank = ranks.get(("ours", *_place(cell)), "")
    return Shown(text, mark, tuple(notes), rank, 1, address, cell.reason, group)


def _spanned(cells: list[Shown], width: int) -> list[Shown]:
    """Merge the cells of a data set that say nothing but `not run` or `failed`."""
    merged = []
    for start in range(0, len(cells), width):
        group = cells[start : start + width]
        if all(cell.text == group[0].text and cell.mark in ("not run", "failed") for cell in group):
            group = [Shown(**{**vars(cell), "span": 0 if k else width}) for k, cell in enumerate(group)]
        merged += group
    return merged


def _place(cell: Any) -> tuple[str, str, str]:
    return cell.row, cell.column, cell.metric


def _digits(artefact: Artefact) -> int:
    return 1 if artefact.scale == "percent" else 3


def _ranks(artefact: Artefact, by_place: dict) -> dict[tuple, str]:
    """Return best and second of every column among the published numbers, or among ours where there are none.

    A number that stands in a column of another name (a supervised probe under ACC) does not compete.
    """
    ranks: dict[tuple, str] = {}
    rows = [row.key for row in artefact.rows if not row.published_metrics]
    for column in artefact.columns:
        for metric in artefact.metrics:
            places = [(key, column.key, metric) for key in rows]
            scores = {("published", *p): float(by_place[p].published) for p in places if by_place[p].published}
            if not scores:
                digits = 2 + _digits(artefact) if artefact.scale == "percent" else _digits(artefact)
                scores = {("ours", *p): round(by_place[p].value, digits) for p in places if by_place[p].n}
            top = sorted(set(scores.values()), reverse=True)[:2]
            names = dict(zip(top, ("best", "second"), strict=False)) if len(scores) > 1 else {}
            ranks |= {key: names[score] for key, score in scores.items() if score in names}
    return ranks


def _notes(artefact: Artefact, plan: dict[str, Any]) -> list[str]:
    """Return what a reader must know of the protocol: the paper's, the columns', and the epochs used here."""
    notes = [artefact.note] if artefact.note else []
    facts = artefact.protocol
    if facts.get("trained_on"):
        notes.append(f"Paper: {_split_words(facts)}.")
    notes += [facts["note"]] if facts.get("note") else []
    notes += [f"{column.label}: {column.note}" for column in artefact.columns if column.note]
    notes += [row.note for row in artefact.rows if row.note]
    return [*notes, *protocol_notes(artefact, plan)]


SPLIT_WORDS = {
    "all": "all labelled images",
    "train": "the training split",
    "test": "the test split",
    "train+unlabeled": "the training and unlabelled images",
    "all+unlabeled": "all labelled and unlabelled images",
}


def _split_words(facts: dict[str, Any]) -> str:
    trained, evaluated = (SPLIT_WORDS.get(facts.get(key, ""), "?") for key in ("trained_on", "evaluated_on"))
    if trained == evaluated:
        return f"trained and evaluated on {trained}"
    return f"trained on {trained}, evaluated on {evaluated}"


def protocol_notes(artefact: Artefact, plan: dict[str, Any]) -> list[str]:
    """Return one sentence a method: the images and epochs of our runs, beside the paper's epochs."""
    sentences = []
    for row in artefact.rows:
        parts = []
        for column in artefact.columns:
            for run in planned(plan, artefact, row, column.key)[:1]:  # seeds share their parameters
                paper = artefact.protocol_of(row, column)
                parts.append((column.label, _used(run["params"], paper.get("epochs"))))
        name = re.sub(r" \((mean|best)\)$", "", row.label)
        same = {text for _, text in parts}
        if len(same) == 1:
            sentences.append(f"{name} here: {same.pop()}.")
        elif parts:
            sentences.append(f"{name} here: " + "; ".join(f"{text} ({label})" for label, text in parts) + ".")
    return list(dict.fromkeys(sentences))


def _used(params: dict[str, Any], paper_epochs: int | None) -> str:
    text = _split_words({"trained_on": params.get("train_split"), "evaluated_on": params.get("eval_split")})
    if params.get("epochs"):
        text += f", {params['epochs']} epochs"
        text += f" (paper: {paper_epochs})" if paper_epochs else ""
    return text


def _legend(artefact: Artefact, has_published: bool, lines: list[Line]) -> str:
    """Return what the signs of a table mean, for the signs it has."""
    shown = [cell for line in lines for cell in line.cells]
    parts = ["In percent." if artefact.scale == "percent" else "Fractions of 1."]
    if not has_published:
        parts.append("There is no published number to compare with.")
    if any(cell.rank for cell in shown):
        which = "published" if has_published else "shown"
        parts.append(f"Bold: best, underlined: second best of the {which} numbers.")
    if any("±" in cell.text for line in lines if line.kind != "published" for cell in line.cells):
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


# --- rendering -------------------------------------------------------------------------------------------------

TEX_SIGNS = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "−": "$-$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}


def tex_escape(text: str) -> str:
    """Return text that LaTeX prints as it is; signs outside ASCII that have no plain form become `?`."""
    plain = text.translate(str.maketrans({"–": "--", "—": "---", "“": "``", "”": "''", "’": "'"}))
    return "".join(TEX_SIGNS.get(sign, sign if sign.isascii() else "?") for sign in plain)


def markdown_escape(text: str) -> str:
    """Return text without Markdown meaning inside a table cell."""
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", text.replace("\n", " "))


TEX_DELIMITERS = {
    "block_start_string": "<%",
    "block_end_string": "%>",
    "variable_start_string": "<<",
    "variable_end_string": ">>",
    "comment_start_string": "<#",
    "comment_end_string": "#>",
}


def environment(delimiters: dict[str, str] | None = None) -> jinja2.Environment:
    """Return the templates; HTML is escaped automatically. LaTeX needs other delimiters than braces."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=lambda name: bool(name) and ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **(delimiters or {}),
    )
    env.filters.update(tex=tex_escape, md=markdown_escape)
    return env


def render(artefact: Artefact, frame: pd.DataFrame, plan: dict[str, Any], link: str = "") -> dict[str, str]:
    """Return the text of one table in every one of `FORMATS`.

    Parameters
    ----------
    artefact, frame, plan
        As for `build`.
    link
        Page that holds the run sections, put before the `#` of links in the HTML fragment.
    """
    context = {**build(artefact, frame, plan), "link": link}
    texts = {
        "md": environment().get_template("table.md.j2").render(context),
        "tex": environment(TEX_DELIMITERS).get_template("table.tex.j2").render(context),
        "html": environment().get_template("table.html.j2").render(context),
    }
    mine = frame[(frame["paper"] == artefact.paper) & (frame["artefact"] == artefact.name)]
    return {**texts, "csv": cells_text(mine)}


def write_tables(
    artefacts: Sequence[Artefact], frame: pd.DataFrame, plan: dict[str, Any], folder: Path | str
) -> list[Path]:
    """Write `<folder>/<paper>/<artefact>.{md,tex,html,csv}` for every table and return the paths."""
    written = []
    for artefact in artefacts:
        if artefact.kind != "table":
            continue
        for kind, text in render(artefact, frame, plan, link="../../report/index.html").items():
            path = Path(folder) / artefact.paper / f"{artefact.name}.{kind}"
            atomic_write_text(path, text)
            written.append(path)
    return written
