"""FixMatch (RandAugment): Sohn et al., NeurIPS 2020, which CRLC ran anew for its Tables 3 and 8 and Figures 10 and 11.

A classifier learns from a few labelled images and from its own confident guesses on weak views of the others, which it
has to repeat on strong views. Predictions are those of a moving average of its weights.

Deviations and readings, each a key of params/fixmatch.yaml:

- `average`: see `dica.losses.fixmatch`; the default is that of the code which CRLC ran.
- The strong views are those of the FixMatch paper: RandAugment of two operations with strengths drawn anew, and a hole
  of up to half the image's side. (That code takes the greatest strength always, a hole of 16 pixels, and colours up to
  1.9 times as strong.)
- `labels_per_class`: drawn as in CRLC-semi: the same seed has the same labelled images in both.
- One forward pass for labelled, weak and strong images; that code makes its guesses in a pass of their own, and passes
  on the strong views of confident images alone. The moving average takes the batch norms' statistics over.
- `ema`: from the first step on; that code begins with a shorter memory, (t + 1) / (t + 10).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from dica.data.splits import DataInfo
from dica.losses.fixmatch import fixmatch_loss
from dica.losses.tcc import momentum_update
from dica.methods.base import Batch, Method, Step, decayed_apart
from dica.methods.labelled import LabelledImages
from dica.networks.backbones import init_weights


class FixMatch(Method):
    """Consistency of strong views with confident guesses on weak ones."""

    supervised = True

    def __init__(self, params: dict, data: DataInfo) -> None:
        order = torch.randperm(data.counts["train"])  # first of all draws: a seed has the same images in every method
        super().__init__(params, data)
        network = params["backbone"]
        self.labelled = LabelledImages(order, params["num_clusters"], params["labels_per_class"])
        backbone = self.build_backbone()
        self.own = nn.Sequential(backbone, nn.Linear(backbone.out_features, params["num_clusters"]))
        init_weights(self.own[1], network["init"])
        self.average = copy.deepcopy(self.own).requires_grad_(False)
        self.weak, self.strong = self.pipeline("weak"), self.pipeline("strong")

    def give_labels(self, labels: Tensor) -> None:
        """Draw the labelled images, and forget all other labels."""
        self.labelled.choose(labels)

    def record(self) -> dict:
        """Return the labelled images: their positions in the train split, and their classes."""
        return self.labelled.record()

    def parameter_groups(self) -> list[dict]:
        """Return weights of the trained network apart from biases and batch norms, which do not decay."""
        return decayed_apart(self.own)

    def loss(self, batch: Batch) -> Step:
        """Return the loss of labelled images and of an unlabelled batch."""
        params, labelled = self.params, self.labelled
        chosen = labelled.draw(params["labelled_batch"], batch.rng("labelled images"))
        views = [
            self.weak(batch.take(labelled.positions[chosen]), batch.rng("labelled")),
            self.weak(batch.images, batch.rng("weak")),
            self.strong(batch.images, batch.rng("strong")),
        ]
        few, weak, strong = self.own(torch.cat(views)).split([len(view) for view in views])
        options = {name: params[name] for name in ("threshold", "weight", "average")}
        loss, parts = fixmatch_loss(few, labelled.classes[chosen], weak, strong, **options)
        return Step(loss, parts)

    @torch.no_grad()
    def after_step(self, batch: Batch, carry: dict[str, Tensor]) -> None:
        """Let the moving average follow."""
        own, average = self.own, self.average
        momentum_update(list(average.parameters()), list(own.parameters()), momentum=self.params["ema"])
        for mine, theirs in zip(average.buffers(), own.buffers(), strict=True):
            mine.copy_(theirs)

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the averaged backbone's features (n, d)."""
        self.check_layer(layer)
        return self.average[0](self.test_view(images))

    def predict(self, images: Tensor) -> Tensor:
        """Return the averaged classifier's softmax on the test view, (n, K)."""
        return torch.softmax(self.average(self.test_view(images)), dim=1)


METHOD = FixMatch
