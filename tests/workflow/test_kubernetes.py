"""The profile for Kubernetes, dry: what pods it asks for, and that their commands do the work. No cluster is needed.

`make kubernetes` installs the plugin and runs the last one; it skips without.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import validators
from dica.files import read_json
from project import Project, environment

PLUGIN = "snakemake-executor-plugin-cluster-generic"


@pytest.fixture
def cluster(root: Path, tmp_path: Path) -> dict[str, str]:
    """The settings under which commands find a pretended kubectl."""
    program, jobs = tmp_path / "bin/kubectl", tmp_path / "jobs"
    program.parent.mkdir()
    jobs.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {root}/tests/support/pretended_kubectl.py "$@"\n')
    program.chmod(0o755)
    settings = environment()
    path = f"{program.parent}{os.pathsep}{settings['PATH']}"
    return {**settings, "PATH": path, "KUBECTL_JOBS": str(jobs), "DICA_IMAGE": "dica:here", "DICA_CLAIM": "claim"}


def test_a_pod_gets_what_its_job_asks_for_and_nothing_else(root: Path) -> None:
    pods = runpy.run_path(str(root / "workflow/profiles/kubernetes/pods.py"))
    given = argparse.Namespace(cpus=4, gpu=4, mem_mb=8000, minutes=60, script=Path("/archive/.snakemake/job.sh"))
    job = pods["specification"]("dica-1", given, "image", "claim", Path("/archive"))
    assert (job["apiVersion"], job["kind"], job["metadata"]["name"]) == ("batch/v1", "Job", "dica-1")
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (0, 3600)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "8000M", "nvidia.com/gpu": "4"}
    assert container["resources"]["requests"] == container["resources"]["limits"], "a GPU can be had in no other way"
    mounted = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]}
    assert {mounted[mount["name"]]: mount["mountPath"] for mount in container["volumeMounts"]} == {"claim": "/archive"}
    given.gpu = 0
    (container,) = pods["specification"]("x", given, "i", "c", Path("/"))["spec"]["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"], "a node without GPUs will do"


def test_a_job_is_followed_to_its_end(root: Path, cluster: dict[str, str], tmp_path: Path) -> None:
    def pods(*words: str, code: int = 0, **settings: str) -> str:
        command = [sys.executable, root / "workflow/profiles/kubernetes/pods.py", *words]
        done = subprocess.run(command, cwd=tmp_path, env={**cluster, **settings}, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return (done.stdout + done.stderr).strip()

    size = ("--cpus", "1", "--gpu", "0", "--mem-mb", "100", "--minutes", "1")
    for ends, expected in (("true", "success"), ("false", "failed")):
        script = tmp_path / "job.sh"
        script.write_text(f"{ends}\n")
        name = pods("submit", *size, str(script))
        while (found := pods("status", name)) == "running":
            pass
        assert found == expected
    assert pods("status", "dica-gone") == "failed"
    assert "DICA_IMAGE: name the image" in pods("submit", *size, str(script), code=2, DICA_IMAGE="")
    subprocess.run([root / "workflow/profiles/kubernetes/cancel.sh", name], env=cluster, check=True)
    assert pods("status", name) == "failed"


@pytest.mark.kubernetes
@pytest.mark.workflow
def test_a_run_is_trained_in_a_pod_with_the_gpu_that_it_asks_for(small: Project, cluster, tmp_path: Path) -> None:
    if importlib.util.find_spec(PLUGIN.replace("-", "_")) is None:
        pytest.skip("no plugin for pods here: `make kubernetes` installs it and runs this test")
    project = small.copy(tmp_path / "project")
    project.snakemake("results/state/digits.ready")
    runs = read_json(project.folder / "results/plan.json")["runs"]
    run = next(run for run in runs if (run["method"], run["dataset"]) == ("imc-swav", "digits"))
    python = f"src{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    command = ["snakemake", "--workflow-profile", "workflow/profiles/kubernetes", "--retries", "0"]
    done = subprocess.run(
        [*command, "--seconds-between-status-checks", "5", "--", f"{run['path']}/metrics.json"],
        cwd=project.folder,
        env={**cluster, "PYTHONPATH": python},
        capture_output=True,
        text=True,
    )
    logs = [path.read_text() for path in (tmp_path / "jobs").glob("*.log")]
    assert done.returncode == 0, "\n".join([done.stdout, done.stderr, *logs])[-6000:]
    assert (project.folder / run["path"] / "metrics.json").is_file()
    (trained,) = (json.loads(path.read_text()) for path in (tmp_path / "jobs").glob("*.json"))
    (container,) = trained["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "dica:here"
    assert container["resources"]["limits"] == {"cpu": "1", "memory": "16000M", "nvidia.com/gpu": "1"}
    assert container["workingDir"] == str(project.folder)
    version = importlib.metadata.version(PLUGIN)
    validators.note("pretended kubectl", "a run's job is a pod with volume and GPU, and trains", True, version)
