"""JULE: Yang, Parikh and Batra, Joint Unsupervised Learning of Deep Representations and Image Clusters, CVPR 2016.

Small clusters of images are merged step by step, along a graph of nearest neighbours of the network's embeddings
(`dica.methods.agglomeration`); between two rounds of merging the network learns from triplets of the clusters that
there are (`dica.losses.jule`). It ends when K clusters are left: they are what is scored. A new image gets the cluster
whose mean embedding is nearest.

Deviations and readings, each a key of params/jule.yaml with the value of the authors' code as default where it has one:

- The code and the paper have nothing on CIFAR, STL-10 and ImageNet: the papers' numbers are DAC's runs. Layers, image
  sizes and all else for these are guesses.
- The affinities are sparse, so that all images can be clustered; the code keeps one number for each pair of images.
- While clusters are small, a random batch has hardly two images of one. Each image brings one of its cluster, drawn at
  random.
- The others of a triplet are drawn once an image, not once a pair (code).
- `period`: epochs of training between two rounds; `rate`: share of the clusters that a round merges away.
- Clusters without any affinity are merged the smallest first; if training ends before K are left, the last round
  merges all that are too many.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from dica.data.splits import DataInfo, splits_of
from dica.losses.common import l2_normalise
from dica.losses.jule import others, triplet_loss
from dica.methods.agglomeration import Merging
from dica.methods.base import Batch, Method, Step, evaluating
from dica.methods.fitted import nearest_others
from dica.rng import Rng

PART = 1000  # images at a time
DEVIATION = 0.01  # of the first weights (code)
LEAST_SPREAD = 1e-12


class JULE(Method):
    """Merging of clusters and learning of an embedding by turns."""

    watched = False  # before the end there are more clusters than K

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        self.splits = splits_of(params["train_split"], data)
        self.counts = [data.counts[name] for name in self.splits]
        total, size = sum(self.counts), params.get("size", data.image_size)
        self.network = embedding(data.channels, size, params["channels"], params["kernel"], params["embedding_size"])
        for name in ("labels", "order", "place", "first", "size"):  # of each image; see `_remember`
            self.register_buffer(name, torch.zeros(total, dtype=torch.long))
        self.register_buffer("left", torch.zeros((), dtype=torch.long))
        self.register_buffer("centroids", torch.zeros(params["num_clusters"], params["embedding_size"]))

    def networks(self) -> list[nn.Module]:
        """Return the one network."""
        return [self.network]

    @torch.no_grad()
    def before_epoch(self, epoch: int, images: dict[str, Tensor], rng: Rng) -> None:
        """Begin with chains of nearest neighbours among the pixels; after each period merge clusters."""
        if not self.left:
            pixels = torch.cat([self.test_view(part).flatten(1) for part in self._parts(images)])
            self._remember(chains(nearest_others(pixels, 1)[1]))
        elif epoch % self.params["period"] == 0 and not self.finished():
            left = int(self.left)
            self._merge(images, max(self.params["num_clusters"], left - math.ceil(self.params["rate"] * left)))

    def finished(self) -> bool:
        """Return whether no more than K clusters are left."""
        return int(self.left) <= self.params["num_clusters"]

    def _merge(self, images: dict[str, Tensor], clusters: int) -> None:
        """Merge until so many are left, along a graph of the embeddings as they are now."""
        with evaluating(self):
            points = self._embeddings(images)
        distances, positions = nearest_others(points, min(self.params["neighbours"], len(points) - 1))
        self._remember(Merging(weights(distances, positions), self.labels.cpu().numpy()).until(clusters))

    def _remember(self, labels: np.ndarray) -> None:
        """Keep the clusters, and where in a list ordered by cluster an image and the first of its cluster are."""
        order = np.argsort(labels, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        counts = np.bincount(labels)
        first = np.cumsum(counts) - counts
        found = {"labels": labels, "order": order, "place": place, "first": first[labels], "size": counts[labels]}
        for name, values in found.items():
            getattr(self, name).copy_(torch.from_numpy(values))
        self.left.fill_(len(counts))

    def mates(self, rows: Tensor, draw: Tensor) -> Tensor:
        """Return another image of the cluster of each of `rows` (n,), itself if it is alone; `draw` (n,) in [0, 1)."""
        first, size = self.first[rows], self.size[rows]
        ahead = 1 + (draw * (size - 1)).long().minimum((size - 2).clamp_min(0))
        return self.order[first + (self.place[rows] - first + ahead) % size]

    def loss(self, batch: Batch) -> Step:
        """Triplets among the images of the batch and one more of each one's cluster."""
        params, rng = self.params, batch.rng("triplets")
        draw = torch.rand(len(batch.indices), generator=rng, device=batch.indices.device)
        rows = torch.cat([batch.indices, self.mates(batch.indices, draw)])
        images = torch.cat([batch.images, batch.take(rows[len(batch.indices) :])])
        clusters = self.labels[rows]
        pairs = (clusters[:, None] == clusters) & (rows[:, None] != rows)
        negatives, counted = others(clusters, min(params["others"], len(rows)), rng)
        counted = counted & (torch.arange(negatives.shape[1], device=rows.device) < self.left - 1)
        options = {name: params[name] for name in ("margin", "gamma")}
        loss, parts = triplet_loss(self._embed(images), pairs, negatives, counted, **options)
        return Step(loss, {**parts, "clusters": self.left.to(loss.dtype)})

    @torch.no_grad()
    def before_predict(self, images: dict[str, Tensor], rng: Rng) -> None:
        """Merge what is left beyond K clusters, and average the embeddings of each."""
        if not self.finished():
            self._merge(images, self.params["num_clusters"])
        points = self.eval()._embeddings(images)
        sums = torch.zeros_like(self.centroids).index_add_(0, self.labels, points)
        self.centroids.copy_(sums / torch.bincount(self.labels, minlength=len(sums))[:, None].clamp_min(1))

    def known(self) -> dict[str, Tensor]:
        """Return by split the clusters of the images that were merged, (n,) int64."""
        return dict(zip(self.splits, self.labels.split(self.counts), strict=True))

    def predict(self, images: Tensor) -> Tensor:
        """Return (n, K): the softmax of minus the squared distances from the clusters' mean embeddings."""
        return torch.softmax(-torch.cdist(self.features(images), self.centroids).square(), dim=1)

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the embeddings of unit length (n, d)."""
        self.check_layer(layer)
        return self._embed(images)

    def _embed(self, images: Tensor) -> Tensor:
        return l2_normalise(self.network(self.test_view(images)).to(self.centroids.dtype))

    def _parts(self, images: dict[str, Tensor]) -> list[Tensor]:
        return [part.to(self.left.device) for name in self.splits for part in images[name].split(PART)]

    def _embeddings(self, images: dict[str, Tensor]) -> Tensor:
        return torch.cat([self._embed(part) for part in self._parts(images)])


def embedding(channels: int, size: int, widths: list[int], kernel: int, code: int) -> nn.Sequential:
    """Return convolutions with batch norm, ReLU and 2x2 pooling, and a linear layer to the embedding."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, kernel, padding=kernel // 2), nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        channels = width
    side = size // 2 ** len(widths)
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side**2, code))
    for part in network:
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.normal_(part.weight, std=DEVIATION)
            nn.init.zeros_(part.bias)
    return network


def chains(nearest: Tensor) -> np.ndarray:
    """Return the clusters (n,) of points that are linked, each to its nearest other `nearest` (n, 1)."""
    count = len(nearest)
    links = csr_matrix((np.ones(count), (np.arange(count), nearest[:, 0].cpu().numpy())), shape=(count, count))
    return connected_components(links, directed=False)[1].astype(np.int64)


def weights(distances: Tensor, positions: Tensor) -> csr_matrix:
    """Return the directed graph exp(-d^2 / mean d^2) of squared distances from neighbours, both (n, k)."""
    count, neighbours = positions.shape
    values = torch.exp(-distances / distances.mean().clamp_min(LEAST_SPREAD)).double().cpu().numpy()
    ends = np.arange(0, count * neighbours + 1, neighbours)
    return csr_matrix((values.ravel(), positions.cpu().numpy().ravel(), ends), shape=(count, count))


METHOD = JULE
