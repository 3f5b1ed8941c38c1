"""Why two numbers differ: what is unlike in the runs behind them, from parameters down to the processor.

A side is a run folder, the first digits of a run's id, a cell (``PAPER/ARTEFACT/ROW/DATASET/METRIC``),
``COMMIT:folder`` for a run as it was at another Git commit, or the folder of another checkout: there the same run or
cell is looked up.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dica.files import UserError, canonical_json, parse_json, read_bytes, read_csv
from dica.runs.files import CONFIG, PREDICTIONS, RECORD
from dica.runs.read import CONFIG_KEYS, NUMBER, environment_of, faults
from dica.scores.stats import mean, t_interval
from dica.validation import hint

SECTIONS = ("parameters", "data", "seeds", "code", "environment", "hardware")
MEANING = {
    "parameters": "other parameters were asked for",
    "data": "other images or labels",
    "seeds": "other seeds, so that chance alone can explain it",
    "code": "other code",
    "environment": "other versions of packages or system",
    "hardware": "another device or number of threads: sums are taken in another order",
}
NOTHING = "–"
ENVIRONMENT = {
    "lock_sha256": "requirements.lock",
    "installed_sha256": "all installed packages",
    "image_recipe_sha256": "image",
}
Read = Callable[[str], str | None]


@dataclass
class Side:
    """One side of a comparison: the runs behind a number, each as what its JSON files say."""

    name: str
    runs: list[dict[str, Any]]

    def facts(self) -> dict[str, dict[str, set[str]]]:
        """Return section -> key -> the texts that its runs have there."""
        found: dict[str, dict[str, set[str]]] = {section: {} for section in SECTIONS}
        for run in self.runs:
            for section, facts in _facts(run).items():
                for key, value in facts.items():
                    found[section].setdefault(key, set()).add(
                        value if isinstance(value, str) else canonical_json(value)
                    )
        return found

    def scores(self) -> dict[str, list[float]]:
        """Return metric -> values, by seed."""
        headlines = [run["metrics"].get("headline") for run in self.runs if run["metrics"]]
        names = [
            name
            for name in ("acc", "nmi", "ari")
            if headlines and not any(faults(line, [name], NUMBER) for line in headlines)
        ]
        return {name: [line[name] for line in headlines] for name in names}

    def by_seed(self, name: str) -> dict[int, float]:
        """Return a metric of each seed."""
        return {run["config"]["seed"]: run["metrics"]["headline"][name] for run in self.runs if run["metrics"]}


def _facts(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    config, record = run["config"], run["record"]
    device = record.get("device", {})
    return {
        "parameters": {
            "method": config["method"],
            **_flat(config["params"]),
            "determinism": config.get("determinism"),
        },
        "data": {"data set": config["dataset"], "data_id": config["data_id"], **_flat(record.get("data", {}))},
        "seeds": {"seed": config["seed"]},
        "code": {
            "commit": record.get("commit"),
            "uncommitted changes": record.get("dirty_sha256"),
            **record.get("sources", {}),
        },
        "environment": {**record.get("versions", {}), **_digests(record), "platform": record.get("host_platform")},
        "hardware": {**device, "resumed": record.get("resumed", 0)},
    }


def _digests(record: dict[str, Any]) -> dict[str, str]:
    """Return the digests of an environment under the names that readers know; older records have none."""
    known = environment_of(record)
    return {name: known[key][:12] for key, name in ENVIRONMENT.items() if key in known}


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}{key}.") if isinstance(item, dict) and item else {f"{prefix}{key}": item}
    return flat


def compare(one: Side, other: Side) -> dict[str, Any]:
    """Return what differs between two sides.

    Returns
    -------
    dict
        `a`, `b` (runs), `differences` (section -> key -> the two texts), `metrics` (name -> means and difference, and
        `paired`: over the common seeds, if there are two or more, the mean difference and its 95 % interval by t),
        `same_predictions` (by common seed) and `summary`, one line a reason.
    """
    facts = one.facts(), other.facts()
    differences = {section: _unlike(facts[0][section], facts[1][section]) for section in SECTIONS}
    environment = differences["environment"]  # records written before these digests were kept tell nothing about them
    for name in ENVIRONMENT.values():
        if NOTHING in environment.get(name, ()):
            del environment[name]
    differences = {section: keys for section, keys in differences.items() if keys}
    scores = one.scores(), other.scores()
    metrics: dict[str, dict[str, Any]] = {
        name: {"a": mean(scores[0][name]), "b": mean(scores[1][name])} for name in scores[0] if name in scores[1]
    }
    for name, row in metrics.items():
        row["difference"] = row["b"] - row["a"]
        row["paired"] = _paired(one.by_seed(name), other.by_seed(name))
    same = _same_predictions(one, other)
    return {
        "a": {"name": one.name, "runs": [run["folder"] for run in one.runs]},
        "b": {"name": other.name, "runs": [run["folder"] for run in other.runs]},
        "differences": differences,
        "metrics": metrics,
        "same_predictions": same,
        "summary": _summary(differences, metrics, same),
    }


def _paired(one: dict[int, float], other: dict[int, float]) -> dict[str, float] | None:
    """Return how many seeds two sides share, the mean of their differences and its interval; None of fewer than two."""
    each = [other[seed] - one[seed] for seed in sorted(one.keys() & other.keys())]
    if len(each) < 2:
        return None
    low, high = t_interval(each)
    return {"seeds": len(each), "difference": mean(each), "low": low, "high": high}


def _unlike(a: dict[str, set[str]], b: dict[str, set[str]]) -> dict[str, list[str]]:
    def text(values: set[str] | None) -> str:
        return NOTHING if values is None else ", ".join(sorted(values, key=lambda value: (len(value), value)))

    return {key: [text(a.get(key)), text(b.get(key))] for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)}


def _same_predictions(one: Side, other: Side) -> dict[str, bool]:
    """Return by common seed whether the stored predictions are the same bytes."""
    digests = [
        {run["config"]["seed"]: run["record"].get("files", {}).get(PREDICTIONS) for run in side.runs}
        for side in (one, other)
    ]
    common = sorted(digests[0].keys() & digests[1].keys())
    return {str(seed): digests[0][seed] == digests[1][seed] for seed in common if digests[0][seed]}


def _summary(differences: dict, metrics: dict, same: dict[str, bool]) -> list[str]:
    lines = [f"{section}: {MEANING[section]}" for section in differences]
    if same and all(same.values()):
        lines.insert(0, "the predictions of common seeds are the same, byte for byte")
    if not differences and any(row["difference"] for row in metrics.values()):
        lines.append("nothing that is recorded explains the difference: audit both sides for changed files")
    return lines or ["nothing differs"]


class Finder:
    """Finds the sides of a comparison from what a user types."""

    def __init__(self, root: Path, results: str) -> None:
        self.root, self.results = root, results

    def sides(self, one: str, other: str) -> tuple[Side, Side]:
        """Return both sides; a checkout as one of them stands for what the other one names, there.

        Raises
        ------
        UserError
            If a name fits nothing, or several runs; the message says what there is.
        """
        checkouts = [_checkout(name) for name in (one, other)]
        if all(checkouts):
            raise UserError("both sides are checkouts: name a run or a cell on one of them")
        if checkouts[0]:
            there = Finder(checkouts[0], self.results)
            return Side(f"{other} in {one}", there.find(other).runs), self.find(other)
        if checkouts[1]:
            there = Finder(checkouts[1], self.results)
            return self.find(one), Side(f"{one} in {other}", there.find(one).runs)
        return self.find(one), self.find(other)

    def find(self, name: str) -> Side:
        """Return the side that `name` means."""
        commit, _, folder = name.partition(":")
        if folder and not Path(name).exists():
            return Side(name, [self._run(folder.rstrip("/"), lambda path: self._at_commit(commit, path))])
        for base in (Path.cwd(), self.root):
            if (base / name / RECORD).is_file() or (base / name / CONFIG).is_file():
                return Side(name, [self._run(name.rstrip("/"), partial(_text_below, base))])
        if re.fullmatch(r"[0-9a-f]{3,12}", name):
            return Side(name, [self._by_id(name)])
        if name.count("/") == 4:
            return Side(name, self._cell(name))
        known = [f"{row['paper']}/{row['artefact']}/{_cell_name(row)}" for row in self._cells()]
        raise UserError(f"{name!r} is no run folder, run id, COMMIT:folder, cell or checkout; {hint(name, known)}")

    def _by_id(self, prefix: str) -> dict[str, Any]:
        folders = {path.name.split("-")[-1]: path for path in sorted(self.root.glob(f"{self.results}/runs/*/*/s*-*"))}
        found = [path for run, path in folders.items() if run.startswith(prefix)]
        if len(found) != 1:
            problem = f"{len(found)} runs begin with {prefix!r}" if found else f"no run begins with {prefix!r}"
            raise UserError(f"{self.results}/runs: {problem}; {hint(prefix, folders)}")
        return self._run(found[0].relative_to(self.root).as_posix(), lambda path: _text(self.root / path))

    def _cell(self, name: str) -> list[dict[str, Any]]:
        rows = {f"{row['paper']}/{row['artefact']}/{_cell_name(row)}": row for row in self._cells()}
        if name not in rows:
            raise UserError(f"{self.results}/tables/cells.csv: no cell {name!r}; {hint(name, rows)}")
        folders = rows[name]["runs"].split()
        if not folders:
            raise UserError(f"cell {name!r} has no run: {rows[name]['verdict']}")
        return [self._run(folder, lambda path: _text(self.root / path)) for folder in folders]

    def _cells(self) -> list[dict[str, str]]:
        path = self.root / self.results / "tables" / "cells.csv"
        needed = ("paper", "artefact", "row", "column", "metric", "runs", "verdict")
        return read_csv(path, needed) if path.is_file() else []

    def _at_commit(self, commit: str, path: str) -> str | None:
        command = ["git", "-C", str(self.root), "show", f"{commit}:./{path}"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode and "invalid object name" in done.stderr:
            raise UserError(f"Git knows no commit {commit!r} here")
        return None if done.returncode else done.stdout

    def _run(self, folder: str, read: Read) -> dict[str, Any]:
        """Return what the JSON files of a run folder say."""
        found = {name: _json(read(f"{folder}/{name}.json"), f"{folder}/{name}.json") for name in FILES}
        if not found["config"]:
            raise UserError(f"{folder}: no run is there (no config.json)")
        wrong = [fault for key in NEEDED for fault in faults(found["config"], [key], CONFIG_KEYS[key])]
        wrong += [
            fault
            for key in ("files", "sources", "device", "versions", "data")
            for fault in (faults(found["run"], [key], dict) if key in found["run"] else [])
        ]
        if wrong:
            raise UserError(f"{folder}: config.json or run.json is not that of a run: {'; '.join(wrong)}")
        return {"folder": folder, "config": found["config"], "record": found["run"], "metrics": found["metrics"]}


FILES = ("config", "run", "metrics")
NEEDED = ("method", "params", "dataset", "data_id", "seed")


def _json(text: str | None, name: str) -> dict[str, Any]:
    value = parse_json(text, name) if text is not None else {}
    return value if isinstance(value, dict) else {}


def _text_below(base: Path, path: str) -> str | None:
    return _text(base / path)


def _text(path: Path) -> str | None:
    return read_bytes(path).decode("utf-8", errors="replace") if path.is_file() else None


def _checkout(name: str) -> Path | None:
    """Return the folder if `name` is a checkout of the archive, or an unpacked deposit."""
    folder = Path(name)
    return folder if (folder / "Snakefile").is_file() and (folder / "params").is_dir() else None


def _cell_name(row: dict[str, str]) -> str:
    return f"{row['row']}/{row['column']}/{row['metric']}"  # a data set, with its setting where a table has several
