"""The documentation site: its pages say what the archive's own files say, and every command on it is one."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from snakemake.cli import get_argument_parser

import browser
import validators
from dica.cli.__main__ import app
from dica.plan.parameters import load_method, method_names
from dica.report import glossary
from dica.report.reference import comments, losses_of, source_of

DICA = typer.main.get_command(app)


@pytest.fixture(scope="module")
def pages(root: Path) -> dict[str, str]:
    return runpy.run_path(str(root / "workflow/scripts/documentation.py"))["pages"](root)


def commands(pages: dict[str, str]) -> Iterator[list[str]]:
    """Yield the words of every command that a page tells a reader to type."""
    for name, text in pages.items():
        if name == "commands.md":
            continue  # made of the parsers
        lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
        spans = re.findall(r"`((?:dica|make|snakemake|python) [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        for line in (*lines, *(" ".join(span.split()) for span in spans)):
            words = shlex.split(line, comments=True)
            while words and "=" in words[0]:  # settings of the environment
                words = words[1:]
            if words:
                yield words


def leaves(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    below = getattr(command, "commands", {})
    for name, inner in below.items():
        yield from leaves(inner, (*words, name))
    if not below:
        yield words, command


def test_a_method_has_a_page_with_paper_equations_and_every_key_with_its_source(pages, root: Path) -> None:
    for name in method_names(root):
        body, page = load_method(name, root), pages[f"methods/{name}.md"]
        assert page.startswith(f"# {body['title']}\n")
        for key in body["defaults"]:
            assert f"| `{key}` | " in page, (name, key)
        for loss in losses_of(source_of(name, root)):
            assert f"`{loss}`" in page
    page = pages["methods/imc-swav.md"]
    assert "Ntelemis, Jin and Thomas" in page
    assert "detached embedding maximises the mutual information of clusters and prototypes (Eq. 6)" in page
    assert "| `beta` | `4.0` | Weight of the cluster entropy, Eq. 6. | Eq. 6 |" in page
    assert "{py:func}`dica.losses.imc_swav.imc_swav_loss`" in page
    assert "detached" in page
    assert "number of classes" in page


def test_a_comment_belongs_to_the_key_that_it_stands_at() -> None:
    text = "defaults:\n  a: 1  # of a\n  # of b\n  b:\n    c: 2  # of c\n  d: 3\n  # of the next\n\ndatasets: {}\n"
    assert comments(text) == {"a": "of a", "b": "of b; of c"}


def test_every_command_is_listed_with_every_option(pages) -> None:
    for words, command in leaves(DICA):
        section = re.search(rf"^#+ dica {' '.join(words)}\n(.*?)(?=^#|\Z)", pages["commands.md"], re.M | re.S)
        assert section, words
        for parameter in command.params:
            name = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.name.upper()
            assert name in section[1], (words, name)
    for door in ("python -m dica.train", "python -m dica.data"):
        assert f"## {door}\n" in pages["commands.md"]
    assert "--save-seconds" in pages["commands.md"]


def test_every_command_on_the_site_is_understood_and_one_that_tests_run(pages, root: Path) -> None:
    """Parsed by the parser that would read it; nothing runs here, the tests that are asked for do."""
    targets = re.findall(r"^(\w+):", (root / "Makefile").read_text(), re.MULTILINE)
    tests = "".join(
        path.read_text()
        for room in ("cli", "workflow", "own", "audit", "data")
        for path in (root / "tests" / room).glob("*.py")
    )
    snakemake, seen, untested = get_argument_parser(), set(), []
    for words in commands(pages):
        program, *given = [word for word in words if word != "…"]
        seen.add(program)
        if program == "make":
            assert given[0] in targets, words
        elif program == "snakemake":
            snakemake.parse_args(given)
        elif program == "python":
            module = f"src/{given[1].replace('.', '/')}" if given[0] == "-m" else given[0]
            there = [root / name for name in (module, f"{module}.py", f"{module}/__main__.py")]
            assert any(path.is_file() for path in there) or given[1] == "pytest", words
        elif program == "dica" and not given[0].startswith("--"):
            command, name = DICA, ""
            while given and given[0] in getattr(command, "commands", {}):
                name, *given = given
                command = command.commands[name]
            assert not hasattr(command, "commands") or not given, words
            if given and given[-1].startswith("--"):  # the option is named, not used
                assert any(given[-1] in parameter.opts for parameter in command.params), words
            elif given:
                command.make_context(name, list(given))
            if not re.search(rf"\"{name}\"|\b{name}\(", tests):
                untested.append(" ".join(words))
        else:
            assert program in ("dica", "dvc", "pip", "export"), words
    assert not untested, "no test runs these"
    assert {"dica", "make", "snakemake", "dvc", "python"} <= seen


def test_the_words_for_verdicts_are_those_of_the_report(pages) -> None:
    for mark, meaning in {**glossary.VERDICTS, **glossary.LOSS_PARTS}.items():
        assert mark in pages["verdicts.md"]
        assert meaning in pages["verdicts.md"]


def test_a_link_leads_to_a_page_of_the_site(pages) -> None:
    for name, text in pages.items():
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)):
            assert target.startswith("http") or target in pages, (name, target)


@pytest.mark.validators
def test_sphinx_builds_the_site_without_a_warning(pages, root: Path, tmp_path: Path) -> None:
    source, built = tmp_path / "source", tmp_path / "html"
    runpy.run_path(str(root / "workflow/scripts/documentation.py"))["write"](source, root)
    validators.run("sphinx", "sphinx-build", "-W", "--keep-going", "-q", source, built, folder=root / ".venv-site")
    validators.note(
        "sphinx", "the documentation site, without a warning", True, validators.version("Sphinx", "site.lock")
    )
    if browser.CHROMIUM:
        names = ["index.html", "methods/tcc.html", "commands.html", "numbers.html"]
        for width in (390, 1280):
            found, errors = browser.browse(built, names, width=width)
            assert not errors
            assert all(found[page]["overflow"] <= 0 for page in names), found
