"""K-means on raw pixels, the baseline of every table.

Lloyd's algorithm with k-means++ starts on flattened pixels scaled to [0, 1]; the start with the least inertia wins.
The papers copy these numbers from earlier work without a recipe; restarts and iterations are keys.
"""

from __future__ import annotations

import torch
from sklearn.cluster import KMeans as SklearnKMeans
from torch import Tensor

from dica.methods.base import DataInfo, Method, splits_of
from dica.rng import derive_seed


class KMeans(Method):
    """K-means on pixels; fitted in one go."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        pixels = data.channels * data.image_size**2
        self.register_buffer("centroids", torch.zeros(params["num_clusters"], pixels))
        self.register_buffer("variance", torch.ones(()))

    def fit(self, images: dict[str, Tensor], seed: int) -> list[dict[str, float]]:
        """Fit the centroids to the training splits; returns one history row."""
        pixels = torch.cat([_flatten(images[name]) for name in splits_of(self.params["train_split"], self.data)])
        result = SklearnKMeans(
            self.params["num_clusters"],
            n_init=self.params["restarts"],
            max_iter=self.params["max_iterations"],
            random_state=derive_seed(seed, "kmeans") % 2**32,
        ).fit(pixels.numpy())
        self.centroids.copy_(torch.from_numpy(result.cluster_centers_))
        self.variance.fill_(result.inertia_ / pixels.numel())
        return [{"epoch": int(result.n_iter_), "step": int(result.n_iter_), "loss": float(result.inertia_)}]

    def predict(self, images: Tensor) -> Tensor:
        """Return (n, K): the posterior of equal spherical Gaussians at the centroids; its mode is the nearest one."""
        squared = torch.cdist(_flatten(images).to(self.centroids.device), self.centroids).square()
        return torch.softmax(-squared / (2 * self.variance), dim=1)


def _flatten(images: Tensor) -> Tensor:
    return images.flatten(1).float() / 255


def build(params: dict, data: DataInfo) -> KMeans:
    """Return the method for the registry."""
    return KMeans(params, data)
