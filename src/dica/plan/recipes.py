"""Which recipe suits a user's own images: size, network, views and budget from their number, size and the device.

The papers' recipes are for tens of thousands of images and days of a GPU. Here a CPU gets what the archive's own short
runs use (the blocks `digits` and `cifar10-jpeg-small` of a method's parameters), a GPU the paper's networks; crops are
scaled to the images, and the number of epochs follows from the time that there is.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dica.data.own import Look
from dica.files import UserError
from dica.plan.parameters import load_method, merge
from dica.validation import hint

DEFAULT = "imc-swav"
METHODS = ("crlc", "drc", "imc-swav", "kmeans", "tcc")  # the networks of DCCM take images of fixed sizes
FITTED = ("ac", "kmeans", "sc")  # of features that are given; nothing is trained by steps
HEADS = ("crlc-two-stage", "scan-neighbours")  # of features that are given: CRLC's head and SCAN's, by neighbours
NEIGHBOURS, SUB_HEADS, HEAD_RATE, HEAD_BATCH = 20, 10, 1e-3, 128
CPU_SIDE, GPU_SIDE = 32, 96  # pixels; a CPU has no time for more
GLYPH_SIDE = 32  # grey images up to this size are taken as signs: moved and bent a little, never mirrored
MINUTES = {"cpu": 6.0, "gpu": 10.0}  # of training a run, unless a budget or epochs are given
MOST_EPOCHS = 200  # of a budget; more brought nothing in the archive's own runs on small images
LEAST_EPOCHS = 2
BATCHES = 8  # an epoch has so many at least, if it can
LEAST_BATCH = 16
WARM_PART = 15  # warm-up and frozen prototypes take at most one step of so many
KMEANS_SIDE, KMEANS_PLAIN = 32, 20_000  # pixels a side; images from which K-means goes by mini-batches


@dataclass(frozen=True)
class Recipe:
    """The parameters to lay over a method's defaults, and why these."""

    method: str
    overrides: dict[str, Any]
    reason: str


def prepared_side(look: Look, gpu: bool) -> int:
    """Return the height and width that images are brought to: their own, or the most that the device has time for."""
    return min(look.side, GPU_SIDE if gpu else CPU_SIDE)


def check_method(method: str, features: bool = False) -> None:
    """Raise a UserError unless there is a recipe for a method, on images or on `features`."""
    known, where = ((*FITTED, *HEADS), " on features") if features else (METHODS, "")
    if method not in known:
        raise UserError(f"--method: no recipe for {method!r}{where}; {hint(method, known)}")


