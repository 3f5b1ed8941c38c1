"""ReMixMatch: Berthelot, Carlini, Cubuk, Kurakin, Sohn, Zhang and Raffel, ICLR 2020; rows of CRLC's Tables 3 and 8.

MixMatch (`dica.methods.semi`) with three more ideas: guesses are aligned with the classes' frequencies, several strong
views of an image have to repeat the guess made on its weak one, and the network also tells how an image was rotated.
Losses: `dica.losses.semi`.

Deviations and readings, each a key of params/remixmatch.yaml with the value of the authors' code as default:

- Strong views are those of FixMatch (RandAugment); the code learns their strengths while training (CTAugment).
- `strong_views`: 4 in the code, 8 in the paper. Labelled images are seen in a strong view (paper).
- The classes are taken to be equally frequent; the code counts the labelled images.
- Each quarter of a batch is rotated by one of the four angles (code).
- `ramp`: the share of training over which the weights of mixed and of first strong views grow; that of the rotations
  does not. Running batch statistics follow the last of the interleaved batches alone (code).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dica.data.splits import DataInfo
from dica.losses.semi import aligned_guess, certain, mix, remixmatch_loss
from dica.losses.tcc import enqueue
from dica.methods.base import Batch, Step, decayed_apart
from dica.methods.semi import SemiSupervised, interleave
from dica.networks.backbones import init_weights

REMEMBERED = 128  # batches whose mean prediction says how frequent the network takes the classes to be (code)
ANGLES = 4


class ReMixMatch(SemiSupervised):
    """Mixed images with aligned guesses, strong views and rotations."""

    predicted: Tensor
    pointer: Tensor

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        self.rotation = nn.Linear(self.own[0].out_features, ANGLES)
        init_weights(self.rotation, params["backbone"]["init"])
        classes = params["num_clusters"]
        self.register_buffer("predicted", torch.full((REMEMBERED, classes), 1 / classes))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    def parameter_groups(self) -> list[dict]:
        """Return weights apart from biases and batch norms, which do not decay."""
        return decayed_apart(nn.ModuleList([self.own, self.rotation]))

    def loss(self, batch: Batch) -> Step:
        """Cross-entropies of mixed images, of the first strong view and of its rotation."""
        params, size = self.params, len(batch.images)
        chosen = self.labelled.draw(size, batch.rng("labelled images"))
        few = self.strong(batch.take(self.labelled.positions[chosen]), batch.rng("labelled"))
        weak = self.weak(batch.images, batch.rng("weak"))
        strong = [self.strong(batch.images, batch.rng(f"strong {k}")) for k in range(params["strong_views"])]
        with self._statistics(False):
            with torch.no_grad():
                probability = self.own(weak).softmax(dim=1).to(self.predicted)
            first = self.own(strong[0])
            turned, angles = rotated(strong[0])
            turns = self.rotation(self.own[0](turned))
        guess = aligned_guess(probability, self.predicted.mean(dim=0), temperature=params["sharpen"])
        known = certain(self.labelled.classes[chosen], guess)
        logits, targets = self._mixed([few, weak, *strong], torch.cat([known, *[guess] * (len(strong) + 1)]), batch)
        ramp = self._ramp(batch.epoch)
        loss, parts = remixmatch_loss(
            *(logits[:size], targets[:size], logits[size:], targets[size:]),
            *(first, guess, turns, angles),
            weight=params["weight"] * ramp,
            first_weight=params["first_weight"] * ramp,
            rotation_weight=params["rotation_weight"],
        )
        return Step(loss, parts, {"predicted": probability.mean(dim=0, keepdim=True)})

    def _mixed(self, views: list[Tensor], targets: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits and targets of all images mixed with one another."""
        images = torch.cat(views)
        share, partners = self._shares(len(images), batch.rng("mix"), images)
        images, targets = mix(images, partners, share), mix(targets, partners, share)
        *others, last = interleave(list(images.split(len(views[0]))))
        with self._statistics(False):
            logits = [self.own(part) for part in others]
        return torch.cat(interleave([*logits, self.own(last)])), targets

    def after_step(self, batch: Batch, carry: dict[str, Tensor]) -> None:
        """Remember the mean prediction, and let the moving average follow."""
        super().after_step(batch, carry)
        self.predicted, self.pointer = enqueue(self.predicted, carry["predicted"], self.pointer)


def rotated(views: Tensor) -> tuple[Tensor, Tensor]:
    """Return square views (n, c, s, s), a quarter of them turned by each angle, and by how many quarter turns (n,)."""
    parts = views.tensor_split(ANGLES)
    turned = [part.rot90(turns, dims=(2, 3)) for turns, part in enumerate(parts)]
    angles = [torch.full((len(part),), turns, device=views.device) for turns, part in enumerate(parts)]
    return torch.cat(turned), torch.cat(angles)


METHOD = ReMixMatch
