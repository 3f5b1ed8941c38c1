"""What the files of a run, the labels, Git and DVC say about a number; `dica.audit.auditor` weighs it."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from dica.data.prepared import fingerprint, labels_digest
from dica.files import UserError, read_json, sha256_file
from dica.plan.parameters import load_datasets
from dica.plan.plan import run_folder, source_folder
from dica.runs.files import RECORD, RESULT_FILES, STAGES, TRACE, WEIGHTS
from dica.runs.ids import run_id
from dica.scores.metrics import load_arrays, recompute
from dica.validation import load_yaml

TOLERANCE = 1e-9  # the same predictions give the same floats; this only forgives the CSV's rounding
FILES = (*RESULT_FILES, WEIGHTS)
OPTIONAL_FILES = (TRACE,)  # of runs that are trained by gradient steps
OUTSIDE_GIT = (WEIGHTS, STAGES)
FINITE = 1e15  # no number in a record is as large

TEXT, NUMBER, NOTHING = str, (int, float), type(None)
CONFIG_KEYS = {
    **dict.fromkeys(("id", "method", "variant", "dataset", "data_id", "determinism"), TEXT),
    **{"seed": int, "params": dict},
}
PLAN_KEYS = {**CONFIG_KEYS, "path": TEXT, "variants": list, "needed_by": list}
SHARED_KEYS = ("id", "method", "variant", "dataset", "seed", "determinism")  # run.json repeats them from config.json
RUN_KEYS = {
    **{key: CONFIG_KEYS[key] for key in SHARED_KEYS},
    **{"commit": (TEXT, NOTHING), "dirty_sha256": (TEXT, NOTHING), "started": TEXT, "seconds": NUMBER},
    **{"device": dict, "device.name": TEXT, "versions": dict, "files": dict, "sources": dict},
    **{"files.*": TEXT, "sources.*": TEXT},
}
METRICS_KEYS = {
    **{"id": TEXT, "evaluated_on": TEXT, "headline": dict, "splits": dict},
    **{"predictions_sha256": TEXT, "labels_sha256": TEXT},
    **dict.fromkeys(("headline.acc", "headline.nmi", "headline.ari", "headline.*"), NUMBER),
    **dict.fromkeys(("headline.largest_cluster_share", "headline.num_clusters"), NUMBER),
}
LABELS_KEYS = {
    **{"fingerprint": TEXT, "classes": list, "splits": dict, "splits.*": dict},
    **{"splits.*.shape": list, "splits.*.pixels_sha256": TEXT, "splits.*.labels_sha256": TEXT},
}


@dataclass
class Finding:
    """One check: `ok` True (holds), False (does not), None (could not be checked, or for information)."""

    what: str
    ok: bool | None
    detail: str = ""
    missing: bool = False


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
        config, faults = read_record(path / "config.json", CONFIG_KEYS)
        findings += self._check_files(folder, record)
        findings += [fault for fault in faults if not fault.missing]  # an absent file is already said
        if config is not None:
            findings.append(self._check_identity(folder, record, config))
            findings += self._check_source(record, config)
        stored, fresh, compared = self._recompute(folder, record["dataset"], config)
        findings += [*compared, self._check_sources(record), self.checkout.check_dvc(folder)]
        return record, findings, stored, fresh

    def _check_files(self, folder: str, record: dict) -> list[Finding]:
        findings = []
        present = [name for name in OPTIONAL_FILES if (self.root / folder / name).is_file()]
        lacking = [name for name in (*FILES, *present) if name not in record["files"]]
        if lacking:
            findings.append(Finding("run.json", False, f"lacks files.{', files.'.join(lacking)}"))
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
        path, labels = self.root / folder, self.root / "data" / "labels" / f"{dataset}.npz"
        stored, findings = read_record(path / "metrics.json", METRICS_KEYS)
        needed = {f"{folder}/predictions.npz": path / "predictions.npz", f"data/labels/{dataset}.npz": labels}
        absent = [name for name, file in needed.items() if not file.is_file()]
        if absent:
            lost = Finding("metrics", False, f"cannot be recomputed without {', '.join(absent)}", missing=True)
            return {}, {}, [*findings, lost]
        if stored is None or config is None:
            return {}, {}, findings
        try:
            params = config["params"]
            fresh = recompute(
                path / "predictions.npz", labels, params.get("eval_split"), params.get("supervised") is True
            )
        except (UserError, ValueError, TypeError, IndexError, OverflowError) as error:
            return {}, {}, [*findings, Finding("predictions.npz", False, f"not usable: {error}")]
        hashes = {
            "predictions_sha256": self.checkout.sha256(path / "predictions.npz"),
            "labels_sha256": self.checkout.sha256(labels),
        }
        unlike = _unlike(stored, {"id": config["id"], **fresh, **hashes})
        detail = (
            f"differs from what predictions and labels give: {', '.join(unlike)}"
            if unlike
            else "scored from these files"
        )
        findings.append(Finding("metrics.json", not unlike, detail))
        return stored["headline"], fresh["headline"], findings

    def _check_sources(self, record: dict) -> Finding:
        sources = record["sources"]
        if "src/dica/train.py" not in sources:
            return Finding(
                "code", False, "run.json lacks sources.src/dica/train.py: the code of the run is not recorded"
            )
        changed = [name for name, digest in sources.items() if self.checkout.sha256(self.root / name) != digest]
        if changed:
            return Finding("code", None, f"changed since the run: {', '.join(changed)}")
        return Finding("code", True, f"the {len(sources)} source files are those of the run")

    def check_labels(self, dataset: str, runs: list[RunAudit]) -> list[Finding]:
        """Compare the labels with the data's fingerprint, which is in the id of every run on a pinned data set."""
        found, record, findings = self.labels(dataset)
        if found is None:
            return findings
        pinned = load_datasets(self.root).get(dataset, {}).get("fingerprint")
        configs = [read_record(self.root / run.folder / "config.json", CONFIG_KEYS)[0] for run in runs]
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
            Finding(
                "labels", None, f"those of data/labels/{dataset}.json, but params/datasets.yaml pins no fingerprint"
            )
        ]

    def _labels(self, dataset: str) -> tuple[str | None, dict, list[Finding]]:
        """Return the fingerprint that the labels give, their record, and what prevents it."""
        record_file = self.root / "data" / "labels" / f"{dataset}.json"
        labels = record_file.with_suffix(".npz")
        if not labels.is_file():
            return None, {}, [Finding("labels", False, f"data/labels/{dataset}.npz is missing", missing=True)]
        if not record_file.is_file():
            return None, {}, [Finding("labels", None, f"cannot be anchored: no data/labels/{dataset}.json")]
        record, findings = read_record(record_file, LABELS_KEYS)
        if record is None:
            return None, {}, findings
        try:
            digests = {split: labels_digest(values) for split, values in load_arrays(labels).items()}
        except (UserError, ValueError, TypeError) as error:
            return None, {}, [Finding("labels", False, str(error))]
        if set(digests) != set(record["splits"]) - {"unlabeled"}:
            detail = f"data/labels/{dataset}.npz has the splits {', '.join(sorted(digests))}, its .json others"
            return None, {}, [Finding("labels", False, detail)]
        splits = {
            name: {**split, "labels_sha256": digests.get(name, split["labels_sha256"])}
            for name, split in record["splits"].items()
        }
        return fingerprint(splits, record["classes"]), record, []


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
        stages = load_yaml(path).get("stages", {}) if path.is_file() else {}
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}


