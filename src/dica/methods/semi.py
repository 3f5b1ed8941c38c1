"""The semi-supervised methods that CRLC's Tables 3 and 8 quote from FixMatch's paper, beside FixMatch itself.

Key `kind`: `pi` (Laine and Aila, ICLR 2017), `mean-teacher` (Tarvainen and Valpola, NeurIPS 2017), `pseudo-label`
(Lee, 2013), `uda` (Xie et al., NeurIPS 2020) and `mixmatch` (Berthelot et al., NeurIPS 2019). Network, labelled images,
moving average and weak and strong views are FixMatch's (`dica.methods.fixmatch`), as in its reference code, which ran
all of them; what differs is the term of the unlabelled images (`dica.losses.semi`).

Deviations and readings, each a key of params/semi.yaml with the value of that code as default:

- `ramp`: the share of training over which the weight of the unlabelled term grows linearly; 0 for none. It moves once
  an epoch.
- `statistics`: whose batch statistics the running ones follow: `labelled` images alone (Pi-model, mean teacher and
  pseudo-label) or `all`. MixMatch interleaves its three batches, and follows the first.
- `threshold`, `sharpen` of UDA: .95 and 1; UDA's own code for CIFAR-10 has .8 and .4.
- UDA's labelled, weak and strong images pass the network together, as FixMatch's; the others' labelled ones alone.
- UDA's strong views are FixMatch's; its training signal annealing is left out, as in that code.
- MixMatch takes as many labelled as unlabelled images, and draws a share for every image (code).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dica.losses.semi import (
    certain,
    divergence_loss,
    mix,
    mixmatch_loss,
    pseudo_label_loss,
    sharpened_mean,
    squared_difference,
)
from dica.methods.base import Batch, Step
from dica.methods.fixmatch import FixMatch

Losses = tuple[Tensor, dict[str, Tensor]]


class SemiSupervised(FixMatch):
    """A classifier of few labelled images, and a term for the others."""

    def loss(self, batch: Batch) -> Step:
        """Return the loss of labelled images and the weighted term of an unlabelled batch."""
        params = self.params
        mixed = params["kind"] == "mixmatch"
        count = len(batch.images) if mixed else params["labelled_batch"]
        chosen = self.labelled.draw(count, batch.rng("labelled images"))
        few = self.weak(batch.take(self.labelled.positions[chosen]), batch.rng("labelled"))
        classes = self.labelled.classes[chosen]
        weight = params["weight"] * self._ramp(batch.epoch)
        if mixed:
            return Step(*self._mixmatch(batch, few, classes, weight))
        if params["kind"] == "uda":
            supervised, unlabelled, parts = self._uda(batch, few, classes)
        else:
            supervised = F.cross_entropy(self.own(few), classes)
            with self._statistics(params["statistics"] == "all"):
                unlabelled, parts = self._unlabelled(batch)
        parts = {"L_s": supervised.detach(), "L_u": unlabelled.detach(), **parts}
        return Step(supervised + weight * unlabelled, parts)

    def _ramp(self, epoch: int) -> float:
        """Return the share of the weight that counts in this epoch."""
        whole = self.params["ramp"] * self.params["epochs"]
        return min(1.0, epoch / whole) if whole else 1.0

    @contextlib.contextmanager
    def _statistics(self, follow: bool) -> Iterator[None]:
        """Leave the running statistics as they are inside the block, unless they are to follow."""
        norms = [part for part in self.own.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
        before = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = norm.momentum if follow else 0.0
        yield
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum

    def _uda(self, batch: Batch, few: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the losses of labelled and of unlabelled images, from one forward pass."""
        params = self.params
        views = [few, self.weak(batch.images, batch.rng("weak")), self.strong(batch.images, batch.rng("strong"))]
        few, weak, strong = self.own(torch.cat(views)).split([len(view) for view in views])
        options = {name: params[name] for name in ("threshold", "sharpen")}
        return F.cross_entropy(few, classes), *divergence_loss(weak, strong, **options)

    def _unlabelled(self, batch: Batch) -> Losses:
        params = self.params
        weak = self.weak(batch.images, batch.rng("weak"))
        if params["kind"] == "pseudo-label":
            return pseudo_label_loss(self.own(weak), threshold=params["threshold"])
        other = self.weak(batch.images, batch.rng("other"))
        with torch.no_grad():  # the teacher's batch norms see the batch, as in training
            given = (self.average if params["kind"] == "mean-teacher" else self.own)(weak)
        return squared_difference(given, self.own(other)), {}

    def _mixmatch(self, batch: Batch, few: Tensor, classes: Tensor, weight: float) -> Losses:
        """Guess, mix labelled and unlabelled images with one another, and compare."""
        params, size = self.params, len(few)
        views = [self.weak(batch.images, batch.rng(name)) for name in ("weak", "other")]
        with torch.no_grad(), self._statistics(False):
            guess = sharpened_mean(torch.stack([self.own(view) for view in views]), temperature=params["sharpen"])
        images = torch.cat([few, *views])
        targets = torch.cat([certain(classes, guess), guess, guess])
        share, partners = self._shares(len(images), batch.rng("mix"), images)
        images, targets = mix(images, partners, share), mix(targets, partners, share)
        first, *others = interleave(list(images.split(size)))
        logits = [self.own(first)]
        with self._statistics(False):
            logits += [self.own(part) for part in others]
        logits = torch.cat(interleave(logits))
        return mixmatch_loss(logits[:size], targets[:size], logits[size:], targets[size:], weight=weight)

    def _shares(self, count: int, draw: torch.Generator, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return each image's own share, at least a half (Beta), and its partner, both (count,)."""
        gamma = torch._standard_gamma(torch.full((2, count), self.params["mix"], device=draw.device), generator=draw)
        share, partners = gamma[0] / gamma.sum(0), torch.randperm(count, generator=draw, device=draw.device)
        return torch.maximum(share, 1 - share).to(like), partners.to(like.device)


def interleave(parts: list[Tensor]) -> list[Tensor]:
    """Exchange pieces between the first batch and each other, so that all hold some of every kind; its own inverse."""
    pieces = [list(part.tensor_split(len(parts))) for part in parts]
    for place in range(1, len(parts)):
        pieces[0][place], pieces[place][place] = pieces[place][place], pieces[0][place]
    return [torch.cat(part) for part in pieces]


METHOD = SemiSupervised
