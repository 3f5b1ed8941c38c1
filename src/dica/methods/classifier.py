"""What classifiers share: the labels of the train split, and a part of them that is held out and alone scored."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dica.files import UserError
from dica.methods.base import Batch, Method, Step


class Classifier(Method):
    """Base of a method that learns classes from labels. Key: `held_out`."""

    supervised = True

    def give_labels(self, labels: Tensor) -> None:
        """Keep the labels of the train split, but for those that are held out, drawn by the run's seed."""
        if int(labels.max()) >= self.params["num_clusters"]:
            raise UserError(
                f"{type(self).__name__.lower()}: num_clusters is {self.params['num_clusters']}, there are labels "
                f"{int(labels.max())}"
            )
        held = torch.zeros_like(labels, dtype=torch.bool)
        held[torch.randperm(len(labels))[: round(self.params["held_out"] * len(labels))]] = True
        self.register_buffer("labels", labels.masked_fill(held, -1), persistent=False)
        self.register_buffer("held", held, persistent=False)

    def judged(self) -> dict[str, Tensor]:
        """Return the images of the train split to score, if some were held out: those."""
        return {"train": self.held} if self.params["held_out"] else {}

    def classified(self, logits: Tensor, batch: Batch) -> Step:
        """Cross-entropy of the batch's labelled images, and the share of them that is right."""
        labels = self.labels[batch.indices]
        known = (labels >= 0).sum().clamp_min(1)  # a last, small batch may have none
        loss = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / known
        return Step(loss, {"right": (logits.argmax(dim=1) == labels).sum() / known})
