"""What a GPU makes of the training step: ``python benchmarks/gpu.py`` (one call, under ten minutes on an H200).

Ceilings first: a bf16 product and a copy. Then, for every method as the archive runs it on CIFAR-10 (parameters,
precision, compiled networks or recorded steps): augmentation alone, network alone (forward and backward on fixed views)
and the whole step, in views a second, TFLOP/s, share of the measured product, and the share of the time in which no
kernel ran (profiler). A step is what the training loop makes of one batch: for DCCM one inner pass, with many updates.
Images are generated: pixels do not matter for speed. Needs torch, torchvision, numpy, scipy, safetensors and this
package; no Snakemake, YAML or plots.

`benchmarks/gpu_params.json` holds the methods' parameters, so that a machine without YAML can run this; `make bench`
writes it anew. `--dry` runs every part with tiny sizes on the CPU, which is a test of this file and not a measurement.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import RESULTS, ROOT, Told

from dica import methods
from dica.data.splits import DataInfo
from dica.engine.loop import PAST_WARM_UP, SaveEvery, Trainer
from dica.engine.speed import Speed, choose
from dica.files import write_json
from dica.rng import generator
from dica.views import pipeline as augment

PARAMS = Path(__file__).with_name("gpu_params.json")
METHODS = ("imc-swav", "tcc", "drc", "crlc", "dccm")
NETWORKS = {  # where it is not `method.backbone`
    "tcc": lambda method, views: method.own.backbone(views),
    "dccm": lambda method, views: method.network(views).logits,
}
DRY = {"precision": "float32", "batch_size": 4, "backbone": {"width": 8}, "num_prototypes": 16, "outer_batch": 8}


def _backbone(method: torch.nn.Module, views: torch.Tensor) -> torch.Tensor:
    return method.backbone(views)


class Clock:
    """Times a task on the device: medians over repeats, each ended by a synchronisation.

    Both warming and measuring end early after `limit_s` seconds, but not before three turns.
    """

    def __init__(self, device: torch.device, warm: int, repeats: int, limit_s: float = 4.0) -> None:
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


class Pixels:
    """Generated images; the part of `dica.engine.images.ResidentImages` that a trainer asks for."""

    place = "device"

    def __init__(self, info: DataInfo, device: torch.device, count: int) -> None:
        self.info, self.device, self.index_device = info, device, device
        self.splits = {name: range(total) for name, total in info.counts.items()}
        side = info.image_size
        self.images = torch.randint(0, 256, (count, side, side, info.channels), dtype=torch.uint8, device=device)

    def take(self, splits: tuple[str, ...], indices: torch.Tensor) -> torch.Tensor:
        return self.images[: len(indices)].permute(0, 3, 1, 2)


class Bench:
    """One method on generated images: its augmentation, its network and its step, done by the archive's own loop."""

    def __init__(self, name: str, planned: dict, device: torch.device) -> None:
        self.planned = planned
        self.name, self.device, self.params = name, device, planned["params"]
        if "inner_passes" in self.params:  # one is as good as ten, and a trace of ten is too long to be read
            self.params = {**self.params, "inner_passes": 1}
        torch.manual_seed(0)
        info = DataInfo(3, 32, {"train": 50_000, "test": 10_000})
        self.method = methods.build(name, self.params, info).to(device).to(memory_format=torch.channels_last)
        self.method.train()
        self.images = Pixels(info, device, self.params["batch_size"])
        self.indices = torch.arange(self.params["batch_size"], device=device)
        self.speed = Speed()
        self.views: list[torch.Tensor] = []
        self.calls: list[tuple] = []
        self.seen = 0
        self.trainer = self._trainer(Speed())  # eager, until `hurry`

    def _trainer(self, speed: Speed) -> Trainer:
        config = {"seed": 0, "params": self.params}
        return Trainer(config, self.method, self.images, None, SaveEvery(seconds=0), speed)

    def hurry(self, *wanted: bool) -> None:
        """Let steps be done with compiled networks, or recorded, from now on, where there is a GPU."""
        if self.device.type == "cuda":
            self.speed = choose(*wanted, self.planned["determinism"], self.device, self.method)
        self.trainer = self._trainer(self.speed)
        self.trainer.at.step = PAST_WARM_UP

    @property
    def form(self) -> dict[str, str]:
        """Return how the steps are executed, in words."""
        words = [self.speed.compile or "", "recorded steps" if self.speed.cuda_graph else ""]
        return {"precision": self.params["precision"], "speed": ", ".join(filter(None, words)) or "eager"}

    @property
    def updates(self) -> int:
        return self.trainer.at.step

    def step(self) -> None:
        """Take the step of one batch."""
        self.trainer._run_batch(self.method.phases(0)[0], self.indices)

    def record_views(self) -> None:
        """Remember the calls of the pipelines of one step, to repeat them alone and to feed the network with."""
        calls = self.calls
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
        with self.trainer.running():
            for number, (pipeline, images) in enumerate(self.calls):
                pipeline(images, generator(0, "bench", number, device=self.device))

    def network(self) -> None:
        """Send the recorded views through the backbone and back."""
        for views in self.views:
            half = self.params["precision"] == "bfloat16"
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half), self.trainer.running():
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


