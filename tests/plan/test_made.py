"""What is up to date by content: tables, figures and pages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import committed
from dica.files import write_json
from dica.plan.made import Made
from dica.plan.planned import load_plan

TABLE, OTHER, CELLS = ("table", "dica", "table-1"), ("table", "drc", "table-1"), ("cells",)


@pytest.fixture(scope="module")
def archive(root: Path, tmp_path_factory) -> Path:
    return committed.make_archive(tmp_path_factory.mktemp("archive"), root)


@pytest.fixture
def project(archive: Path, tmp_path: Path) -> Path:
    committed.shutil.copytree(archive, tmp_path / "project")
    for target in (TABLE, OTHER, CELLS):
        made(tmp_path / "project").record(target, tmp_path / "project/results")
    return tmp_path / "project"


def made(project: Path) -> Made:
    return Made(load_plan(project / "results/plan.json"), project, "results")


def current(project: Path) -> list[bool]:
    return [made(project).is_current(target) for target in (TABLE, OTHER, CELLS)]


def test_new_file_times_change_nothing(project: Path) -> None:
    for path in project.rglob("*.*"):
        os.utime(path, (1, 1))
    assert current(project) == [True, True, True]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("params/published/results.csv", [False, False, False]),
        ("params/datasets.yaml", [False, False, False]),
        ("params/artefacts/dica.yaml", [False, True, False]),
        ("results/tables/dica/table-1.tex", [False, True, True]),
        ("results/tables/cells.csv", [True, True, False]),
        ("results/made/cells.json", [True, True, False]),
    ],
)
def test_what_is_made_of_a_changed_file_is_not_current(file: str, expected: list[bool], project: Path) -> None:
    (project / file).write_bytes((project / file).read_bytes() + b" \n#")
    assert current(project) == expected


@pytest.mark.parametrize("name", ["metrics.json", "history.csv", "run.json"])
@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_text("changed")])
def test_a_run_that_changes_or_goes_is_seen_where_it_is_shown(name: str, change, project: Path) -> None:
    change(committed.run_folder(project) / name)
    assert current(project) == [False, True, False]


def test_the_reason_of_a_failed_run_is_seen(project: Path) -> None:
    run = next(run for run in load_plan(project / "results/plan.json")["runs"] if run["dataset"] == "cifar10")
    write_json(project / "results/state" / run["id"] / "failed.json", {"reason": "not finite"})
    assert current(project) == [True, False, False]


def test_what_is_written_elsewhere_is_not_taken_for_the_results(project: Path, tmp_path: Path) -> None:
    (project / "params/published/results.csv").write_text("")
    made(project).record(TABLE, tmp_path / "elsewhere")
    assert current(project)[0] is False
    made(project).record(TABLE, project / "results/tables")
    assert current(project)[0] is True
