"""TCC: Shen, Shen, Wang and Qin, You Never Cluster Alone, NeurIPS 2021 (twin-contrast clustering).

A network (CNN, prototypes, one layer on the sampled assignments) and its momentum twin see two views of each image.
Cluster representations (Eq. 4, 5) and instance embeddings (Eq. 7, 8) are contrasted with queues of what the twin gave
before. Losses: `dica.losses.tcc`. Prediction: argmax of pi (Eq. 3) without augmentation.

Deviations and readings, each a key of params/tcc.yaml with the paper's value as default:

- `normalise_logits`, `agg`, `entropy`, `use_queue_p`, `gumbel_samples`: see `dica.losses.tcc`.
- `cluster_views`: `plain` takes the cluster representations from images without augmentation (ablation v).
- `subset`: `all` aggregates the whole training set instead of a batch (ablation vii): an epoch of L2, then one descent
  of L1 in two passes that see the same batches and views. The first adds up the sums of Eq. 4 without gradient, the
  second back-propagates L1 batch by batch and ends with one optimiser step. Either loss then has weight 1.
- The prototypes start as a simplex, the most distant unit vectors there are (authors' earlier code; the paper is
  silent). Where K - 1 exceeds the feature size, as on Tiny-ImageNet, only nearly so.
- Own network and twin both normalise by batch statistics in training and keep running ones of their own.
- `DEC` in the history is what Fig. 5(c) records; it is not optimised.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dica.data.splits import DataInfo
from dica.files import UserError
from dica.losses.common import full_precision, l2_normalise, plogp
from dica.losses.tcc import (
    Branch,
    assignments,
    cluster_contrast,
    draw_gumbel,
    enqueue,
    gumbel_softmax,
    momentum_update,
    tcc_loss,
)
from dica.methods.base import Batch, Method, Phase, Step
from dica.networks.backbones import build_backbone, init_weights


def simplex(count: int, size: int) -> Tensor:
    """Return `count` unit vectors (count, size) with pairwise cosine -1 / (count - 1), drawn from the global stream.

    They span count - 1 dimensions; in fewer, the rows sum nearly to zero and are spread evenly, not equidistant.
    """
    rank = min(count - 1, size)
    directions = torch.randn(count, rank)
    basis = torch.linalg.qr(directions - directions.mean(dim=0)).Q  # columns orthonormal, each orthogonal to 1
    return F.pad(F.normalize(basis, dim=1), (0, size - rank))


@full_precision
def dec_divergence(pi: Tensor) -> Tensor:
    """Return DEC's mean KL of its sharpened target (from pi^2 over the cluster's size) to `pi` (B, K); Fig. 5(c)."""
    target = pi.square() / pi.sum(dim=0).clamp_min(torch.finfo(pi.dtype).tiny)
    target = target / target.sum(dim=1, keepdim=True)
    return (plogp(target) - target * pi.clamp_min(torch.finfo(pi.dtype).tiny).log()).sum(dim=1).mean()


class Network(nn.Module):
    """All that the paper calls theta: CNN with its last linear layer, prototypes, and NN of Eq. 7 (`fuse`)."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__()
        network, clusters, size = params["backbone"], params["num_clusters"], params["feature_size"]
        self.backbone = build_backbone(**network, in_channels=data.channels, image_size=data.image_size)
        self.last = nn.Linear(self.backbone.out_features, size)
        self.fuse = nn.Linear(clusters, size)
        init_weights(self.last, network["init"])
        init_weights(self.fuse, network["init"])
        self.prototypes = nn.Parameter(simplex(clusters, size))

    def forward(self, images: Tensor) -> Tensor:
        """Map views (n, C, H, W) to features (n, d)."""
        return self.last(self.backbone(images))

    def branch(self, views: Tensor, noise: Tensor) -> Branch:
        """Return what the losses need of this network for one view of every image."""
        return Branch(self(views), self.prototypes, self.fuse.weight, self.fuse.bias, noise)

    def cluster_parameters(self) -> list[Tensor]:
        """Return the parameters that the cluster representations depend on."""
        return [*self.backbone.parameters(), *self.last.parameters(), self.prototypes]


