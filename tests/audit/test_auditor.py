"""The audit: a project that matches in everything, and how cells and printed tables are made to lie."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import factory
from committed import CELL, audit, build_tables, edit_cells, run_folder, said, worst
from dica.audit.auditor import Auditor
from dica.files import IntegrityError, UserError, sha256_file
from dica.plan import planned


def test_what_is_as_committed_matches(project: Path) -> None:
    auditor = Auditor(project)
    result = auditor.audit(auditor.find(*CELL))
    assert (result.code, said(result)) == (0, "")
    holds = said(result, True)
    for expected in ("value", "spread", "parameters", "cells.csv", "labels", "printed table", "git", "identity",
                     "metrics.json", "acc", "predictions.npz", "weights.safetensors", "code"):  # fmt: skip
        assert f"{expected}: " in holds, expected
    json.dumps(result.as_dict())
    assert all(auditor.audit(row).code == (0 if row["runs"] or not row["method"] else 4) for row in auditor.all_rows())


def test_nothing_is_written(project: Path) -> None:
    def state() -> dict:
        return {path: path.stat().st_mtime_ns for path in project.rglob("*")}

    before = state()
    audit(project)
    assert state() == before


def test_each_file_is_hashed_once_and_git_asked_once_for_all_cells(project: Path, monkeypatch) -> None:
    from dica.audit import checkout as module

    hashed, asked, run = [], [], subprocess.run
    monkeypatch.setattr(module, "sha256_file", lambda path: hashed.append(path) or sha256_file(path))
    monkeypatch.setattr(subprocess, "run", lambda command, **o: asked.append(command) or run(command, **o))
    auditor = Auditor(project)
    assert len([auditor.audit(row) for row in auditor.all_rows()]) > 6
    assert len(hashed) == len(set(hashed))
    assert len([command for command in asked if "status" in command]) == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("published", "0.99"),
        ("verdict", "agrees"),
        ("reason", "close enough"),
        ("method", ""),
        ("best", "0.99"),
        ("n", "7"),
        ("value", "0.99"),
        ("value", ""),
        ("value", "much"),
        ("statistic", "best"),
        ("spread", ""),
        ("label", "Ours"),
        ("seeds_planned", "1"),
        ("runs", ""),
    ],
)
def test_a_changed_column_is_named(bare: Path, column: str, value: str) -> None:
    edit_cells(bare, lambda row, rows: row.update({column: value}))
    result = audit(bare)
    assert result.code == 3
    assert f"{column}: stored {value!r}, rebuilt " in said(result)


def test_a_row_made_to_say_published_only_or_not_run_is_noticed(bare: Path) -> None:
    lies = {"method": "", "runs": "", "value": "0.99", "n": "0", "verdict": "published only"}
    edit_cells(bare, lambda row, rows: row.update(lies))
    result = audit(bare)
    assert result.code == 3
    assert len(result.runs) == 2, "the runs that belong to the cell are audited all the same"
    lies = {"runs": "", "value": "", "spread": "", "best": "", "n": "0", "verdict": "not run", "method": "drc"}
    edit_cells(bare, lambda row, rows: row.update(lies))
    assert audit(bare).code == 3


def test_a_row_that_points_to_another_methods_runs_is_noticed(bare: Path) -> None:
    def swap(row: dict, rows: list) -> None:
        other = next(r for r in rows if (r["row"], r["dataset"], r["metric"]) == ("kmeans", "digits", "acc"))
        row.update({name: other[name] for name in ("runs", "value", "spread", "best")})

    edit_cells(bare, swap)
    result = audit(bare)
    assert result.code == 3
    assert "cells.csv: value: stored" in said(result)
    assert "; runs: stored" in said(result)


def test_dropped_doubled_and_invented_rows_are_noticed(bare: Path) -> None:
    edit_cells(bare, lambda row, rows: rows.remove(row))
    assert "has this cell 0 times" in said(audit(bare))
    assert worst(bare) == 3
    edit_cells(bare, lambda row, rows: rows.append(dict(row)), "drc/digits/nmi")
    assert "has this cell 2 times" in said(audit(bare, "drc/digits/nmi"))
    edit_cells(bare, lambda row, rows: rows.append({**row, "row": "better"}), "kmeans/digits/acc")
    assert "declares no such cell" in said(audit(bare, "better/digits/acc"))


def test_a_copied_number_is_checked_against_params(bare: Path) -> None:
    place, cell = ("drc", "table-1"), None
    auditor = Auditor(bare)
    cell = next(row for row in auditor.cells if not row["method"] and row["published"])
    address = f"{cell['row']}/{cell['dataset']}/{cell['metric']}"
    assert audit(bare, address, place).code == 0
    path = bare / "results/tables/cells.csv"
    text = path.read_text()
    line = next(line for line in text.splitlines() if f",{cell['row']}," in line and f",{cell['metric']}," in line
                and f",{cell['dataset']}," in line)  # fmt: skip
    path.write_text(text.replace(line, line.replace(f",{cell['published']},", ",0.999,")))
    assert "published: stored '0.999'" in said(audit(bare, address, place))


@pytest.mark.parametrize("kind", ["md", "tex", "html", "csv"])
def test_a_changed_printed_table_is_noticed(bare: Path, kind: str) -> None:
    path = bare / f"results/tables/dica/table-1.{kind}"
    path.write_text(path.read_text().replace("0.8", "0.9"))
    result = audit(bare)
    assert result.code == 3
    assert f"printed table: table-1.{kind} differs" in said(result)
    path.unlink()
    assert (audit(bare).code, "snakemake --cores all light" in said(audit(bare))) == (4, True)


def test_why_a_run_is_absent_need_not_be_in_git(bare: Path) -> None:
    """A fresh clone has no state folder: the verdict `failed` and the printed table stand as they are."""
    plan = planned.load_plan(bare / "results/plan.json")
    state = next(run for run in plan["runs"] if run["dataset"] == "cifar10")
    factory.write_failure(bare, state, "loss is not finite")
    shutil.rmtree(run_folder(bare, "kmeans", 1))
    factory.write_failure(
        bare, next(run for run in factory.select(plan, "kmeans", "digits") if run["seed"] == 1), "bad"
    )
    build_tables(bare)
    shutil.rmtree(bare / "results/state")
    result = audit(bare, f"{state['method']}/cifar10/acc", ("drc", "table-1"))
    assert (result.code, "failed: loss is not finite" in said(result)) == (4, True)
    result = audit(bare, "kmeans/digits/acc")
    assert result.code == 4, "its row says so, and yet a planned seed is not there"
    assert said(result).startswith("seeds: 1 of 2 planned seeds are there, without results/runs/kmeans/digits/s1-")


def test_a_cell_list_of_another_form_is_refused(bare: Path) -> None:
    path = bare / "results/tables/cells.csv"
    path.write_text(path.read_text().replace("verdict", "judgement", 1))
    with pytest.raises(IntegrityError, match="other columns"):
        Auditor(bare)
    path.unlink()
    with pytest.raises(UserError, match="snakemake --cores all light"):
        Auditor(bare)
