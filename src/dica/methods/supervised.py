"""A network trained with labels: a control, the bound of what clustering without them can reach by such a network.

Cross-entropy on augmented views, the backbone that the archive's own tables have for all methods. Labels are those of
the train split; the test split is scored, or on data without one the images that were held out (`held_out`). Clusters
are classes, so accuracy needs no map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dica.data.splits import DataInfo
from dica.losses.common import at_least_float32
from dica.methods.base import Batch, Step
from dica.methods.classifier import Classifier
from dica.networks.backbones import init_weights


class Supervised(Classifier):
    """A backbone with a linear layer, trained with labels."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        self.backbone = self.build_backbone()
        self.last = nn.Linear(self.backbone.out_features, params["num_clusters"])
        init_weights(self.last, params["backbone"]["init"])
        self.augmented = self.pipeline("augmented")

    def loss(self, batch: Batch) -> Step:
        """Cross-entropy of one view of each labelled image."""
        views = self.augmented(batch.images, batch.rng("augmented"))
        return self.classified(at_least_float32(self.last(self.backbone(views))), batch)

    def predict(self, images: Tensor) -> Tensor:
        """Return the softmax over classes, (n, K)."""
        return torch.softmax(self.last(self.backbone(self.test_view(images))), dim=1)


METHOD = Supervised
