"""TCC: Shen, Shen, Wang and Qin, You Never Cluster Alone, NeurIPS 2021 (twin-contrast clustering).

A network (CNN, prototypes, one layer on the sampled assignments) and its momentum twin see two views of each image.
Cluster representations (Eq. 4, 5) and instance embeddings (Eq. 7, 8) are contrasted with queues of what the twin gave
before. Losses: `dica.losses.tcc`. Prediction: argmax of pi (Eq. 3) without augmentation.

Deviations and readings, each a key of params/tcc.yaml with the paper's value as default:

- `normalise_logits`, `agg`, `entropy`, `use_queue_p`, `gumbel_samples`: see `dica.losses.tcc`.
- `cluster_views`: `plain` takes the cluster representations from images without augmentation (ablation v).
- `subset`: `all` aggregates the whole training set instead of a batch (ablation vii): `dica.methods.tcc_whole_set`.
- The prototypes start as a simplex, the most distant unit vectors there are (authors' earlier code; the paper is
  silent). Where K - 1 exceeds the feature size, as on Tiny-ImageNet, only nearly so.
- Own network and twin both normalise by batch statistics in training and keep running ones of their own.
- `DEC` in the history is what Fig. 5(c) records; it is not optimised.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dica.data.splits import DataInfo
from dica.losses.dec import dec_loss, target
from dica.losses.tcc import Branch, assignments, draw_gumbel, enqueue, momentum_update, tcc_loss
from dica.methods.base import Batch, Method, Step
from dica.networks.backbones import build_backbone, init_weights


def simplex(count: int, size: int) -> Tensor:
    """Return `count` unit vectors (count, size) with pairwise cosine -1 / (count - 1), drawn from the global stream.

    They span count - 1 dimensions; in fewer, the rows sum nearly to zero and are spread evenly, not equidistant.
    """
    rank = min(count - 1, size)
    directions = torch.randn(count, rank)
    basis = torch.linalg.qr(directions - directions.mean(dim=0)).Q  # columns orthonormal, each orthogonal to 1
    return F.pad(F.normalize(basis, dim=1), (0, size - rank))


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

    replayable = True
    queue_p: Tensor
    queue_q: Tensor
    pointer_p: Tensor
    pointer_q: Tensor

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

    @classmethod
    def of(cls, params: dict) -> type[Method]:
        """Return the class that trains with `params`: ablation vii has one of its own."""
        if params["subset"] == "batch":
            return cls
        from dica.methods.tcc_whole_set import WholeSetTCC  # builds on this module

        return WholeSetTCC

    def loss(self, batch: Batch) -> Step:
        """Eq. 9 on two views."""
        return self.contrast(batch, self.params["alpha"])

    def contrast(self, batch: Batch, alpha: float) -> Step:
        """Return Eq. 9 with the weight `alpha`, and what goes into the queues."""
        params = self.params
        own, twin = self._branches(batch)
        plain_f, plain_f_hat = self._plain_features(batch)
        loss, parts = tcc_loss(
            own,
            twin,
            self.queue_p,
            self.queue_q,
            alpha=alpha,
            temperature=params["temperature"],
            gumbel_temperature=params["gumbel_temperature"],
            agg=params["agg"],
            use_queue_p=params["use_queue_p"],
            entropy=params["entropy"],
            normalise_logits=params["normalise_logits"],
            plain_f=plain_f,
            plain_f_hat=plain_f_hat,
        )
        scalars = {name: parts[name] for name in ("L1", "L2", "nll", "KL")}
        with torch.no_grad():
            pi = self._assign(self.own, own.f)
            scalars["DEC"], _ = dec_loss(pi, target(pi))  # Fig. 5(c)
        return Step(loss, scalars, {"e_hat": parts["enqueue_Q"], "r_hat": parts["r_hat"]})

    def after_step(self, batch: Batch, carry: dict[str, Tensor]) -> None:
        """Put what the twin gave into the queues, then let it follow (Algorithm 1)."""
        queues = {"r_hat": (self.queue_p, self.pointer_p), "e_hat": (self.queue_q, self.pointer_q)}
        for name, rows in carry.items():
            queue, pointer = queues[name]
            filled, place = enqueue(queue, rows, pointer)
            queue.copy_(filled)
            pointer.copy_(place)
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
        if self.params["cluster_views"] == "augmented":
            return None, None
        views = self.test_view(batch.images)
        with torch.no_grad():
            twin = self.twin(views)
        return self.own(views), twin


METHOD = TCC
