"""MCR2: Yu, Chan, You, Song and Ma, Learning Diverse and Discriminative Representations via the Principle of Maximal
Coding Rate Reduction, NeurIPS 2020, as its authors train it without labels.

Each image of a small batch is seen in many views, and is a class of its own: the features of its views shall take few
bits, those of all views many (`dica.losses.mcr2`). Clusters are those of K-means on the unit features.

Deviations and readings, each a key of params/mcr2.yaml:

- The code has two ways to clusters, K-means and elastic-net subspace clustering, of which the paper's numbers are. Its
  constants differ between code and description, and the paper has none: K-means here.
- `batch_size` counts images, the code's counts views. One view is the image as it is.
- `widths`, `blocks`: the stages of the network, whose last one is as wide as the features; `stem` is that of the code's
  network for CIFAR (`cifar`) or for STL-10 (`large`). Weights are drawn as torch does (code).
- Images come in a random order; the code takes them as the file has them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dica.data.splits import DataInfo
from dica.losses.common import l2_normalise
from dica.losses.mcr2 import mcr2_loss
from dica.methods.base import Batch, Step
from dica.methods.feature_clusters import FeatureClusters
from dica.networks.backbones import BasicBlock, ResNet


def build_network(channels: int, stem: str, widths: Sequence[int], blocks: int) -> ResNet:
    """Return the residual network of the code for CIFAR or STL-10, its stages `widths` wide and `blocks` deep."""
    kernel, stride, padding = (5, 2, 3) if stem == "large" else (3, 1, 1)
    first = nn.Conv2d(channels, widths[0], kernel, stride, padding, bias=False)
    pool = [nn.MaxPool2d(3, 2, padding=1)] if stem == "large" else []
    layers = nn.Sequential(first, nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True), *pool)
    return ResNet(BasicBlock, [blocks] * len(widths), widths, layers)


class MCR2(FeatureClusters):
    """Features whose views of an image are few directions, and those of all images many."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        self.backbone = build_network(data.channels, params["stem"], params["widths"], params["blocks"])
        self.original, self.augmented = self.pipeline("original"), self.pipeline("augmented")
        self.make_clusters(self.backbone.out_features)

    def embed(self, views: Tensor) -> Tensor:
        """Return unit features (n, d) of views."""
        return l2_normalise(self.backbone(views).to(self.clusters.centroids.dtype))

    def loss(self, batch: Batch) -> Step:
        """Coding rates of the image as it is and its augmented views."""
        params, count = self.params, len(batch.images)
        many = batch.images.repeat_interleave(params["num_views"] - 1, dim=0)
        augmented = self.augmented(many, batch.rng("augmented")).unflatten(0, (count, -1))
        views = torch.cat([self.original(batch.images, batch.rng("original"))[:, None], augmented], dim=1)
        z = self.embed(views.flatten(0, 1)).unflatten(0, (count, -1))
        return Step(*mcr2_loss(z, **{name: params[name] for name in ("error", "scale", "weight")}))

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the unit features (n, d) of the un-augmented view."""
        self.check_layer(layer)
        return self.embed(self.test_view(images))


METHOD = MCR2
