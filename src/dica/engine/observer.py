"""Looks at a fixed subset of the images while a run trains; training itself is not touched by them.

The figures of clusters in training are drawn from what is noted here: assignments and confidences at up to `LOOKS`
epochs (``trace.npz``, beside the predictions), probabilities and features at the first, middle and last of them
(``stages.npz``, beside the weights). The subset is the same for every method and seed on a data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dica.data.splits import splits_of
from dica.engine.images import ResidentImages
from dica.methods.base import Method
from dica.rng import generator

IMAGES = 2000
LOOKS = 20
BATCH = 1000


def look_epochs(epochs: int) -> list[int]:
    """Return at most `LOOKS` numbers of finished epochs, evenly spread; 0 is before training."""
    return sorted({round(k * epochs / (LOOKS - 1)) for k in range(LOOKS)})


def stage_epochs(epochs: int) -> list[int]:
    """Return the first, the middle and the last of `look_epochs`."""
    looks = look_epochs(epochs)
    return sorted({looks[0], looks[len(looks) // 2], looks[-1]})


def choose_subset(counts: dict[str, int], splits: Sequence[str]) -> dict[str, np.ndarray]:
    """Return ascending positions of at most `IMAGES` images, drawn evenly from `splits` laid end to end."""
    total = sum(counts[name] for name in splits)
    chosen = np.sort(np.random.default_rng(0).permutation(total)[:IMAGES])
    subset, start = {}, 0
    for name in splits:
        inside = (chosen >= start) & (chosen < start + counts[name])
        subset[name] = (chosen[inside] - start).astype(np.int32)
        start += counts[name]
    return subset


class Observer:
    """Notes what a method says of the subset, at the epochs of `look_epochs`.

    Attributes
    ----------
    looks : one entry an epoch looked at, of numbers and CPU tensors, so that a checkpoint can hold it
    """

    def __init__(self, config: dict, images: ResidentImages) -> None:
        params = config["params"]
        self.seed, self.images = config["seed"], images
        self.epochs, self.stages = look_epochs(params["epochs"]), stage_epochs(params["epochs"])
        self.subset = choose_subset(images.info.counts, splits_of(params["eval_split"], images.info))
        self.looks: list[dict] = []

    @torch.no_grad()
    def look(self, method: Method, epoch: int, seconds: float) -> None:
        """Note the state after `epoch` epochs and `seconds` of training, if this epoch is to be looked at."""
        if not method.watched or epoch not in self.epochs or any(epoch == look["epoch"] for look in self.looks):
            return
        device = self.images.device
        # Preparing a prediction may renew batch-norm statistics or prototypes; training goes on with its own.
        kept = [(value, value.clone()) for value in chain(method.parameters(), method.buffers())]
        splits = {name: self.images.all_of(name) for name in self.images.splits}
        method.before_predict(splits, lambda purpose: generator(self.seed, purpose, "look", epoch, device=device))
        method.eval()
        look: dict[str, Any] = {"epoch": epoch, "seconds": seconds}
        for name, index in self.subset.items():
            look[name] = self._describe(method, name, index, epoch in self.stages)
        self.looks.append(look)
        for value, own in kept:
            value.copy_(own)
        method.train()

    def _describe(self, method: Method, split: str, index: np.ndarray, stage: bool) -> dict[str, Tensor]:
        rows = torch.from_numpy(index).to(self.images.index_device, torch.int64)
        parts = [self.images.take((split,), part) for part in rows.split(BATCH)]
        probability = torch.cat([method.predict(part).float() for part in parts])
        confidence, assignment = probability.max(dim=1)
        found = {"assignment": assignment.to(torch.int16), "confidence": confidence.half()}
        if stage:
            features = torch.cat([method.features(part).float() for part in parts])
            found |= {"probability": probability.half(), "features": _compact(features)}
        return {name: value.cpu() for name, value in found.items()}

    def trace(self) -> dict[str, np.ndarray]:
        """Return the content of trace.npz.

        Returns
        -------
        dict
            `epoch` (T,); for each split `<split>_index` (n,), its positions in the prepared order,
            `<split>_assignment` (T, n) and `<split>_confidence` (T, n) in [0, 1].
        """
        arrays = {"epoch": np.array([look["epoch"] for look in self.looks], dtype=np.int32)}
        for split, index in self.subset.items():
            arrays[f"{split}_index"] = index
            for name in ("assignment", "confidence"):
                arrays[f"{split}_{name}"] = _stack(self.looks, split, name)
        return arrays

    def look_seconds(self) -> list[float]:
        """Return the seconds of training before each look; they go into the record, where nothing is reproduced."""
        return [round(look["seconds"], 3) for look in self.looks]

    def stage_arrays(self) -> dict[str, np.ndarray]:
        """Return the content of stages.npz: `epoch` (at most 3,) and, for each split, index, probabilities, features.

        `<split>_probability` is (3, n, K), `<split>_features` (3, n, d), both float16;
        features that are too large for it are float32.
        """
        looks = [look for look in self.looks if look["epoch"] in self.stages]
        arrays = {"epoch": np.array([look["epoch"] for look in looks], dtype=np.int32)}
        for split, index in self.subset.items():
            arrays[f"{split}_index"] = index
            for name in ("probability", "features"):
                arrays[f"{split}_{name}"] = _stack(looks, split, name)
        return arrays


def _compact(values: Tensor) -> Tensor:
    """Return values as float16, or as they are if some are too large for it."""
    return values.half() if values.abs().max() <= torch.finfo(torch.float16).max else values


def _stack(looks: list[dict], split: str, name: str) -> np.ndarray:
    return np.stack([look[split][name].cpu().numpy() for look in looks])