def draft(method: str, look: Look, k: int, gpu: bool, root: Path, side: int = 0) -> Recipe:
    """Return the recipe with as many epochs as the archive's own runs have; see `with_epochs`.

    Parameters
    ----------
    k
        Number of clusters.
    gpu
        Whether there is a GPU to train on.
    side
        Height and width of the images, if they are not `prepared_side`.
    """
    check_method(method, bool(look.features))
    side = side or prepared_side(look, gpu)
    known = {"num_clusters": k, "train_split": "all", "eval_split": "all"}
    if look.features:
        return _on_features(method, look, known)
    if method == "kmeans":
        more = {"resize": KMEANS_SIDE} if side > KMEANS_SIDE else {}
        more |= {"minibatch": KMEANS_PLAIN // 2} if look.count > KMEANS_PLAIN else {}
        return Recipe(method, known | more, "K-means on pixels: a baseline, it knows colours and places, not things")
    body = load_method(method, root)
    glyphs = look.grey and side <= GLYPH_SIDE
    block = "digits" if glyphs else "cifar10-jpeg-small"
    base = copy.deepcopy(body["datasets"][block]) if glyphs or not gpu else {}
    defaults, views = body["defaults"], base.pop("views", {})
    scaled = _scaled(merge({} if glyphs else defaults["views"], views), side / (8 if glyphs else 32))
    overrides = merge(base, known, {"epochs": base.get("epochs", MOST_EPOCHS)}, {"views": scaled} if scaled else {})
    overrides.pop("top5", None)
    batch = _batch(look.count, overrides.get("batch_size", defaults["batch_size"]))
    overrides["batch_size"] = batch
    if "instance_queue" in {**defaults, **overrides}:  # at most the other images, in whole batches
        queue = overrides.get("instance_queue", defaults.get("instance_queue"))
        overrides["instance_queue"] = min(queue, max(look.count // batch - 1, 1) * batch)
    return Recipe(method, overrides, _reason(look, side, glyphs, gpu, overrides, defaults))


def _on_features(method: str, look: Look, known: dict[str, Any]) -> Recipe:
    """Return the recipe for features that are given: they are clustered, or a head learns from nearest neighbours."""
    rows = f"{look.count} rows of {look.features} numbers"
    if method in FITTED:
        return Recipe(method, {**known, "inputs": {"map": "features"}}, f"{rows}, which are clustered as they are")
    near = max(1, min(NEIGHBOURS, look.count // (4 * known["num_clusters"])))  # a quarter of an even cluster
    given: dict[str, Any] = {"source": None, "backbone": None, "freeze_backbone": True, "normalisation": None}
    given |= {"inputs": {"map": "features", "scale": "standardised"}, "views": {"augmented": [], "test": []}}
    how: dict[str, Any] = {"epochs": MOST_EPOCHS, "batch_size": _batch(look.count, HEAD_BATCH), "lr": HEAD_RATE}
    how |= {"neighbours": near, "neighbour_layer": "backbone", "sub_heads": SUB_HEADS}
    reason = f"{rows}, each number rescaled to deviation 1; {SUB_HEADS} heads learn that {near} neighbours are alike"
    return Recipe(method, known | given | how, reason)


def _scaled(views: dict[str, Any], factor: float) -> dict[str, Any]:
    """Return views whose sizes in pixels are `factor` times as large."""
    scaled = copy.deepcopy(views)
    for step in (step for steps in scaled.values() for step in steps if "size" in step):
        step["size"] = max(4, round(step["size"] * factor))
    return scaled


def _batch(count: int, batch: int) -> int:
    while batch // 2 >= LEAST_BATCH and count < BATCHES * batch:
        batch //= 2
    return min(batch, max(count, 2))


def _reason(look: Look, side: int, glyphs: bool, gpu: bool, overrides: dict[str, Any], defaults: dict[str, Any]) -> str:
    backbone = overrides.get("backbone", defaults.get("backbone"))
    network = f"{backbone['name']} of width {backbone['width']}" if backbone else "the method's own network"
    smaller = f", reduced from {look.side}" if side < look.side else ""
    kind = (
        "shifts and turns without mirroring, as small grey images are signs" if glyphs else "crops, mirroring, colour"
    )
    where = "a GPU" if gpu else "a CPU"
    return (
        f"{look.count} {'grey' if look.grey else 'colour'} images of {side}x{side} pixels{smaller}; {network}, because "
        f"there is {where}; views: {kind}"
    )


def with_epochs(recipe: Recipe, epochs: int, count: int, root: Path) -> Recipe:
    """Return the recipe with so many epochs: drops of the rate at the same fractions, warm-up at most a 15th."""
    if recipe.method in FITTED:
        return recipe
    overrides = copy.deepcopy(recipe.overrides)
    defaults = load_method(recipe.method, root)["defaults"]
    schedule = {**defaults["schedule"], **overrides.get("schedule", {})}
    before = overrides["epochs"] if "schedule" in overrides or "milestones" not in schedule else defaults["epochs"]
    steps = epochs * max(count // overrides["batch_size"], 1)
    if "milestones" in schedule:
        schedule["milestones"] = sorted({max(1, round(m * epochs / before)) for m in schedule["milestones"]})
    if "warmup_steps" in schedule:
        schedule["warmup_steps"] = min(schedule["warmup_steps"], steps // WARM_PART)
    if "prototype_freeze_steps" in defaults:
        frozen = overrides.get("prototype_freeze_steps", defaults["prototype_freeze_steps"])
        overrides["prototype_freeze_steps"] = min(frozen, steps // WARM_PART)
    return Recipe(recipe.method, overrides | {"epochs": epochs, "schedule": schedule}, recipe.reason)


def epochs_in(seconds: float, seconds_per_epoch: float) -> int:
    """Return how many epochs fit into a time, within bounds that make sense."""
    return int(min(MOST_EPOCHS, max(LEAST_EPOCHS, seconds // seconds_per_epoch)))
