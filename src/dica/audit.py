"""Answer for a table cell: find its runs, re-hash their files, recompute the number, say what changed since.

Offline, without GPU or DVC remote; nothing is written. What could not be checked is said, not passed over.
"""

from __future__ import annotations

import csv
import math
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from dica.config import load_profile
from dica.files import UserError, read_json, sha256_file
from dica.identity import make_plan, rebuild_command, run_id
from dica.metrics import recompute
from dica.stats import mean, spread

MATCHES, DIFFERS, MISSING = 0, 3, 4
TOLERANCE = 1e-9  # the same predictions give the same floats; this only forgives the CSV's rounding


@dataclass
class Finding:
    """One check: `ok` True (holds), False (does not), None (could not be checked, or for information)."""

    what: str
    ok: bool | None
    detail: str = ""
    missing: bool = False


@dataclass
class RunAudit:
    """What was found out about one run of a cell."""

    folder: str
    seed: int | None = None
    value: float | None = None
    record: dict = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


@dataclass
class CellAudit:
    """The audit of one cell; `code` is the exit code: 0 matches, 3 does not, 4 something is missing."""

    address: str
    row: dict
    runs: list[RunAudit]
    findings: list[Finding]
    rebuild: str

    @property
    def all_findings(self) -> list[Finding]:
        """Return the findings of the cell and of its runs."""
        return self.findings + [finding for run in self.runs for finding in run.findings]

    @property
    def code(self) -> int:
        """Return the exit code; a contradiction outweighs a gap."""
        if any(finding.ok is False and not finding.missing for finding in self.all_findings):
            return DIFFERS
        return MISSING if any(finding.missing for finding in self.all_findings) else MATCHES

    def as_dict(self) -> dict:
        """Return everything as plain values, for ``--json``."""
        return {
            "address": self.address,
            "code": self.code,
            "cell": self.row,
            "findings": [asdict(finding) for finding in self.findings],
            "runs": [asdict(run) for run in self.runs],
            "rebuild": self.rebuild,
        }


