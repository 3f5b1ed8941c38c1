"""The command `dica`: what it prints and the codes it ends with."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from committed import CELL, edit_cells, edit_yaml, make_archive, run_folder
from dica.cli import __main__ as cli
from dica.cli import progress
from dica.plan import planned
from dica.plan.parameters import load_profile
from dica.plan.plan import make_plan
from dica.tables import cells as tables


@pytest.fixture(scope="module")
def archive(tmp_path_factory, root: Path) -> Path:
    return make_archive(tmp_path_factory.mktemp("cli") / "project", root)


@pytest.fixture
def dica(archive: Path, tmp_path: Path, monkeypatch, capsys):
    """Call the command in a copy of the archive; returns its exit code and what it printed."""
    project = Path(shutil.copytree(archive, tmp_path / "project"))
    monkeypatch.chdir(project)

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["dica", *arguments])
        monkeypatch.setattr(cli.console, "width", 200)
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out + captured.err

    return call


def test_one_cell_that_matches(dica) -> None:
    code, output = dica("audit", *CELL)
    assert code == 0
    for expected in ("matches", "recomputed", "the row is what params/ and the metrics give", "rebuild: mv results/"):
        assert expected in output
    assert json.loads(dica("audit", *CELL, "--json")[1])["code"] == 0


def test_an_audit_of_everything_says_how_far_it_is(dica, monkeypatch) -> None:
    monkeypatch.setattr(progress, "QUIET", -1.0)
    output = dica("audit", "--all")[1]
    for expected in (r"^0 of \d+ cells$", r"^1 of \d+ cells$", r"^7 of 8 statistics, report and the rest$"):
        assert re.search(expected, output, re.MULTILINE)


def test_all_cells_and_what_was_never_run(dica) -> None:
    code, output = dica("audit", "--all")
    assert code == 0
    assert "6 cells over 4 runs: 6 matches" in output
    assert "not run, and listed as not run" in output


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda row, rows: row.update(value="", runs=""), 3),
        (lambda row, rows: row.update(value="much"), 3),
        (lambda row, rows: row.update(method="", value="0.99", runs="", verdict="published only"), 3),
        (lambda row, rows: rows.remove(row), 3),
    ],
)
def test_a_false_row_is_noticed_by_both_ways_of_asking(dica, change, code: int) -> None:
    edit_cells(Path.cwd(), change)
    for arguments in (CELL, ("--all",)):
        found, output = dica("audit", *arguments)
        assert found == code, output
        assert "cells.csv" in output
    assert dica("show", *CELL[:2])[0] == 0


def test_an_empty_record_is_one_line_not_a_traceback(dica) -> None:
    (run_folder(Path.cwd()) / "run.json").write_text("{}")
    code, output = dica("audit", *CELL)
    assert code == 3
    assert "run.json: lacks id" in output
    assert dica("audit", "--all")[0] == 3


def test_usage_and_missing_tables(dica) -> None:
    assert dica("audit")[0] == 2
    code, output = dica("audit", "dica", "table-9", "a/b/c")
    assert (code, "there are: dica table-1, drc table-1" in output) == (2, True)
    shutil.rmtree("results/tables")
    code, output = dica("audit", *CELL)
    assert (code, "snakemake --cores all light" in output) == (2, True)


def test_a_table_is_shown_in_its_own_scale_and_without_a_plan(dica, monkeypatch) -> None:
    monkeypatch.setattr("dica.audit.auditor.Auditor", None)
    code, output = dica("show", "drc", "table-1")
    assert (code, "0.727" in output) == (0, True)
    edit_yaml(Path("params/artefacts/drc.yaml"), lambda body: body["artefacts"]["table-1"].update(scale="percent"))
    code, output = dica("show", "drc", "table-1")
    assert (code, "72.7" in output, "in percent" in output) == (0, True, True)
    edit_yaml(Path("params/artefacts/dica.yaml"), lambda body: body["artefacts"]["table-1"].update(scale="percent"))
    assert re.search(r"drc/digits/acc +│ \d\d\.\d ± \d\.\d ", dica("show", "dica", "table-1")[1])


def test_numbers_of_no_run_are_not_called_a_mean_of_runs(dica) -> None:
    """Counts, p values and layers are in the archive's own cells, too; times are never in percent."""
    shown = ["tcc table-1", "tcc table-6", "dccm table-4", "imc-swav table-4"]
    edit_yaml(Path("params/archive.yaml"), lambda body: body.update(artefacts=shown))
    root = Path.cwd()
    plan = make_plan(load_profile(root / "params/archive.yaml", root), root)
    declared = planned.artefacts_of(plan, root)
    tables.write_cells(tables.cells(plan, root, "results", declared), root / "results/tables/cells.csv")
    shown = dica("audit", "tcc", "table-1", "images/cifar10/train_images")[1]
    assert "train_images = 60000; published 60000; verdict: equal" in shown
    assert (
        "p_value = 0.0184; published 0.3213; verdict: differs" in dica("audit", "tcc", "table-6", "iic/mmdc/p_value")[1]
    )
    assert "layer: published 3x3 conv" in dica("audit", "dccm", "table-4", "layer-1/cifar10/layer")[1]
    assert re.search(r"imc-swav/cifar10/time_ratio +│ +– │ +0 │ +1.7 ", dica("show", "imc-swav", "table-4")[1])
