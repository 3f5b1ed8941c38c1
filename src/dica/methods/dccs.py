"""DCCS: Zhao, Lu, Ma, Zhang and Zheng, Deep Image Clustering with Category-Style Representation, ECCV 2020, after the
authors' code.

A residual encoder gives each image a style and a category. A critic draws both to a prior, normal styles and one
category for certain; a discriminator of pairs keeps what they say of the image; an augmented view keeps the category
(losses: `dica.losses.dccs`). Each batch is shared out among the turns of a round: `critic_steps` of the critic, then
one of the encoder with the discriminator, each on images of its own. Prediction: the largest category.

Deviations and readings, each a key of params/dccs.yaml:

- `batch_size` is of a round: the code's 64 for each turn. One Adam serves all three networks (see `dica.methods.gan`).
- Images are grey, as the code's data by default are: the encoder takes the luminance of a view.
- The encoder is in train mode in the critic's turns, too: its batch norms see all images (code).
- `beta_aug` of STL-10 and ImageNet-10 is not in the code.
- The code reports the largest ACC, NMI and ARI of all epochs, found with labels; here the last epoch counts.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dica.data.splits import DataInfo
from dica.losses.dccs import critic_loss, encoder_loss
from dica.methods.base import Batch, Method, Step
from dica.networks.mirrored import SLOPE
from dica.rng import Rng
from dica.views.pixels import rgb_to_grey


class Code(NamedTuple):
    """What the encoder says of n images."""

    style: Tensor  # (n, style_size)
    logits: Tensor  # (n, K)
    maps: Tensor  # (n, d), flattened, before the last block

    @property
    def joint(self) -> Tensor:
        """Return style and category end to end, (n, style_size + K)."""
        return torch.cat([self.style, self.logits.softmax(dim=1)], dim=1)


class Block(nn.Module):
    """A residual block with batch norms before its convolutions; `first` has none before its own first one."""

    def __init__(self, channels: int, out: int, halve: bool, first: bool = False) -> None:
        super().__init__()
        pool = nn.AvgPool2d(2) if halve else nn.Identity()
        before = [] if first else [nn.BatchNorm2d(channels), nn.ReLU()]
        between = [nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
        convolutions = [nn.Conv2d(size, out, 3, padding=1, bias=False) for size in (channels, out)]
        self.body = nn.Sequential(*before, convolutions[0], *between, convolutions[1], pool)
        self.beside = nn.Sequential(nn.Conv2d(channels, out, 1), pool) if halve or channels != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, s, s) to (n, out, s, s), or to half the size."""
        return self.body(x) + self.beside(x)


class Encoder(nn.Module):
    """Blocks that halve the image, one that does not, and a linear layer on its averaged maps."""

    def __init__(self, widths: Sequence[int], style_size: int, num_clusters: int) -> None:
        super().__init__()
        self.style_size = style_size
        sizes = itertools.pairwise((1, *widths))
        self.blocks = nn.Sequential(*(Block(*size, halve=True, first=not at) for at, size in enumerate(sizes)))
        self.last = nn.Sequential(Block(widths[-1], widths[-1], halve=False), nn.BatchNorm2d(widths[-1]), nn.ReLU())
        self.output = nn.Linear(widths[-1], style_size + num_clusters)

    def forward(self, images: Tensor) -> Code:
        """Map grey or colour images (n, c, s, s) to their codes."""
        maps = self.blocks(rgb_to_grey(images))
        code = self.output(self.last(maps).mean(dim=(2, 3))).to(self.output.weight.dtype)
        return Code(code[:, : self.style_size], code[:, self.style_size :], maps.flatten(1))


def _scorer(inputs: int, hidden: Sequence[int]) -> nn.Sequential:
    """Return layers from (n, inputs) to a score (n, 1)."""
    layers: list[nn.Module] = []
    for size, out in itertools.pairwise((inputs, *hidden)):
        layers += [nn.Linear(size, out), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 1))


