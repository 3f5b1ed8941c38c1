"""A network with a head of K clusters and a head of many: each epoch has passes for the one and passes for the other.

What IIC began, PICA took over, and DRC after it: one optimiser, one view of the originals and several perturbed ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dica.data.splits import DataInfo, splits_of
from dica.methods.base import Batch, Method, Phase
from dica.networks.backbones import init_weights
from dica.networks.heads import ClusterHead


class TwoHeadMethod(Method):
    """Base with backbone, heads `main` and `over`, and the passes; `over_clusters: 0` leaves the second head out.

    Keys: `backbone`, `over_clusters`, `over_split`, `repeats` and the views `original` and `augmented`.
    """

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        self.backbone = self.build_backbone()
        self.heads = nn.ModuleDict({"main": self.make_head(params["num_clusters"])})
        if params["over_clusters"]:
            self.heads["over"] = self.make_head(params["over_clusters"])
        init_weights(self.heads, params["backbone"]["init"])
        self.original, self.augmented = self.pipeline("original"), self.pipeline("augmented")

    def make_head(self, clusters: int) -> nn.Module:
        """Return a head of so many clusters, on the backbone's features."""
        return ClusterHead(self.backbone.out_features, clusters)

    def phases(self, epoch: int) -> list[Phase]:
        """Return the pass of each head; the over-clustering one may see more images."""
        main = Phase("main", splits_of(self.params["train_split"], self.data))
        if "over" not in self.heads:
            return [main]
        return [Phase("over", splits_of(self.params["over_split"], self.data)), main]

    def outputs(self, batch: Batch, head: nn.Module) -> tuple[Tensor, Tensor]:
        """Return the logits of the originals (..., n, k), and of their `repeats` perturbed views (..., r n, k)."""
        repeated = batch.images.repeat(self.params["repeats"], 1, 1, 1)
        z = head(self.backbone(self.original(batch.images, batch.rng("original"))))
        return z, head(self.backbone(self.augmented(repeated, batch.rng("augmented"))))

    def predict(self, images: Tensor) -> Tensor:
        """Return the softmax of the main head on the test view, (n, K)."""
        return torch.softmax(self.heads["main"](self.backbone(self.test_view(images))), dim=1)
