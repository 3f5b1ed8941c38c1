"""SimCLR as CRLC uses it: the pretext of its two-stage version (Table 7) and its comparison in Figure 4.

Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020, in the form of Do, Tran
and Venkatesh, ICCV 2021 (appendix A.7) and of SCAN's published configurations: backbone and RL-head trained by L_FC
alone (CRLC, Eq. 4-6; `dica.losses.crlc.feature_contrast`), two views a step.

It has no clusters of its own. What it predicts is the row "pretext + K-means" of Table 7: K-means on the backbone's
features of the training images, fitted once after training (keys `restarts`, `max_iterations`, `minibatch`). STL-10's
unlabelled images train the network, but are not clustered: many are of other classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dica.data.splits import DataInfo
from dica.losses.crlc import feature_contrast
from dica.methods.base import Batch, Step
from dica.methods.feature_clusters import FeatureClusters
from dica.networks.backbones import init_weights
from dica.networks.heads import ProjectionHead


class FeatureMethod(FeatureClusters):
    """A backbone with an RL-head, whose clusters are those of K-means on the backbone's features."""

    layers = ("backbone", "projection")

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        network = params["backbone"]
        self.backbone = self.build_backbone()
        features = self.backbone.out_features
        self.rl_head = ProjectionHead(features, (params["head_hidden"],), params["projection_size"])
        init_weights(self.rl_head, network["init"])
        self.make_clusters(features)

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the backbone's features (n, d), or z of the RL-head (`projection`), of unit length, (n, 128)."""
        self.check_layer(layer)
        features = super().features(images)
        return features if layer == "backbone" else self.rl_head(features)


class SimCLR(FeatureMethod):
    """Contrast of the features of two views."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        self.augmented = self.pipeline("augmented")

    def loss(self, batch: Batch) -> Step:
        """L_FC (CRLC, Eq. 6)."""
        views = self.augmented.views(batch.images, batch.rng("augmented"), 2)
        if self.params["joint_views"]:
            z = self.rl_head(self.backbone(views.flatten(0, 1))).unflatten(0, views.shape[:2])
        else:
            z = torch.stack([self.rl_head(self.backbone(view)) for view in views])
        contrast = feature_contrast(z[0], z[1], temperature=self.params["temperature"])
        cosine = F.cosine_similarity(z[0], z[1]).mean()
        return Step(contrast, {"L_FC": contrast.detach(), "cosine": cosine.detach()})


METHOD = SimCLR
