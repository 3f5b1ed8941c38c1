"""K-means on raw pixels, the baseline of every table, or on the features of a trained run (`source`, `layer`).

Lloyd's algorithm with k-means++ starts on flattened pixels scaled to [0, 1], or on features as they are; the start with
the least inertia wins. The papers copy the pixels' numbers from earlier work without a recipe; restarts, iterations and
size are keys, and for sets too large for Lloyd's algorithm `minibatch` takes its stochastic form. `inputs` clusters
other numbers than raw pixels (`dica.methods.inputs`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from sklearn.cluster import KMeans as LloydKMeans
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

from dica.data.splits import DataInfo, splits_of
from dica.methods.base import FitMethod, Method
from dica.methods.inputs import Inputs
from dica.rng import derive_seed

PART = 1000  # images at a time: resizing and networks need room
LEAST_VARIANCE = 1e-12  # collapsed features are all at their centroid: the posterior stays a number


class KMeans(FitMethod):
    """K-means on pixels or on features; fitted in one go."""

    centroids: Tensor

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        size = params.get("resize", data.image_size)
        self.inputs = Inputs(data.channels, size, **params.get("inputs", {"map": "pixels"}))
        self.of_source: Callable[[Tensor], Tensor] | None = None
        self.register_buffer("centroids", torch.zeros(params["num_clusters"], self.inputs.width))
        self.register_buffer("variance", torch.ones(()))

    def adopt(self, source: Method, images: dict[str, Tensor]) -> None:
        """Cluster what `source` says of the images, instead of their pixels."""
        self.of_source = partial(source.features, layer=self.params.get("layer", "backbone"))
        size = self._points(images["train"][:2]).shape[1]
        self.centroids = self.centroids.new_zeros(self.params["num_clusters"], size)

    def fit(self, images: dict[str, Tensor], seed: int) -> list[dict[str, float]]:
        """Fit the centroids to the training splits; returns one history row."""
        params = self.params
        splits = [images[name] for name in splits_of(params["train_split"], self.data)]
        if self.of_source is None:
            return self.fit_points(self.inputs.fit(torch.cat(splits), seed).to(self.centroids), seed)
        return self.fit_points(torch.cat([self._points(split) for split in splits]), seed)

    def fit_points(self, points: Tensor, seed: int) -> list[dict[str, float]]:
        """Fit the centroids to points (n, d); returns one history row."""
        params = self.params
        keys = ("restarts", "max_iterations", "minibatch")
        settings = {key: params[key] for key in keys if key in params}
        result = fit_kmeans(points.cpu().numpy(), params["num_clusters"], derive_seed(seed, "kmeans"), **settings)
        self.centroids.copy_(torch.from_numpy(result.cluster_centers_))
        self.variance.fill_(max(result.inertia_ / points.numel(), LEAST_VARIANCE))
        return [{"epoch": int(result.n_iter_), "step": int(result.n_iter_), "loss": float(result.inertia_)}]

    def predict(self, images: Tensor) -> Tensor:
        """Return (n, K): the posterior of equal spherical Gaussians at the centroids; its mode is the nearest one."""
        return torch.softmax(self.scores(images), dim=1)

    def scores(self, images: Tensor) -> Tensor:
        """Return the logits of that posterior (n, K): distances rank far clusters, whose probabilities vanish."""
        return -torch.cdist(self._points(images), self.centroids).square() / (2 * self.variance)

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return what is clustered, pixels or features of the source, (n, d)."""
        self.check_layer(layer)
        return self._points(images)

    @torch.no_grad()
    def _points(self, images: Tensor) -> Tensor:
        """Return what is clustered, (n, d) on the device of the centroids."""
        parts = (part.to(self.centroids.device) for part in images.split(PART))
        represent = self.of_source or self.inputs
        return torch.cat([represent(part).to(self.centroids) for part in parts])


def fit_kmeans(
    points: np.ndarray,
    clusters: int,
    seed: int,
    restarts: int,
    max_iterations: int = 300,
    minibatch: int | None = None,
) -> LloydKMeans | MiniBatchKMeans:
    """Return scikit-learn's K-means, fitted to points (n, d) by one thread.

    Several threads add up their parts in the order in which they finish, so that no fit would be the bits of another.
    """
    settings = {"n_init": restarts, "max_iter": max_iterations, "random_state": seed % 2**32}
    if minibatch:
        model = MiniBatchKMeans(clusters, batch_size=minibatch, **settings)
    else:
        model = LloydKMeans(clusters, **settings)
    with threadpool_limits(1, user_api="openmp"):
        return model.fit(points)


METHOD = KMeans
