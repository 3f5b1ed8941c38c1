"""All that a GPU is asked for in one call: ``make gpu`` (nine minutes at most, `--minutes` says otherwise).

First the tests that need a GPU, then the benchmark (`gpu.py`), then IMC-SwAV on CIFAR-10 (JPEG) for as many epochs
as the rest of the time pays: one of the variants `gpu-EPOCHS`, which the archive plans (dica table-15), so that it
is a row of that table as soon as its run folder is there. A part that fails or runs out of its time is told, and
the next has its turn.

Everything is left under `--out` as well: what the tests said, the benchmark's csv, the run. Needs what the tests
need, and the prepared images (`python -m dica.data fetch cifar10-jpeg`, then `prepare`). `--dry` rehearses all of
it with tiny sizes on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import ROOT

from dica.data.paths import prepared_folder
from dica.files import UserError, write_json
from dica.plan.parameters import load_profile
from dica.plan.plan import run_config, run_folder
from dica.runs.files import RECORD, models_of
from dica.runs.ids import run_id

DATASET, EPOCHS = "cifar10-jpeg", (10, 25, 50, 100)
SHARES = {"tests": 0.3, "benchmark": 0.5}  # of what is left, at most; the training has the rest
MARGIN = 1.15  # a run takes so many times what its first seconds say
AROUND_S = 25.0  # start, prediction and writing of a run


@dataclass
class Part:
    """A part of the call and how it ended."""

    name: str
    said: str
    ok: bool


class Call:
    """One call: where things go, and until when."""

    def __init__(self, minutes: float, out: Path, dry: bool) -> None:
        self.end, self.out, self.dry = time.monotonic() + 60 * minutes, out, dry
        self.device = torch.device("cpu" if dry else "cuda")
        out.mkdir(parents=True, exist_ok=True)

    @property
    def left(self) -> float:
        """Seconds until the call has to end."""
        return self.end - time.monotonic()

    def command(self, name: str, arguments: Sequence[str | Path], limit_s: float) -> Part:
        """Run Python with these arguments; what it says goes to ``NAME.txt``. After `limit_s` it is asked to stop."""
        with open(self.out / f"{name}.txt", "w", encoding="utf-8") as said:
            process = subprocess.Popen([sys.executable, *map(str, arguments)], cwd=ROOT, stdout=said, stderr=said)
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()
                return Part(name, f"stopped after {limit_s:.0f} s", False)
        lines = (self.out / f"{name}.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return Part(name, f"exit code {code}: {lines[-1] if lines else 'nothing said'}", code == 0)

    def tests(self) -> Part:
        """Run the tests that need a GPU (on a CPU they are skipped)."""
        several = min(6, os.cpu_count() or 1)  # a device's tests are mostly the host's work
        told = ["-m", "pytest", "-m", "gpu", "-q", "-n", str(several), "-p", "no:cacheprovider"]
        told.append(ROOT / "tests/engine/test_gpu.py")
        return self.command("tests", told, SHARES["tests"] * self.left)

    def benchmark(self) -> Part:
        """Measure the methods' steps as the archive runs them."""
        told = [ROOT / "benchmarks/gpu.py", "--out", self.out, *(["--dry", "--methods", "dccm"] if self.dry else [])]
        return self.command("benchmark", told, SHARES["benchmark"] * self.left)

    def training(self, ladder: list[dict[str, Any]], data: Path, root: Path) -> Part:
        """Train the longest run of the ladder that fits, to its place under `root` and, copied, under `out`."""
        try:
            per_epoch, form = self.fastest(ladder[-1], data)
            config = longest(ladder, per_epoch, self.left)
        except UserError as error:
            return Part("training", str(error), False)
        folder = root / run_folder(config, "results")
        write_json(self.out / "config.json", config)
        told = ["-m", "dica.train", *form, "--config", self.out / "config.json", "--data", data, "--out", folder]
        told += ["--models", models_of(folder), "--state", root / "results/state", "--device", self.device.type]
        part = self.command("training", told, self.left)
        if not (folder / RECORD).is_file():
            return Part("training", f"{part.said}; the same command goes on", False)
        shutil.copytree(folder, self.out / "run", dirs_exist_ok=True)
        epochs = config["params"]["epochs"]
        said = f"{epochs} epochs at {per_epoch:.1f} s ({' '.join(form) or 'eager'}), in {folder.relative_to(root)}"
        return Part("training", said, part.ok)

    def fastest(self, config: dict[str, Any], data: Path) -> tuple[float, list[str]]:
        """Return the seconds of an epoch in the faster of two forms, eager and recorded, and the words that ask for it.

        Raises
        ------
        UserError
            If neither form could be measured.
        """
        write_json(self.out / "config.json", config)
        told = ["-m", "dica.own.measure", "--config", self.out / "config.json", "--data", data]
        told += ["--seconds", "1" if self.dry else "8"]
        found: list[tuple[float, list[str]]] = []
        for form in ([], ["--cuda-graph"]):
            name = f"measured{''.join(form)}"
            part = self.command(name, [*told, *form], 60.0)
            print(f"{name}: {part.said}", flush=True)
            if part.ok:
                last = (self.out / f"{name}.txt").read_text(encoding="utf-8").strip().splitlines()[-1]
                found.append((float(json.loads(last)["seconds_per_epoch"]), form))
        if not found:
            raise UserError(f"no epoch could be measured: {self.out}/measured*.txt")
        return min(found)


def longest(ladder: list[dict[str, Any]], per_epoch: float, left: float) -> dict[str, Any]:
    """Return the config with the most epochs that `left` seconds pay.

    Raises
    ------
    UserError
        If not even the shortest one fits.
    """
    fits = [c for c in ladder if AROUND_S + MARGIN * per_epoch * c["params"]["epochs"] <= left]
    if not fits:
        shortest = min(config["params"]["epochs"] for config in ladder)
        raise UserError(f"{shortest} epochs of {per_epoch:.1f} s do not fit into {left:.0f} s")
    return max(fits, key=lambda config: config["params"]["epochs"])


def planned(root: Path) -> list[dict[str, Any]]:
    """Return the configs of the ladder as the archive plans them."""
    profile = load_profile(root / "params/archive.yaml", root)
    return [run_config("imc-swav", f"gpu-{epochs}", DATASET, 0, profile, root) for epochs in EPOCHS]


def rehearsal(folder: Path) -> tuple[list[dict[str, Any]], Path, Path]:
    """Return a ladder of tiny runs, tiny images and a root for them, all under `folder`."""
    from tiny import make_prepared, tiny_config

    ladder = [{**tiny_config("imc-swav", epochs=epochs), "determinism": "fast"} for epochs in (1, 2)]
    ladder = [{**config, "id": run_id(config)} for config in ladder]
    return ladder, make_prepared(folder / "data"), folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="when the call has to end")
    parser.add_argument("--out", type=Path, default=ROOT / "dist/gpu")
    parser.add_argument("--dry", action="store_true", help="rehearse every part with tiny sizes on the CPU")
    args = parser.parse_args()
    if not args.dry and not torch.cuda.is_available():
        print("error: torch sees no CUDA device; --dry rehearses the call on the CPU", file=sys.stderr)
        return 2
    call = Call(args.minutes, args.out.resolve(), args.dry)
    ladder, data, root = rehearsal(call.out) if args.dry else (planned(ROOT), ROOT / prepared_folder(DATASET), ROOT)
    failed = False
    for part in (call.tests, call.benchmark, lambda: call.training(ladder, data, root)):
        ended = part()
        failed |= not ended.ok
        print(f"{ended.name}: {ended.said}", flush=True)
    print(f"all of it: {call.out}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
