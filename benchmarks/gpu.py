"""What a GPU makes of the training step: ``python benchmarks/gpu.py`` (one call, under ten minutes on an H200).

Ceilings first: a bf16 product and a copy. Then, for every method with the parameters of CIFAR-10: augmentation alone,
network alone (forward and backward on fixed views) and the whole step, in views a second, TFLOP/s, share of the
measured product, and the share of the time in which no kernel ran (profiler). A step is what is made of one batch: for
DCCM one inner pass, with many updates. Images are generated: pixels do not matter for speed. Needs torch, torchvision,
numpy, scipy, safetensors and this package; no Snakemake, YAML or plots.

`benchmarks/gpu_params.json` holds the methods' parameters, so that a machine without YAML can run this; `make bench`
writes it anew. `--dry` runs every part with tiny sizes on the CPU, which is a test of this file and not a measurement.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import RESULTS, ROOT, machine, write

from dica import methods
from dica.data.splits import DataInfo
from dica.engine.optim import build_optimizer
from dica.methods.base import Batch
from dica.rng import generator
from dica.views import pipeline as augment

PARAMS = Path(__file__).with_name("gpu_params.json")
METHODS = ("imc-swav", "tcc", "drc", "crlc", "dccm")
NETWORKS = {  # where it is not `method.backbone`
    "tcc": lambda method, views: method.own.backbone(views),
    "dccm": lambda method, views: method.network(views).logits,
}
DRY = {"batch_size": 4, "backbone": {"width": 4}, "num_prototypes": 16, "outer_batch": 8}


def _backbone(method: torch.nn.Module, views: torch.Tensor) -> torch.Tensor:
    return method.backbone(views)


class Clock:
    """Times a task on the device: medians over repeats, each ended by a synchronisation.

    Both warming and measuring end early after `limit_s` seconds, but not before three turns.
    """

    def __init__(self, device: torch.device, warm: int, repeats: int, limit_s: float = 10.0) -> None:
        self.device, self.warm, self.repeats, self.limit_s = device, warm, repeats, limit_s

    def __call__(self, task: Callable[[], object]) -> tuple[float, float]:
        """Return median and greatest minus least of the seconds of a call."""
        self._turns(task, self.warm)
        seconds = self._turns(task, self.repeats)
        return statistics.median(seconds), max(seconds) - min(seconds)

    def _turns(self, task: Callable[[], object], count: int) -> list[float]:
        seconds: list[float] = []
        while len(seconds) < count and (len(seconds) < 3 or sum(seconds) < self.limit_s):
            self.wait()
            begin = time.perf_counter()
            task()
            self.wait()
            seconds.append(time.perf_counter() - begin)
        return seconds

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def ceilings(clock: Clock, size: int, megabytes: int) -> list[dict]:
    """Measure what the card can do at most: a bf16 product of random matrices, and a copy (bytes read and written)."""
    a, b = (torch.randn(size, size, device=clock.device, dtype=torch.bfloat16) for _ in range(2))
    seconds, spread = clock(lambda: a @ b)
    rows = [
        {"what": "bf16 product", "ms": 1e3 * seconds, "spread_ms": 1e3 * spread, "tflops": 2 * size**3 / seconds / 1e12}
    ]
    source = torch.ones(megabytes * 2**20, dtype=torch.uint8, device=clock.device)
    target = torch.empty_like(source)
    seconds, spread = clock(lambda: target.copy_(source))
    rate = 2 * source.numel() / seconds / 1e9
    return [*rows, {"what": "copy", "ms": 1e3 * seconds, "spread_ms": 1e3 * spread, "gigabytes_per_s": rate}]


class Bench:
    """One method on generated images: its augmentation, its network and its step."""

    def __init__(self, name: str, params: dict, device: torch.device) -> None:
        self.name, self.device = name, device
        if "inner_passes" in params:  # one is as good as ten, and a trace of ten is too long to be read
            params = {**params, "inner_passes": 1}
        torch.manual_seed(0)
        info = DataInfo(3, 32, {"train": 50_000, "test": 10_000})
        self.method = methods.build(name, params, info).to(device).to(memory_format=torch.channels_last)
        self.method.train()
        self.optimizer = build_optimizer(self.method, params, device)
        count = params["batch_size"]
        pixels = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, device=device)
        self.images, self.indices = pixels.permute(0, 3, 1, 2), torch.arange(count, device=device)
        self.step_number, self.updates, self.views, self.seen = 0, 0, [], 0

    def rng(self, purpose: str) -> torch.Generator:
        return generator(0, purpose, self.step_number, device=self.device)

    def step(self) -> None:
        """Take one step as the loop does, in bf16 as on a GPU."""
        self.step_number += 1
        phase = self.method.phases(0)[0]
        extra = {"second": self.images, "second_indices": self.indices} if phase.second else {}
        whole = Batch(self.images, self.indices, 0, 1000 + self.step_number, phase.name, self.rng, extra)
        for batch in self.method.split(whole):
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                step = self.method.loss(batch)
            self.optimizer.zero_grad(set_to_none=True)
            step.loss.backward()
            self.method.after_backward(batch)
            self.optimizer.step()
            self.method.after_step(batch, step.carry)
            self.updates += 1

    def record_views(self) -> None:
        """Remember the calls of the pipelines of one step, to repeat them alone and to feed the network with."""
        calls = self.calls = []
        original = augment.Pipeline.__call__

        def recorded(pipeline: augment.Pipeline, images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
            views = original(pipeline, images, rng)
            calls.append((pipeline, images))
            self.views.append(views)
            return views

        augment.Pipeline.__call__ = recorded
        try:
            self.step()
        finally:
            augment.Pipeline.__call__ = original
        self.seen = sum(len(views) for views in self.views)

    def augment_all(self) -> None:
        for number, (pipeline, images) in enumerate(self.calls):
            pipeline(images, generator(0, "bench", number, device=self.device))

    def network(self) -> None:
        """Send the recorded views through the backbone and back."""
        for views in self.views:
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                NETWORKS.get(self.name, _backbone)(self.method, views).float().sum().backward()

    def flops(self) -> int:
        """Return the operations of one step (products and convolutions, forward and backward)."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.step()
        return counter.get_total_flops()

    def idle(self, updates: int) -> float | None:
        """Return the share of a trace of some updates in which no kernel ran; None without a GPU."""
        if self.device.type != "cuda":
            return None
        torch.cuda.synchronize()
        activities = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            end = self.updates + updates
            while self.updates < end:
                self.step()
            torch.cuda.synchronize()
        # A named block of the program, such as an optimiser's step, spans the gaps between its kernels.
        kernels = [e for e in profile.events() if e.device_type.name == "CUDA" and not e.is_user_annotation]
        spans = sorted((e.time_range.start, e.time_range.end) for e in kernels)
        busy, reached = 0.0, spans[0][0]
        for begin, end in spans:
            busy += max(0.0, end - max(begin, reached))
            reached = max(reached, end)
        return 1 - busy / (reached - spans[0][0])


