"""Jobs of Snakemake as pods: python pods.py submit --cpus N --gpu N --mem-mb N --minutes N SCRIPT, or status NAME.

`submit` hands a job to kubectl and prints its name, `status` prints running, success or failed. The checkout lies on a
volume that pods on all nodes may write; it is mounted where it lies here, so that the paths of the script are right.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any


def specification(name: str, given: argparse.Namespace, image: str, claim: str, folder: Path) -> dict[str, Any]:
    """Return the job that runs a script once in a pod; limits are what is asked for, for GPUs there is no other way."""
    size: dict[str, Any] = {"cpu": str(given.cpus), "memory": f"{given.mem_mb}M"}
    if given.gpu:
        size["nvidia.com/gpu"] = str(given.gpu)
    container = {
        "name": "dica",
        "image": image,
        "command": ["/bin/sh", str(given.script)],
        "workingDir": str(folder),
        "resources": {"requests": size, "limits": size},
        "volumeMounts": [{"name": "archive", "mountPath": str(folder)}],
    }
    pod = {
        "restartPolicy": "Never",  # Snakemake tries again, with another attempt's resources
        "containers": [container],
        "volumes": [{"name": "archive", "persistentVolumeClaim": {"claimName": claim}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"app": "dica"}},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 60 * given.minutes,
            "ttlSecondsAfterFinished": 3600,
            "template": {"spec": pod},
        },
    }


def kubectl(*words: str, given: str | None = None) -> str:
    """Return what kubectl prints."""
    return subprocess.run(["kubectl", *words], input=given, text=True, stdout=subprocess.PIPE, check=True).stdout


def state(name: str) -> str:
    """Return how a job is doing, in the words of Snakemake; one that nobody knows any more has failed."""
    said = kubectl("get", "job", name, "--ignore-not-found", "--output", "json")
    status = json.loads(said).get("status", {}) if said.strip() else {"failed": 1}
    return "success" if status.get("succeeded") else "failed" if status.get("failed") else "running"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    submit = commands.add_parser("submit")
    for option in ("--cpus", "--gpu", "--mem-mb", "--minutes"):
        submit.add_argument(option, type=int, required=True)
    submit.add_argument("script", type=Path)
    commands.add_parser("status").add_argument("name")
    given = parser.parse_args()
    if given.command == "status":
        print(state(given.name))
        return 0
    if not (image := os.environ.get("DICA_IMAGE")):
        print("error: DICA_IMAGE: name the image that pods start from (docs/cluster.md)", file=sys.stderr)
        return 2
    name = f"dica-{uuid.uuid4().hex[:12]}"
    job = specification(name, given, image, os.environ.get("DICA_CLAIM", "dica"), Path.cwd())
    kubectl("create", "--filename", "-", given=json.dumps(job))
    print(name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
