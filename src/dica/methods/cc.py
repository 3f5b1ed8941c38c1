"""CC: Li, Hu, Liu, Peng, Zhou and Peng, Contrastive Clustering, AAAI 2021.

A network with two heads of two layers: projections for a contrast of images and cluster probabilities for a contrast of
clusters, both between two views. Losses: `dica.losses.cc`.

Deviations and readings, each a key of params/cc.yaml with the value of the paper or of the authors' code as default:

- `unlabelled_pass`: on STL-10 the code begins each epoch with a pass over the unlabelled images by the contrast of
  images alone. Data sets without unlabelled images have no such pass.
- `joint_views`: one forward pass a view (false, as the code), or one for both with joint batch-norm statistics.
- The last epoch's network predicts, as in the code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dica.data.splits import DataInfo, splits_of
from dica.losses.cc import cc_loss
from dica.losses.crlc import feature_contrast
from dica.methods.base import Batch, Method, Phase, Step
from dica.networks.backbones import init_weights
from dica.networks.heads import ClusterHead, ProjectionHead


class CC(Method):
    """Contrast of images by rows and of clusters by columns."""

    layers = ("backbone", "projection")

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        network, hidden = params["backbone"], (params["head_hidden"],)
        self.backbone = self.build_backbone()
        features = self.backbone.out_features
        self.instances = ProjectionHead(features, hidden, params["projection_size"])
        self.clusters = ClusterHead(features, params["num_clusters"], hidden)
        for head in (self.instances, self.clusters):
            init_weights(head, network["init"])
        self.augmented = self.pipeline("augmented")

    def phases(self, epoch: int) -> list[Phase]:
        """Return the pass over the images to cluster, after one over unlabelled images where there are some."""
        main = Phase("main", splits_of(self.params["train_split"], self.data))
        if self.params["unlabelled_pass"] and self.data.counts.get("unlabeled"):
            return [Phase("instances", ("unlabeled",)), main]
        return [main]

    def loss(self, batch: Batch) -> Step:
        """Both contrasts, or in the pass over unlabelled images that of images alone."""
        params = self.params
        features = self._embed(batch)
        z = self.instances(features)
        if batch.phase == "instances":
            contrast = feature_contrast(z[0], z[1], temperature=params["instance_temperature"])
            return Step(contrast, {"L_ins": contrast.detach()})
        logits = self.clusters(features)
        temperatures = {name: params[name] for name in ("instance_temperature", "cluster_temperature")}
        loss, parts = cc_loss(z[0], z[1], logits[0], logits[1], **temperatures)
        return Step(loss, parts)

    def _embed(self, batch: Batch) -> Tensor:
        """Return the features of two views, (2, n, d)."""
        views = self.augmented.views(batch.images, batch.rng("augmented"), 2)
        if self.params["joint_views"]:
            return self.backbone(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        return torch.stack([self.backbone(view) for view in views])

    def predict(self, images: Tensor) -> Tensor:
        """Return the softmax of the cluster head on the test view, (n, K)."""
        return torch.softmax(self.clusters(self.backbone(self.test_view(images))), dim=1)

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the backbone's features (n, d), or the instance head's projection of unit length (`projection`)."""
        self.check_layer(layer)
        features = super().features(images)
        return features if layer == "backbone" else self.instances(features)


METHOD = CC