def measure(name: str, planned: dict, clock: Clock, peak: float) -> list[dict]:
    """Return lines for a method: augmentation, network, and the whole step, last as the archive does it.

    Before that the step is done eagerly and recorded, as far as a method allows it: where these are faster, the archive
    should do it so.
    """
    bench = Bench(name, planned, clock.device)
    bench.record_views()
    updates, flops = bench.updates, bench.flops()
    forms = [(False, False), (False, True)] if bench.method.replayable else [(False, False)]
    archive = tuple(bool(planned["speed"].get(key)) for key in ("compile", "cuda_graph"))
    rows = []
    for form in [*(form for form in forms if form != archive), archive]:
        bench.hurry(*form)
        if form == archive:
            rows += [_line(what, bench, clock) for what in ("augmentation", "network")]
        rows.append(_line("step", bench, clock))
    for row in rows:
        if row["what"] == "step":
            rate = flops / (row["ms"] / 1e3) / 1e12
            row |= {"updates": updates, "tflops": rate, "share_of_product": rate / peak}
    return rows


def _line(what: str, bench: Bench, clock: Clock) -> dict:
    task = {"augmentation": bench.augment_all, "network": bench.network, "step": bench.step}[what]
    seconds, spread = clock(task)
    row = {"what": what, "method": bench.name, "ms": 1e3 * seconds, "spread_ms": 1e3 * spread, **bench.form}
    row["views_per_s"] = bench.seen / seconds
    return {**row, "idle_share": bench.idle(10)} if what == "step" else row


def read_params(dry: bool) -> dict[str, dict]:
    """Return every method as it is planned on CIFAR-10; with `dry`, with a tiny network."""
    from dica.files import read_json

    found = read_json(PARAMS)
    return {name: {**body, "params": _shrunk(body["params"])} for name, body in found.items()} if dry else found


def _shrunk(params: dict) -> dict:
    small = {key: value for key, value in DRY.items() if key in params and not isinstance(value, dict)}
    if "width" in params.get("backbone", {}):
        small["backbone"] = {**params["backbone"], **DRY["backbone"]}
    return {**params, **small}


def planned() -> dict[str, dict]:
    """Return how the archive plans the methods on CIFAR-10 (needs YAML, so not on the machine that measures)."""
    from dica.plan.parameters import load_method, load_profile
    from dica.plan.plan import run_config

    profile = load_profile(ROOT / "params/archive.yaml", ROOT)
    found = {}
    for name in METHODS:
        config = run_config(name, "full", "cifar10", 0, profile, ROOT)
        speed = load_method(name, ROOT).get("speed", {})
        found[name] = {"determinism": config["determinism"], "speed": speed, "params": config["params"]}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="run every part with tiny sizes on the CPU")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--write-params", action="store_true", help="write gpu_params.json and stop")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.write_params:
        write_json(PARAMS, planned())
        return 0
    if not args.dry and not torch.cuda.is_available():
        print("error: torch sees no CUDA device; --dry tries this file on the CPU", file=sys.stderr)
        return 2
    device = torch.device("cpu" if args.dry else "cuda")
    clock = Clock(device, *((0, 1) if args.dry else (20, 100)))
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, False  # `determinism: fast` in bf16
    product, copy = ceilings(clock, *((64, 1) if args.dry else (8192, 4096)))
    params = read_params(args.dry)
    used = "cpu" if args.dry else torch.cuda.get_device_name()
    told = Told("gpu", args.out)
    for name in [None, *args.methods]:
        rows = measure(name, params[name], clock, product["tflops"]) if name else [product, copy]
        rows = [{k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]
        told.add(*rows, device=used)
    return 0


if __name__ == "__main__":
    sys.exit(main())
