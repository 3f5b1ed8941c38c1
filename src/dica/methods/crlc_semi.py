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

from dica.data.splits import DataInfo
from dica.losses.crlc import semi_loss
from dica.methods.base import Batch, Step
from dica.methods.crlc import CRLC, step_of
from dica.methods.labelled import LabelledImages


class SemiCRLC(CRLC):
    """CRLC with a cross-entropy on a few labelled images."""

    supervised = True
    replayable = False  # labelled images are drawn beside the batch

    def __init__(self, params: dict, data: DataInfo) -> None:
        order = torch.randperm(data.counts["train"])  # first of all draws: a seed has the same images in every method
        super().__init__(params, data)
        self.labelled = LabelledImages(order, params["num_clusters"], params["labels_per_class"])

    def give_labels(self, labels: Tensor) -> None:
        """Draw the labelled images, and forget all other labels."""
        self.labelled.choose(labels)

    def record(self) -> dict:
        """Return the labelled images: their positions in the train split, and their classes."""
        return self.labelled.record()

    def loss(self, batch: Batch) -> Step:
        """Eq. 12."""
        views, labelled = self._views(batch), self.labelled
        chosen = labelled.draw(self.params["labelled_batch"], batch.rng("labelled images"))
        images = self.augmented(batch.take(labelled.positions[chosen]), batch.rng("labelled"))
        loss, parts = semi_loss(
            **views,
            logits_labelled=self.c_head(self.backbone(images)),
            labels=labelled.classes[chosen],
            **self._settings("temperature", "lambda2", "lambda3"),
            **self._regulariser(),
        )
        return step_of(loss, parts)


METHOD = SemiCRLC
