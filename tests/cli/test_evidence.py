"""`dica audit` of whole artefacts, `dica show` of figures, `dica trace`: answers name runs, parameters, commit."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from committed import CELL, CELL_DECLARED, draw_figures, edit_yaml, make_archive, run_folder
from dica.audit.uncelled import remake
from dica.cli import __main__ as cli
from dica.plan import planned
from dica.tables.drawn import read_words
from edits import git, light, remove_run

FIGURE = "results/figures/dica/figure-2.svg"


@pytest.fixture(scope="module")
def archive(tmp_path_factory, root: Path) -> Path:
    project = make_archive(tmp_path_factory.mktemp("evidence") / "project", root)
    shown = ["dica table-1", "drc table-1", "dica figure-2"]
    edit_yaml(project / "params/archive.yaml", lambda body: body.update(artefacts=shown))
    edit_yaml(project / CELL_DECLARED, lambda body: body["artefacts"]["figure-2"].update(seeds=2))
    light(project)
    draw_figures(project)
    remake(planned.load_plan(project / "results/plan.json"), project, "results", project / "results/tables")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "figures and statistics")
    return project


@pytest.fixture
def dica(archive: Path, monkeypatch, capsys):
    """Call the command in the archive; returns its exit code and what it printed."""
    monkeypatch.chdir(archive)

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["dica", *arguments])
        monkeypatch.setattr(cli.console, "width", 300)
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out + captured.err

    return call


def runs_of(archive: Path, methods: tuple[str, ...] = ("drc", "kmeans")) -> set[str]:
    return {run_folder(archive, name, seed).relative_to(archive).as_posix() for name in methods for seed in (0, 1)}


def test_a_table_a_figure_and_a_statistic_answer_like_a_cell(dica, archive: Path) -> None:
    for name in ("table-1", "figure-2", "statistics/pairs", "statistics/intervals", "consistency"):
        code, output = dica("audit", "dica", name, "--json")
        assert code == 0, (name, output)
        results = json.loads(output)
        found = {run["folder"] for result in results for run in result["runs"]}
        assert found <= runs_of(archive)
        assert len(found) >= 2, name
        assert dica("audit", "dica", name)[0] == 0
    code, output = dica("audit", "dica", "figure-9")
    assert (code, "did you mean dica figure-2" in output) == (2, True)


def test_an_unrun_cell_says_not_run(dica) -> None:
    code, output = dica("audit", "drc", "table-1", "drc/cifar10/acc")
    assert code == 4
    assert "WRONG" not in output
    assert "verdict of the audit: not run" in output


def test_a_figure_names_its_runs_in_both_files(archive: Path) -> None:
    named = read_words(archive / FIGURE).runs
    assert named
    assert {f"{Path(folder).name.split('-')[1]}" for folder in runs_of(archive)} >= set(named)
    assert f"runs {' '.join(named)}".encode() in (archive / FIGURE).with_suffix(".png").read_bytes()


def test_show_prints_a_figures_words(dica, archive: Path) -> None:
    known = read_words(archive / FIGURE)
    code, output = dica("show", "dica", "figure-2")
    assert (code, known.words in output) == (0, True)
    found = json.loads(dica("show", "dica", "figure-2", "--json")[1])
    assert (found["words"], found["runs"], found["file"]) == (known.words, list(known.runs), FIGURE)
    rows = json.loads(dica("show", *CELL[:2], "--json")[1])
    assert {row["artefact"] for row in rows} == {"table-1"}


@pytest.mark.parametrize(
    ("file", "rule", "params"),
    [
        ("results/tables/cells.csv", "cells", "params/"),
        ("results/tables/dica/table-1.md", "table", "params/artefacts/dica.yaml"),
        ("results/tables/drc/table-1.html", "table", "params/published/results.csv"),
        ("results/tables/statistics/pairs.csv", "statistics", ""),
        ("results/tables/consistency.csv", "consistency", "params/published/results.csv"),
        (FIGURE, "figure", "params/drc.yaml"),
        ("results/plan.json", "written whenever Snakemake reads the workflow", "params/"),
    ],
)
def test_trace_answers_for_a_file(file: str, rule: str, params: str, dica, archive: Path) -> None:
    code, output = dica("trace", file, "--json")
    assert code == 0, output
    found = json.loads(output)
    assert (found["rule"], found["file"], found["state"]) == (rule, file, "as committed")
    assert len(found["commit"]) == 40
    assert not params or params in found["params"]
    assert dica("trace", file)[0] == 0


def test_trace_of_a_runs_files_and_of_what_is_elsewhere(dica, archive: Path) -> None:
    folder = run_folder(archive).relative_to(archive)
    for name, rule in (("predictions.npz", "train"), ("metrics.json", "evaluate")):
        found = json.loads(dica("trace", f"{folder}/{name}", "--json")[1])
        assert (found["rule"], found["runs"]) == (rule, [folder.as_posix()])
        assert "params/drc.yaml" in found["params"]
    stray = archive / "results/stray.txt"
    stray.touch()
    found = json.loads(dica("trace", "results/stray.txt", "--json")[1])
    stray.unlink()
    assert (found["rule"], found["state"], found["commit"]) == ("is made by no rule", "not committed", "")
    assert dica("trace", "params/archive.yaml")[0] == 2
    assert dica("trace", "results/nothing")[0] == 2


def test_a_figure_with_a_run_less_than_planned_is_incomplete(archive: Path, tmp_path: Path, monkeypatch) -> None:
    from dica.audit.auditor import Auditor
    from dica.audit.uncelled import Uncelled

    root = Path(shutil.copytree(archive, tmp_path / "project"))
    remove_run(root, 1)
    light(root)
    draw_figures(root)
    result = Uncelled(Auditor(root)).audit("dica", "figure-2")
    assert result.code == 4
    assert any("planned runs are there" in finding.detail for finding in result.findings)
