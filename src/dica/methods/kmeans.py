"""K-means on raw pixels, the baseline of every table.

Lloyd's algorithm with k-means++ starts on flattened pixels scaled to [0, 1]; the start with the least inertia wins.
The papers copy these numbers from earlier work without a recipe; restarts, iterations and size are keys, and for sets
too large for Lloyd's algorithm `minibatch` takes its stochastic form.
"""

from __future__ import annotations

import torch
from sklearn.cluster import KMeans as LloydKMeans
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from dica.augment import resize
from dica.methods.base import DataInfo, Method, splits_of
from dica.rng import derive_seed


class KMeans(Method):
    """K-means on pixels; fitted in one go."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        size = params.get("resize", data.image_size)
        self.register_buffer("centroids", torch.zeros(params["num_clusters"], data.channels * size**2))
        self.register_buffer("variance", torch.ones(()))

    def fit(self, images: dict[str, Tensor], seed: int) -> list[dict[str, float]]:
        """Fit the centroids to the training splits; returns one history row."""
        params = self.params
        pixels = torch.cat([self._pixels(images[name]) for name in splits_of(params["train_split"], self.data)])
        settings = {
            "n_init": params["restarts"],
            "max_iter": params["max_iterations"],
            "random_state": derive_seed(seed, "kmeans") % 2**32,
        }
        if "minibatch" in params:
            model = MiniBatchKMeans(params["num_clusters"], batch_size=params["minibatch"], **settings)
        else:
            model = LloydKMeans(params["num_clusters"], **settings)
        result = model.fit(pixels.cpu().numpy())
        self.centroids.copy_(torch.from_numpy(result.cluster_centers_))
        self.variance.fill_(result.inertia_ / pixels.numel())
        return [{"epoch": int(result.n_iter_), "step": int(result.n_iter_), "loss": float(result.inertia_)}]

    def predict(self, images: Tensor) -> Tensor:
        """Return (n, K): the posterior of equal spherical Gaussians at the centroids; its mode is the nearest one."""
        squared = torch.cdist(self._pixels(images).to(self.centroids.device), self.centroids).square()
        return torch.softmax(-squared / (2 * self.variance), dim=1)

    def _pixels(self, images: Tensor) -> Tensor:
        """Return flattened pixels in [0, 1], (n, C s s), a thousand images at a time: resizing needs room."""
        size = self.params.get("resize")
        parts = [part.float() / 255 for part in images.split(1000)]
        return torch.cat([(resize(part, size) if size else part).flatten(1) for part in parts])


def build(params: dict, data: DataInfo) -> KMeans:
    """Return the method for the registry."""
    return KMeans(params, data)
