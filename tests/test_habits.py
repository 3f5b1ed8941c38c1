"""Version, citation, changelog and hooks agree; examples in docstrings run; README stays readable."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest
import torch
import yaml

import dica
from dica import losses

LOSSES = [f"losses.{name}" for _, name, _ in pkgutil.iter_modules(losses.__path__)]


def test_the_version_is_told_once(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "dica.__version__"}
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert citation["version"] == dica.__version__
    released = re.search(rf"^## {re.escape(dica.__version__)} \((\S+)\)$", (root / "CHANGELOG.md").read_text(), re.M)
    assert released
    assert str(citation["date-released"]) == released[1]


def test_hooks_and_lint_run_the_same_programs(root: Path) -> None:
    hooks = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lint = (root / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    for hook in hooks:
        assert hook["entry"].removeprefix(".venv/bin/") in lint, hook["id"]


@pytest.mark.parametrize("name", ["scores.metrics", *LOSSES])
def test_examples_in_docstrings_run(name: str) -> None:
    module = importlib.import_module(f"dica.{name}")
    failed, tried = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE, extraglobs={"torch": torch})
    assert (failed, tried > 0) == (0, True)


def test_every_helper_of_the_tests_is_on_their_page(root: Path) -> None:
    page = (root / "tests/support/README.md").read_text()
    helpers = {path.stem for path in (root / "tests/support").glob("*.py")}
    assert set(re.findall(r"^\|[^|]*\| `(\w+)` \|", page, re.M)) == helpers


def test_lines_of_the_readme_fit_a_screen(root: Path) -> None:
    text = (root / "README.md").read_text()
    written = re.sub(r"<!-- begin: (\S+) -->.*?<!-- end: \1 -->", "", text, flags=re.DOTALL)
    assert [line for line in written.splitlines() if len(line) >= 120] == []


def test_the_first_screen_of_the_readme_has_result_and_command(root: Path) -> None:
    first = (root / "README.md").read_text().split("\n")[:30]
    assert any("make demo" in line for line in first)
    assert any("0.9" in line for line in first)


def test_a_target_after_configfile_is_set_apart(root: Path) -> None:
    """`--configfile` takes several files: a target that follows without `--` would be read as one more."""
    texts = {
        path.name: path.read_text() for path in [root / "README.md", *root.glob("docs/*.md"), root / "CONTRIBUTING.md"]
    }
    for name, text in texts.items():
        flat = re.sub(r"\s+", " ", text)
        for command in re.findall(r"--configfile \S+ ([^`-]\S*)", flat):
            pytest.fail(f"{name}: --configfile … {command}: put -- in between")
