"""DeepCluster: Caron, Bojanowski, Joulin and Douze, Deep Clustering for Unsupervised Learning of Visual Features, ECCV
2018, on the network of DCCM, for DCCM's Table 5.

Before each epoch K-means groups the features of all images, whitened and of unit length; then the network learns to
tell the groups apart, with a last layer that begins anew. Clusters are those of K-means on its features, once after
training; the probe of Table 5 is the method `probe`.

Deviations and readings, each a key of params/deepcluster.yaml with the value of the authors' code as default:

- `network`: DCCM's for the size of the images, but for its last layer (DCCM, Table 5). Sobel filters are left out.
- `groups`: 10,000 for ImageNet in the code; what DCCM took for CIFAR is unknown.
- `components`: of the features that are grouped. These are those of the first linear layer before its ReLU, by running
  batch statistics (code).
- Images are drawn so that all groups are equally frequent (code): a slot of an epoch takes a group, then one of its
  images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dica.data.splits import DataInfo, splits_of
from dica.files import UserError
from dica.losses.common import share_right
from dica.methods.base import Batch, Step, evaluating
from dica.methods.feature_clusters import FeatureClusters, centroid_seed
from dica.methods.kmeans import fit_kmeans
from dica.networks import dccm
from dica.rng import Rng

PART = 1000  # images at a time
DEVIATION = 0.01  # of the last layer's first weights (code)
LEAST_SHARE = 1e-6  # directions with less of the largest variance are left out: they are rounding


class DeepCluster(FeatureClusters):
    """Groups of all images as classes, found anew before each epoch."""

    layers = ("backbone", "conv")
    group: Tensor  # of each image
    drawn: Tensor  # the images of this epoch

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        groups = params["groups"]
        self.network = dccm.Network(params["network"], data.channels, groups, final_bn=False, mi_layers="paper")
        self.augmented = self.pipeline("augmented")
        self.splits = splits_of(params["train_split"], data)
        total = sum(data.counts[name] for name in self.splits)
        if groups > total:
            raise UserError(f"deepcluster: groups is {groups}, but there are {total} images to group; ask for fewer")
        self.register_buffer("group", torch.zeros(total, dtype=torch.long))
        self.register_buffer("drawn", torch.zeros(total, dtype=torch.long))
        self.make_clusters(dccm.LAYOUTS[params["network"]].hidden)

    def networks(self) -> list[nn.Module]:
        """Return the one network."""
        return [self.network]

    def parameter_groups(self) -> list[dict]:
        """Return the last layer apart: without momentum, since it begins anew each epoch (code)."""
        last = list(self.network.output.parameters())
        others = [p for p in self.network.parameters() if all(p is not one for one in last)]
        return [{"params": others}, {"params": last, "momentum": 0.0}]

    @torch.no_grad()
    def before_epoch(self, epoch: int, images: dict[str, Tensor], rng: Rng) -> None:
        """Group all images, draw those of the epoch, and begin the last layer anew."""
        params = self.params
        parts = (part.to(self.group.device) for name in self.splits for part in images[name].split(PART))
        with evaluating(self):
            features = torch.cat([self.network.represent(self.test_view(part), "before-relu") for part in parts])
        points = F.normalize(whitened(features.to(self.clusters.centroids.dtype), params["components"]), dim=1)
        settings = {"restarts": 1, "max_iterations": params["group_iterations"]}
        found = fit_kmeans(points.cpu().numpy(), params["groups"], centroid_seed(rng), **settings)
        self.group.copy_(torch.from_numpy(found.labels_))
        self.drawn.copy_(evenly_drawn(self.group, rng("drawn")))
        draw = rng("last layer")
        weight = self.network.output.weight
        weight.copy_(torch.randn(weight.shape, generator=draw, device=draw.device) * DEVIATION)
        self.network.output.bias.zero_()

    def loss(self, batch: Batch) -> Step:
        """Cross-entropy of the images' groups, and the share of them that is told right."""
        rows = self.drawn[batch.indices]
        logits = self.network(self.augmented(batch.take(rows), batch.rng("augmented"))).logits
        logits, groups = logits.to(self.clusters.centroids.dtype), self.group[rows]
        return Step(F.cross_entropy(logits, groups), {"right": share_right(logits, groups)})

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the first linear layer (n, d), or the flattened last convolution (`conv`)."""
        self.check_layer(layer)
        return self.network.represent(self.test_view(images), layer)


def whitened(points: Tensor, components: int) -> Tensor:
    """Return the first principal components of points (n, d), each with variance 1.

    Directions that hardly vary are left out.

    Examples
    --------
    >>> whitened(torch.tensor([[-3.0, 1.0], [0.0, 1.0], [0.0, 1.0], [3.0, 1.0]]), 2).abs().T
    tensor([[1.4142, 0.0000, 0.0000, 1.4142]])
    """
    centred = (points - points.mean(dim=0)).double()
    variance, directions = torch.linalg.eigh(centred.T @ centred / len(points))
    kept = variance > LEAST_SHARE * variance[-1]
    kept[:-components] = False  # they come in rising order
    return (centred @ directions[:, kept] / variance[kept].sqrt()).to(points)


def evenly_drawn(groups: Tensor, draw: torch.Generator) -> Tensor:
    """Return positions (n,), each of an evenly drawn group, then of any of its images; `groups` (n,) are of images."""
    used, counts = groups.unique(return_counts=True)
    order, first = groups.argsort(stable=True), counts.cumsum(0) - counts
    picks = torch.rand(2, len(groups), generator=draw, device=draw.device).to(groups.device, torch.float64)
    slot = (picks[0] * len(used)).long()
    return order[first[slot] + (picks[1] * counts[slot]).long()]


METHOD = DeepCluster
