"""What the shared training loop asks of a method. The loop knows no method by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from dica.data.splits import DataInfo, splits_of
from dica.files import UserError
from dica.networks.backbones import RESIDUAL, build_backbone
from dica.rng import Rng
from dica.views.pipeline import Pipeline, build_pipeline


@dataclass(frozen=True)
class Phase:
    """One pass over some splits of the data; most methods have one a epoch, DRC has one for each head."""

    name: str
    splits: tuple[str, ...]
    second: tuple[str, ...] = ()  # splits of a second batch that every step also gets, as `extra["second"]`


def _no_others(positions: Tensor) -> Tensor:
    """Stand in for `Batch.take` where a batch was made by hand."""
    raise UserError("this batch has no way to other images: give it `take`")


@dataclass(frozen=True)
class Batch:
    """One mini-batch as the loop hands it to a method.

    Attributes
    ----------
    images : (n, C, H, W) uint8, on the training device
    indices : (n,) positions of the images in the phase's splits, laid end to end
    rng : gives a fresh generator for a named purpose at this position of the run
    extra : what a method hands from `split` to `loss` (targets, positions)
    take : gives the images at other positions of the phase's splits, as `images`
    on_host : (n,) `indices` in the main memory, where they decide what is to be done; of a whole batch only
    """

    images: Tensor
    indices: Tensor
    epoch: int
    step: int
    phase: str
    rng: Rng
    extra: dict[str, Tensor] = field(default_factory=dict)
    take: Callable[[Tensor], Tensor] = _no_others
    on_host: np.ndarray | None = None


@dataclass(frozen=True)
class Step:
    """What `Method.loss` gives back.

    Attributes
    ----------
    loss : the scalar to minimise, with its graph
    parts : named scalars for the history, detached
    carry : what `after_step` needs of this step, detached; the loop hands it over unread
    """

    loss: Tensor
    parts: dict[str, Tensor]
    carry: dict[str, Tensor] = field(default_factory=dict)


def pick(images: Tensor, rows: Tensor) -> Tensor:
    """Return ``images[rows]`` on the device of `rows`; the images may be in the main memory."""
    return images[rows.to(images.device)].to(rows.device)


class Method(nn.Module):
    """Base of every method; those without gradient steps are on `FitMethod`.

    Everything that must survive a restart (networks, queues, banks, momentum twins) is a parameter or a buffer:
    the checkpoint is the `state_dict`.

    Attributes
    ----------
    supervised : whether `give_labels` is called; a key of the same name in the parameters then says so
    layers : what `features` can return
    watched : False where a prediction is too costly to be made during training (it then leaves no trace.npz)
    replayable : whether a step depends on nothing but its batch, its random numbers, tensors that it changes in place
        and what `regime` says, so that a CUDA graph of it does the next step (no buffer is replaced)
    """

    supervised: ClassVar[bool] = False
    layers: ClassVar[tuple[str, ...]] = ("backbone",)
    watched: ClassVar[bool] = True
    replayable: bool = False

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__()
        self.params = params
        self.data = data

    @classmethod
    def of(cls, params: dict) -> type[Method]:
        """Return the class that trains with `params`: this one, unless some variant has a class of its own."""
        return cls

    def build_backbone(self) -> nn.Module:
        """Return the network that ``params.backbone`` describes, for the images of this data set."""
        return build_backbone(
            **self.params["backbone"], in_channels=self.data.channels, image_size=self.data.image_size
        )

    def pipeline(self, name: str) -> Pipeline:
        """Return the augmentation pipeline ``params.views.<name>``.

        The normalisation, if there is one, comes last unless the pipeline itself names its place.
        """
        steps, statistics = self.params["views"][name], self.params["normalisation"]
        if statistics is None:
            return build_pipeline(steps, whole=self.data.whole)
        named = any(step.get("op") == "normalize" for step in steps)
        steps = steps if named else [*steps, {"op": "normalize"}]
        return build_pipeline(steps, statistics["mean"], statistics["std"], self.data.whole)

    def test_view(self, images: Tensor) -> Tensor:
        """Return the un-augmented view of uint8 images (n, C, H, W); the pipeline `test` draws nothing at random."""
        return self.pipeline("test")(images, torch.Generator(images.device))

    def adopt(self, source: Method, images: dict[str, Tensor]) -> None:
        """Take over what this method needs of the trained method that it builds on.

        Called once, before labels, before the first step and before a saved state is loaded. Keep methods of `source`
        rather than itself, so that its weights do not become part of this one's.

        Parameters
        ----------
        source
            In eval mode, without gradients, on the training device.
        images
            The splits, (n, C, H, W) uint8; they may lie in the main memory.
        """
        raise UserError(f"{type(self).__name__} builds on no other run; remove source from its parameters")

    def give_labels(self, labels: Tensor) -> None:
        """Take the labels of the train split, (n,) int64 with -1 for none; asked of `supervised` methods only."""
        raise NotImplementedError

    def judged(self) -> dict[str, Tensor]:
        """Return by split which images to score, (n,) bool; a split that is not named is scored whole.

        For supervised methods on data sets without a test split: the images whose labels were not used.
        """
        return {}

    def known(self) -> dict[str, Tensor]:
        """Return by split the clusters (n,) of images that were labelled one by one; others go through `predict`."""
        return {}

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the features (n, d) of the un-augmented view of uint8 images (n, C, H, W), in eval mode.

        `layer` is one of `layers`.
        """
        self.check_layer(layer)
        return self.backbone(self.test_view(images))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(chain(self.parameters(), self.buffers())).device

    def check_layer(self, layer: str) -> None:
        """Raise a UserError unless `features` knows `layer`."""
        if layer not in self.layers:
            raise UserError(f"{type(self).__name__} has no layer {layer!r}; there are: {', '.join(self.layers)}")

    def record(self) -> dict:
        """Return what the run's record should hold of this method (JSON values), such as the images it has drawn."""
        return {}

    def phases(self, epoch: int) -> list[Phase]:
        """Return the passes over the data that make up an epoch."""
        return [Phase("main", splits_of(self.params["train_split"], self.data))]

    def before_epoch(self, epoch: int, images: dict[str, Tensor], rng: Rng) -> None:
        """Look at all images before the first step of an epoch; `images` are the splits, see `pick`.

        What is found belongs in buffers: a run that resumes inside the epoch does not ask again.
        """

    def finished(self) -> bool:
        """Return whether to stop before the epoch that has just been prepared; asked after `before_epoch`."""
        return False

    def regime(self, batch: Batch) -> tuple:
        """Return what a step depends on that Python decides: a recorded step is replayed as long as it is the same."""
        return ()

    def trains(self, batch: Batch) -> list[nn.Parameter] | None:
        """Return the parameters that a step on `batch` moves, None for all: networks that learn by turns."""
        return None

    def split(self, batch: Batch) -> Iterator[Batch]:
        """Yield the batches to take a gradient step on; a method with inner batches yields several."""
        yield batch

    def loss(self, batch: Batch) -> Step:
        """Return the loss of a batch; nothing is written to the batch."""
        raise NotImplementedError

    def after_backward(self, batch: Batch) -> None:
        """Change gradients before the optimiser's step (frozen layers)."""

    def after_step(self, batch: Batch, carry: dict[str, Tensor]) -> None:
        """Update what follows the optimiser's step (momentum twin, queues); `carry` is that of the batch's `Step`."""

    def networks(self) -> list[nn.Module]:
        """Return the parts with nearly all of the arithmetic; the default is the residual networks."""
        return [part for part in self.modules() if isinstance(part, RESIDUAL)]

    def pipelines(self) -> list[Pipeline]:
        """Return the pipelines of views that this method keeps for its steps."""
        return [part for part in vars(self).values() if isinstance(part, Pipeline)]

    def parameter_groups(self) -> list[dict]:
        """Return what the optimiser gets; the default is all parameters in one group."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    @torch.no_grad()
    def before_predict(self, images: dict[str, Tensor], rng: Rng) -> None:
        """Prepare the network for prediction; `images` are the splits as uint8 (n, C, H, W), see `pick`."""

    def predict(self, images: Tensor) -> Tensor:
        """Return cluster probabilities (n, K) of un-augmented uint8 images (n, C, H, W)."""
        raise NotImplementedError

    def predict_heads(self, images: Tensor) -> Tensor | None:
        """Return the cluster that each of several cluster heads gives, (H, n); None of a method with one head."""
        return None

    def scores(self, images: Tensor) -> Tensor:
        """Return what ranks the clusters of each image (n, K), larger for more probable: where probabilities are 0."""
        return self.predict(images)


class FitMethod(Method):
    """Base of a method without gradient steps: it is fitted in one go."""

    def fit(self, images: dict[str, Tensor], seed: int) -> list[dict[str, float]]:
        """Fit to the training splits among `images`, see `pick`; return the rows of the history, mostly one."""
        raise NotImplementedError


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network, or a method, into its eval mode, and back into the mode that it was in."""
    training = network.training
    network.eval()
    yield
    network.train(training)


def decayed_apart(network: nn.Module) -> list[dict]:
    """Return two groups of parameters: weights, with the optimiser's decay, and biases and batch norms, without."""
    tensors = list(network.parameters())
    return [
        {"params": [p for p in tensors if p.dim() > 1]},
        {"params": [p for p in tensors if p.dim() <= 1], "weight_decay": 0.0},
    ]
