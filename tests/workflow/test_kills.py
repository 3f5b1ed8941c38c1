"""Kills, second starts and odd places, seen from the command line."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from dica.files import read_json, sha256_file
from project import Project, environment, kill_group

pytestmark = pytest.mark.workflow


def start(project: Project, *targets: str) -> subprocess.Popen:
    command = ["snakemake", "--cores", "2", "--quiet", "all", "--rerun-incomplete", "--", *targets]
    return subprocess.Popen(
        command, cwd=project.folder, env=environment(), start_new_session=True, stderr=subprocess.DEVNULL
    )


def outcome(project: Project) -> dict[str, str]:
    """Digest of everything that must not depend on what happened on the way."""
    results = project.folder / "results"
    patterns = ("runs/*/*/*/predictions.npz", "runs/*/*/*/metrics.json", "runs/*/*/*/history.csv", "tables/dica/*")
    files = [path for pattern in (*patterns, "tables/cells.csv", "metrics/*.json") for path in results.glob(pattern)]
    return {path.relative_to(results).as_posix(): sha256_file(path) for path in sorted(files)}


@pytest.fixture
def elsewhere() -> Path:
    """A folder on another file system than the temporary one, where there is such a place."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="dica test ", dir=place))
    yield folder
    shutil.rmtree(folder)


def test_an_odd_path_results_on_another_file_system_a_second_start_and_a_kill(
    small: Project, tmp_path: Path, elsewhere: Path
) -> None:
    project = small.copy(tmp_path / "ä b 'c'")
    shutil.rmtree(project.folder / "results", ignore_errors=True)
    (project.folder / "results").symlink_to(elsewhere, target_is_directory=True)
    project.snakemake("-n")
    (run,) = (run for run in read_json(project.folder / "results/plan.json")["runs"] if run["method"] == "drc")
    first = start(project, f"{run['path']}/metrics.json")
    while first.poll() is None and not list(elsewhere.glob("state/*/lock")):
        time.sleep(0.02)
    second = project.snakemake("--", f"{run['path']}/metrics.json", code=1)
    kill_group(first)
    assert "lock" in second.lower()
    assert "Traceback" not in second
    project.run("snakemake", "--unlock")
    project.snakemake("--", f"{run['path']}/metrics.json")
    alone = (
        "--config",
        f"{run['path']}/config.json",
        "--data",
        "data/prepared/digits",
        "--out",
        str(tmp_path / "alone"),
    )
    project.run(sys.executable, "-m", "dica.train", *alone, "--device", "cpu")
    for name in ("predictions.npz", "history.csv"):
        assert sha256_file(project.folder / run["path"] / name) == sha256_file(tmp_path / "alone" / name)


def planned(project: Project, method: str) -> dict:
    project.snakemake("-n", "--quiet", "all")
    return next(run for run in read_json(project.folder / "results/plan.json")["runs"] if run["method"] == method)


def wait_until(done, patience_s: float = 120) -> None:
    give_up = time.monotonic() + patience_s
    while not done():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.02)


def test_the_head_killed_while_a_run_trains_and_the_same_command_again(
    small: Project, finished: Project, tmp_path: Path
) -> None:
    """The trainer goes on alone; the next one waits for it, and what it has done is neither lost nor done again."""
    project = small.copy(tmp_path / "project")
    run = planned(project, "drc")
    target, state = f"{run['path']}/metrics.json", project.folder / "results/state" / run["id"]
    head = start(project, target)
    wait_until(lambda: (state / "lock").is_file() and "process" in (state / "lock").read_text())
    trainer = int((state / "lock").read_text().split()[1])
    os.kill(trainer, signal.SIGSTOP)  # so that it is still at it when the second one comes, however slow that is
    os.kill(head.pid, signal.SIGKILL)
    head.wait()
    project.run("snakemake", "--unlock")
    again = start(project, target)
    log = project.folder / f"results/logs/train/drc-digits-s0-{run['id']}.log"
    wait_until(lambda: log.is_file() and "waiting for it" in log.read_text())
    os.kill(trainer, signal.SIGCONT)
    assert again.wait(300) == 0
    record = read_json(project.folder / run["path"] / "run.json")
    assert len(record["attempts"]) == 1
    assert record["resumed"] == 0
    assert log.read_text().count("done drc") == 2, "both say that it is done, in the one log of all attempts"
    assert log.read_text().count("epoch 1/1") == 1, "the second trainer trained"
    theirs = outcome(finished)
    ours = {name: digest for name, digest in outcome(project).items() if run["id"] in name}
    assert len(ours) == 3
    assert ours == {name: digest for name, digest in theirs.items() if run["id"] in name}


def job(project: Project, rule: str, target: str, code: int = 0) -> str:
    """Do what a job does that an executor submitted: read the workflow anew for this one target."""
    options = ("--mode", "remote", "--executor", "local", "--force", "--nolock", "--ignore-incomplete")
    return project.snakemake(*options, "--allowed-rules", rule, "--target-jobs", target, code=code)


def test_a_queued_job_of_a_run_that_is_finished_meanwhile_costs_nothing(finished: Project, tmp_path: Path) -> None:
    """Also after the plan it was queued by is gone from the parameters."""
    project = finished.copy(tmp_path / "project")
    (name,) = project.runs("drc")
    before = outcome(project)
    record = project.folder / "results/runs/drc/digits" / name / "run.json"
    content = record.read_bytes()
    seed, run_id = name.removeprefix("s").split("-")
    project.edit("params/drc.yaml", lambda body: body.update(revision=99))
    project.snakemake("-n", "--quiet", "all")
    plan = (project.folder / "results/plan.json").read_bytes()
    job(project, "train", f"train:method=drc,dataset=digits,seed={seed},id={run_id}")
    assert outcome(project) == before
    assert record.read_bytes() == content
    assert (project.folder / "results/plan.json").read_bytes() == plan


def test_a_second_dvc_repro_is_refused_and_the_first_one_goes_on(small: Project, tmp_path: Path) -> None:
    project = small.copy(tmp_path / "project")
    command = ["dvc", "repro", "runs@drc"]
    with open(tmp_path / "first.txt", "w") as output:
        first = subprocess.Popen(command, cwd=project.folder, env=environment(), stdout=output, stderr=output)
    while first.poll() is None and not list(project.folder.glob("results/state/*/lock")):
        time.sleep(0.02)
    second = project.run(*command, code=255)
    assert f"is busy, it is being blocked by:\n  (PID {first.pid}): " in second
    assert "Traceback" not in second
    assert first.wait() == 0, (tmp_path / "first.txt").read_text()
    assert "up to date" in project.run("dvc", "status", "runs@drc"), "what dvc.lock says of the files is true"


@pytest.mark.slow
def test_the_whole_group_killed_ten_times(small: Project, finished: Project, tmp_path: Path, note_figures) -> None:
    project = small.copy(tmp_path / "project")
    draw, killed = random.Random(0), 0
    while killed < 10:
        process = start(project)
        try:
            process.wait(draw.uniform(0.5, 12))
            break  # it has got through all of it
        except subprocess.TimeoutExpired:
            kill_group(process)
            killed += 1
        project.run("snakemake", "--unlock")
    project.snakemake()
    assert outcome(project) == outcome(finished)
    note_figures("kill -9 of Snakemake's whole process group: runs, scores, tables", "kills", killed, killed)
