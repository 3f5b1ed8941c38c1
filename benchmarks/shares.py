"""What a step's time goes to, and how near its arithmetic is to the processor's: ``python benchmarks/shares.py``.

One gradient step (of DCCM one outer batch) on one core, after one that warms up, under torch's profiler: the shares of
convolutions, of matrix products and of batch norm in its time; and the operations a second of the first two beside
those of a large matrix product on the same core, which no convolution can do better than by much. On a processor that
has bfloat16, the papers' networks once more in it, beside a product in it. Images are generated.
Writes results/shares.csv.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cpu_path as feeding
import torch
from common import RESULTS, Told, multiplies_bfloat16
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from dica.engine.memory import keep_memory

KINDS = {  # beginnings of operators' names
    "convolutions": (
        "aten::mkldnn_convolution",
        "aten::convolution_backward",
        "aten::_slow_conv2d",
        "aten::thnn_conv2d",
    ),
    "products": ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"),
    "batch norm": ("aten::native_batch_norm",),
}
STEPS = {  # what it is called: method, variant, data set whose recipe is taken, its channels, its side, images, changes
    **{f"{name}, short run on the digits": (name, "short", "digits", 1, 8, 128, {})
       for name in ("crlc", "dccm", "drc", "imc-swav", "tcc")},
    "imc-swav, its ResNet-18 on CIFAR-10": ("imc-swav", "full", "cifar10", 3, 32, 32, {}),
    "dccm, the paper's network and layers": ("dccm", "full", "cifar10", 3, 32, 32, {"inner_passes": 1}),
}  # fmt: skip


LARGE = list(STEPS)[-2:]


def step(
    name: str, variant: str, dataset: str, channels: int, side: int, count: int, changes: dict, half: bool = False
) -> Callable:
    """Return a function that takes one step of a method by a recipe, on generated images."""
    params = feeding.config.resolve(name, variant, dataset, {"overrides": {}}, feeding.ROOT)
    params = feeding.config.merge(params, {"batch_size": count}, changes)
    info = feeding.DataInfo(channels, side, {"train": 50_000, "test": 10_000})
    images = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8)
    return partial(feeding._step, *feeding._build(name, params, info), images, half)


def views(count: int) -> None:
    """Make two views of each of `count` generated images."""
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    feeding.augment.build_pipeline(feeding.VIEWS).views(images, feeding.generator(0, "views"), 2)


def product(half: bool, size: int = 1536) -> float:
    """Return the operations a second of a product of two large matrices, the median of nine."""
    one, other = (torch.randn(size, size).to(torch.bfloat16 if half else torch.float32) for _ in range(2))
    seconds = []
    for _ in range(9):
        begin = time.process_time()
        one @ other
        seconds.append(time.process_time() - begin)
    return 2 * size**3 / statistics.median(seconds)


def shares(what: str, task: Callable, half: bool = False) -> dict:
    """Return the line of one task."""
    task()
    peaks = [product(half)]  # before and after: what else the machine does slows both
    with FlopCounterMode(display=False) as counter:
        task()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        task()
    peaks.append(product(half))
    spent = {event.key: event.self_cpu_time_total / 1e6 for event in seen.key_averages()}
    kinds = {kind: sum(s for key, s in spent.items() if key.startswith(names)) for kind, names in KINDS.items()}
    total, busy = sum(spent.values()), kinds["convolutions"] + kinds["products"]
    rate = counter.get_total_flops() / busy
    found = {kind: f"{seconds / total:.0%}" for kind, seconds in kinds.items()}
    return {
        "what": what,
        **found,
        "GFLOP": f"{rate * busy / 1e9:.3g}",
        "product, GFLOP/s": f"{statistics.mean(peaks) / 1e9:.0f}",
        "of a product's rate": f"{rate / statistics.mean(peaks):.0%}",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    told = Told("shares", args.out)
    for what, recipe in STEPS.items():
        told.add(shares(what, step(*recipe)))
    for what in LARGE * multiplies_bfloat16():
        told.add(shares(f"{what}, in bfloat16", step(*STEPS[what], half=True), half=True))
    told.add(shares("two views of 256 images of 32 px", partial(views, 256)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
