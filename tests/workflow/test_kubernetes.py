"""The profile for Kubernetes, dry: what pods it asks for, and that their commands do the work. No cluster is needed.

`make kubernetes` installs the plugin and runs this; it skips without.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess

import pytest

import validators
from dica.files import read_json
from pretended_kubernetes import pretended_cluster
from project import Project, environment

pytestmark = [pytest.mark.kubernetes, pytest.mark.workflow]
PLUGIN = "snakemake-executor-plugin-kubernetes"


def test_a_run_becomes_a_pod_with_the_volume_and_the_gpu_and_is_trained_there(small: Project, tmp_path) -> None:
    if importlib.util.find_spec(PLUGIN.replace("-", "_")) is None:
        pytest.skip("no plugin for Kubernetes here: `make kubernetes` installs it and runs this test")
    project = small.copy(tmp_path / "project")
    run = next(run for run in project_plan(project) if (run["method"], run["dataset"]) == ("imc-swav", "digits"))
    settings = environment()
    settings["PYTHONPATH"] = os.pathsep.join([str(project.folder / "src"), os.environ.get("PYTHONPATH", "")])
    with pretended_cluster(tmp_path, settings) as (config, jobs):
        command = ["snakemake", "--workflow-profile", "workflow/profiles/kubernetes", "--container-image", "dica:here"]
        command += ["--directory", str(project.folder), "--seconds-between-status-checks", "1", "--retries", "0"]
        done = subprocess.run(
            [*command, "--", f"{run['path']}/metrics.json"],
            cwd=project.folder,
            env={**settings, "KUBECONFIG": str(config)},
            capture_output=True,
            text=True,
        )
    said = "\n".join([done.stdout, done.stderr, *(job.get("said", "") for job in jobs.values())])
    assert done.returncode == 0, said[-6000:]
    assert (project.folder / run["path"] / "metrics.json").is_file()
    pods = [job["spec"]["template"]["spec"] for job in jobs.values()]
    (trains,) = (pod for pod in pods if f"/s0-{run['id']}/run.json" in pod["containers"][0]["args"][1])
    (container,) = trains["containers"]
    assert container["image"] == "dica:here"
    assert {"name": "dica", "mountPath": "/archive"} in container["volumeMounts"]
    assert {"name": "dica", "persistentVolumeClaim": {"claimName": "dica"}} in trains["volumes"]
    for kind in ("requests", "limits"):
        assert container["resources"][kind]["nvidia.com/gpu"] == "1"
        assert container["resources"][kind]["memory"] == "16000M"
    for pod in pods:
        assert pod["restartPolicy"] == "Never"
    version = importlib.metadata.version(PLUGIN)
    validators.note("Kubernetes, pretended", "pods with volume and GPU do a run's jobs", True, version)


def project_plan(project: Project) -> list[dict]:
    project.snakemake("-n", "results/state/digits.ready")
    return read_json(project.folder / "results/plan.json")["runs"]
