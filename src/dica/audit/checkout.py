"""What Git and DVC know of the files that a number rests on."""

from __future__ import annotations

import hashlib
import json
import subprocess
from functools import cache, cached_property
from pathlib import Path

from dica.files import sha256_file
from dica.runs.read import Finding
from dica.validation import load_yaml


class Checkout:
    """What Git, DVC and the files themselves say; every file is hashed once, Git is asked once."""

    def __init__(self, root: Path, results: str) -> None:
        self.root, self.results = root, results
        self.sha256 = cache(lambda path: sha256_file(path) if path.is_file() else None)
        self._dvc_hash = cache(_dvc_hash)

    def check_git(self, prefixes: list[str]) -> Finding:
        """Tell whether what lies under `prefixes` is as committed; without Git nobody vouches for it."""
        if self.states is None:
            return Finding("git", None, "no Git checkout: changes that agree with each other go unnoticed")
        found: dict[str, list[str]] = {"changed": [], "deleted": [], "loose": []}
        for path, state in self.states.items():
            if path.startswith((f"{self.results}/tables/", f"{self.results}/figures/")) and state == "changed":
                state = "loose"  # these are derived and were checked against their runs; runs and labels never change
            if any(path.startswith(prefix) or (path.endswith("/") and prefix.startswith(path)) for prefix in prefixes):
                found[state].append(path)
        if found["changed"]:
            return Finding("git", False, f"changed since the commit: {', '.join(found['changed'])}")
        if found["deleted"]:
            return Finding("git", False, f"missing since the commit: {', '.join(found['deleted'])}", missing=True)
        if loose := found["loose"]:
            more = f" and {len(loose) - 2} more" if len(loose) > 2 else ""
            return Finding("git", None, f"not committed: Git cannot vouch for {', '.join(loose[:2])}{more}")
        return Finding("git", True, "what it rests on is as committed")

    @cached_property
    def states(self) -> dict[str, str] | None:
        """Path -> changed, deleted or loose (not in Git) of what differs from the commit; None without Git."""
        watched = (*(f"{self.results}/{name}" for name in ("runs", "tables", "figures", "analyses")), "data/labels")
        options = ("--porcelain", "-z", "--no-renames", "--untracked-files=all", "--ignored")
        prefix, output = self._git("rev-parse", "--show-prefix"), self._git("status", *options, "--", *watched)
        if prefix is None or output is None:
            return None
        entries = [(entry[:2], entry[3:].removeprefix(prefix.strip())) for entry in output.split("\0") if entry]
        return {
            path: "loose" if code in ("??", "!!") else "deleted" if "D" in code else "changed" for code, path in entries
        }

    def _git(self, *arguments: str) -> str | None:
        command = ["git", "--no-optional-locks", "-C", str(self.root), *arguments]  # without locks: nothing is written
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return None

    def check_dvc(self, folder: str) -> Finding:
        """Compare the folder of a run's method with what ``dvc.lock`` recorded."""
        method = Path(folder).parents[1] if len(Path(folder).parts) > 2 else Path(folder)
        expected = self.dvc_lock.get(method.as_posix())
        if expected is None:
            return Finding("dvc.lock", None, f"{method} is not recorded there")
        if self._dvc_hash(self.root / method) == expected:
            return Finding("dvc.lock", True, f"{method} is as recorded")
        return Finding("dvc.lock", None, f"{method} has changed since it was recorded (dvc repro records it)")

    @cached_property
    def dvc_lock(self) -> dict[str, str]:
        """Path -> md5 of every output that ``dvc.lock`` records."""
        path = self.root / "dvc.lock"
        stages = load_yaml(path, ours=False).get("stages", {}) if path.is_file() else {}
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}


def _dvc_hash(folder: Path) -> str:
    """Return the hash that DVC 3 gives a folder: the md5 of a JSON list of its files and their md5."""
    entries = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        entries.append({"md5": digest, "relpath": file.relative_to(folder).as_posix()})
    entries.sort(key=lambda entry: entry["relpath"])
    text = json.dumps(entries, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"