class DCCS(Method):
    """Categories and styles, drawn to a prior by a critic."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        widths, code = params["widths"], params["style_size"] + params["num_clusters"]
        side = params.get("size", data.image_size) // 2 ** len(widths)
        self.encoder = Encoder(widths, params["style_size"], params["num_clusters"])
        self.critic = _scorer(code, params["hidden"])
        self.discriminator = _scorer(widths[-1] * side**2 + code, params["hidden"])
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        self.original, self.augmented = self.pipeline("original"), self.pipeline("augmented")

    def split(self, batch: Batch) -> Iterator[Batch]:
        """Yield the critic's batches, then the encoder's; images too few for batch statistics are left out."""
        turns = self.params["critic_steps"] + 1
        if len(batch.images) < 2 * turns:
            return
        parts = zip(batch.images.tensor_split(turns), batch.indices.tensor_split(turns), strict=True)
        for turn, (images, indices) in enumerate(parts):
            phase = batch.phase if turn < turns - 1 else "encoder"
            part = dataclasses.replace(batch, images=images, indices=indices, phase=phase, step=batch.step + turn)
            yield dataclasses.replace(part, rng=_in_turn(batch.rng, turn))

    def trains(self, batch: Batch) -> list[nn.Parameter]:
        """Return the parameters of the networks whose turn it is."""
        whose = [self.encoder, self.discriminator] if batch.phase == "encoder" else [self.critic]
        return [parameter for network in whose for parameter in network.parameters()]

    def networks(self) -> list[nn.Module]:
        """Return the part with nearly all of the arithmetic."""
        return [self.encoder]

    def loss(self, batch: Batch) -> Step:
        """The loss of the networks whose turn it is."""
        original = self.original(batch.images, batch.rng("original"))
        if batch.phase == "encoder":
            return self._encoder_turn(original, batch)
        with torch.no_grad():
            made = self.encoder(original).joint
        drawn = self._prior(batch)
        share = torch.rand((len(made), 1), generator=batch.rng("between"), device=made.device, dtype=made.dtype)
        between = (share * drawn + (1 - share) * made).requires_grad_(True)
        slopes = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)[0]
        settings = {name: self.params[name] for name in ("adversary_weight", "penalty")}
        return Step(*critic_loss(self.critic(drawn), self.critic(made), slopes, **settings))

    def _encoder_turn(self, original: Tensor, batch: Batch) -> Step:
        augmented = self.encoder(self.augmented(batch.images, batch.rng("augmented")))
        code = self.encoder(original)
        joint, draw = code.joint, batch.rng("others")
        others = joint[torch.randperm(len(joint), generator=draw, device=joint.device)]
        own, others = (self.discriminator(torch.cat([code.maps, z], dim=1)) for z in (joint, others))
        names = ("adversary_weight", "information_weight", "view_weight")
        settings = {name: self.params[name] for name in names}
        return Step(*encoder_loss(self.critic(joint), own, others, code.logits, augmented.logits, **settings))

    def _prior(self, batch: Batch) -> Tensor:
        """Return draws of the prior (n, style_size + K): normal styles, and one category each."""
        count, (styles, clusters) = len(batch.images), (self.params[name] for name in ("style_size", "num_clusters"))
        place = {"device": batch.images.device}
        kind = self.encoder.output.weight.dtype
        style = torch.randn((count, styles), generator=batch.rng("styles"), dtype=kind, **place)
        drawn = torch.randint(clusters, (count, 1), generator=batch.rng("categories"), **place)
        category = (drawn == torch.arange(clusters, **place)).to(kind)  # `one_hot` would wait for the device
        return torch.cat([self.params["style_deviation"] * style, category], dim=1)

    def predict(self, images: Tensor) -> Tensor:
        """Return the category of the test view, (n, K)."""
        return self.encoder(self.test_view(images)).logits.softmax(dim=1)

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the averaged maps before the code, (n, d)."""
        self.check_layer(layer)
        encoder = self.encoder
        return encoder.last(encoder.blocks(rgb_to_grey(self.test_view(images)))).mean(dim=(2, 3))


def _in_turn(rng: Rng, turn: int) -> Rng:
    """Return `rng` for one turn: equal purposes of different turns draw different numbers."""
    return lambda purpose: rng(f"{purpose}/{turn}")


METHOD = DCCS
