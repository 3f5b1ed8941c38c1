"""K-means on the features of a network that was never trained: a control.

The network is drawn as for training, and its batch norms do nothing (mean 0, variance 1). A method whose features
cluster no better than these has learnt nothing that its architecture did not bring along.
"""

from __future__ import annotations

from torch import Tensor

from dica.data.splits import DataInfo
from dica.methods.base import FitMethod
from dica.methods.feature_clusters import FeatureClusters
from dica.rng import Rng


class Untrained(FeatureClusters, FitMethod):
    """A backbone as it was drawn; fitted in one go."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        self.backbone = self.build_backbone()
        self.make_clusters(self.backbone.out_features)

    def fit(self, images: dict[str, Tensor], seed: int) -> list[dict[str, float]]:
        """Fit the centroids to the features of the training images; returns one history row."""
        self.eval()
        return self.clusters.fit(images, seed)

    def before_predict(self, images: dict[str, Tensor], rng: Rng) -> None:
        """Keep the centroids that `fit` found."""


METHOD = Untrained
