"""Our data path and training steps beside the loop that is usual today: ``python benchmarks/cpu_path.py``.

All in one run and in turns, one core each, as ratios. The usual loop: PIL images, torchvision's transforms one image at
a time, a DataLoader with a worker, and one forward pass a crop where the method allows to join them.

- data path: load and augment, 32 px, two views with crop, flip, colour jitter and greyscale; where there is a C++
  compiler, once more compiled, as a GPU gets it; and where kornia is installed, beside its augmentation of batches;
- step: one whole gradient step of a method with a small network, ours against the same code fed image by image (of
  DCCM an outer batch: its targets and the steps under them);
- side by side: two training processes at once against one alone, images a second of both.

A step's ratio says as much of the network as of the feeding: with resnet8 of 8 channels on full 28 px crops four
fifths of our IMC-SwAV step are convolutions, batch norms and ReLUs that both sides share. So IMC-SwAV has a second row,
whose stem halves the resolution twice: there feeding decides. A third has the ResNet-18 of the paper, one pass a crop
on both sides; there the usual side's weights lie as torch lays them (channels first), ours as in a run (channels last).
On a processor that has bfloat16 there is a fourth, in which ours multiplies in it.

Uses data/prepared/cifar10-jpeg where it is, else generated images. Writes results/cpu_path.csv and cpu_path.svg.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, ROOT, Told, interleaved, multiplies_bfloat16, plot, ratio
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from dica import methods
from dica.data.splits import DataInfo
from dica.engine.memory import keep_memory
from dica.engine.optim import build_optimizer
from dica.methods.base import Batch
from dica.plan import parameters as config
from dica.rng import generator
from dica.views import pipeline as augment
from dica.views import steps
from vision import torchvision

transforms = importlib.import_module(f"{torchvision.__name__}.transforms")

VIEWS = [
    {"op": "random_resized_crop", "size": 32, "scale": [0.2, 1.0]},
    {"op": "horizontal_flip", "p": 0.5},
    {"op": "color_jitter", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8},
    {"op": "grayscale", "p": 0.2},
]
LAYOUT = torch.channels_last  # of a network in a run
NETWORK = {"name": "resnet8", "stem": "cifar", "width": 8}
SWAV = {"joint_views": True, "num_prototypes": 100, "classifier_hidden": 128}
TO_8_PX = {"op": "resize", "size": 8}
DCCM_VIEWS = {
    "original": [TO_8_PX],
    "augmented": [
        TO_8_PX,
        {"op": "keras_affine", "rotation": 20, "shift": 0.18, "zoom": [0.85, 1.15]},
        {"op": "horizontal_flip", "p": 0.5},
        {"op": "channel_shift", "amount": 0.1},
        {"op": "rescale", "factor": 0.95},
    ],
}
# (method, network in words, parameters): so small that feeding it matters.
STEPS = [
    ("imc-swav", "resnet8 of 8 channels", {**SWAV, "backbone": NETWORK}),
    ("imc-swav", "the same after a stem of stride 4", {**SWAV, "backbone": {**NETWORK, "stem": "std"}}),
    ("drc", "resnet8 of 8 channels", {"backbone": NETWORK}),
    ("crlc", "resnet8 of 8 channels", {"backbone": NETWORK}),
    ("tcc", "resnet8 of 8 channels", {"backbone": NETWORK}),
    (
        "dccm",
        "conv-8 at 8 px",
        {"network": "conv-8", "discriminator_width": 32, "inner_passes": 1, "views": DCCM_VIEWS},
    ),
]


def load_images(count: int) -> np.ndarray:
    """Return (count, 32, 32, 3) uint8: real ones where they are prepared, else generated."""
    path = ROOT / "data/prepared/cifar10-jpeg/train.npy"
    if path.is_file():
        return np.array(np.load(path, mmap_mode="r")[:count])
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def usual_transform(pipeline: augment.Pipeline) -> transforms.Compose:
    """Return torchvision's transforms for the steps of one of our pipelines: those of PIL images, then of tensors."""
    on_tensors = (steps.ChannelShift, steps.Rescale, steps.Normalize)
    first = [_usual_step(step) for step in pipeline.steps if not isinstance(step, on_tensors)]
    then = [_usual_step(step) for step in pipeline.steps if isinstance(step, on_tensors)]
    return transforms.Compose([*first, transforms.ToTensor(), *then])


