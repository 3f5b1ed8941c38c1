"""Methods that label the images that they are fitted to, one by one, and have no rule for others.

Agglomerative and spectral clustering and factorisations give such labels. They are kept by position: what is scored on
the fitted images are exactly these. A new image, or a split that was not fitted, gets the vote of its nearest
neighbours among `kept` of the fitted images, which are drawn by the run's seed and stored with the weights.

What is needed for 60,000 images of 32 pixels, in float32: the points 0.7 GB, a part of their distances 0.2 GB, a graph
with 10 neighbours 10 MB. Nothing grows with the square of the number of images.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn import functional as F

from dica.data.splits import DataInfo, splits_of
from dica.files import UserError
from dica.losses.common import leading
from dica.methods.base import FitMethod
from dica.methods.inputs import Inputs
from dica.rng import generator
from dica.views.pixels import stretch
from dica.views.whole import squares

PART = 500  # images at a time against all others


class FittedMethod(FitMethod):
    """Clusters of a fitted set; a subclass says in `cluster` which image is in which."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        self.splits = splits_of(params["train_split"], data)
        self.counts = [data.counts[name] for name in self.splits]
        size, total = params.get("resize", data.image_size), sum(self.counts)
        self.inputs = Inputs(data.channels, size, **params.get("inputs", {"map": "pixels"}))
        kept = min(params["kept"], total)
        self.register_buffer("labels", torch.zeros(total, dtype=torch.long))
        self.register_buffer("kept", torch.zeros(kept, data.channels, size, size, dtype=self.inputs.dtype))
        self.register_buffer("kept_labels", torch.zeros(kept, dtype=torch.long))

    def cluster(self, points: Tensor, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Return the cluster of each point (n, d), (n,) int64, and what the history should say of the fit."""
        raise NotImplementedError

    def fit(self, images: dict[str, Tensor], seed: int) -> list[dict[str, float]]:
        """Label the images of the training splits; returns one history row."""
        pixels = torch.cat([images[name] for name in self.splits])
        labels, said = self.cluster(self.inputs.fit(pixels, seed), seed)
        self.labels.copy_(labels)
        rows = torch.randperm(len(pixels), generator=generator(seed, "kept"))[: len(self.kept)].sort().values
        chosen = pixels[rows.to(pixels.device)]
        if chosen.dtype == torch.uint8:
            chosen = stretch(squares(chosen).float(), self.inputs.size).round().clamp(0, 255)
        self.kept.copy_(chosen)
        self.kept_labels.copy_(self.labels[rows.to(self.labels.device)])
        return [{"epoch": 1, "step": 1, **said}]

    def known(self) -> dict[str, Tensor]:
        """Return by split the clusters of the fitted images, (n,) int64."""
        return dict(zip(self.splits, self.labels.split(self.counts), strict=True))

    def predict(self, images: Tensor) -> Tensor:
        """Return (n, K): the shares of the clusters among the nearest of the fitted images that are kept."""
        points, count = self.inputs(self.kept), min(self.params["votes"], len(self.kept))
        nearest = leading(-squared_distances(self.inputs(images), points), count)
        return F.one_hot(self.kept_labels[nearest], self.params["num_clusters"]).float().mean(dim=1)

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return what is clustered, (n, d)."""
        self.check_layer(layer)
        return self.inputs(images)


def squared_distances(points: Tensor, others: Tensor) -> Tensor:
    """Return the squared Euclidean distances of `points` (n, d) from `others` (m, d), (n, m)."""
    lengths = points.square().sum(dim=1, keepdim=True) + others.square().sum(dim=1)
    return (lengths - 2 * points @ others.T).clamp_min(0)


def nearest_others(points: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return squared distances and positions of the `count` nearest others of each point (n, d), two of (n, count).

    Raises
    ------
    UserError
        If there are not so many others.
    """
    if count >= len(points):
        raise UserError(f"neighbours: {count}, but an image has only {len(points) - 1} others; lower it")
    distances = points.new_empty(len(points), count)  # at once: pieces would part the blocks' memory
    positions = torch.empty_like(distances, dtype=torch.long)
    for start in range(0, len(points), PART):
        rows = slice(start, start + PART)
        block = squared_distances(points[rows], points)
        block.diagonal(start).fill_(torch.inf)  # the points themselves
        positions[rows] = leading(-block, count)
        distances[rows] = block.gather(1, positions[rows])
    return distances, positions


def sparse_graph(weights: Tensor, positions: Tensor) -> csr_matrix:
    """Return the symmetric (n, n) graph in which each point is joined to its neighbours; the larger weight counts.

    Parameters
    ----------
    weights, positions
        (n, k): of the edge to each neighbour, and which one it is.
    """
    size, count = positions.shape
    ends = np.arange(0, size * count + 1, count)
    given = weights.double().cpu().numpy().ravel(), positions.cpu().numpy().ravel(), ends
    graph = csr_matrix(given, shape=(size, size))
    return graph.maximum(graph.T).tocsr()
