"""Whether a run comes out again: trained anew from its config, and compared with what it left.

The audit re-hashes what is stored, so a forgery that agrees with itself passes it. Training again is the one check that
does not rest on the stored files. With the same processor, versions and code all is the same bits. Elsewhere sums are
taken in another order, and the losses go apart slowly: the first epochs are compared within `NEAR`, and the clusters of
the end by how many images they agree on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dica.data.paths import prepared_folder
from dica.files import UserError, load_arrays, read_csv, sha256_file
from dica.plan.plan import source_folder
from dica.runs.files import CONFIG, HISTORY, PREDICTIONS, RECORD, models_of
from dica.runs.ids import run_id
from dica.runs.read import CONFIG_KEYS, RUN_KEYS, Finding, read_record
from dica.scores.metrics import accuracy

NEAR = 0.01  # share of a value by which another machine may miss it ...
FIRST = 3  # ... in so many epochs, before small differences have grown
AGREE = 0.9  # share of the images that must come into the same clusters at the end
DECIDE = ("torch", "torchvision", "numpy", "scipy", "scikit-learn")  # versions that can move last bits


@dataclass(frozen=True)
class Stored:
    """A finished run: where it lies, its config and its record."""

    folder: Path
    config: dict[str, Any]
    record: dict[str, Any]

    @property
    def epochs(self) -> int:
        """Epochs of training; 0 of a method that is fitted in one go."""
        return int(self.config["params"].get("epochs", 0))

    @property
    def results(self) -> Path:
        """The results root that the run lies in."""
        return self.folder.parents[3]

    def seconds(self, first: int) -> float:
        """Return what training it took, or its `first` epochs."""
        share = min(first, self.epochs) / self.epochs if first and self.epochs else 1.0
        return float(self.record["seconds"]) * share


def stored_run(folder: Path) -> Stored:
    """Read a run that is to be trained again.

    Raises
    ------
    UserError
        If it has no usable config or record, or its config is not the one that its id was made of.
    """
    config, faults = read_record(folder / CONFIG, CONFIG_KEYS)
    record, more = read_record(folder / RECORD, RUN_KEYS)
    for finding in (*faults, *more):
        raise UserError(f"{folder}: {finding.what}: {finding.detail}; nothing to compare with")
    assert config is not None
    assert record is not None
    if run_id(config) != config["id"]:
        raise UserError(f"{folder / CONFIG}: its content hashes to {run_id(config)}, it says {config['id']}")
    return Stored(folder, config, record)


def command(run: Stored, root: Path, place: Path, first: int) -> list[str]:
    """Return the arguments of Python that train the run again, to `place`.

    Threads and speed options are those of the record: they can move last bits.
    """
    config, speed = run.config, run.record.get("speed") or {}
    told = ["-m", "dica.train", "--config", str(run.folder / CONFIG)]
    told += ["--data", str(root / prepared_folder(config["dataset"]))]
    told += ["--out", str(place / "run"), "--models", str(place / "models"), "--state", str(place / "state")]
    told += ["--threads", str(run.record["device"].get("threads", 1)), "--first-epochs", str(first)]
    told += [f"--{name.replace('_', '-')}" for name in ("compile", "cuda_graph") if speed.get(name)]
    if source := source_folder(config, run.results.as_posix()):
        told += ["--source", source, "--source-models", str(models_of(Path(source)))]
    return told


def compare(run: Stored, place: Path, here: dict[str, str], first: int) -> list[Finding]:
    """Compare what was trained again with what the run left.

    Parameters
    ----------
    place
        Where `command` trained it.
    here
        The device's name as `device`, the kind of processor as `processor`, and the versions of packages.
    first
        Epochs that were trained; 0 for all.
    """
    unlike = _unlike_machine(run.record, here)
    findings = [_histories(run.folder / HISTORY, place / "run" / HISTORY)]
    if not first:
        findings += [_same_file(name, digest, place) for name, digest in run.record["files"].items() if name != HISTORY]
        # Losses that are the same to the end come of the same arithmetic, on whatever machine; what is fitted in one
        # go may come out alike on unlike ones.
        exact = read_csv(run.folder / HISTORY) == read_csv(place / "run" / HISTORY) and (run.epochs or not unlike)
        findings += _clusters(run.folder / PREDICTIONS, place / "run" / PREDICTIONS, 1.0 if exact else AGREE)
    return [*findings, *(Finding("machine", None, text) for text in unlike)]


def _unlike_machine(record: dict[str, Any], here: dict[str, str]) -> list[str]:
    """Say in what the machine and its software differ from those of the record."""
    device, versions = record["device"], record["versions"]
    then = {"device": device["name"], **{name: versions.get(name) for name in DECIDE}}
    if device["type"] == "cpu":
        then["processor"] = device.get("processor_kind", "not recorded")
    return [f"{name} {then[name]} then, {here.get(name)} now" for name in then if then[name] != here.get(name)]


def _same_file(name: str, digest: str, place: Path) -> Finding:
    found = next((path for path in (place / "run" / name, place / "models" / name) if path.is_file()), None)
    if found is None:
        return Finding(name, False, "training again did not leave this file")
    same = sha256_file(found) == digest
    return Finding(name, True if same else None, "the same bytes" if same else "other bytes")


def _clusters(stored: Path, again: Path, least: float) -> Iterator[Finding]:
    """Compare the clusters of the end, whatever their numbers; `least` is the share of images that must agree."""
    then, now = load_arrays(stored), load_arrays(again)
    for name in (key for key in now if key.endswith("_assignment")):
        if name not in then or then[name].shape != now[name].shape:
            yield Finding(name, False, "of other images than the run's")
            continue
        share = accuracy(then[name], now[name])
        wanted = " though training came out the same" if least == 1 > share else ""
        yield Finding(name, share >= least, f"{100 * share:.2f} % of the images are in the same clusters{wanted}")


def _histories(stored: Path, again: Path) -> Finding:
    """Compare the epochs that both histories have."""
    then, now = read_csv(stored), read_csv(again)
    if not then or not now or list(then[0]) != list(now[0]) or len(now) > len(then):
        return Finding(HISTORY, False, "has not the columns and epochs of a run with this config")
    off, worst = [], 0.0
    for number, (old, new) in enumerate(zip(then, now, strict=False), 1):
        apart = {name: _apart(value, new[name]) for name, value in old.items()}
        worst = max(worst, *apart.values())
        if number <= FIRST:
            off += [
                f"epoch {number}: {name} {old[name]}, again {new[name]}" for name in apart if not apart[name] <= NEAR
            ]
    if off:
        return Finding(HISTORY, False, f"{off[0]}{f' and {len(off) - 1} more' if len(off) > 1 else ''}")
    return Finding(HISTORY, True, f"{len(now)} of {len(then)} epochs: {_words(worst)}")


def _words(apart: float) -> str:
    return f"the largest difference is {100 * apart:.2g} % of its value" if apart else "the same numbers"


def _apart(old: str, new: str) -> float:
    """Return by what share of the old value the new one misses it; infinity for what is no number."""
    if old == new:
        return 0.0
    try:
        a, b = float(old), float(new)
    except ValueError:
        return math.inf
    return abs(a - b) / max(abs(a), 1e-12) if math.isfinite(a) and math.isfinite(b) else math.inf
