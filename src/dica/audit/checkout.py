"""What Git and DVC know of the files that a number rests on."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path

from dica.data.paths import LABELS
from dica.files import UserError, sha256_bytes, sha256_file
from dica.runs.files import RECORD
from dica.runs.read import Finding
from dica.validation import load_yaml

DERIVED = (
    "tables/",
    "claims.csv",
    "claims.md",
    "figures/",
    "report/",
    "metrics/",
    "plans/",
    "plan.json",
)  # of a results folder: made of runs

COMMIT = re.compile("[0-9a-f]{40,64}")


class Checkout:
    """What Git, DVC and the files themselves say; every file is hashed once, Git is asked once."""

    def __init__(self, root: Path, results: str) -> None:
        self.root, self.results = root, results
        self.sha256 = cache(lambda path: sha256_file(path) if path.is_file() else None)
        self._dvc_hash = cache(_dvc_hash)
        self._files_below = cache(lambda folder: sum(path.is_file() for path in (root / folder).rglob("*")))
        self._sources: dict[str, dict[str, str] | None] = {}  # by commit
        self._blobs: dict[str, str] = {}  # Git's name of a content -> its SHA-256

    def check_git(self, prefixes: list[str]) -> Finding:
        """Tell whether what lies under `prefixes` is as committed; without Git nobody vouches for it."""
        if self.states is None:
            return Finding("git", None, "no Git checkout: changes that agree with each other go unnoticed")
        found: dict[str, list[str]] = {"changed": [], "deleted": [], "loose": []}
        derived = tuple(f"{self.results}/{name}" for name in DERIVED)
        for path, state in self.differing(prefixes).items():
            if path.startswith(derived) and state == "changed":
                state = "loose"  # these were checked against their runs; runs, analyses and labels never change
            found[state].append(path)
        if found["changed"]:
            return Finding("git", False, f"changed since the commit: {', '.join(found['changed'])}")
        if found["deleted"]:
            return Finding("git", False, f"missing since the commit: {', '.join(found['deleted'])}", missing=True)
        if loose := found["loose"]:
            more = f" and {len(loose) - 2} more" if len(loose) > 2 else ""
            return Finding("git", None, f"not committed: Git cannot vouch for {', '.join(loose[:2])}{more}")
        return Finding("git", True, "what it rests on is as committed")

    def differing(self, prefixes: Iterable[str]) -> dict[str, str]:
        """Return what of `states` lies under one of these prefixes."""
        return {
            path: state
            for path, state in (self.states or {}).items()
            if any(path.startswith(prefix) or (path.endswith("/") and prefix.startswith(path)) for prefix in prefixes)
        }

    @cached_property
    def states(self) -> dict[str, str] | None:
        """Path -> changed, deleted or loose (not in Git) of what differs from the commit; None without Git."""
        options = ("--porcelain", "-z", "--no-renames", "--untracked-files=all", "--ignored")
        prefix, output = self._git("rev-parse", "--show-prefix"), self._git("status", *options, "--", *self.watched)
        if prefix is None or output is None:
            return None
        entries = [(entry[:2], entry[3:].removeprefix(prefix.strip())) for entry in output.split("\0") if entry]
        found = {
            path: "loose" if code in ("??", "!!") else "deleted" if "D" in code else "changed" for code, path in entries
        }
        return found | self._hidden()

    @property
    def watched(self) -> tuple[str, ...]:
        """What Git is asked about."""
        parts = ("runs/", "analyses/", *DERIVED)
        return (*(f"{self.results}/{name}" for name in parts), LABELS, "params", "dvc.lock", "README.md")

    def _hidden(self) -> dict[str, str]:
        """Path -> changed or deleted of what Git may take for committed without reading it, or through a filter.

        A file can be marked as unchanged, have the size and the time of the committed one, or be turned back by a
        filter in `.git`: so every file is hashed as it is.
        """
        found = {}
        for entry in (self._git("ls-files", "-s", "-z", "--", *self.watched) or "").split("\0"):
            facts, _, path = entry.partition("\t")
            if not facts.startswith("100"):  # links and submodules are left to Git
                continue
            blob, place = facts.split(" ")[1], self.root / path
            if place.is_symlink() or not place.is_file():
                found[path] = "deleted"
            elif _blob(place.read_bytes(), len(blob)) != blob:
                found[path] = "changed"
        return found

    @cached_property
    def removed(self) -> frozenset[str]:
        """Paths of `watched` that a commit removed, as far back as this clone's history goes; empty without Git."""
        options = ("-m", "--diff-filter=D", "--format=", "--name-only", "--no-renames", "--relative", "-z")
        return frozenset((self._git("log", *options, "--", *self.watched) or "").split("\0"))

    def gone(self, paths: Iterable[str]) -> list[str]:
        """Return which of these files are not here though a commit has them, or had them until another one."""
        absent = [path for path in paths if not (self.root / path).is_file()]
        return [path for path in absent if path in self.removed or (self.states or {}).get(path) == "deleted"]

    def committed(self, path: str) -> str | None:
        """Return the text of a file as committed, or None."""
        return self._git("show", f"HEAD:./{path}")

    @cached_property
    def writers(self) -> dict[str, str]:
        """Path -> the last commit that wrote it, for the files of all runs; empty without Git."""
        options = ("--format=commit %H", "--name-only", "--no-renames", "--relative")
        found: dict[str, str] = {}
        commit = ""
        for line in (self._git("log", *options, "--", f"{self.results}/runs") or "").splitlines():
            if line.startswith("commit "):
                commit = line.removeprefix("commit ")
            elif line:
                found.setdefault(line, commit)
        return found

    def check_writers(self, folder: str, names: Iterable[str]) -> list[Finding]:
        """Name the commits that wrote a result of a run after, or without, the record of that run."""
        record = self.writers.get(f"{folder}/{RECORD}")
        others: dict[str, list[str]] = {}
        for name in names:
            commit = self.writers.get(f"{folder}/{name}")
            if record and commit and commit != record:
                others.setdefault(commit, []).append(name)
        return [
            Finding("last writer", None, f"{', '.join(files)}: commit {commit[:12]}; of {RECORD}: {record[:12]}")
            for commit, files in others.items()
            if record
        ]

    def sources(self, commit: str) -> dict[str, str] | None:
        """Return the SHA-256 of each file of the code as a commit has it; None where Git has no such commit here."""
        if commit not in self._sources:
            named = COMMIT.fullmatch(commit)  # nothing that Git would take for an option or a branch
            listed = self._git("ls-tree", "-r", "-z", commit, "--", "src") if named else None
            entries = [entry.split("\t") for entry in (listed or "").split("\0") if entry]
            blobs = {path: facts.split(" ")[2] for facts, path in entries}
            self._hash_blobs(set(blobs.values()))
            self._sources[commit] = None if listed is None else {path: self._blobs[blobs[path]] for path in blobs}
        return self._sources[commit]

    def _hash_blobs(self, wanted: set[str]) -> None:
        new = sorted(wanted - self._blobs.keys())
        content = self._git_bytes("cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in new).encode()) or b""
        at = 0
        for blob in new:  # each after a line "blob-id blob size", each with a line's end behind it
            begin = content.index(b"\n", at) + 1
            at = begin + int(content[at:begin].split()[2])
            self._blobs[blob] = sha256_bytes(content[begin:at])
            at += 1

    def last_commit(self, path: str) -> tuple[str, str, str] | None:
        """Return commit, date and subject of the last commit that wrote a file, or None."""
        found = (self._git("log", "-1", "--format=%H%x00%cI%x00%s", "--", path) or "").strip().split("\0")
        return (found[0], found[1], found[2]) if len(found) == 3 else None

    def _git(self, *arguments: str) -> str | None:
        output = self._git_bytes(*arguments)
        return None if output is None else os.fsdecode(output)

    def _git_bytes(self, *arguments: str, stdin: bytes = b"") -> bytes | None:
        trust = ("core.trustctime=true", "core.checkStat=default", "core.ignoreStat=false", "core.fsmonitor=false")
        settings = [part for setting in trust for part in ("-c", setting)]  # else a setting can hide a change
        real = ("--no-optional-locks", "--no-replace-objects")  # nothing is written, no commit stands for another
        command = ["git", *real, "-C", str(self.root), *settings, *arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # of a hook
        try:
            return subprocess.run(command, input=stdin, capture_output=True, check=True, env=environment).stdout
        except (OSError, subprocess.CalledProcessError):
            return None

    def check_dvc(self, folder: str) -> Finding:
        """Compare the folder of a run's method with what ``dvc.lock`` recorded."""
        method = Path(folder).parents[1] if len(Path(folder).parts) > 2 else Path(folder)
        expected = self.dvc_lock.get(method.as_posix(), {}).get("md5")
        if expected is None:
            return Finding("dvc.lock", None, f"{method} is not recorded there")
        if self._dvc_hash(self.root / method) == expected:
            return Finding("dvc.lock", True, f"{method} is as recorded")
        return Finding("dvc.lock", None, f"{method} has changed since it was recorded (dvc repro records it)")

    def check_recorded(self, path: str) -> Finding:
        """Compare a file or folder with what ``dvc.lock`` recorded of it."""
        place, expected = self.root / path, self.dvc_lock[path].get("md5")
        found = self._dvc_hash(place) if place.is_dir() else hashlib.md5(place.read_bytes()).hexdigest()
        if found == expected:
            return Finding(f"dvc.lock {path}", True, "is as recorded")
        return Finding(f"dvc.lock {path}", None, "has changed since it was recorded (dvc repro records it)")

    def fewer_than_recorded(self, folders: Iterable[str]) -> list[Finding]:
        """Tell where files are gone that ``dvc.lock`` counted: `folders` are of runs that are planned and not here."""
        found = []
        for method in dict.fromkeys(Path(folder).parents[1] for folder in folders):
            count = self.dvc_lock.get(method.as_posix(), {}).get("nfiles")
            here = self._files_below(method)
            if isinstance(count, int) and here < count:
                detail = f"{method} had {count} files when it was recorded, now {here}"
                found.append(Finding("dvc.lock", False, detail, missing=True))
        return found

    @cached_property
    def dvc_lock(self) -> dict[str, dict]:
        """Path -> md5 and number of files of every output that ``dvc.lock`` records; empty if it cannot be read."""
        path = self.root / "dvc.lock"
        try:
            stages = load_yaml(path, ours=False)["stages"] if path.is_file() else {}
            return {out["path"]: out for stage in stages.values() for out in stage.get("outs", [])}
        except (UserError, KeyError, TypeError, AttributeError):
            return {}


def _blob(content: bytes, digits: int) -> str:
    """Return the id of so many hexadecimal digits that Git gives this content; no line end is converted here."""
    return hashlib.new("sha1" if digits == 40 else "sha256", b"blob %d\0" % len(content) + content).hexdigest()


def _dvc_hash(folder: Path) -> str:
    """Return the hash that DVC 3 gives a folder: the md5 of a JSON list of its files and their md5."""
    entries = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        entries.append({"md5": digest, "relpath": file.relative_to(folder).as_posix()})
    entries.sort(key=lambda entry: entry["relpath"])
    text = json.dumps(entries, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"
