"""What a gradient step costs against an earlier build: ``python benchmarks/steps.py``.

Both builds run in turns on this machine, in float32 on one core, each with its own `benchmarks/cpu_path.py` and its own
recipe of the small CIFAR-10; what counts is processor time. On a processor that has bfloat16, this build once more in
it, with its loss in the seventh step on one batch beside that in float32. Uses generated images where none are
prepared. Writes results/steps.csv.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from commands import THEN, row, said, unpack
from common import RESULTS, Told, multiplies_bfloat16

STEP = """
import json, sys, time
sys.path.insert(0, "benchmarks")
import torch
import cpu_path as feeding
name, dataset, count, changes, how = sys.argv[1], sys.argv[2], int(sys.argv[3]), *map(json.loads, sys.argv[4:])
torch.set_num_threads(1)
params = feeding.config.resolve(name, "full", dataset, {"overrides": {}}, feeding.ROOT)
params = feeding.config.merge(params, {"batch_size": count, **changes})
images = torch.from_numpy(feeding.load_images(count)).permute(0, 3, 1, 2)
info = feeding.DataInfo(3, 32, {"train": 50_000, "test": 10_000})
parts = feeding._build(name, params, info)
feeding._step(*parts, images, **how)
begin = time.process_time()
feeding._step(*parts, images, **how)
print(time.process_time() - begin)
if how:
    print([feeding._step(*parts, images, **how) for _ in range(5)][-1][0])
"""
STEPS = {  # method, data set whose recipe is taken, images, changes
    **{f"a step of {name}, small CIFAR-10": (name, "cifar10-jpeg-small", 64, {})
       for name in ("crlc", "dccm", "drc", "imc-swav", "tcc")},
    "two updates of dccm, the paper's network and layers": ("dccm", "cifar10", 32, {"inner_passes": 1}),
}  # fmt: skip


def measured(what: str, folder: Path, how: dict) -> list[float]:
    """Return the processor time of a gradient step, one of `STEPS`, of the code in a checkout.

    Of this build, told `how` to step, the loss of the seventh step too, of DCCM that of its first update.
    """
    name, dataset, count, changes = STEPS[what]
    given = [name, dataset, str(count), json.dumps(changes), json.dumps(how)]
    return [float(line) for line in said([sys.executable, "-c", STEP, *given], folder).splitlines()]


def rows(then: Path, now: Path, repeats: int) -> Iterator[dict]:
    """Measure a line after the other."""
    for half in (False, True)[: 1 + multiplies_bfloat16()]:
        for what in STEPS:
            sides = [lambda what=what: measured(what, then, {})[0]]
            sides += [lambda what=what, half=half: measured(what, now, {"half": half})[0]]
            found = row(what + ", now in bfloat16" * half, *sides, repeats)
            losses = [measured(what, now, {"half": each})[1] for each in (False, True)] if half else []
            yield {**found, "loss in float32, in bfloat16": ", ".join(f"{loss:.4g}" for loss in losses)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--then", default=THEN, metavar="COMMIT", help="the earlier build")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        then, now = unpack(args.then, Path(name) / "then"), unpack("HEAD", Path(name) / "now")
        told = Told("steps", args.out)
        for line in rows(then, now, args.repeats):
            told.add(line)


if __name__ == "__main__":
    main()
