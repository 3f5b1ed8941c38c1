"""What a gradient step costs against an earlier build: ``python benchmarks/steps.py``.

Both builds run in turns on this machine, in float32 on one core, each with its own `benchmarks/cpu_path.py` and its own
recipe of the small CIFAR-10; what counts is processor time. Uses generated images where none are prepared. Writes
results/steps.csv.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

from commands import THEN, row, said, unpack
from common import RESULTS, machine, write

STEP = """
import json, sys, time
sys.path.insert(0, "benchmarks")
import torch
import cpu_path as feeding
name, dataset, count, changes = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
torch.set_num_threads(1)
params = feeding.config.resolve(name, "full", dataset, {"overrides": {}}, feeding.ROOT)
params = feeding.config.merge(params, {"batch_size": count, **changes})
images = torch.from_numpy(feeding.load_images(count)).permute(0, 3, 1, 2)
info = feeding.DataInfo(3, 32, {"train": 50_000, "test": 10_000})
parts = feeding._build(name, params, info)
feeding._step(*parts, images)
begin = time.process_time()
feeding._step(*parts, images)
print(time.process_time() - begin)
"""
STEPS = {  # method, data set whose recipe is taken, images, changes
    **{f"a step of {name}, small CIFAR-10": (name, "cifar10-jpeg-small", 64, {})
       for name in ("crlc", "dccm", "drc", "imc-swav", "tcc")},
    "two updates of dccm, the paper's network and layers": ("dccm", "cifar10", 32, {"inner_passes": 1}),
}  # fmt: skip


def step_seconds(what: str, folder: Path) -> float:
    """Return the processor time of a gradient step, one of `STEPS`, of the code in a checkout."""
    name, dataset, count, changes = STEPS[what]
    return float(said([sys.executable, "-c", STEP, name, dataset, str(count), json.dumps(changes)], folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--then", default=THEN, metavar="COMMIT", help="the earlier build")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        then, now = unpack(args.then, Path(name) / "then"), unpack("HEAD", Path(name) / "now")
        sides = {what: [partial(step_seconds, what, folder) for folder in (then, now)] for what in STEPS}
        rows = [row(what, *both, args.repeats) for what, both in sides.items()]
    write("steps", rows, machine(), args.out)


if __name__ == "__main__":
    main()
