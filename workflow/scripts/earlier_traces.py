"""Look up, in Git, the golden traces of the commits of runs whose records do not name one yet.

    python workflow/scripts/earlier_traces.py > src/dica/runs/earlier_traces.json

Records name their trace since `dica.runs.behaviour`; older ones name their commit. The archive keeps what Git gives for
these, so that a copy without Git gives the same answers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from dica.files import project_root, read_json
from dica.runs.behaviour import trace_digest
from dica.runs.files import RECORD


def main() -> int:
    """Print the digests by commit and method."""
    root = project_root(Path(__file__))
    print(json.dumps(earlier_traces(root), indent=1, sort_keys=True))
    return 0


def earlier_traces(root: Path) -> dict[str, dict[str, list[str]]]:
    """Return ``{commit: {method: digests}}`` for the committed runs whose records name no trace."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted((root / "results" / "runs").glob(f"*/*/*/{RECORD}")):
        record = read_json(path)
        if "trace" in record or not record["commit"] or record["dirty_sha256"]:
            continue
        methods = found.setdefault(record["commit"], {})
        if record["method"] not in methods:
            text = _stored(root, record["commit"], f"tests/golden/{record['method']}.json")
            golden = json.loads(text) if text else {}
            methods[record["method"]] = sorted({trace_digest(entry["history"]) for entry in golden.values()})
    return found


def _stored(root: Path, commit: str, path: str) -> str:
    """Return a file as a commit has it, or nothing where the commit has none."""
    subprocess.run(["git", "-C", root, "cat-file", "-e", f"{commit}^{{commit}}"], check=True)
    done = subprocess.run(["git", "-C", root, "show", f"{commit}:{path}"], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