def measure(name: str, params: dict, clock: Clock, peak: float) -> list[dict]:
    """Return three lines for a method: augmentation, network, whole step."""
    bench = Bench(name, params, clock.device)
    bench.record_views()
    updates = bench.updates
    flops, rows = bench.flops(), []
    for what, task in (("augmentation", bench.augment_all), ("network", bench.network), ("step", bench.step)):
        seconds, spread = clock(task)
        row = {"what": what, "method": name, "ms": 1e3 * seconds, "spread_ms": 1e3 * spread}
        rows.append({**row, "views_per_s": bench.seen / seconds})
    rate = flops / (rows[-1]["ms"] / 1e3) / 1e12
    rows[-1] |= {"updates": updates, "tflops": rate, "share_of_product": rate / peak, "idle_share": bench.idle(10)}
    return rows


def read_params(dry: bool) -> dict[str, dict]:
    """Return the parameters of every method on CIFAR-10, in bf16; with `dry`, of a tiny network."""
    from dica.files import read_json

    found = read_json(PARAMS)
    if not dry:
        return found
    return {name: _shrunk(params) for name, params in found.items()}


def _shrunk(params: dict) -> dict:
    small = {key: value for key, value in DRY.items() if key in params and not isinstance(value, dict)}
    if "width" in params.get("backbone", {}):
        small["backbone"] = {**params["backbone"], **DRY["backbone"]}
    return {**params, **small}


def write_params() -> None:
    """Write gpu_params.json from params/ (needs YAML, so not on the machine that measures)."""
    from dica.files import write_json
    from dica.plan import parameters as config

    resolved = {name: config.resolve(name, "full", "cifar10", {"overrides": {}}, ROOT) for name in METHODS}
    write_json(PARAMS, resolved)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="run every part with tiny sizes on the CPU")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--write-params", action="store_true", help="write gpu_params.json and stop")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.write_params:
        write_params()
        return 0
    if not args.dry and not torch.cuda.is_available():
        print("error: torch sees no CUDA device; --dry tries this file on the CPU", file=sys.stderr)
        return 2
    device = torch.device("cpu" if args.dry else "cuda")
    clock = Clock(device, *((0, 1) if args.dry else (20, 100)))
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, False  # `determinism: fast` in bf16
    rows = ceilings(clock, *((64, 1) if args.dry else (8192, 4096)))
    params = read_params(args.dry)
    for name in args.methods:
        rows += measure(name, params[name], clock, rows[0]["tflops"])
        print(json.dumps(rows[-1]), flush=True)
    facts = {**machine(), "device": "cpu" if args.dry else torch.cuda.get_device_name()}
    write(
        "gpu", [{k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows], facts, args.out
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
