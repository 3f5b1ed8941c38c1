"""TCC's ablation vii (`subset: all`): cluster representations of the whole training set instead of a batch.

An epoch of L2, then one descent of L1 in two passes that see the same batches and views. The first adds up the sums of
Eq. 4 without gradient, the second back-propagates L1 batch by batch and ends with one optimiser step. Either loss has
weight 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dica.data.splits import DataInfo
from dica.files import UserError
from dica.losses.common import l2_normalise
from dica.losses.tcc import cluster_contrast, draw_gumbel, gumbel_softmax
from dica.methods.base import Batch, Phase, Step
from dica.methods.tcc import TCC, Network


class WholeSetTCC(TCC):
    """TCC whose cluster representations aggregate every image once an epoch."""

    replayable = False  # what a batch is for depends on what was seen before

    def __init__(self, params: dict, data: DataInfo) -> None:
        if params["drop_last"] or params["agg"] == "hard":
            raise UserError(
                "tcc: subset: all aggregates every image with soft weights; set drop_last: false and agg: pi or gumbel "
                f"(now drop_last: {str(params['drop_last']).lower()}, agg: {params['agg']})"
            )
        super().__init__(params, data)
        self.total = sum(self.data.counts[split] for split in self.phases(0)[0].splits)
        self.register_buffer("sums", torch.zeros(2, params["num_clusters"], params["feature_size"]))  # own, twin
        self.register_buffer("gradients", torch.zeros(sum(p.numel() for p in self.own.cluster_parameters())))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))  # images of the two passes so far

    def phases(self, epoch: int) -> list[Phase]:
        """Return one pass, and two more for the descent of L1."""
        main = super().phases(epoch)
        # Two passes of one name get the same batches and the same random numbers: the sums of the first are those
        # that the second differentiates.
        clusters = Phase("clusters", main[0].splits)
        return [*main, clusters, clusters]

    def loss(self, batch: Batch) -> Step:
        """L2 in the main phase, L1 in the other."""
        if batch.phase == "clusters":
            return self._cluster_loss(batch)
        step = self.contrast(batch, alpha=0.0)
        parts = {name: part for name, part in step.parts.items() if name != "L1"}
        return Step(step.loss, parts, {"e_hat": step.carry["e_hat"]})

    def after_step(self, batch: Batch, carry: dict[str, Tensor]) -> None:
        """Fill the queues and move the twin after each step of L2, and after the one of L1."""
        if batch.phase == "clusters":
            last = self._is_last(batch)
            self._count(batch)
            if not last:
                return
        super().after_step(batch, carry)

    def split(self, batch: Batch) -> Iterator[Batch]:
        """Yield every batch, except those of the pass that adds up the sums."""
        if batch.phase == "clusters" and int(self.seen) < self.total:
            self._add_sums(batch)
        else:
            yield batch

    @torch.no_grad()
    def _add_sums(self, batch: Batch) -> None:
        if int(self.seen) == 0:
            self.sums.zero_()
            self.gradients.zero_()
        half = self.params["precision"] == "bfloat16"
        with torch.autocast(batch.images.device.type, dtype=torch.bfloat16, enabled=half):
            self.sums[0] += self._batch_sums(self.own, batch, "own")
            self.sums[1] += self._batch_sums(self.twin, batch, "twin")
        self._count(batch)

    def _batch_sums(self, network: Network, batch: Batch, name: str) -> Tensor:
        """Return the sums of Eq. 4 over one batch, (K, d), before they are brought to unit length."""
        plain = self.params["cluster_views"] == "plain"
        features = network(self.test_view(batch.images) if plain else self.augmented(batch.images, batch.rng(name)))
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.sums.dtype)
            weights = self._assign(network, features)
            if self.params["agg"] == "gumbel":
                noise = draw_gumbel(tuple(weights.shape), generator=batch.rng(f"gumbel_{name}"), device=weights.device)
                weights = gumbel_softmax(weights, noise, gumbel_temperature=self.params["gumbel_temperature"])
            return weights.mT @ features

    def _cluster_loss(self, batch: Batch) -> Step:
        """L1 of the whole set (Eq. 5), of which only this batch's share of the sums carries a gradient."""
        share = self._batch_sums(self.own, batch, "own")
        r, r_hat = l2_normalise(self.sums[0] - share.detach() + share), l2_normalise(self.sums[1])
        l1 = cluster_contrast(
            r,
            r_hat,
            self.queue_p,
            temperature=self.params["temperature"],
            use_queue_p=self.params["use_queue_p"],
        )
        return Step(l1, {}, {"r_hat": r_hat})

    def after_backward(self, batch: Batch) -> None:
        """Collect the gradients of L1; until the last batch the optimiser finds none and leaves all as it is."""
        if batch.phase != "clusters":
            return
        parameters, last = self.own.cluster_parameters(), self._is_last(batch)
        self.gradients += torch.cat([p.grad.flatten() for p in parameters])
        shares = self.gradients.split([p.numel() for p in parameters])
        for parameter, share in zip(parameters, shares, strict=True):
            if last:
                parameter.grad.copy_(share.view(parameter.shape))
            else:
                parameter.grad = None

    def _is_last(self, batch: Batch) -> bool:
        """Return whether `batch`, not yet counted, ends the second of the two passes."""
        return int(self.seen) + len(batch.images) == 2 * self.total

    def _count(self, batch: Batch) -> None:
        self.seen.add_(len(batch.images)).remainder_(2 * self.total)

    def _plain_features(self, batch: Batch) -> tuple[None, None]:
        """Return nothing: a batch has no cluster representations of its own here."""
        return None, None