def _usual_step(step: object) -> object:
    if isinstance(step, steps.RandomResizedCrop):
        return transforms.RandomResizedCrop(step.size, step.scale, step.ratio)
    if isinstance(step, steps.HorizontalFlip):
        return transforms.RandomHorizontalFlip(step.p)
    if isinstance(step, steps.ColorJitter):
        jitter = transforms.ColorJitter(step.brightness, step.contrast, step.saturation, step.hue)
        return transforms.RandomApply([jitter], step.p)
    if isinstance(step, steps.Grayscale):
        return transforms.RandomGrayscale(step.p)
    if isinstance(step, steps.RandomCrop):
        return transforms.RandomCrop(step.size, step.padding)
    if isinstance(step, steps.Resize):
        return transforms.Resize(step.size)
    if isinstance(step, steps.CenterCrop):
        return transforms.CenterCrop(step.size)
    if isinstance(step, steps.GaussianBlur):
        return transforms.RandomApply([transforms.GaussianBlur(step.kernel_size, step.sigma)], step.p)
    if isinstance(step, steps.KerasAffine):
        scale = (1 / step.zoom[1], 1 / step.zoom[0])
        return transforms.RandomAffine(step.rotation, translate=(step.shift, step.shift), scale=scale, fill=128)
    if isinstance(step, steps.ChannelShift):
        return transforms.Lambda(partial(_shift_channels, step.amount))
    if isinstance(step, steps.Rescale):
        return transforms.Lambda(partial(torch.mul, step.factor))
    if isinstance(step, steps.Normalize):
        return transforms.Normalize(step.mean, step.std)
    raise SystemExit(f"no usual form of {step}")


def _shift_channels(amount: float, image: torch.Tensor) -> torch.Tensor:
    added = (2 * torch.rand(len(image), 1, 1) - 1) * amount
    return torch.clamp(image + added, image.min(), image.max())


class UsualImages(Dataset):
    """What a DataLoader gets today: an array of images, each turned into two views one after the other."""

    def __init__(self, images: np.ndarray, transform: transforms.Compose) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = Image.fromarray(self.images[index])
        return self.transform(image), self.transform(image)


class UsualPipeline:
    """Stands in for one of our pipelines: the same steps, image by image through PIL."""

    def __init__(self, pipeline: augment.Pipeline) -> None:
        self.transform = usual_transform(pipeline)

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        arrays = images.permute(0, 2, 3, 1).numpy()
        return torch.stack([self.transform(Image.fromarray(array)) for array in arrays])

    def views(self, images: torch.Tensor, generator: torch.Generator, count: int) -> torch.Tensor:
        return torch.stack([self(images, generator) for _ in range(count)])


def data_path(count: int, batch: int, repeats: int) -> list[dict]:
    """Return the ratios of the ways to make two views of `count` images."""
    images = load_images(count)
    resident = torch.from_numpy(images)
    order = torch.randperm(count, generator=generator(0, "order"))

    def epoch(views: Callable[[torch.Tensor, torch.Generator], object]) -> None:
        for number, indices in enumerate(order.split(batch)):
            views(resident.index_select(0, indices).permute(0, 3, 1, 2), generator(0, "views", number))

    eager, compiled = augment.build_pipeline(VIEWS), augment.build_pipeline(VIEWS)
    loader = DataLoader(
        UsualImages(images, usual_transform(eager)), batch, shuffle=True, num_workers=1, persistent_workers=True
    )
    sides = {"usual": lambda: [None for _ in loader], "ours": partial(epoch, partial(eager.views, count=2))}
    if shutil.which("g++"):
        compiled.compile("inductor")
        compiled.fast = True
        sides["compiled"] = partial(epoch, partial(compiled.views, count=2))
    if importlib.util.find_spec("kornia"):
        theirs = kornia_views()
        sides["kornia"] = partial(epoch, lambda taken, _: theirs(taken.repeat(2, 1, 1, 1).float().div_(255)))
    seconds = interleaved(sides, repeats)
    told = {
        "data path, two 32 px views": ("usual", "ours"),
        "the same, compiled": ("usual", "compiled"),
        "the same, usual by kornia": ("kornia", "ours"),
        "the same, compiled, usual by kornia": ("kornia", "compiled"),
    }
    return [
        _row(what, {"usual": seconds[one], "ours": seconds[other]}, 2 * count, "views/s")
        for what, (one, other) in told.items()
        if one in seconds and other in seconds
    ]


def kornia_views() -> torch.nn.Module:
    """Return the steps of `VIEWS` by kornia, which draws for each image of a batch."""
    from kornia import augmentation as kornia

    return kornia.AugmentationSequential(
        kornia.RandomResizedCrop((32, 32), scale=(0.2, 1.0)),
        kornia.RandomHorizontalFlip(p=0.5),
        kornia.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        kornia.RandomGrayscale(p=0.2),
    )


def method_step(
    name: str,
    network: str,
    changes: dict,
    batch_size: int,
    repeats: int,
    usual_layout: torch.memory_format = LAYOUT,
    half: bool = False,
) -> dict:
    """Return the ratio of a gradient step of both ways to feed a method; `changes` give it a small `network`.

    With `half`, ours multiplies in bfloat16; the usual one has float32 all the same.
    """
    params = config.resolve(name, "full", "cifar10", {"overrides": {}}, ROOT)
    params = config.merge(params, {"batch_size": batch_size}, changes)
    images = torch.from_numpy(load_images(batch_size)).permute(0, 3, 1, 2)
    info = DataInfo(3, 32, {"train": 50_000, "test": 10_000})
    ours = partial(_step, *_build(name, params, info), images, half=half)
    apart = {"joint_views": False} if "joint_views" in params else {}
    usual_method, optimizer = _build(name, {**params, **apart}, info, usual_layout)
    for key, value in list(vars(usual_method).items()):
        if isinstance(value, augment.Pipeline):
            setattr(usual_method, key, UsualPipeline(value))
    usual = partial(_step, usual_method, optimizer, images)
    seconds = interleaved({"usual": usual, "ours": ours}, repeats)
    return _row(f"step of {name}, {network}{', in bfloat16' * half}", seconds, batch_size, "images/s")


