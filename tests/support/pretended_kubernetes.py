"""A Kubernetes API for tests: takes jobs, keeps their specifications, and runs each command on this machine."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import yaml


class Cluster(BaseHTTPRequestHandler):
    """The few calls that Snakemake's executor makes: secrets, jobs, their status, pods.

    Attributes
    ----------
    jobs : specification and state of each job, by name
    env : of the commands, what the image would bring
    """

    jobs: ClassVar[dict[str, dict[str, Any]]] = {}
    env: ClassVar[dict[str, str]] = {}

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/jobs"):
            self.jobs[body["metadata"]["name"]] = body
            threading.Thread(target=self._run, args=(body,), daemon=True).start()
        self._answer(body)

    def do_GET(self) -> None:
        if "/pods" in self.path:
            self._answer({"kind": "PodList", "apiVersion": "v1", "items": []})
        else:
            self._answer(self.jobs[self.path.split("/jobs/")[1].split("/")[0]])

    def do_DELETE(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer({"kind": "Status", "status": "Success"})

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _run(self, job: dict[str, Any]) -> None:
        (container,) = job["spec"]["template"]["spec"]["containers"]
        with tempfile.TemporaryDirectory() as empty:  # as the empty folder that a pod starts in
            command = [*container["command"], *container["args"]]
            done = subprocess.run(command, cwd=empty, env=self.env, capture_output=True, text=True)
        job["said"] = done.stdout + done.stderr
        job["status"] = {"failed": 1} if done.returncode else {"succeeded": 1}

    def _answer(self, body: dict[str, Any]) -> None:
        data = json.dumps({key: value for key, value in body.items() if key != "said"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def pretended_cluster(folder: Path, env: dict[str, str]) -> Iterator[tuple[Path, dict[str, dict[str, Any]]]]:
    """Yield the settings file with which clients find the cluster, and the jobs that it has been given."""
    kind = type("OneCluster", (Cluster,), {"jobs": {}, "env": env})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = {"server": f"http://127.0.0.1:{server.server_port}"}
    settings = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "pretended", "cluster": address}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "pretended", "context": {"cluster": "pretended", "user": "nobody"}}],
        "current-context": "pretended",
    }
    path = folder / "kubeconfig.yaml"
    path.write_text(yaml.safe_dump(settings))
    try:
        yield path, kind.jobs
    finally:
        server.shutdown()
