"""What the shared training loop asks of a method. The loop knows no method by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from dica.augment import Pipeline, build_pipeline
from dica.rng import Rng


@dataclass(frozen=True)
class DataInfo:
    """Facts about the images that decide a network's shape."""

    channels: int
    image_size: int
    counts: dict[str, int]


@dataclass(frozen=True)
class Phase:
    """One pass over some splits of the data; most methods have one a epoch, DRC has one for each head."""

    name: str
    splits: tuple[str, ...]
    beside: tuple[str, ...] = ()  # splits of a second batch that every step also gets, as `extra["beside"]`


@dataclass(frozen=True)
class Batch:
    """One mini-batch as the loop hands it to a method.

    Attributes
    ----------
    images : (n, C, H, W) uint8, on the training device
    indices : (n,) positions of the images in the phase's splits, laid end to end
    rng : gives a fresh generator for a named purpose at this position of the run
    extra : what a method hands from `split` to `loss` (targets, positions)
    """

    images: Tensor
    indices: Tensor
    epoch: int
    step: int
    phase: str
    rng: Rng
    extra: dict[str, Tensor] = field(default_factory=dict)


SPLITS = {
    "all": ("train", "test"),
    "train": ("train",),
    "test": ("test",),
    "train+unlabeled": ("train", "unlabeled"),
    "all+unlabeled": ("train", "unlabeled", "test"),
}


def splits_of(name: str, data: DataInfo) -> tuple[str, ...]:
    """Return the splits behind a `train_split` value that the data set really has."""
    return tuple(split for split in SPLITS[name] if data.counts.get(split))


class Method(nn.Module):
    """Base of every method trained by gradient steps.

    Everything that must survive a restart (networks, queues, banks, momentum twins) is a parameter or a buffer:
    the checkpoint is the `state_dict`.

    Attributes
    ----------
    watched : False where a prediction is too costly to be made during training (it then leaves no trace.npz)
    """

    watched: ClassVar[bool] = True

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__()
        self.params = params
        self.data = data

    def pipeline(self, name: str) -> Pipeline:
        """Return the augmentation pipeline ``params.views.<name>``, followed by the normalisation if there is one."""
        steps, statistics = self.params["views"][name], self.params["normalisation"]
        if statistics is None:
            return build_pipeline(steps)
        return build_pipeline([*steps, {"op": "normalize"}], statistics["mean"], statistics["std"])

    def test_view(self, images: Tensor) -> Tensor:
        """Return the un-augmented view of uint8 images (n, C, H, W); the pipeline `test` draws nothing at random."""
        return self.pipeline("test")(images, torch.Generator(images.device))

    def phases(self, epoch: int) -> list[Phase]:
        """Return the passes over the data that make up an epoch."""
        return [Phase("main", splits_of(self.params["train_split"], self.data))]

    def split(self, batch: Batch) -> Iterator[Batch]:
        """Yield the batches to take a gradient step on; a method with inner batches yields several."""
        yield batch

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the scalar ``loss`` to minimise and its named parts."""
        raise NotImplementedError

    def after_backward(self, batch: Batch) -> None:
        """Change gradients before the optimiser's step (frozen layers)."""

    def after_step(self, batch: Batch) -> None:
        """Update what follows the optimiser's step (momentum twin, queues)."""

    def parameter_groups(self) -> list[dict]:
        """Return what the optimiser gets; the default is all parameters in one group."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    @torch.no_grad()
    def before_predict(self, images: dict[str, Tensor], rng: Rng) -> None:
        """Prepare the network for prediction; `images` are the splits as uint8 (n, C, H, W)."""

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return features (n, d) of un-augmented uint8 images (n, C, H, W); the network is in eval mode."""
        return self.backbone(self.test_view(images))

    def predict(self, images: Tensor) -> Tensor:
        """Return cluster probabilities (n, K) of un-augmented uint8 images (n, C, H, W)."""
        raise NotImplementedError
