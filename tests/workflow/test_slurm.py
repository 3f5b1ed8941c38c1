"""The archive on a real SLURM of one machine: `make slurm` installs the plugin and runs this; it skips without."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import validators
from dica.files import read_json
from dica.runs.files import RECORD
from project import Project, environment

pytestmark = [pytest.mark.slurm, pytest.mark.workflow]
FAST = ("--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2", "--slurm-no-account")
PATIENCE = 600  # seconds for a job to start and train, on a busy machine


@pytest.fixture(scope="module")
def cluster(root: Path) -> Iterator[dict[str, str]]:
    """The settings under which commands reach a cluster that lives as long as the tests."""
    if not shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("no slurmctld here (Debian: munge slurmctld slurmd slurm-client)")
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("no plugin for SLURM here: `make slurm` installs it and runs this test")
    folder = Path(tempfile.mkdtemp(prefix="sl.", dir="/tmp"))
    script, known = root / "tests/support/slurm_local.sh", {"SLURM_LOCAL": str(folder)}
    try:
        done = subprocess.run(["bash", script, "up"], env=os.environ | known, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        settings = environment()
        path = f"{folder}/bin:{settings['PATH']}:/usr/sbin"
        python = f"src:{os.environ.get('PYTHONPATH', '')}"
        yield {**settings, "PATH": path, "SLURM_CONF": f"{folder}/etc/slurm.conf", "PYTHONPATH": python}
    finally:
        subprocess.run(["bash", script, "down"], env=os.environ | known, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def project(small: Project, tmp_path_factory) -> Project:
    copied = small.copy(tmp_path_factory.mktemp("slurm") / "project")
    copied.edit("params/archive.yaml", lambda body: body["overrides"]["drc"].update(epochs=16))
    copied.snakemake("results/state/digits.ready")
    return copied


def start(project: Project, cluster: dict[str, str], target: str) -> subprocess.Popen:
    command = ["snakemake", "--workflow-profile", "workflow/profiles/slurm", *FAST, "--", target]
    said = open(project.folder / "said.txt", "a")  # noqa: SIM115
    return subprocess.Popen(command, cwd=project.folder, env=cluster, stdout=said, stderr=said, start_new_session=True)


def finished(process: subprocess.Popen, project: Project) -> None:
    process.wait(timeout=2 * PATIENCE)
    assert process.returncode == 0, (project.folder / "said.txt").read_text()[-4000:]


def planned(project: Project, method: str) -> Path:
    runs = read_json(project.folder / "results/plan.json")["runs"]
    run = next(run for run in runs if (run["method"], run["dataset"]) == (method, "digits"))
    return Path(run["path"])


def jobs(cluster: dict[str, str], *states: str) -> list[str]:
    command = ["squeue", "-h", "-o", "%i", "-t", ",".join(states)]
    return subprocess.run(command, env=cluster, capture_output=True, text=True, check=True).stdout.split()


def version(cluster: dict[str, str]) -> str:
    return subprocess.run(
        ["sinfo", "--version"], env=cluster, capture_output=True, text=True, check=True
    ).stdout.split()[1]


def wait_for_training(project: Project, run: Path, text: str = "train ") -> Path:
    log = project.folder / "results/state" / run.name.rpartition("-")[2] / "attempts.log"
    for _ in range(PATIENCE * 5):
        if log.is_file() and text in log.read_text():
            return log
        if (project.folder / run / RECORD).is_file():
            break
        time.sleep(0.2)
    raise AssertionError((project.folder / "said.txt").read_text()[-4000:])


def test_a_cancelled_run_is_tried_again_and_both_attempts_keep_their_log(project: Project, cluster) -> None:
    run = planned(project, "drc")
    head = start(project, cluster, f"{run}/metrics.json")
    log = wait_for_training(project, run, "epoch ")  # some line: not every epoch has one
    subprocess.run(["scancel", *jobs(cluster, "RUNNING")], env=cluster, check=True)
    finished(head, project)
    record = read_json(project.folder / run / "run.json")
    assert (len(record["attempts"]), record["resumed"]) == (2, 1)
    assert log.read_text().count(f"run {record['id']}") >= 2
    assert (project.folder / run / "metrics.json").is_file()
    validators.note("SLURM", "a cancelled job goes on in its next attempt", True, version(cluster))


def test_a_run_is_not_trained_twice_when_the_head_is_killed(project: Project, cluster) -> None:
    """The orphan finishes the run; the job of the second head waits for it and trains nothing."""
    run = planned(project, "imc-swav")
    head = start(project, cluster, f"{run}/metrics.json")
    wait_for_training(project, run)
    os.killpg(head.pid, signal.SIGKILL)
    head.wait()
    project.run("snakemake", "--unlock")
    finished(start(project, cluster, f"{run}/metrics.json"), project)
    assert len(read_json(project.folder / run / "run.json")["attempts"]) == 1
    assert not jobs(cluster, "RUNNING", "PENDING")
    validators.note("SLURM", "a killed head loses and repeats nothing", True, version(cluster))
