"""What the files of a run, the labels, Git and DVC say about a number; `dica.audit.auditor` weighs it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from dica.audit.checkout import Checkout
from dica.data.paths import labels_file, labels_record
from dica.data.prepared import fingerprint, labels_digest
from dica.files import UserError, load_arrays
from dica.plan.parameters import load_datasets
from dica.plan.plan import run_folder, source_folder
from dica.runs.behaviour import REWRITTEN, SAME, behaviour
from dica.runs.files import CONFIG, METRICS, PREDICTIONS, RECORD, RESULT_FILES, STAGES, TRACE, WEIGHTS
from dica.runs.ids import run_id
from dica.runs.read import (
    CONFIG_KEYS,
    LABELS_KEYS,
    NUMBER,
    RUN_KEYS,
    SHARED_KEYS,
    TEXT,
    Finding,
    environment_of,
    read_metrics,
    read_record,
)
from dica.runs.record import LOCK
from dica.scores.evaluation import recompute

TOLERANCE = 1e-9  # the same predictions give the same floats; this only forgives the CSV's rounding
FILES = (*RESULT_FILES, WEIGHTS)
OPTIONAL_FILES = (TRACE,)  # of runs that are trained by gradient steps
OUTSIDE_GIT = (WEIGHTS, STAGES)


@dataclass
class RunAudit:
    """What was found out about one run of a cell; `value` is its number, recomputed."""

    folder: str
    seed: int | None = None
    value: float | None = None
    record: dict = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


class RunChecks:
    """Checks runs, each once however many cells show it."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        self.root, self.results = checkout.root, checkout.results
        self.facts = cache(self._facts)
        self.labels = cache(self._labels)

    def audit(self, folder: str, metric: str) -> RunAudit:
        """Return what is known of one run, with `metric` recomputed from its predictions."""
        record, findings, stored, fresh = self.facts(folder)
        run = RunAudit(folder, record.get("seed"), fresh.get(metric), record, list(findings))
        if metric in fresh and metric in stored:
            run.findings.append(compare(metric, stored[metric], fresh[metric]))
        return run

    def _facts(self, folder: str) -> tuple[dict, list[Finding], dict, dict]:
        """Return run.json, the findings and the headline numbers, stored and recomputed; what fails is empty."""
        path = self.root / folder
        record, findings = read_record(path / RECORD, RUN_KEYS)
        if record is None:
            return {}, findings, {}, {}
        config, faults = read_record(path / CONFIG, CONFIG_KEYS)
        findings += self._check_files(folder, record)
        findings += [fault for fault in faults if not fault.missing]  # an absent file is already said
        if config is not None:
            findings.append(self._check_identity(folder, record, config))
            findings += self._check_source(record, config)
        stored, fresh, compared = self._recompute(folder, record["dataset"], config)
        findings += [*compared, self._check_sources(record), *self._check_commit(record)]
        findings += self._check_environment(record)
        findings += [self.checkout.check_dvc(folder), *self.checkout.check_writers(folder, [*record["files"], METRICS])]
        return record, findings, stored, fresh

    def _check_environment(self, record: dict) -> list[Finding]:
        """Tell whether today's lock file is the one that the run was trained with; older records do not say."""
        found, lock = environment_of(record).get("lock_sha256"), self.root / LOCK
        if not found or not lock.is_file():
            return []
        if self.checkout.sha256(lock) == found:
            return [Finding("environment", True, f"{LOCK} is the one that it was trained with")]
        return [Finding("environment", None, f"trained with another {LOCK} ({found[:12]}…)")]

    def _check_files(self, folder: str, record: dict) -> list[Finding]:
        findings = []
        present = [name for name in OPTIONAL_FILES if (self.root / folder / name).is_file()]
        lacking = [name for name in (*FILES, *present) if name not in record["files"]]
        if lacking:
            findings.append(Finding(RECORD, False, f"lacks files.{', files.'.join(lacking)}"))
        for name, expected in record["files"].items():
            file = self.root / folder / name
            if name in OUTSIDE_GIT:
                file = self.root / self.results / "models" / Path(*Path(folder).parts[-3:]) / name
                if not file.is_file():
                    findings.append(Finding(name, None, "not here (kept outside Git): not checked"))
                    continue
            if not file.is_file():
                findings.append(Finding(name, False, "missing", missing=True))
            elif self.checkout.sha256(file) != expected:
                findings.append(Finding(name, False, "changed: its SHA-256 is not the one in run.json"))
            else:
                findings.append(Finding(name, True, f"sha256 {expected[:12]}…"))
        return findings

    def _check_identity(self, folder: str, record: dict, config: dict) -> Finding:
        name, found = Path(folder).name.split("-")[-1], run_id(config)
        unlike = [key for key in SHARED_KEYS if record[key] != config[key]]
        if found != name:
            return Finding("identity", False, f"config.json hashes to {found}, the run is called {name}")
        if unlike:
            return Finding("identity", False, f"run.json and config.json differ in {', '.join(unlike)}")
        if (place := run_folder(config, self.results)) != folder:
            return Finding("identity", False, f"the run of config.json belongs to {place}")
        return Finding("identity", True, f"config.json hashes to {found}")

    def _check_source(self, record: dict, config: dict) -> list[Finding]:
        """Tell whether the run that this one builds on is still the one whose weights it took."""
        if not config["params"].get("source"):
            return []
        try:
            wanted, found = config["params"]["source"]["id"], record["source"]
            place, digest = source_folder(config, self.results), found["weights_sha256"]
            if found["id"] != wanted:
                return [Finding("source", False, f"run.json names run {found['id']}, the parameters {wanted}")]
        except (KeyError, TypeError) as error:
            return [Finding("source", False, f"run.json or the parameters do not say what it builds on ({error})")]
        below, faults = read_record(self.root / place / RECORD, {"files": dict, "files.*": TEXT})
        if below is None:
            return [Finding("source", None, f"{place}: {faults[0].detail}: not checked")]
        if below["files"].get(WEIGHTS) != digest:
            return [Finding("source", False, f"{place} now has other weights than those it was built on")]
        return [Finding("source", True, f"built on {place}")]

    def _recompute(self, folder: str, dataset: str, config: dict | None) -> tuple[dict, dict, list[Finding]]:
        """Return the headline numbers, stored and recomputed, and the findings about metrics.json."""
        path, labels = self.root / folder, self.root / labels_file(dataset)
        stored, findings = read_metrics(path / METRICS)
        needed = {f"{folder}/{PREDICTIONS}": path / PREDICTIONS, labels_file(dataset): labels}
        absent = [name for name, file in needed.items() if not file.is_file()]
        if absent:
            lost = Finding("metrics", False, f"cannot be recomputed without {', '.join(absent)}", missing=True)
            return {}, {}, [*findings, lost]
        if stored is None or config is None:
            return {}, {}, findings
        try:
            params = config["params"]
            fresh = recompute(path / PREDICTIONS, labels, params.get("eval_split"), params.get("supervised") is True)
        except (UserError, ValueError, TypeError, IndexError, OverflowError) as error:
            return {}, {}, [*findings, Finding(PREDICTIONS, False, f"not usable: {error}")]
        hashes = {
            "predictions_sha256": self.checkout.sha256(path / PREDICTIONS),
            "labels_sha256": self.checkout.sha256(labels),
        }
        unlike = _unlike(stored, {"id": config["id"], **fresh, **hashes})
        detail = (
            f"differs from what predictions and labels give: {', '.join(unlike)}"
            if unlike
            else "scored from these files"
        )
        findings.append(Finding(METRICS, not unlike, detail))
        return stored["headline"], fresh["headline"], findings

    def _check_sources(self, record: dict) -> Finding:
        sources = record["sources"]
        if "src/dica/train.py" not in sources:
            return Finding(
                "code", False, "run.json lacks sources.src/dica/train.py: the code of the run is not recorded"
            )
        found = behaviour(
            record["method"], record["variant"], record, lambda name: self.checkout.sha256(self.root / name)
        )
        holds = True if found.answer in (SAME, REWRITTEN) else None
        return Finding("code", holds, f"{found.answer}: {found.detail}")

    def _check_commit(self, record: dict) -> list[Finding]:
        """Tell whether the code that the record describes is that of the commit that it names."""
        commit, sources = record["commit"], record["sources"]
        if self.checkout.states is None:  # without Git nothing is known, which is said elsewhere
            return []
        if not commit or record["dirty_sha256"]:
            return [Finding("commit", None, "trained with changes that were not committed: Git cannot show the code")]
        stored = self.checkout.sources(commit)
        if stored is None:
            return [Finding("commit", None, f"{commit[:12]} is not in this clone: Git cannot show the code")]
        unlike = [name for name, found in sources.items() if stored.get(name) != found]
        if unlike:
            return [Finding("commit", False, f"{commit[:12]} has other code than run.json says: {', '.join(unlike)}")]
        return [Finding("commit", True, f"the code is that of {commit[:12]}")]

    def check_labels(self, dataset: str, runs: list[RunAudit]) -> list[Finding]:
        """Compare the labels with the data's fingerprint, which is in the id of every run on a pinned data set."""
        found, record, findings = self.labels(dataset)
        if found is None:
            return findings
        pinned = load_datasets(self.root).get(dataset, {}).get("fingerprint")
        configs = [read_record(self.root / run.folder / CONFIG, CONFIG_KEYS)[0] for run in runs]
        expected = {config["data_id"] for config in configs if config} if pinned else {record["fingerprint"]}
        if expected - {found}:
            return [
                Finding(
                    "labels",
                    False,
                    f"with them the fingerprint of {dataset} is {found[:12]}…, the runs' is "
                    f"{', '.join(f'{other[:12]}…' for other in sorted(expected - {found}))}",
                )
            ]
        if pinned:
            return [Finding("labels", True, f"those of the fingerprint in the runs' ids, {found[:12]}…")]
        return [
            Finding("labels", None, f"those of {labels_record(dataset)}, but params/datasets.yaml pins no fingerprint")
        ]

    def _labels(self, dataset: str) -> tuple[str | None, dict, list[Finding]]:
        """Return the fingerprint that the labels give, their record, and what prevents it."""
        record_file, labels = self.root / labels_record(dataset), self.root / labels_file(dataset)
        if not labels.is_file():
            return None, {}, [Finding("labels", False, f"{labels_file(dataset)} is missing", missing=True)]
        if not record_file.is_file():
            return None, {}, [Finding("labels", None, f"cannot be anchored: no {labels_record(dataset)}")]
        record, findings = read_record(record_file, LABELS_KEYS)
        if record is None:
            return None, {}, findings
        try:
            digests = {split: labels_digest(values) for split, values in load_arrays(labels).items()}
        except (UserError, ValueError, TypeError) as error:
            return None, {}, [Finding("labels", False, str(error))]
        if set(digests) != set(record["splits"]) - {"unlabeled"}:
            detail = f"{labels_file(dataset)} has the splits {', '.join(sorted(digests))}, its .json others"
            return None, {}, [Finding("labels", False, detail)]
        splits = {
            name: {**split, "labels_sha256": digests.get(name, split["labels_sha256"])}
            for name, split in record["splits"].items()
        }
        return fingerprint(splits, record["classes"]), record, []


def _unlike(stored: Any, fresh: Any, name: str = "") -> list[str]:
    """Return the dotted keys under which two JSON values differ; numbers may differ by `TOLERANCE`."""
    if isinstance(stored, dict) and isinstance(fresh, dict):
        keys = dict.fromkeys([*stored, *fresh])
        return [
            found for key in keys for found in _unlike(stored.get(key), fresh.get(key), f"{name}.{key}".lstrip("."))
        ]
    if isinstance(stored, NUMBER) and isinstance(fresh, NUMBER):
        return [] if math.isclose(stored, fresh, rel_tol=0, abs_tol=TOLERANCE) else [name]
    return [] if stored == fresh else [name]


def compare(what: str, stored: Any, fresh: float) -> Finding:
    try:
        same = math.isclose(float(stored), fresh, rel_tol=0, abs_tol=TOLERANCE)
    except ValueError:
        return Finding(what, False, f"stored {stored!r} is no number, recomputed {fresh:.6f}")
    if same:
        return Finding(what, True, f"{fresh:.4f}, recomputed")
    return Finding(what, False, f"stored {float(stored):.6f}, recomputed {fresh:.6f}")
