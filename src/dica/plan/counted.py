"""The arithmetic of planned runs, as `dica.engine.count` counted it: what a run costs where nothing like it was timed.

The counts are stored beside this file, because counting needs torch and a second a run; `workflow/scripts/counts.py`
renews them. A run finds its count by what shapes its steps (`shape_key`): fractions, rates and seeds do not, and the
number of epochs is multiplied in here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dica.files import canonical_json, read_json, sha256_bytes

COUNTS = Path(__file__).with_name("counts.json")
TOLERANCE = 0.02  # of runs that are said to have equal arithmetic
# What leaves the arithmetic of a step as it is; of an `id` below a source only its seed could differ.
SHAPELESS = ("epochs", "eval_split", "id", "lr", "optimizer", "precision", "revision", "schedule", "top5")


@dataclass(frozen=True)
class Work:
    """What a run asks of a device.

    Attributes
    ----------
    flops : operations of products and convolutions, a multiplication and its addition being two
    training : those of them that are in the epochs, not in predictions or fits
    launches : kernels that are started
    exact : whether these very shapes were counted, not those of another variant of the method on as many such images
    """

    flops: float
    training: float
    launches: float
    exact: bool


def counted_flops(run: dict[str, Any], entry: dict[str, Any]) -> float | None:
    """Return the operations of a whole run, None where nothing like it was counted.

    Counted are products and convolutions, a multiplication and its addition as two operations: of networks, heads,
    discriminators and views, forward and backward, over all epochs; predictions; the fits of methods without gradient
    steps, K-means as if it took all its iterations. Not counted are sums, normalisations and optimisers.

    Parameters
    ----------
    run
        Of a plan, or a run's config.
    entry
        Its data set's, of ``params/datasets.yaml``.
    """
    work = counted_work(run, entry)
    return work.flops if work else None


def counted_work(run: dict[str, Any], entry: dict[str, Any]) -> Work | None:
    """Return what a run asks of a device, None where nothing like it was counted; see `counted_flops`."""
    found = _counts().get(shape_key(run, entry))
    method, others = run["method"], _by_variant()
    other = found or others.get((method, run["dataset"])) or others.get((method, images_of(entry)))
    if other is None:
        return None
    epochs = run["params"].get("epochs", 0)
    training = epochs * other["epoch"]
    return Work(other["once"] + training, training, epochs * other["launches"], found is not None)


def shape_key(run: dict[str, Any], entry: dict[str, Any]) -> str:
    """Return 12 hex digits that two runs share if their steps do the same arithmetic, but for that of other numbers."""
    facts = {name: entry[name] for name in ("channels", "image_size", "splits")}
    return sha256_bytes(canonical_json([run["method"], facts, _shapes(run["params"])]).encode())[:12]


def images_of(entry: dict[str, Any]) -> str:
    """Return how many images of what size a data set has, such as ``60000 of 32``."""
    return f"{sum(entry['splits'].values())} of {entry['image_size']}"


def _shapes(value: Any) -> Any:
    """Return parameters without what has no shape; a number with a fraction is a rate or a weight."""
    if isinstance(value, dict):
        return {k: _shapes(v) for k, v in value.items() if k not in SHAPELESS and not isinstance(v, float)}
    if isinstance(value, list):
        return [_shapes(v) for v in value if not isinstance(v, float)]
    return value


@cache
def _counts() -> dict[str, dict[str, Any]]:
    return read_json(COUNTS)


@cache
def _by_variant() -> dict[tuple[str, str], dict[str, Any]]:
    """Return a count for each method and data set or images alike, that of `full` where it was counted."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for count in _counts().values():
        for key in ((count["method"], count["dataset"]), (count["method"], count["images"])):
            if key not in found or count["variant"] == "full":
                found[key] = count
    return found
