"""A tiny prepared data set and tiny configs: what the training tests run on."""

from __future__ import annotations

import copy
import math
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch

from dica import methods
from dica.data.prepared import labels_digest
from dica.data.splits import DataInfo
from dica.engine.checkpoints import StateFolder
from dica.engine.images import ResidentImages
from dica.engine.loop import SaveEvery, Trainer
from dica.engine.speed import Speed
from dica.files import canonical_json, sha256_file, write_json, write_npz
from dica.methods.base import Method
from dica.plan import parameters as config
from dica.plan import plan as identity
from dica.rng import derive_seed, generator
from dica.train import Inputs, give_labels, predict

ROOT = Path(__file__).resolve().parents[2]
TINY = {"epochs": 2, "batch_size": 16}
REPLAYED = [  # kinds of steps that can be recorded
    *(("crlc", variant) for variant in ("full", "memory-bank")),
    *(("dccm", variant) for variant in ("full", "m1", "code", "v3", "v4")),
    *(("imc-swav", variant) for variant in ("full", "crops-2x32")),
    *(("tcc", variant) for variant in ("full", "without-p", "without-l1")),
    ("drc", "full"),
]


def make_prepared(folder: Path, counts: dict[str, int] | None = None, size: int = 8, channels: int = 1) -> Path:
    """Write a prepared data set of seeded noise with a bright bar whose place depends on the image.

    The place is the class: `labels.npz` beside the arrays has them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts = counts or {"train": 48}
    draw = np.random.default_rng(0)
    splits, labels = {}, {}
    for name, count in counts.items():
        images = draw.integers(0, 96, (count, size, size, channels), dtype=np.uint8)
        for index, image in enumerate(images):
            image[:, index % size] += 128
        np.save(folder / f"{name}.npy", images)
        labels[name] = (np.arange(count) % size).astype(np.int16)
        file = folder / f"{name}.npy"
        splits[name] = {
            "file": file.name,
            "n": count,
            "shape": list(images.shape),
            "bytes": file.stat().st_size,
            "sha256": sha256_file(file),
            "labels_sha256": labels_digest(labels[name]),
        }
    write_npz(folder / "labels.npz", labels)
    manifest = {"fingerprint": "tiny", "data_id": "tiny", "image_size": size, "channels": channels, "splits": splits}
    write_json(folder / "manifest.json", {"dataset": "tiny", "classes": [], **manifest})
    return folder


@cache
def archive_profile() -> dict:
    return config.load_profile(ROOT / "params/archive.yaml", ROOT)


def tiny_config(method: str, variant: str = "full", seed: int = 0, **overrides: object) -> dict:
    """The config of a run on the tiny data set: the digits' parameters, two epochs, small batches."""
    params = config.resolve(method, variant, "digits", archive_profile(), ROOT)
    params = config.merge(params, {key: value for key, value in TINY.items() if key in params}, overrides)
    if params.get("backbone", {}).get("name") == "resnet18":
        params["backbone"] |= {"name": "resnet8", "width": 16}  # of the variants that are for CIFAR-10
    if params.get("backbone", {}).get("width", 0) > 64:
        params["backbone"]["width"] = 16  # of those for CIFAR-100
    if params.get("supervised"):
        params["num_clusters"] = 8  # as many as there are classes
    if source := params.get("source"):
        source["id"] = tiny_config(source["method"], source["variant"], seed)["id"]
    body = {
        "method": method,
        "variant": variant,
        "dataset": "digits",
        "data_id": "tiny",
        "seed": seed,
        "determinism": "seeded",
        "params": params,
    }
    return {"id": identity.run_id(body), **body}


def make_method(settings: dict, data: Path, device: str = "cpu") -> tuple[Method, ResidentImages]:
    """Build a method and the images that it learns from, with its source and labels where it has them."""
    torch.set_num_threads(1)
    images = ResidentImages(data, torch.device(device))
    torch.manual_seed(derive_seed(settings["seed"], "init"))
    method = methods.build(settings["method"], settings["params"], images.info).to(device, torch.get_default_dtype())
    if source := settings["params"].get("source"):
        below = tiny_config(source["method"], source["variant"], settings["seed"])
        found = trained(below, images.info, data)
        found = found if device == "cpu" else copy.deepcopy(found).to(device)
        method.adopt(found, {name: images.all_of(name) for name in images.splits})
    give_labels(settings, method, Inputs(data, data / "labels.npz"), images.device)
    return method, images