class TCC(Method):
    """Contrast of clusters and of instances with a momentum twin and two queues."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        self.own = Network(params, data)
        self.twin = copy.deepcopy(self.own).requires_grad_(False)
        self.augmented = self.pipeline("augmented")
        clusters, size = params["num_clusters"], params["feature_size"]
        # Random unit vectors, as in the authors' earlier code: there is no past yet.
        for name, length in (("p", params["cluster_queue"] * clusters), ("q", params["instance_queue"])):
            self.register_buffer(f"queue_{name}", F.normalize(torch.randn(length, size), dim=1))
            self.register_buffer(f"pointer_{name}", torch.zeros((), dtype=torch.long))
        self.whole_set = params["subset"] == "all"
        if self.whole_set:
            self._prepare_whole_set()

    def loss(self, batch: Batch) -> Step:
        """Eq. 9 on two views; with `subset: all` L2 in the main phase and L1 in the other."""
        if batch.phase == "clusters":
            return self._whole_set_loss(batch)
        params = self.params
        own, twin = self._branches(batch)
        plain_f, plain_f_hat = self._plain_features(batch)
        loss, parts = tcc_loss(
            own,
            twin,
            self.queue_p,
            self.queue_q,
            alpha=0.0 if self.whole_set else params["alpha"],
            temperature=params["temperature"],
            gumbel_temperature=params["gumbel_temperature"],
            agg=params["agg"],
            use_queue_p=params["use_queue_p"],
            entropy=params["entropy"],
            normalise_logits=params["normalise_logits"],
            plain_f=plain_f,
            plain_f_hat=plain_f_hat,
        )
        names, carry = ["L2", "nll", "KL"], {"e_hat": parts["enqueue_Q"]}
        if not self.whole_set:
            names, carry = ["L1", *names], {**carry, "r_hat": parts["r_hat"]}
        with torch.no_grad():
            dec = dec_divergence(self._assign(self.own, own.f))
        return Step(loss, {**{name: parts[name] for name in names}, "DEC": dec}, carry)

    def after_step(self, batch: Batch, carry: dict[str, Tensor]) -> None:
        """Put what the twin gave into the queues, then let it follow (Algorithm 1)."""
        if batch.phase == "clusters":
            last = self._is_last(batch)
            self._count(batch)
            if not last:
                return
        if "r_hat" in carry:
            self.queue_p, self.pointer_p = enqueue(self.queue_p, carry["r_hat"], self.pointer_p)
        if "e_hat" in carry:
            self.queue_q, self.pointer_q = enqueue(self.queue_q, carry["e_hat"], self.pointer_q)
        momentum_update(list(self.twin.parameters()), list(self.own.parameters()), momentum=self.params["momentum"])

    def predict(self, images: Tensor) -> Tensor:
        """Return pi of the own network on the test view, (n, K)."""
        return self._assign(self.own, self.own(self.test_view(images)))

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return f of the own network (n, 128); the paper counts the last linear layer to the CNN."""
        self.check_layer(layer)
        return self.own(self.test_view(images))

    def _assign(self, network: Network, features: Tensor) -> Tensor:
        return assignments(features, network.prototypes, normalise_logits=self.params["normalise_logits"])

    def _branches(self, batch: Batch) -> tuple[Branch, Branch]:
        """Run both networks, each with a view and Gumbel noise of its own; the twin without gradient."""
        shape = (self.params["gumbel_samples"], len(batch.images), self.params["num_clusters"])
        branches = []
        for name, network in (("own", self.own), ("twin", self.twin)):
            views = self.augmented(batch.images, batch.rng(name))
            noise = draw_gumbel(shape, generator=batch.rng(f"gumbel_{name}"), device=views.device)
            with torch.set_grad_enabled(network is self.own):
                branches.append(network.branch(views, noise))
        return branches[0], branches[1]

    def _plain_features(self, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        """Return the features without augmentation that ablation v aggregates; else nothing."""
        if self.params["cluster_views"] == "augmented" or self.whole_set:
            return None, None
        views = self.test_view(batch.images)
        with torch.no_grad():
            twin = self.twin(views)
        return self.own(views), twin

    # Ablation vii: cluster representations of the whole training set.

    def _prepare_whole_set(self) -> None:
        params = self.params
        if params["drop_last"] or params["agg"] == "hard":
            raise UserError(
                "tcc: subset: all aggregates every image with soft weights; set drop_last: false and agg: pi or gumbel "
                f"(now drop_last: {str(params['drop_last']).lower()}, agg: {params['agg']})"
            )
        self.total = sum(self.data.counts[split] for split in super().phases(0)[0].splits)
        self.register_buffer("sums", torch.zeros(2, params["num_clusters"], params["feature_size"]))  # own, twin
        self.register_buffer("gradients", torch.zeros(sum(p.numel() for p in self.own.cluster_parameters())))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))  # images of the two passes so far

    def phases(self, epoch: int) -> list[Phase]:
        """Return one pass, and with `subset: all` two more for the descent of L1."""
        main = super().phases(epoch)
        if not self.whole_set:
            return main
        # Two passes of one name get the same batches and the same random numbers: the sums of the first are those
        # that the second differentiates.
        clusters = Phase("clusters", main[0].splits)
        return [*main, clusters, clusters]

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

    def _whole_set_loss(self, batch: Batch) -> Step:
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


METHOD = TCC
