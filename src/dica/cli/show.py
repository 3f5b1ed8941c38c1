"""`dica show`: a table or figure that lies on disk, without a plan of what it rests on: an answer at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dica.cli import completion
from dica.cli.audit import number, scaled, spread
from dica.cli.runs import ARCHIVE, AsJson, Profile, console
from dica.files import UserError, project_root, read_csv
from dica.validation import hint, load_yaml

SHOWN = (  # columns of cells.csv
    *("paper", "artefact", "row", "column", "metric", "value", "spread", "statistic", "n", "seeds_planned", "runs"),
    *("published", "verdict"),
)


def show(
    paper: Annotated[str, typer.Argument(help="Paper, such as drc.", autocompletion=completion.papers)],
    artefact: Annotated[str, typer.Argument(help="Table or figure.", autocompletion=completion.artefacts)],
    profile: Profile = ARCHIVE,
    as_json: AsJson = False,
) -> None:
    """Print a table, our numbers beside the published ones, or what a figure shows in words."""
    root = project_root()
    rows = [row for row in _cells(root, profile) if (row["paper"], row["artefact"]) == (paper, artefact)]
    if not rows:
        _show_other(root, profile, f"{paper} {artefact}", as_json)
    elif as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        _show_table(root, profile, rows)


def _cells(root: Path, profile: Path) -> list[dict[str, str]]:
    """Return the rows of the profile's cells.csv; nothing if something is wrong, which the full reader then says."""
    try:
        body = load_yaml(root / profile)
        return read_csv(root / body["results"] / "tables" / "cells.csv", SHOWN)
    except (UserError, KeyError, TypeError):
        return []


def _show_other(root: Path, profile: Path, address: str, as_json: bool) -> None:
    """Show a figure, or say what is wrong with the name or with the table of cells."""
    from dica.audit.auditor import Auditor

    auditor = Auditor(root, profile.as_posix())
    figures = {known.address: known for known in auditor.declared if known.kind == "figure"}
    if address.startswith(("dica statistics/", "claim ")):
        raise UserError(f"{address}: no table or figure; what it rests on: dica audit {address}")
    if address not in figures:
        known = sorted({f"{row['paper']} {row['artefact']}" for row in auditor.cells} | figures.keys())
        raise UserError(f"no table or figure {address}; {hint(address, known)}")
    _show_figure(auditor, figures[address], as_json)


def _show_figure(auditor, artefact, as_json: bool) -> None:
    from dica.plan.planned import has_something
    from dica.tables.drawn import read_words

    if not has_something(artefact, auditor.plan, auditor.root):
        raise UserError(
            f"{artefact.address}: not run; what it would cost: dica estimate {artefact.paper}/{artefact.name}"
        )
    folder = f"{auditor.results}/figures/{artefact.paper}"
    path = f"{folder}/{artefact.name}.svg"
    known = read_words(auditor.root / path)
    found = {
        "figure": artefact.address,
        "title": artefact.title,
        "words": known.words,
        "runs": known.runs,
        "file": path,
    }
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    console.print(f"[bold]{escape(artefact.address)}[/]  {escape(artefact.title)}\n{escape(known.words)}")
    console.print(f"[dim]{escape(path)}; of the runs {escape(' '.join(known.runs) or 'none')}[/]")


def _show_table(root: Path, profile: Path, rows: list[dict]) -> None:
    from dica.plan.published import PLAIN, decimals

    paper, artefact = rows[0]["paper"], rows[0]["artefact"]
    percent = _scale(root, paper, artefact) == "percent"
    table = Table(title=_heading(root, profile, rows[0]) + (", in percent" if percent else ""), title_justify="left")
    for heading in ("cell", "ours", "runs", "published", "verdict"):
        right = heading in ("ours", "runs", "published")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in rows:
        factor, shift = (100, 2) if percent and row["metric"] not in PLAIN else (1, 0)
        ours = number(row, "value", factor, 3 - shift) if row["value"] else "–"
        ours += spread(row, factor, 3 - shift)
        runs = (
            row["n"] if row["n"] == row["seeds_planned"] or not row["runs"] else f"{row['n']} of {row['seeds_planned']}"
        )
        printed = row["published"] and scaled(row["published"], factor, max(decimals(row["published"]) - shift, 0))
        cell = f"{row['row']}/{row['column']}/{row['metric']}"
        table.add_row(*map(escape, (cell, ours, runs, printed or "–", row["verdict"])))
    console.print(table)


def _heading(root: Path, profile: Path, row: dict) -> str:
    """Return what the table is called, as its printed form has it: at a lower rung that is said there."""
    address = f"{row['paper']} {row['artefact']}"
    printed = root / load_yaml(root / profile)["results"] / "tables" / row["paper"] / f"{row['artefact']}.md"
    first = printed.read_text(encoding="utf-8", errors="replace").partition("\n")[0] if printed.is_file() else ""
    return first.lstrip("# ") or address


def _scale(root: Path, paper: str, artefact: str) -> str:
    """Return the scale that a table declares; a fraction where it is declared no longer."""
    path = root / "params" / "artefacts" / f"{paper}.yaml"
    try:
        return load_yaml(path)["artefacts"].get(artefact, {}).get("scale", "fraction") if path.is_file() else "fraction"
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"{path}: artefacts: is no mapping of tables and figures") from None