def read_record(path: Path, keys: dict[str, Any]) -> tuple[dict | None, list[Finding]]:
    """Read a JSON file that must have `keys`: dotted names with their types, `*` for every key of a mapping.

    Returns
    -------
    tuple
        The content, or None together with what is wrong.
    """
    if not path.is_file():
        return None, [Finding(path.name, False, "missing", missing=True)]
    try:
        value = read_json(path)
    except UserError as error:
        return None, [Finding(path.name, False, str(error))]
    if not isinstance(value, dict):
        return None, [Finding(path.name, False, "is not a JSON object")]
    wrong = list(dict.fromkeys(chain.from_iterable(faults(value, key.split("."), kind) for key, kind in keys.items())))
    return (None, [Finding(path.name, False, "; ".join(wrong))]) if wrong else (value, [])


def faults(value: Any, names: list[str], kind: type | tuple, where: str = "") -> list[str]:
    """Return where `value` has not the type `kind` under a dotted key."""
    if not names:
        right = isinstance(value, kind) and not isinstance(value, bool)
        if right and isinstance(value, NUMBER) and not abs(value) < FINITE:  # NaN is neither
            return [f"{where}: is not a finite number"]
        return [] if right else [f"{where}: has the wrong type ({type(value).__name__})"]
    if not isinstance(value, dict):
        return [f"{where}: has the wrong type ({type(value).__name__})"]
    chosen = list(value) if names[0] == "*" else names[:1]
    dot = "." if where else ""
    if chosen and chosen[0] not in value:
        return [f"lacks {where}{dot}{chosen[0]}"]
    return [fault for name in chosen for fault in faults(value[name], names[1:], kind, f"{where}{dot}{name}")]


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


def _dvc_hash(folder: Path) -> str:
    """Return the hash that DVC 3 gives a folder: the md5 of a JSON list of its files and their md5."""
    entries = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        entries.append({"md5": digest, "relpath": file.relative_to(folder).as_posix()})
    entries.sort(key=lambda entry: entry["relpath"])
    text = json.dumps(entries, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"
