"""Which tables, figures and pages are up to date: decided by content, as a run is, and not by the times of files.

A clone has new file times and no memory of Snakemake's. So each of these, once made, leaves a small file in
``results/made/``, which Git keeps: a digest of all that it was made of, and the digests of what was made. The program
text is not among them: `snakemake --forceall light` makes all anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from dica.files import UserError, canonical_json, read_json, sha256_bytes, sha256_file, write_json
from dica.plan.artefacts import analyses, load_artefacts
from dica.plan.artefacts import analysis_path as path_of_analysis
from dica.runs.files import failure_reason

Target = tuple[str, ...]  # what is made: its kind, then its address

# What tables set beside the runs: printed numbers and facts of data sets and networks.
FACTS = ("params/published/*.csv", "params/networks.csv", "params/datasets.yaml")
# Kind -> where its files lie below the results, with the address filled in.
PLACES = {
    "cells": "tables/cells.csv",
    "statistics": "tables/statistics/*.csv",
    "claims": "claims.*",
    "consistency": "tables/consistency.csv",
    "summary": "metrics/{}.json",
    "table": "tables/{}/{}.*",
    "figure": "figures/{}/{}.*",
    "rulegraph": "report/rules.svg",
    "page": "report/*.html",
}
TOLD = "docs/numbers.md"  # what the report's page on numbers is made of
WORKFLOW = ("Snakefile", "workflow/rules/*.smk", "params/archive.yaml", "params/artefacts/*.yaml")


def shown_file(results: str, kind: str, paper: str, name: str, ending: str) -> str:
    """Return one of the files of a table or figure, relative to the project."""
    return f"{results}/{PLACES[kind].format(paper, name).removesuffix('*')}{ending}"


class Made:
    """What has been made of a plan's runs.

    Parameters
    ----------
    plan
        Content of plan.json.
    root, results
        Project root and results root relative to it.
    """

    def __init__(self, plan: dict[str, Any], root: Path, results: str) -> None:
        self.plan, self.root, self.results = plan, root, results
        self._sha256 = cache(sha256_file)
        self._declared = cache(lambda paper: load_artefacts(root, [paper], plan.get("substitute")))
        self._run = cache(lambda run_id: self._digest_of_run(runs[run_id]))
        runs = {run["id"]: run for run in plan["runs"]}
        self._shown: dict[str, list[dict]] = {}  # by address
        for run in plan["runs"]:
            for address in run["needed_by"]:
                self._shown.setdefault(address, []).append(run)

    def is_current(self, target: Target) -> bool:
        """Return whether a target was made of what is there now, and lies there as it was made."""
        stamp = self._stamp(target)
        if not stamp.is_file():
            return False
        try:
            found = read_json(stamp)
            inputs, outputs = found["inputs"], found["outputs"]
            same = all(self._digest(self.root / self.results / name) == digest for name, digest in outputs.items())
        except (UserError, AttributeError, KeyError, TypeError):
            return False  # a damaged stamp
        return bool(outputs) and same and inputs == self.digest(target)

    def record(self, target: Target, out: Path) -> None:
        """Write down that a target has just been made.

        Parameters
        ----------
        out
            The file or folder that was written to; nothing is noted of one that is not among the results.
        """
        home = (self.root / self.results).resolve()
        place = home / self._place(target)
        if not place.is_relative_to(out.resolve()):
            return
        outputs = {path.relative_to(home).as_posix(): sha256_file(path) for path in self._files(target)}
        write_json(self._stamp(target), {"inputs": self.digest(target), "outputs": outputs})

    def digest(self, target: Target) -> str:
        """Return the digest of all that a target is made of now: runs, analyses, declarations, printed numbers."""
        kind, *address = target
        if kind == "rulegraph":
            return sha256_bytes(canonical_json(self._of_files(self._under(self.root, WORKFLOW))).encode())
        parts: dict[str, Any] = {
            "facts": self._of_files(self._under(self.root, FACTS)),
            "substitute": self.plan.get("substitute"),
            "runs": [self._run(run["id"]) for run in self.runs(target)],
        }
        if kind in ("table", "figure"):
            parts["declared"] = self._of_files([self.root / f"params/artefacts/{address[0]}.yaml"])
        if kind == "figure":
            parts["analyses"] = self._of_files(self._analyses(*address))
        if kind == "claims":
            parts["claims"] = self._of_files(self._under(self.root, ["params/claims/*.yaml"]))
        if kind in ("cells", "page", "claims"):
            parts["artefacts"] = self.plan["artefacts"]
            parts["declared"] = self._of_files(self._under(self.root, ["params/artefacts/*.yaml"]))
        if kind == "page":
            below = [PLACES[name].format("*", "*") for name in PLACES if name not in ("page", "summary")]
            parts["made"] = self._of_files(self._under(self.root / self.results, below))
            parts["told"] = self._of_files(self._under(self.root, [TOLD]))
        return sha256_bytes(canonical_json(parts).encode())

    def runs(self, target: Target) -> list[dict]:
        """Return the planned runs that a target shows: those of a method, of a table or figure, or all."""
        kind, *address = target
        if kind == "summary":
            return [run for run in self.plan["runs"] if run["method"] == address[0]]
        if kind in ("table", "figure"):
            return self._shown.get(" ".join(address), [])
        return self.plan["runs"]

    def _digest_of_run(self, run: dict) -> list:
        """Return what is planned of a run and what there is: its files, or why it failed."""
        files = self._of_folder(run["path"])
        reason = None if files else failure_reason(self.root / self.results / "state" / run["id"])
        return [sha256_bytes(canonical_json(run).encode()), files, reason]

    def _analyses(self, paper: str, name: str) -> list[Path]:
        (artefact,) = (a for a in self._declared(paper) if a.name == name)
        return [
            self.root / path_of_analysis(self.results, kind, run["path"]) for kind, run in analyses(self.plan, artefact)
        ]

    def _of_files(self, paths: Iterable[Path]) -> dict[str, str | None]:
        return {path.relative_to(self.root).as_posix(): self._digest(path) for path in paths}

    def _of_folder(self, folder: str) -> dict[str, str | None]:
        """Return what `_of_files` does of a folder's files; the hidden ones are half written.

        All runs are asked for whenever anything is: a `Path` for each of their files would take as long as its digest.
        """
        place = self.root / folder
        if not place.is_dir():
            return {}
        with os.scandir(place) as entries:
            files = [entry for entry in entries if not entry.name.startswith(".") and entry.is_file()]
        return {f"{folder}/{entry.name}": sha256_file(entry.path) for entry in files}

    def _digest(self, path: Path) -> str | None:
        return self._sha256(path) if path.is_file() else None

    def _under(self, folder: Path, patterns: Iterable[str]) -> list[Path]:
        """Return the files below a folder that match, in a fixed order; hidden ones are half written."""
        found = (path for pattern in patterns for path in folder.glob(pattern))
        return sorted(path for path in found if path.is_file() and not path.name.startswith("."))

    def _place(self, target: Target) -> str:
        return PLACES[target[0]].format(*target[1:])

    def _files(self, target: Target) -> list[Path]:
        return self._under(self.root / self.results, [self._place(target)])

    def _stamp(self, target: Target) -> Path:
        return self.root / self.results / "made" / f"{'-'.join(target)}.json"