class Auditor:
    """Audits cells of one profile's tables.

    Parameters
    ----------
    root
        Project root.
    profile
        Profile file, relative to the root.

    Raises
    ------
    UserError
        If the profile is faulty or has no ``cells.csv`` yet.
    """

    def __init__(self, root: Path, profile: str = "params/archive.yaml") -> None:
        self.root = root
        self.profile_file = profile
        self.profile = load_profile(root / profile, root)
        self.results = self.profile["results"]
        path = root / self.results / "tables" / "cells.csv"
        if not path.is_file():
            raise UserError(f"{path.relative_to(root)}: no such file; build the tables first: snakemake light")
        with open(path, encoding="utf-8", newline="") as file:
            self.cells = list(csv.DictReader(file))
        self.current_ids = {run["id"] for run in make_plan(self.profile, root)["runs"]}

    def find(self, paper: str, artefact: str, cell: str) -> dict:
        """Return the row of ``cells.csv`` that `cell` (``row/dataset/metric``) names.

        Raises
        ------
        UserError
            If there is none; the message lists what could have been meant.
        """
        rows = [row for row in self.cells if (row["paper"], row["artefact"]) == (paper, artefact)]
        if not rows:
            known = sorted({f"{row['paper']} {row['artefact']}" for row in self.cells})
            raise UserError(f"no table {paper} {artefact}; there are: {', '.join(known)}")
        for row in rows:
            if cell_name(row) == cell:
                return row
        raise UserError(f"{paper} {artefact} has no cell {cell!r}; it has: {', '.join(map(cell_name, rows))}")

    def audit(self, row: dict) -> CellAudit:
        """Check one cell from its printed number down to the predictions."""
        address = f"{row['paper']} {row['artefact']} {cell_name(row)}"
        folders = row["runs"].split()
        runs = [self.audit_run(folder, row["metric"]) for folder in folders]
        findings = self._cell_findings(row, runs)
        option = "" if self.profile_file == "params/archive.yaml" else f" --configfile {self.profile_file}"
        rebuild = rebuild_command(folders, option)
        return CellAudit(address, row, runs, findings, rebuild)

    def _cell_findings(self, row: dict, runs: list[RunAudit]) -> list[Finding]:
        if not row["method"]:
            return [Finding("published only", None, "copied from the paper, never run here")]
        if not runs:
            return [Finding("run", False, f"{row['verdict']}: {row['reason']}", missing=True)]
        values = [run.value for run in runs if run.value is not None]
        findings = []
        if len(values) == len(runs):
            findings.append(
                _compare("value", float(row["value"]), max(values) if row["statistic"] == "best" else mean(values))
            )
            if row["spread"]:
                findings.append(_compare("spread", float(row["spread"]), spread(values)))
        old = [run.folder for run in runs if run.folder.rsplit("-", 1)[1] not in self.current_ids]
        if old:
            detail = f"the parameters in params/ now ask for other runs than {', '.join(old)}"
            findings.append(Finding("parameters", False, detail))
        else:
            findings.append(Finding("parameters", True, "params/ asks for exactly these runs"))
        planned = int(row["seeds_planned"] or len(runs))
        if len(runs) < planned:
            findings.append(Finding("seeds", None, f"{len(runs)} of {planned} planned seeds are there"))
        return findings

    def audit_run(self, folder: str, metric: str) -> RunAudit:
        """Check the files of one run and recompute `metric` from its predictions."""
        run = RunAudit(folder)
        path = self.root / folder
        if not (path / "run.json").is_file():
            run.findings.append(Finding("run.json", False, "missing", missing=True))
            return run
        run.record = read_json(path / "run.json")
        run.seed = run.record.get("seed")
        run.findings += self._check_files(path, run.record)
        run.findings += self._check_identity(path, run.record)
        run.value, findings = self._recompute(path, run.record["dataset"], metric)
        run.findings += findings
        run.findings.append(self._check_sources(run.record))
        run.findings.append(self._check_dvc(path))
        return run

    def _check_files(self, path: Path, record: dict) -> list[Finding]:
        findings = []
        for name, expected in record["files"].items():
            file = path / name
            if name == "weights.safetensors":
                file = self.root / self.results / "models" / path.relative_to(self.root / self.results / "runs") / name
                if not file.is_file():
                    findings.append(Finding(name, None, "not here (kept outside Git): not checked"))
                    continue
            if not file.is_file():
                findings.append(Finding(name, False, "missing", missing=True))
            elif sha256_file(file) != expected:
                findings.append(Finding(name, False, "changed: its SHA-256 is not the one in run.json"))
            else:
                findings.append(Finding(name, True, f"sha256 {expected[:12]}…"))
        return findings

    def _check_identity(self, path: Path, record: dict) -> list[Finding]:
        if not (path / "config.json").is_file():
            return []
        config = read_json(path / "config.json")
        try:
            found = run_id(config)
        except KeyError as error:
            return [Finding("identity", False, f"config.json lacks {error}")]
        same = found == record["id"] == path.name.split("-")[-1]
        detail = f"config.json hashes to {found}" + ("" if same else f", the run is called {path.name.split('-')[-1]}")
        return [Finding("identity", same, detail)]

    def _recompute(self, path: Path, dataset: str, metric: str) -> tuple[float | None, list[Finding]]:
        labels = self.root / "data" / "labels" / f"{dataset}.npz"
        needed = [path / "predictions.npz", path / "metrics.json", path / "config.json", labels]
        absent = [file for file in needed if not file.is_file()]
        if absent:
            names = ", ".join(str(file.relative_to(self.root)) for file in absent)
            return None, [Finding(metric, False, f"cannot be recomputed without {names}", missing=True)]
        eval_split = read_json(path / "config.json")["params"]["eval_split"]
        try:
            fresh = recompute(path / "predictions.npz", labels, eval_split)["headline"][metric]
        except UserError as error:
            return None, [Finding(metric, False, str(error))]
        return fresh, [_compare(metric, read_json(path / "metrics.json")["headline"][metric], fresh)]

    def _check_sources(self, record: dict) -> Finding:
        changed = [
            name
            for name, digest in record["sources"].items()
            if not (self.root / name).is_file() or sha256_file(self.root / name) != digest
        ]
        if changed:
            return Finding("code", None, f"changed since the run: {', '.join(changed)}")
        return Finding("code", True, f"the {len(record['sources'])} source files are those of the run")

    def _check_dvc(self, path: Path) -> Finding:
        parts = path.relative_to(self.root).parts
        folder = Path(*parts[: parts.index("runs") + 2])
        expected = _dvc_lock(self.root).get(folder.as_posix())
        if expected is None:
            return Finding("dvc.lock", None, f"{folder} is not recorded there")
        same = _dvc_hash(self.root / folder) == expected
        if same:
            return Finding("dvc.lock", True, f"{folder} is as recorded")
        return Finding("dvc.lock", None, f"{folder} has changed since it was recorded (dvc repro records it)")


def cell_name(row: dict) -> str:
    """Return ``row/dataset/metric``, the address of a cell inside its table."""
    return f"{row['row']}/{row['dataset']}/{row['metric']}"


def _compare(what: str, stored: float, fresh: float) -> Finding:
    same = math.isclose(stored, fresh, rel_tol=0, abs_tol=TOLERANCE)
    if same:
        return Finding(what, True, f"{fresh:.4f}, recomputed")
    return Finding(what, False, f"stored {stored:.6f}, recomputed {fresh:.6f}")


@cache
def _dvc_lock(root: Path) -> dict[str, str]:
    """Return path -> md5 of every output that ``dvc.lock`` records."""
    import yaml

    path = root / "dvc.lock"
    if not path.is_file():
        return {}
    stages = yaml.safe_load(path.read_text(encoding="utf-8")).get("stages", {})
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}


@cache
def _dvc_hash(folder: Path) -> str:
    """Return the hash that DVC 3 gives a folder: the md5 of a JSON list of its files and their md5."""
    import hashlib
    import json

    entries = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        entries.append({"md5": digest, "relpath": file.relative_to(folder).as_posix()})
    entries.sort(key=lambda entry: entry["relpath"])
    text = json.dumps(entries, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"
