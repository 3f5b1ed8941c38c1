"""CRLC-semi: Do, Tran and Venkatesh, ICCV 2021, Section 3.3 and appendix A.13 (Tables 3 and 8, Figures 10-15).

CRLC (`dica.methods.crlc`) and the cross-entropy of a few labelled images (Eq. 12). Every training image is in the loss
of Eq. 11, labelled or not. The classes are the clusters' numbers, so the error needs no matching.

Deviations and readings, each a key of params/crlc-semi.yaml:

- `labels_per_class`: so many of each class, drawn at random from the training images by the run's seed. The paper
  prints its own draws as pictures only (Figures 12-15). Positions and classes go into the run's record; no other label
  is kept.
- `labelled_batch`: labelled images a step; with fewer than that, each is in the batch several times, augmented apart.
- `lambda1`, `lambda2`, `lambda3`: the paper gives them, but they are lost in the text at hand: guesses.
- The labelled images pass the network apart from the two views, as these from each other (`joint_views`).
- The cross-entropy is averaged over the sub-heads, and counts when one is chosen for prediction (lowest loss).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dica.files import UserError
from dica.methods.base import Batch, DataInfo
from dica.methods.crlc import CRLC


class SemiCRLC(CRLC):
    """CRLC with a cross-entropy on a few labelled images."""

    supervised = True

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        self.order = torch.randperm(data.counts["train"])  # of the run's seed; only `give_labels` uses it
        count = params["labels_per_class"] * params["num_clusters"]
        self.register_buffer("labelled", torch.zeros(count, dtype=torch.long))
        self.register_buffer("targets", torch.zeros(count, dtype=torch.long))

    def give_labels(self, labels: Tensor) -> None:
        """Draw the labelled images, equally many of each class, and forget all other labels."""
        each, order = self.params["labels_per_class"], self.order.to(labels.device)
        rows = [order[labels[order] == number][:each] for number in range(self.params["num_clusters"])]
        for number, found in enumerate(rows):
            if len(found) < each:
                raise UserError(f"crlc-semi: labels_per_class: {each}, but class {number} has {len(found)} images")
        chosen = torch.cat(rows).sort().values
        self.labelled.copy_(chosen)
        self.targets.copy_(labels[chosen])

    def record(self) -> dict:
        """Return the labelled images: their positions in the train split, and their classes."""
        return {"labelled": self.labelled.tolist(), "classes": self.targets.tolist()}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 12."""
        parts, chosen = super().loss(batch), self._draw(batch)
        images = self.augmented(batch.take(self.labelled[chosen]), batch.rng("labelled"))
        logits = self.c_head(self.backbone(images)).float()
        targets = self.targets[chosen].expand(len(logits), -1)
        supervised = F.cross_entropy(logits.permute(1, 2, 0), targets.T, reduction="none").mean(0)  # of each sub-head
        weight = self.params["lambda3"]
        batch.extra["head_losses"] = batch.extra["head_losses"] + weight * supervised.detach()
        return {**parts, "loss": parts["loss"] + weight * supervised.mean(), "L_CE": supervised.mean()}

    def _draw(self, batch: Batch) -> Tensor:
        """Return which labelled images this step sees, (labelled_batch,): each equally often, but for the remainder."""
        size, count, source = self.params["labelled_batch"], len(self.labelled), batch.rng("labelled images")
        rounds = torch.rand(-(-size // count), count, generator=source, device=source.device)
        return rounds.argsort(1).flatten()[:size].to(self.labelled.device)


def build(params: dict, data: DataInfo) -> SemiCRLC:
    """Return the method for the registry."""
    return SemiCRLC(params, data)
