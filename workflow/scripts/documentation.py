"""Write the sources of the documentation site: python workflow/scripts/documentation.py FOLDER

Pages of docs/, sections of README.md, and what is generated from parameter files, schemas, docstrings and parsers.
`make site` makes pages of them by Sphinx, without network.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import typer

from dica.cli.__main__ import app
from dica.data.__main__ import command_line as data_command_line
from dica.files import UserError, atomic_write_text, project_root
from dica.report import glossary, reference
from dica.scores.stats import RULE
from dica.scripting import run_script

PAGES = {  # page of the site: file of the archive, and the heading of the section that is meant
    "own-images": ("docs/own-images.md", None),
    "add-a-method": ("CONTRIBUTING.md", None),
    "audit-a-cell": ("README.md", "Auditing a cell"),
    "run": ("README.md", "How to use it"),
    "cluster": ("docs/cluster.md", None),
    "numbers": ("docs/numbers.md", None),
    "engine": ("docs/engine.md", None),
    "performance": ("docs/performance.md", None),
    "reliability": ("docs/reliability.md", None),
    "validators": ("docs/validators.md", None),
}
IMAGES = ("docs/contact-sheet.png",)


def section(text: str, heading: str, where: str) -> str:
    """Return a section of a page as a page of its own.

    Raises
    ------
    UserError
        If there is no such heading.
    """
    found = re.search(rf"^## ({re.escape(heading)}\n.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if not found:
        raise UserError(f"{where}: no section {heading!r}, which the site shows")
    return f"# {found[1].strip()}\n"


def linked(text: str, file: str, root: Path) -> str:
    """Return a page whose links lead to pages of the site; what the site has not is named by its path."""
    pages = {body: f"{name}.md" for name, (body, heading) in PAGES.items() if heading is None}

    def one(match: re.Match) -> str:
        words, target = match[1], match[2]
        if target.startswith(("http", "#")):
            return match[0]
        path = (root / file).parent.joinpath(target).resolve().relative_to(root).as_posix()
        if path in pages:
            return f"[{words}]({pages[path]})"
        return words if words == path else f"{words} (`{path}`)"

    text = re.sub(r"!\[[^\]]*\]\([^)]*\)\n*", "", text)  # pictures of results: the report has them
    text = re.sub(r"```mermaid\n.*?```\n*", "", text, flags=re.DOTALL)  # the report has the graph, drawn
    text = re.sub(r"<!--.*?-->\n?", "", text)
    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", one, text)


def verdicts_page() -> str:
    """Return the page that says what the words beside numbers mean, with the words of tables and report."""
    rows = "\n".join(f"| {mark} | {meaning} |" for mark, meaning in glossary.VERDICTS.items())
    losses = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in glossary.LOSS_PARTS.items())
    return (
        f"# What the verdicts mean\n\n{RULE}\n\n| beside a number | meaning |\n|:--|:--|\n{rows}\n\n"
        f"## Curves of a run\n\n| column of history.csv | meaning |\n|:--|:--|\n{losses}\n"
    )


def pages(root: Path) -> dict[str, str]:
    """Return the text of every page by its path below the site's sources."""
    found = {}
    for name, (file, heading) in PAGES.items():
        text = (root / file).read_text(encoding="utf-8")
        found[f"{name}.md"] = linked(section(text, heading, file) if heading else text, file, root)
    found["verdicts.md"] = verdicts_page()
    methods = reference.methods_pages(root)
    found |= {f"methods/{name}.md": linked(text, f"params/{name}.yaml", root) for name, text in methods.items()}
    listed = "\n".join(methods)
    found["methods/index.md"] = (
        "# Methods\n\nWhat each paper says, the equations, where we differ, and every key with its source.\n\n"
        f"```{{toctree}}\n{listed}\n```\n"
    )
    found["commands.md"] = commands_page()
    return found


def commands_page() -> str:
    """Return the page of all commands."""
    from dica.train import command_line as train_command_line  # torch: only this page needs it

    doors = [reference.door_page(parser()) for parser in (train_command_line, data_command_line)]
    return "\n".join(["# Commands\n", reference.command_page(typer.main.get_command(app)), *doors])


def write(folder: Path, root: Path) -> None:
    """Write all that Sphinx reads; what was in the folder is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in pages(root).items():
        atomic_write_text(folder / name, text)
    for file in (*sorted((root / "docs/site").iterdir()), *(root / name for name in IMAGES)):
        shutil.copy(file, folder)
    (folder / "dica").symlink_to(root / "src/dica")  # the settings read it there


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    return run_script(lambda: write(folder, project_root()))


if __name__ == "__main__":
    raise SystemExit(main())
