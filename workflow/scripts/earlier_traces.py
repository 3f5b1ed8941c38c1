"""Look up, in Git, the golden traces of the commits of runs whose records do not name one yet.

    python workflow/scripts/earlier_traces.py > src/dica/runs/earlier_traces.json

Records name their trace since `dica.runs.behaviour` (of methods that are fitted in one go, since these have one); older
ones name their commit. Traces of first steps lie in the commit; fits are made again by its code. The archive keeps what
comes out, so that a copy without Git gives the same answers.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from dica.files import project_root, read_json
from dica.plan.parameters import load_method, method_names
from dica.runs.behaviour import trace_digest
from dica.runs.files import RECORD

HELPERS = "tests/support"
PARTS = ("src", "params", "tests", "data", "workflow")
FIT = """  # of today's helpers in the tree of a commit: what its code finds
import json, sys, tempfile
from pathlib import Path
from tiny import families, fit_history, tiny_config
method, *variants = sys.argv[1:]
shown = {families(method)[variant] for variant in variants}
print(json.dumps({v: fit_history(tiny_config(method, v), Path(tempfile.mkdtemp(dir="."))) for v in sorted(shown)}))
"""


def main() -> int:
    """Print the digests by commit and method."""
    root = project_root(Path(__file__))
    print(json.dumps(earlier_traces(root), indent=1, sort_keys=True))
    return 0


def earlier_traces(root: Path) -> dict[str, dict[str, list[str]]]:
    """Return ``{commit: {method: digests}}`` for the committed runs whose records name no trace."""
    variants: dict[tuple[str, str], set[str]] = {}
    for path in sorted((root / "results" / "runs").glob(f"*/*/*/{RECORD}")):
        record = read_json(path)
        if record.get("trace") is None and record["commit"] and not record["dirty_sha256"]:
            variants.setdefault((record["commit"], record["method"]), set()).add(record["variant"])
    found: dict[str, dict[str, list[str]]] = {}
    by_steps = [name for name in method_names(root) if "epochs" in load_method(name, root)["defaults"]]
    for (commit, method), names in variants.items():
        look = _of_steps if method in by_steps else _of_fits
        found.setdefault(commit, {})[method] = look(root, commit, method, sorted(names))
    return found


def _of_steps(root: Path, commit: str, method: str, _: list[str]) -> list[str]:
    text = _stored(root, commit, f"tests/golden/{method}.json")
    return sorted({trace_digest(entry["history"]) for entry in (json.loads(text) if text else {}).values()})


def _of_fits(root: Path, commit: str, method: str, variants: list[str]) -> list[str]:
    """Return the digests of what a commit's code finds; nothing, said on stderr, if today's helpers do not fit it."""
    golden = read_json(root / "tests" / "golden" / f"{method}.json")
    with tempfile.TemporaryDirectory() as folder:
        tree = subprocess.run(["git", "-C", root, "archive", commit, *PARTS], capture_output=True, check=True)
        subprocess.run(["tar", "x", "-C", folder], input=tree.stdout, check=True)
        helpers = Path(folder, HELPERS)
        shutil.copytree(root / HELPERS, helpers, dirs_exist_ok=True)
        command = [sys.executable, "-c", FIT, method, *variants]
        environment = os.environ | {"PYTHONPATH": f"{folder}/src{os.pathsep}{helpers}"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(f"{commit[:7]} {method}: not known ({done.stderr.splitlines()[-1]})", file=sys.stderr)
        return []
    sys.path.insert(0, str(root / HELPERS))
    from tiny import same_history  # the helpers of the tests are no part of the package

    digests = set()
    for variant, history in json.loads(done.stdout.splitlines()[-1]).items():
        today = golden[variant]["history"]
        digests.add(trace_digest(today if same_history(history, today) else history))
    return sorted(digests)


def _stored(root: Path, commit: str, path: str) -> str:
    """Return a file as a commit has it, or nothing where the commit has none."""
    subprocess.run(["git", "-C", root, "cat-file", "-e", f"{commit}^{{commit}}"], check=True)
    done = subprocess.run(["git", "-C", root, "show", f"{commit}:{path}"], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
