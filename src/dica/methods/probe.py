"""Probe: a supervised classifier on the frozen features of a trained run, as two of the papers judge their features.

DCCM (Section 4, after Deep InfoMax): one hidden layer of 200 units on the last convolution or on the first linear
layer. IMC-SwAV (Tables 2 and 4): a single layer on the embedding. The papers keep training and test images apart: the
source is trained on the train split, so is the probe, and the test split is scored.

Readings, each a key of params/probe.yaml:

- `hidden`: 0 is the single layer. With a hidden layer the order is that of DCCM's code: linear, dropout, batch norm,
  ReLU, linear. Without one dropout comes first (IMC-SwAV's code).
- The features are those of images without augmentation, computed once, by the source as it was scored: where it renews
  its batch-norm statistics for that on test images (DCCM's `bn_eval`, IMC-SwAV's `bn_refresh`), these reach the probe.
- Optimiser, epochs and batch are not in the papers.
- The labels of the train split are read, so clusters are classes: accuracy needs no map (`supervised`).
- `held_out`: share of the train split whose labels are left out, and which alone is scored; for data sets without a
  test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dica.data.splits import DataInfo
from dica.files import UserError
from dica.methods.base import Batch, Method, Step
from dica.methods.classifier import Classifier

PART = 1000  # images at a time through the source


class Probe(Classifier):
    """One or two layers on frozen features, trained with labels."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        if not params.get("source"):
            raise UserError("probe: source: name the method and variant whose features it is to classify")

    def adopt(self, source: Method, images: dict[str, Tensor]) -> None:
        """Compute the features of the train split, and build the layers for their length."""
        self.represent = partial(source.features, layer=self.params["layer"])
        with torch.no_grad():
            points = torch.cat([self.represent(part.to(source.device)) for part in images["train"].split(PART)])
        self.register_buffer("points", points, persistent=False)
        classes, hidden = self.params["num_clusters"], self.params["hidden"]
        self.first = nn.Linear(points.shape[1], hidden or classes).to(points)
        if hidden:
            self.norm = nn.BatchNorm1d(hidden).to(points)
            self.last = nn.Linear(hidden, classes).to(points)

    def split(self, batch: Batch) -> Iterator[Batch]:
        """Yield the batch, but not a last one of a single image, which has no batch statistics."""
        if len(batch.indices) > 1 or not self.params["hidden"]:
            yield batch

    def loss(self, batch: Batch) -> Step:
        """Cross-entropy of the batch's labelled images, and the share of them that is right."""
        return self.classified(self._logits(self.points[batch.indices], batch).to(self.points.dtype), batch)

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return what the last layer reads: the hidden layer (n, hidden), or the features of the source (n, d)."""
        self.check_layer(layer)
        points = self.represent(images)
        return F.relu(self.norm(self.first(points))) if self.params["hidden"] else points

    def predict(self, images: Tensor) -> Tensor:
        """Return the softmax over classes, (n, K)."""
        return torch.softmax(self._logits(self.represent(images)), dim=1)

    def _logits(self, points: Tensor, batch: Batch | None = None) -> Tensor:
        if not self.params["hidden"]:
            return self.first(self._dropout(points, batch))
        return self.last(F.relu(self.norm(self._dropout(self.first(points), batch))))

    def _dropout(self, x: Tensor, batch: Batch | None) -> Tensor:
        """Drop out by numbers with an address, so that a resumed run drops what the uninterrupted one would."""
        rate = self.params["dropout"]
        if batch is None or not rate:
            return x
        kept = torch.rand(x.shape, generator=batch.rng("dropout"), device=x.device) >= rate
        return x * kept / (1 - rate)


METHOD = Probe
