"""RotNet: Gidaris, Singh and Komodakis, Unsupervised Representation Learning by Predicting Image Rotations, ICLR 2018,
on the network of DCCM, for DCCM's Table 5.

The network tells by how many quarter turns an image was rotated (Eq. 2 and 3); the four copies of each image are one
batch. Clusters are those of K-means on its features, once after training; the probe of Table 5 is the method `probe`.

Deviations and readings, each a key of params/rotnet.yaml with the value of the authors' code as default:

- `network`: DCCM's for the size of the images, but for its last layer, which has four outputs (DCCM, Table 5).
- `clustered_layer`: which layer DCCM took for K-means is unknown; the first linear one is that of its own clusters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dica.data.splits import DataInfo
from dica.losses.common import share_right
from dica.methods.base import Batch, Step
from dica.methods.feature_clusters import FeatureClusters
from dica.networks import dccm

TURNS = 4


class RotNet(FeatureClusters):
    """A network that tells quarter turns apart."""

    layers = ("backbone", "conv")

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        self.network = dccm.Network(params["network"], data.channels, TURNS, final_bn=False, mi_layers="paper")
        nn.init.kaiming_normal_(self.network.output.weight)  # as the identity it would see four of the features only
        self.augmented = self.pipeline("augmented")
        size = dccm.LAYOUTS[params["network"]].image_size
        with torch.no_grad():
            seen = self.network.eval().represent(torch.zeros(1, data.channels, size, size), params["clustered_layer"])
        self.network.train()
        self.make_clusters(seen.shape[1])

    def networks(self) -> list[nn.Module]:
        """Return the one network."""
        return [self.network]

    def loss(self, batch: Batch) -> Step:
        """Cross-entropy of the four rotations of each image, and the share of them that is told right."""
        views = self.augmented(batch.images, batch.rng("augmented"))
        turned, turns = quarter_turns([views] * TURNS)
        logits = self.network(turned).logits.to(self.clusters.centroids.dtype)
        return Step(F.cross_entropy(logits, turns), {"right": share_right(logits, turns)})

    def clustered(self, images: Tensor) -> Tensor:
        """Return what K-means reads, (n, d)."""
        return self.features(images, self.params["clustered_layer"])

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the first linear layer (n, d), or the flattened last convolution (`conv`)."""
        self.check_layer(layer)
        return self.network.represent(self.test_view(images), layer)


def quarter_turns(views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return views for each of the four rotations, four times (n, C, H, W), rotated, and the quarter turns of each.

    Returns
    -------
    (4 n, C, H, W) and (4 n,).
    """
    turned = torch.cat([copy.rot90(turns, dims=(2, 3)) for turns, copy in enumerate(views)])
    return turned, torch.arange(TURNS, device=turned.device).repeat_interleave(len(turned) // TURNS)


METHOD = RotNet
