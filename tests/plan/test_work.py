"""What the workflow's rules ask of the package: head and jobs, notes, and what is broken under results/."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from dica.files import UserError, read_json, write_json
from dica.plan import plan
from dica.plan.parameters import load_method
from dica.plan.work import Work

PROFILE = "params/demo.yaml"
RESULTS = "results/demo"


@pytest.fixture
def project(copied_params: Path, root: Path) -> Path:
    """Parameters and the digits' labels: a checkout in which nothing was run."""
    shutil.copytree(root / "data/labels", copied_params / "data/labels")
    return copied_params


def work(project: Path, in_job: bool = False) -> Work:
    return Work(project, project / PROFILE, in_job)


def noted(project: Path) -> Work:
    head = work(project)
    head.note()
    return head


def finish(project: Path, run: dict) -> Path:
    folder = project / run["path"]
    for name in ("config.json", "history.csv", "predictions.npz", "run.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def revise(project: Path) -> None:
    """Make every run of one method another run, as an edit between two starts of Snakemake does."""
    file = project / "params/drc.yaml"
    file.write_text(re.sub(r"^revision: .*$", "revision: 99", file.read_text(), flags=re.MULTILINE))
    for remembered in (load_method, plan._resolved):
        remembered.cache_clear()


def files(project: Path) -> dict[str, int]:
    found = (path for path in (project / "results").rglob("*") if path.is_file())
    return {path.relative_to(project).as_posix(): path.stat().st_mtime_ns for path in found}


def test_a_finished_run_leaves_the_reach_of_training(project: Path) -> None:
    head = noted(project)
    run, other = head.plan["runs"][:2]
    assert re.fullmatch(head.trainable, run["id"])
    finish(project, run)
    again = work(project)
    assert not re.fullmatch(again.trainable, run["id"])
    assert re.fullmatch(again.trainable, other["id"])


def test_a_job_finds_its_run_whatever_is_on_disk_and_in_the_parameters(project: Path) -> None:
    run = noted(project).plan["runs"][0]
    finish(project, run)
    for name in ("params/drc.yaml", "params/artefacts/dica.yaml"):
        (project / name).write_text("in: the midst of an edit: [")
    shutil.rmtree(project / RESULTS / "plans")
    (project / RESULTS / "plan.json").unlink()
    job = work(project, in_job=True)
    before = files(project)
    job.note()
    assert files(project) == before, "a job writes nothing"
    assert job.run(run["id"]) == run
    assert re.fullmatch(job.trainable, run["id"])
    assert "digits" in job.unprepared
    assert re.fullmatch(job.analysable, f"stages/{Path(run['path']).relative_to(f'{RESULTS}/runs')}")
    with pytest.raises(UserError, match="run 000000000000 is not in the plan of profile demo"):
        job.run("0" * 12)


def test_runs_of_an_earlier_plan_are_remembered(project: Path) -> None:
    first = noted(project).runs
    revise(project)
    second = noted(project).runs
    assert first.keys() - second.keys()
    assert work(project, in_job=True).runs.keys() == first.keys() | second.keys()


def test_notes_are_written_once(project: Path) -> None:
    noted(project)
    before = files(project)
    assert {f"{RESULTS}/plan.json", f"{RESULTS}/state/changes.json", f"{RESULTS}/plans/drc.json"} <= before.keys()
    assert noted(project).ignored == []
    assert files(project) == before


def test_a_plan_that_another_snakemake_works_with_is_left_alone(project: Path) -> None:
    noted(project)
    before = files(project)
    locks = project / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").write_text(f"x\n{RESULTS}/plan.json\n")
    revise(project)
    assert "another Snakemake works with it" in noted(project).ignored[0]
    after = files(project)
    assert after.pop(f"{RESULTS}/state/planned.json") > before.pop(f"{RESULTS}/state/planned.json")
    assert after == before
    (locks / "0.input.lock").write_text("results/plan.json\n")
    assert noted(project).ignored == [], "another profile's plan"


BROKEN = [b"", b"\xff\xfe\x00", b"[" * 50, b"[1, 2]", b"null", b'{"a": ', b'"text"', b'{"runs": [{}], "id": 1}']


@pytest.mark.parametrize("content", BROKEN)
def test_what_is_broken_under_results_stops_nobody_and_is_named(content: bytes, project: Path) -> None:
    head = noted(project)
    run, other = head.plan["runs"][:2]
    places = [
        *("plan.json", "plans/drc.json", "state/changes.json", "state/planned.json", "state/digits.json"),
        *("tables/cells.csv", f"state/{other['id']}/failed.json"),
    ]
    broken = [project / RESULTS / place for place in places]
    broken += [finish(project, run) / "metrics.json", project / "data/prepared/digits/manifest.json"]
    for file in broken:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    again = noted(project)
    assert f"{run['path']}/metrics.json: " in "\n".join(again.ignored)
    assert read_json(project / RESULTS / "plan.json")["runs"][0]["id"] == head.plan["runs"][0]["id"]
    assert "cells" in read_json(project / RESULTS / "state/changes.json")
    assert again.unusable_scores(run["id"])
    assert "digits" in again.unprepared
    assert work(project, in_job=True).run(run["id"]) == run


@pytest.mark.parametrize("name", ["plan.json", "plans/drc.json", "state/changes.json", "state/planned.json"])
def test_a_folder_in_the_place_of_a_file_is_one_line(name: str, project: Path) -> None:
    (project / RESULTS / name).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"{name}: Is a directory; mend that"):
        noted(project)


def test_scores_of_another_run_are_made_again_once(project: Path) -> None:
    run = noted(project).plan["runs"][0]
    file = finish(project, run) / "metrics.json"
    assert noted(project).unusable_scores(run["id"]) == []
    write_json(file, {"id": "other"})
    (note,) = noted(project).unusable_scores(run["id"])
    written = (project / note).stat().st_mtime_ns
    assert written >= file.stat().st_mtime_ns
    noted(project)
    assert (project / note).stat().st_mtime_ns == written, "one note a broken file"


def test_a_run_with_usable_scores_leaves_the_reach_of_scoring(project: Path) -> None:
    head = noted(project)
    run, other = head.plan["runs"][:2]
    finish(project, run)
    assert all(re.fullmatch(work(project).scorable, name) for name in head.runs)
    write_json(project / run["path"] / "metrics.json", {"id": run["id"]})
    assert not re.fullmatch(work(project).scorable, run["id"])
    assert re.fullmatch(work(project).scorable, other["id"])
    noted(project)  # finds them broken: they lack their numbers
    assert re.fullmatch(work(project).scorable, run["id"])
    assert re.fullmatch(work(project, in_job=True).scorable, run["id"])