def fit_history(settings: dict, folder: Path) -> list[dict]:
    """Fit a method that takes no gradient steps; return what the fit says of itself, and the cluster of every image."""
    method, images = make_method(settings, make_prepared(folder / "data", {"train": 64}))
    history = method.fit({"train": images.all_of("train")}, settings["seed"])
    found = predict(method, images, lambda part: generator(settings["seed"], part, "predict"))
    return [*history, {f"image {k}": cluster for k, cluster in enumerate(found["train_assignment"].tolist())}]


def same_history(ours: list[dict], theirs: list[dict]) -> bool:
    """Whether two golden traces have the same numbers, but for rounding."""
    return [row.keys() for row in ours] == [row.keys() for row in theirs] and all(
        math.isclose(row[key], other[key], rel_tol=1e-5, abs_tol=1e-7)
        for row, other in zip(ours, theirs, strict=True)
        for key in row
    )


def make_trainer(
    settings: dict,
    data: Path,
    state: Path,
    save_every: SaveEvery | None = None,
    speed: Speed | None = None,
    device: str = "cpu",
) -> Trainer:
    """Build what `dica.train` builds, without the process around it."""
    method, images = make_method(settings, data, device)
    if device != "cpu":
        method.to(memory_format=torch.channels_last)
    folder = StateFolder(state, settings["id"])
    return Trainer(settings, method, images, folder, save_every or SaveEvery(seconds=0), speed)


_TRAINED: dict[tuple, Method] = {}


def trained(settings: dict, info: DataInfo, data: Path) -> Method:
    """The method of a tiny run after training, as `dica.engine.load` hands it out; each is trained once."""
    key = (settings["id"], canonical_json(info.counts), torch.get_default_dtype())
    if key not in _TRAINED:
        with tempfile.TemporaryDirectory() as state, torch.random.fork_rng():
            trainer = make_trainer(settings, data, Path(state))
            trainer.run()
            trainer.state._lock.close()
        _TRAINED[key] = trainer.method.requires_grad_(False).eval()
    return _TRAINED[key]


def gradient_methods() -> list[str]:
    """Every method of the archive that is trained by gradient steps."""
    return [name for name in config.method_names(ROOT) if "epochs" in config.load_method(name, ROOT)["defaults"]]


def fitted_methods() -> list[str]:
    """Every method of the archive that is fitted in one go."""
    return sorted(set(config.method_names(ROOT)) - set(gradient_methods()))


def all_variants() -> list[tuple[str, str]]:
    """Every (method, variant) that is trained by gradient steps; of a sweep over numbers, the first point."""
    return _variants(gradient_methods())


def fitted_variants() -> list[tuple[str, str]]:
    """Every (method, variant) that is fitted in one go; of a sweep over numbers, the first point."""
    return _variants(fitted_methods())


def _variants(names: list[str]) -> list[tuple[str, str]]:
    return [(name, variant) for name in names for variant in dict.fromkeys(families(name).values())]


def families(method: str) -> dict[str, str]:
    """Return for every variant of a method the one that stands for it: the first that differs in numbers alone."""
    first: dict[object, str] = {}
    found = {}
    for variant, override in config.load_method(method, ROOT)["variants"].items():
        settings = {key: value for key, value in (override or {}).items() if key not in ("epochs", "precision")}
        found[variant] = first.setdefault(_shape(settings), variant)
    return found


def _shape(override: object) -> object:
    """What an override changes, whatever the numbers in it and whichever variant it builds on."""
    if isinstance(override, dict) and "source" in override:
        source = override["source"]["method"] if override["source"] else None
        override = {**override, "source": source}
    if isinstance(override, dict):
        return tuple(sorted((key, _shape(value)) for key, value in override.items()))
    if isinstance(override, list):
        return tuple(_shape(value) for value in override)
    return "number" if isinstance(override, int | float) and not isinstance(override, bool) else repr(override)
