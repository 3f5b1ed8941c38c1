"""`kubectl` for tests: keeps the jobs that it is given in KUBECTL_JOBS and runs each command on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

JOBS = Path(os.environ["KUBECTL_JOBS"])
# What the pod does, told as the cluster would: started elsewhere, it outlives the one who asked for it.
RUN = """
import json, subprocess, sys
job = json.load(open(sys.argv[1]))
(container,) = job["spec"]["template"]["spec"]["containers"]
code = subprocess.run(container["command"], cwd=container["workingDir"]).returncode
open(sys.argv[1] + ".status", "w").write(json.dumps({"failed": 1} if code else {"succeeded": 1}))
"""


def main() -> int:
    verb, *words = sys.argv[1:]
    if verb == "create":
        job = json.load(sys.stdin)
        path = JOBS / f"{job['metadata']['name']}.json"
        path.write_text(json.dumps(job))
        said = open(f"{path}.log", "w")  # noqa: SIM115
        subprocess.Popen([sys.executable, "-c", RUN, str(path)], stdout=said, stderr=said, start_new_session=True)
    elif verb == "get":
        path = JOBS / f"{words[1]}.json"
        status = Path(f"{path}.status")
        if path.is_file():
            print(json.dumps({"status": json.loads(status.read_text()) if status.is_file() else {"active": 1}}))
    elif verb == "delete":
        for name in words[2:]:
            (JOBS / f"{name}.json").unlink(missing_ok=True)
    else:
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
