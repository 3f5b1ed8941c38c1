"""A page of docs/ as a page of the report, so that whoever reads numbers there finds what they mean."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup

from dica.files import read_bytes

TABLE = '<div class="scroll" tabindex="0" role="region" aria-label="Table"><table class="plain">'


def context(path: Path, known: Collection[str]) -> dict[str, str]:
    """Return heading and body of a Markdown page, its links to tables leading to those that the report shows.

    Parameters
    ----------
    known
        Addresses of the artefacts in the report.

    Raises
    ------
    UserError
        If there is no such page.
    """
    text = re.sub(r"<!--.*?-->\n?", "", read_bytes(path).decode("utf-8"))
    heading, _, rest = text.removeprefix("# ").partition("\n")

    def link(match: re.Match) -> str:
        words, paper, name = match.groups()
        return f"[{words}]({paper}.html#{paper}-{name})" if f"{paper} {name}" in known else words

    rest = re.sub(r"\[([^\]]+)\]\(\.\./results/tables/([\w-]+)/([\w-]+)\.md\)", link, rest)
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(rest)
    body = body.replace("<table>", TABLE).replace("</table>", "</table></div>").replace("<th ", '<th scope="col" ')
    return {"heading": heading.strip(), "body": Markup(body)}
