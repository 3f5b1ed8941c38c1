"""MoCo and K-means on its features: He, Fan, Wu, Xie and Girshick, Momentum Contrast for Unsupervised Visual
Representation Learning, CVPR 2020; the "MoCo baseline" of MiCE, which TCC's tables quote.

A network has to pick its momentum twin's embedding of the same image among those of a queue. Loss: InfoNCE
(`dica.losses.tcc.instance_contrast`). Clusters are those of K-means on the backbone's features, once after training.

Deviations and readings, each a key of params/moco.yaml; MiCE's code has no plain MoCo, so its settings stand in:

- `temperature`: unknown; .1 is that of MoCo's own demonstration on CIFAR-10.
- The embedding is one linear layer, as in that demonstration; K-means reads what stands before it. Which layer MiCE
  took is unknown; `clustered_layer` names it.
- Batch norms of the twin see whole batches: shuffling them among GPUs has no counterpart on one device.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dica.data.splits import DataInfo
from dica.losses.common import l2_normalise
from dica.losses.tcc import enqueue, instance_contrast, momentum_update
from dica.methods.base import Batch, Step
from dica.methods.feature_clusters import FeatureClusters
from dica.networks.backbones import init_weights


class MoCo(FeatureClusters):
    """Contrast of images with a momentum twin and a queue."""

    layers = ("backbone", "projection")

    queue: Tensor
    pointer: Tensor

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        network, size = params["backbone"], params["projection_size"]
        backbone = self.build_backbone()
        self.own = nn.Sequential(backbone, nn.Linear(backbone.out_features, size))
        init_weights(self.own[1], network["init"])
        self.twin = copy.deepcopy(self.own).requires_grad_(False)
        self.augmented = self.pipeline("augmented")
        self.register_buffer("queue", F.normalize(torch.randn(params["queue"], size), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.make_clusters(backbone.out_features if params["clustered_layer"] == "backbone" else size)

    @property
    def backbone(self) -> nn.Module:
        """The trained network before its last layer."""
        return self.own[0]

    def loss(self, batch: Batch) -> Step:
        """InfoNCE of two views."""
        e = self._embed(self.own, self.augmented(batch.images, batch.rng("own")))
        with torch.no_grad():
            e_hat = self._embed(self.twin, self.augmented(batch.images, batch.rng("twin")))
        loss = instance_contrast(e, e_hat, self.queue, temperature=self.params["temperature"])
        return Step(loss, {"cosine": (e.detach() * e_hat).sum(dim=1).mean()}, {"e_hat": e_hat})

    def _embed(self, network: nn.Module, views: Tensor) -> Tensor:
        return l2_normalise(network(views).to(self.queue.dtype))

    def after_step(self, batch: Batch, carry: dict[str, Tensor]) -> None:
        """Put what the twin gave into the queue, then let it follow."""
        self.queue, self.pointer = enqueue(self.queue, carry["e_hat"], self.pointer)
        momentum_update(list(self.twin.parameters()), list(self.own.parameters()), momentum=self.params["momentum"])

    def clustered(self, images: Tensor) -> Tensor:
        """Return the features that K-means reads, (n, d)."""
        return self.features(images, self.params["clustered_layer"])

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the backbone's features (n, d), or the embedding of unit length (`projection`)."""
        self.check_layer(layer)
        view = self.test_view(images)
        return self.backbone(view) if layer == "backbone" else self._embed(self.own, view)


METHOD = MoCo
