"""Tables as Markdown, LaTeX, HTML and CSV, from the templates beside this file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from dica.files import atomic_write_text
from dica.plan.artefacts import Artefact
from dica.tables.cells import cells_text
from dica.tables.layout import build

FORMATS = ("md", "tex", "html", "csv")
REPORT = "../../report/"  # where the report's pages lie, seen from a printed table

TEX_PLAIN = {"–": "--", "—": "---", "“": "``", "”": "''", "’": "'"}
TEX_SIGNS = {
    "\\": r"\textbackslash{}",
    "Π": r"$\Pi$",
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
    plain = "".join(TEX_PLAIN.get(sign, sign) for sign in text)
    return "".join(TEX_SIGNS.get(sign, sign if sign.isascii() else "?") for sign in plain)


def markdown_escape(text: str) -> str:
    """Return text without Markdown meaning inside a table cell."""
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", text.replace("\n", " "))


CODE = re.compile(r"`([^`]+)`")  # in a note: what a reader may type


def html_prose(text: str) -> Markup:
    """Return a note as HTML."""
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(text))))


def tex_prose(text: str) -> str:
    """Return a note as LaTeX."""
    return CODE.sub(r"\\texttt{\1}", tex_escape(text))


def markdown_prose(text: str) -> str:
    """Return a note as Markdown; code needs no escapes there."""
    parts = CODE.split(text)
    return "".join(f"`{part}`" if k % 2 else markdown_escape(part) for k, part in enumerate(parts))


TEX_DELIMITERS = {
    "block_start_string": "<%",
    "block_end_string": "%>",
    "variable_start_string": "<<",
    "variable_end_string": ">>",
    "comment_start_string": "<#",
    "comment_end_string": "#>",
}


@cache
def environment(tex: bool = False) -> jinja2.Environment:
    """Return the templates; HTML is escaped automatically. LaTeX (`tex`) needs other delimiters than braces."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=lambda name: bool(name) and ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **(TEX_DELIMITERS if tex else {}),
    )
    env.filters.update(tex=tex_escape, md=markdown_escape)
    env.filters.update(tex_prose=tex_prose, md_prose=markdown_prose, html_prose=html_prose)
    return env


def render(artefact: Artefact, frame: pd.DataFrame, plan: dict[str, Any], link: str = "") -> dict[str, str]:
    """Return the text of one table in every one of `FORMATS`.

    Parameters
    ----------
    artefact, frame, plan
        As for `build`.
    link
        Folder of the report's pages, put before the links of the HTML fragment.
    """
    context = {**build(artefact, frame, plan), "link": link}
    texts = {
        "md": environment().get_template("table.md.j2").render(context),
        "tex": environment(tex=True).get_template("table.tex.j2").render(context),
        "html": environment().get_template("table.html.j2").render(context),
    }
    mine = frame[(frame["paper"] == artefact.paper) & (frame["artefact"] == artefact.name)]
    return {**texts, "csv": cells_text(mine)}


def printed(artefact: Artefact, frame: pd.DataFrame, plan: dict[str, Any]) -> dict[str, str]:
    """Return the text of each file of a table: as `render`, its HTML a page of its own that leads to the report."""
    texts = render(artefact, frame, plan, link=REPORT)
    page = environment().get_template("table_page.html.j2")
    return {**texts, "html": page.render(artefact=artefact, table=Markup(texts["html"]))}


def write_tables(
    artefacts: Sequence[Artefact], frame: pd.DataFrame, plan: dict[str, Any], folder: Path | str
) -> list[Path]:
    """Write `<folder>/<paper>/<artefact>.{md,tex,html,csv}` of every table with a number in it; return the paths."""
    written = []
    for artefact in artefacts:
        mine = frame[(frame["paper"] == artefact.paper) & (frame["artefact"] == artefact.name)]
        empty = not ((mine["n"] > 0) | (mine["published"] != "") | (mine["method"] == "")).any()
        if artefact.kind != "table" or not artefact.regenerated or empty:
            continue
        for kind, text in printed(artefact, frame, plan).items():
            path = Path(folder) / artefact.paper / f"{artefact.name}.{kind}"
            atomic_write_text(path, text)
            written.append(path)
    return written
