"""IIC: Ji, Henriques and Vedaldi, Invariant Information Clustering for Unsupervised Image Classification and
Segmentation, ICCV 2019.

A network with five linear sub-heads of K clusters and five of an over-clustering, in passes of their own. Loss: minus
the mutual information of the clusters of two views (Eq. 2, 3; `dica.losses.iic`), mean over the sub-heads.

Deviations and readings, each a key of params/iic.yaml with the value of the paper or of the authors' code as default:

- `passes`: the heads of an epoch's passes in their order; the code's commands differ between the data sets.
- `batch_size` counts images: with `repeats` transformed views of each it makes the code's batches of pairs.
- `bn_eval`: the code's CIFAR-10 model has no running statistics; `batch` normalises by averages over batches of the
  images to score, so that an assignment does not depend on its neighbours (see `dica.methods.outer_batches`).
- Prediction: by the sub-head with the lowest loss in the last epoch (an option of the code). The printed numbers are
  of the best epoch and sub-head by accuracy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dica.data.splits import DataInfo, splits_of
from dica.files import UserError
from dica.losses.iic import information_loss
from dica.methods.base import Batch, Phase, Step
from dica.methods.outer_batches import renew_batch_norms
from dica.methods.sub_heads import SubHeadChoice
from dica.methods.two_heads import TwoHeadMethod
from dica.networks.heads import ClusterSubHeads
from dica.rng import Rng


class IIC(TwoHeadMethod):
    """Mutual information of the clusters of two views, by several sub-heads."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        if lacking := set(params["passes"]) - set(self.heads):
            raise UserError(f"iic: passes name the head {lacking.pop()!r}, but over_clusters is 0: there is only main")
        if "main" not in params["passes"]:
            raise UserError("iic: passes: none is of the head main, which predicts; add it")
        self.choice = SubHeadChoice(params["sub_heads"])

    def make_head(self, clusters: int) -> nn.Module:
        """Return sub-heads of so many clusters."""
        return ClusterSubHeads(self.backbone.out_features, clusters, self.params["sub_heads"])

    def phases(self, epoch: int) -> list[Phase]:
        """Return the passes of this epoch; a second one of a head gets a name, and so batches and views, of its own."""
        splits = {"main": self.params["train_split"], "over": self.params["over_split"]}
        names = self.params["passes"]
        counts = [names[:place].count(name) for place, name in enumerate(names)]
        return [
            Phase(f"{name}-{count + 1}" if count else name, splits_of(splits[name], self.data))
            for name, count in zip(names, counts, strict=True)
        ]

    def loss(self, batch: Batch) -> Step:
        """Eq. 3, mean over the sub-heads of this pass; each original is paired with all its transformed views."""
        name = batch.phase.split("-")[0]
        z, z2 = self.outputs(batch, self.heads[name])
        p = z.softmax(dim=-1).repeat(1, self.params["repeats"], 1)
        each, parts = information_loss(p, z2.softmax(dim=-1), lamb=self.params["lamb"])
        carry = {"heads": each.detach()} if name == "main" else {}
        return Step(each.mean(), {"MI": parts["MI"].mean()}, carry)

    def after_step(self, batch: Batch, carry: dict[str, Tensor]) -> None:
        """Add to the sub-heads' losses of this epoch."""
        if "heads" in carry:
            self.choice.add(carry["heads"], batch.epoch)

    @torch.no_grad()
    def before_predict(self, images: dict[str, Tensor], rng: Rng) -> None:
        """With `bn_eval: batch`, average the batch statistics over shuffled batches of the images to predict."""
        if self.params["bn_eval"] == "batch":
            renew_batch_norms(self, self.backbone, images, rng)

    def predict(self, images: Tensor) -> Tensor:
        """Return the softmax of the sub-head with the lowest loss on the test view, (n, K)."""
        head = self.heads["main"].heads[self.choice.best()]
        return torch.softmax(head(self.backbone(self.test_view(images))), dim=1)

    def predict_heads(self, images: Tensor) -> Tensor:
        """Return the cluster that each sub-head gives, (H, n)."""
        return torch.softmax(self.heads["main"](self.backbone(self.test_view(images))), dim=2).argmax(dim=2)


METHOD = IIC
