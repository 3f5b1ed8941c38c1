"""Methods that learn features and have no clusters of their own: what they predict is K-means on their features."""

from __future__ import annotations

import torch
from torch import Tensor

from dica.methods.base import Method
from dica.methods.kmeans import KMeans
from dica.rng import Rng


class FeatureClusters(Method):
    """Base of a method whose clusters are those of K-means on `clustered`, fitted once after training.

    Unlabelled images train the network, but are not clustered: many are of other classes. Keys: `restarts`,
    `max_iterations`, `minibatch`.
    """

    watched = False  # each look would fit K-means on all training images

    def make_clusters(self, size: int) -> None:
        """Make room for the centroids, in `size` dimensions; a subclass calls it after its networks."""
        params = {**self.params, "train_split": self.params["train_split"].removesuffix("+unlabeled")}
        self.clusters = KMeans(params, self.data)
        self.clusters.of_source = self.clustered
        self.clusters.centroids = torch.zeros(self.params["num_clusters"], size)

    def clustered(self, images: Tensor) -> Tensor:
        """Return what is clustered of uint8 images (n, C, H, W), (n, d); the backbone's features."""
        return self.features(images)

    @torch.no_grad()
    def before_predict(self, images: dict[str, Tensor], rng: Rng) -> None:
        """Fit the centroids to the features of the training images."""
        self.eval()
        self.clusters.fit(images, centroid_seed(rng))

    def predict(self, images: Tensor) -> Tensor:
        """Return (n, K): the posterior of equal spherical Gaussians at the centroids."""
        return self.clusters.predict(images)

    def scores(self, images: Tensor) -> Tensor:
        """Return the logits of that posterior (n, K)."""
        return self.clusters.scores(images)


def centroid_seed(rng: Rng) -> int:
    """Return a seed for scikit-learn."""
    draw = rng("centroids")
    return int(torch.randint(2**31, (), generator=draw, device=draw.device))
