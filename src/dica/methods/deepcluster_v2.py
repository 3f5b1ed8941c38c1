"""DeepCluster-v2, and K-means on its features: Caron, Misra, Mairal, Goyal, Bojanowski and Joulin, Unsupervised
Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS 2020, after the authors' code.

Before each epoch spherical K-means groups what the epoch before has seen of all images; a crop is to tell the group of
its image, by its cosines with the centroids (`dica.losses.deepcluster_v2`). Several heads group the same images, by the
projections of the first and of the second high-resolution crop in turn. Clusters are K-means on the backbone.

Deviations and readings, each a key of params/deepcluster-v2.yaml:

- `group_iterations`: of K-means, which begins at random images.
- Before the first epoch all images are looked at once without a step, in training mode (code).
- An image that a short last batch left out keeps what was seen of it before; the code leaves it out.
- Everything else of `dica.methods.multi_crop` is SwAV's; there are no prototypes to freeze.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dica.data.splits import DataInfo, splits_of
from dica.files import UserError
from dica.losses.common import l2_normalise
from dica.losses.deepcluster_v2 import group_loss, spherical_kmeans
from dica.losses.imc_swav import cosines
from dica.methods.base import Batch, Step
from dica.methods.feature_clusters import FeatureClusters
from dica.methods.multi_crop import MultiCrop
from dica.rng import Rng


class DeepClusterV2(MultiCrop, FeatureClusters):
    """Groups of all images as classes, found anew before each epoch from what the last one saw."""

    bank: Tensor  # (high_crops, images, d) unit projections
    centroids: Tensor  # (heads, k', d), constants of an epoch
    group: Tensor  # (heads, images)

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        features, size = self.make_network(batch_norm=True), params["projection_size"]
        self.splits = splits_of(params["train_split"], data)
        total, heads, count = sum(data.counts[name] for name in self.splits), params["heads"], params["num_prototypes"]
        if count > total:
            raise UserError(f"deepcluster-v2: num_prototypes is {count}, but there are {total} images; ask for fewer")
        self.register_buffer("bank", torch.zeros(params["high_crops"], total, size))
        self.register_buffer("centroids", torch.zeros(heads, count, size))
        self.register_buffer("group", torch.zeros(heads, total, dtype=torch.long))
        self.make_clusters(features)

    @torch.no_grad()
    def before_epoch(self, epoch: int, images: dict[str, Tensor], rng: Rng) -> None:
        """Group all images by what was seen of them."""
        if not epoch:
            self._look(images, rng)
        for head, (centroids, group) in enumerate(zip(self.centroids, self.group, strict=True)):
            points = self.bank[head % len(self.bank)]
            draw = rng(f"groups-{head}")
            first = torch.randperm(len(points), generator=draw, device=draw.device)[: len(centroids)]
            found = spherical_kmeans(points, points[first], iterations=self.params["group_iterations"])
            centroids.copy_(found[0])
            group.copy_(found[1])

    def _look(self, images: dict[str, Tensor], rng: Rng) -> None:
        """Fill the bank without a step, in batches of nearly equal size: batch norms need more than one image."""
        size = self.params["batch_size"]
        seen: list[Tensor] = []
        for name in self.splits:
            for part in images[name].tensor_split(-(-len(images[name]) // size)):
                draws = _apart(rng, f"{name}-{len(seen)}")
                seen.append(self._unit(self.embed_crops("high", part.to(self.bank.device), draws)))
        self.bank.copy_(torch.cat(seen, dim=1))

    def _unit(self, embeddings: Tensor) -> Tensor:
        return l2_normalise(self.project(embeddings).to(self.bank.dtype))

    def loss(self, batch: Batch) -> Step:
        """Cross-entropy with the groups of each head."""
        z = self._unit(self.embed(batch.images, batch.rng))
        scores = cosines(z, self.centroids.flatten(0, 1)).unflatten(-1, self.centroids.shape[:2]).movedim(2, 0)
        loss, parts = group_loss(scores, self.group[:, batch.indices], temperature=self.params["temperature"])
        return Step(loss, parts, {"seen": z[: len(self.bank)].detach()})

    def after_backward(self, batch: Batch) -> None:
        """Change nothing: the centroids are constants."""

    def after_step(self, batch: Batch, carry: dict[str, Tensor]) -> None:
        """Keep what this batch saw, for the next epoch's groups."""
        self.bank[:, batch.indices] = carry["seen"]


def _apart(rng: Rng, place: str) -> Rng:
    """Return random numbers that are another place's."""
    return lambda purpose: rng(f"{purpose}-{place}")


METHOD = DeepClusterV2