def _build(name: str, params: dict, info: DataInfo, layout: torch.memory_format = LAYOUT) -> tuple:
    torch.manual_seed(0)
    method = methods.build(name, params, info).to(memory_format=layout)
    method.train()
    return method, build_optimizer(method, params, torch.device("cpu"))


def _step(method, optimizer, images: torch.Tensor, half: bool = False) -> list[float]:
    """Take the gradient steps of a batch, in bfloat16 if `half`, and return the losses."""
    losses = []
    indices = torch.arange(len(images))
    phase = method.phases(0)[0]
    rng = partial(generator, 0)
    extra = {"second": images, "second_indices": indices} if phase.second else {}
    for batch in method.split(Batch(images, indices, 0, 1000, phase.name, lambda purpose: rng(purpose), extra)):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            step = method.loss(batch)
        losses.append(step.loss.item())
        optimizer.zero_grad(set_to_none=True)
        step.loss.backward()
        method.after_backward(batch)
        optimizer.step()
        method.after_step(batch, step.carry)
    return losses


def side_by_side(epochs: int, repeats: int) -> dict:
    """Return how much more two training processes on the digits do at once than one alone."""
    from dica.plan import plan as identity

    profile = config.load_profile(ROOT / "params/archive.yaml", ROOT)
    profile |= {"overrides": {"imc-swav": {"epochs": epochs}}}
    seconds: dict[str, list[float]] = {"usual": [], "ours": []}
    with tempfile.TemporaryDirectory() as name:
        for turn in range(repeats):
            for what, count in (("usual", 1), ("ours", 2)):
                begin = time.perf_counter()
                runs = [
                    _start_training(identity.run_config("imc-swav", "full", "digits", seed, profile, ROOT), name, turn)
                    for seed in range(10 * count, 11 * count)
                ]
                if any(run.wait() for run in runs):
                    raise SystemExit("a training failed; are the digits prepared (make demo)?")
                seconds[what].append((time.perf_counter() - begin) / count)
    return _row("two trainings at once", seconds, 1797 * epochs, "images/s")


def _start_training(settings: dict, folder: str, turn: int) -> subprocess.Popen:
    from dica.files import write_json

    out = Path(folder) / f"{settings['seed']}-{turn}"
    write_json(out / "given.json", settings)
    command = [
        sys.executable,
        "-m",
        "dica.train",
        "--config",
        out / "given.json",
        "--data",
        ROOT / "data/prepared/digits",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(
        [*map(str, command), "--out", str(out / "out"), "--device", "cpu"], env=environment, stderr=subprocess.DEVNULL
    )


def _row(what: str, seconds: dict[str, list[float]], items: int, unit: str) -> dict:
    middle, least, most = ratio(seconds["usual"], seconds["ours"])
    rates = {name: sorted(items / value for value in values)[len(values) // 2] for name, values in seconds.items()}
    return {
        "what": what,
        "ratio": f"{middle:.2f}",
        "range": f"{least:.2f}-{most:.2f}",
        "ours": f"{rates['ours']:.0f}",
        "usual": f"{rates['usual']:.0f}",
        "unit": unit,
        "repeats": len(seconds["ours"]),
    }


def draw(axes, rows: list[dict]) -> None:
    """Draw one bar a ratio."""
    places = range(len(rows))
    axes.barh(places, [float(row["ratio"]) for row in rows], color="#4477aa")
    axes.set_yticks(places, [row["what"] for row in rows])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(xlabel="times as fast as the usual loop (for two trainings: as one alone)")
    axes.invert_yaxis()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2048, help="images of the data path")
    parser.add_argument("--batch", type=int, default=64, help="batch size of the steps")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=6, help="epochs of the trainings side by side; 0 leaves them out")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()  # of both sides, the loader's worker among them; a training does so by itself
    tasks = [partial(method_step, *step, args.batch, args.repeats) for step in STEPS]
    for half in (False, True)[: 1 + multiplies_bfloat16()]:
        large = ("imc-swav", "its ResNet-18 on CIFAR-10", {}, args.batch, min(args.repeats, 3))
        tasks.append(partial(method_step, *large, usual_layout=torch.contiguous_format, half=half))
    if args.epochs:
        tasks.append(partial(side_by_side, args.epochs, min(args.repeats, 3)))
    told = Told("cpu_path", args.out)
    told.add(*data_path(args.images, 256, args.repeats))
    for task in tasks:
        told.add(task())
    with contextlib.suppress(ImportError):
        plot(told, draw)


if __name__ == "__main__":
    main()
