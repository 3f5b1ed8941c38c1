"""Training by outer batches: one pass without gradient gives the targets of many images, then come steps on parts of
them. DAC's code does so, and DCCM's after it.

Keys: `batch_size` (the outer batch), `inner_batch`, `inner_passes` over the same images in a new order,
`augmentations_per_batch` steps on each inner batch with fresh transformations, and `bn_eval`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from dica.data.splits import splits_of
from dica.methods.base import Batch, Method, pick
from dica.rng import Rng


class OuterBatchMethod(Method):
    """Base of methods with outer and inner batches; a subclass gives the targets.

    Attributes
    ----------
    network : what is trained, from images to whatever `targets` and `loss` need
    pairwise : names of the targets that are of pairs of images, (n, n)
    """

    pairwise: ClassVar[tuple[str, ...]]
    network: nn.Module

    def targets(self, batch: Batch) -> NamedTuple:
        """Return what supervises the outer batch, by name; without gradient."""
        raise NotImplementedError

    def split(self, batch: Batch) -> Iterator[Batch]:
        """Yield one batch a gradient step, with the targets of its images as the outer batch sees them."""
        if len(batch.images) < 2:
            return  # the last batch of an unlucky count: one image has no batch statistics
        with torch.no_grad():
            given = self.targets(batch)._asdict()
        count = 0
        for number in range(self.params["inner_passes"]):
            order = torch.randperm(
                len(batch.images), generator=batch.rng(f"inner order/{number}"), device=batch.images.device
            )
            for index, rows in enumerate(_full_batches(order, self.params["inner_batch"])):
                inner = dataclasses.replace(
                    batch, images=batch.images[rows], indices=batch.indices[rows], extra=self._slice(given, rows)
                )
                for copy in range(self.params["augmentations_per_batch"]):
                    rng = _within(batch.rng, f"{number}/{index}/{copy}")
                    yield dataclasses.replace(inner, step=batch.step + count, rng=rng)
                    count += 1

    def _slice(self, given: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        """Return the targets of some images of the outer batch, by name."""
        square = (rows[:, None], rows)
        return {name: value[square if name in self.pairwise else rows] for name, value in given.items()}

    @torch.no_grad()
    def before_predict(self, images: dict[str, Tensor], rng: Rng) -> None:
        """With `bn_eval: batch`, average the batch statistics over shuffled batches of the images to predict."""
        if self.params["bn_eval"] == "batch":
            renew_batch_norms(self, self.network, images, rng)


@torch.no_grad()
def renew_batch_norms(method: Method, network: nn.Module, images: dict[str, Tensor], rng: Rng) -> None:
    """Set the statistics of all batch norms in `network` to averages over shuffled batches of the images to score.

    For methods whose code normalises by the batch at prediction, too: so an assignment depends on no other image.
    """
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches that follow
    network.train()
    pixels = torch.cat([images[split] for split in splits_of(method.params["eval_split"], method.data)])
    draw = rng("bn_eval")
    order = torch.randperm(len(pixels), generator=draw, device=draw.device)
    for rows in order.tensor_split(math.ceil(len(order) / method.params["batch_size"])):
        network(method.test_view(pick(pixels, rows)))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def _full_batches(order: Tensor, size: int) -> list[Tensor]:
    """Cut `order` into batches, without the incomplete last one unless it is the only one (code)."""
    batches = list(order.split(size))
    return batches[:-1] if len(batches) > 1 and len(batches[-1]) < size else batches


def _within(rng: Rng, position: str) -> Rng:
    """Return `rng` for one inner step: equal purposes of different steps draw different numbers."""
    return lambda purpose: rng(f"{purpose}/{position}")
