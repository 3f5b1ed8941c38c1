"""DRC: Zhong et al., Deep Robust Clustering by Contrastive Learning, arXiv:2008.03030 (2020).

One network, two linear heads: the K clusters (main) and an auxiliary over-clustering. Each epoch is a pass with the
over-clustering head and a pass with the main one, under one optimiser. Loss: Eq. 5, 8, 9 and 10 (`dica.losses.drc`).

Deviations and readings, each a key of params/drc.yaml with the paper's value as default:

- `normalise`, `repeat_mode`: see `dica.losses.drc`.
- `backbone.sobel`: the paper says "the same network" as PICA, whose published code feeds Sobel gradients: on.
- `over_clusters`: 0 removes the auxiliary head. `over_split` adds STL-10's unlabelled images to its pass.
- No code was published; what the paper leaves open follows PICA, on which DRC builds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dica.data.splits import DataInfo, splits_of
from dica.losses.drc import drc_loss
from dica.methods.base import Batch, Method, Phase, Step
from dica.networks.backbones import init_weights
from dica.networks.heads import ClusterHead


class DRC(Method):
    """Contrast of assignment features (rows) and of assignment probabilities (columns) between two views."""

    replayable = True

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        network = params["backbone"]
        self.backbone = self.build_backbone()
        self.heads = torch.nn.ModuleDict({"main": ClusterHead(self.backbone.out_features, params["num_clusters"])})
        if params["over_clusters"]:
            self.heads["over"] = ClusterHead(self.backbone.out_features, params["over_clusters"])
        init_weights(self.heads, network["init"])
        self.original, self.augmented = self.pipeline("original"), self.pipeline("augmented")

    def phases(self, epoch: int) -> list[Phase]:
        """Return the pass of each head; the over-clustering one may see more images."""
        main = Phase("main", splits_of(self.params["train_split"], self.data))
        if "over" not in self.heads:
            return [main]
        return [Phase("over", splits_of(self.params["over_split"], self.data)), main]

    def loss(self, batch: Batch) -> Step:
        """Eq. 10 for the head of this pass, on each original and its augmentations."""
        head = self.heads[batch.phase]
        repeated = batch.images.repeat(self.params["repeats"], 1, 1, 1)
        z = head(self.backbone(self.original(batch.images, batch.rng("original"))))
        z2 = head(self.backbone(self.augmented(repeated, batch.rng("augmented"))))
        params = self.params
        loss, parts = drc_loss(
            z,
            z2.unflatten(0, (params["repeats"], len(z))),
            temperature_af=params["temperature_af"],
            temperature_ap=params["temperature_ap"],
            cr_weight=params["cr_weight"],
            normalise=params["normalise"],
            repeat_mode=params["repeat_mode"],
            use_af=params["use_af"],
            use_ap=params["use_ap"],
            use_cr=params["use_cr"],
        )
        return Step(loss, parts)

    def predict(self, images: Tensor) -> Tensor:
        """Return the softmax of the main head on the test view, (n, K)."""
        return torch.softmax(self.heads["main"](self.backbone(self.test_view(images))), dim=1)


METHOD = DRC
