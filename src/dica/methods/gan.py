"""DCGAN, and K-means on what its discriminator sees: the row GAN or DCGAN of the papers' tables.

Radford, Metz and Chintala, Unsupervised representation learning with deep convolutional generative adversarial
networks, ICLR 2016, with the losses of Goodfellow et al., NIPS 2014 (`dica.losses.gan`). Each batch is two steps: the
discriminator learns from real and made images, then the generator from what the discriminator says of others. One Adam
serves both: its moments are those of each parameter, and a step moves only the network whose turn it is.

The numbers of these rows were copied from table to table; network, epochs, features and starts of K-means are not
known. Readings, each a key of params/gan.yaml:

- `features`: `last`, the last map of the discriminator, averaged; `maps`, every map max-pooled to 4x4 at most, end to
  end, as DCGAN's own classification has it.
- `widths`, `noise_size`: three halvings at 32 pixels; uniform noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dica.data.splits import DataInfo
from dica.losses.gan import discriminator_loss, generator_loss
from dica.methods.base import Batch, Step
from dica.methods.feature_clusters import FeatureClusters
from dica.networks.mirrored import Decoder, Encoder, map_side

POOLED = 4


class GAN(FeatureClusters):
    """Two networks against each other."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        size, widths = params.get("size", data.image_size), params["widths"]
        self.discriminator = Encoder(data.channels, size, widths, 1, leaky=True)
        self.generator = Decoder(data.channels, size, widths, params["noise_size"])
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.normal_(part.weight, 0, 0.02)
                nn.init.zeros_(part.bias)
        sides = [map_side(size, widths[: k + 1]) for k in range(len(widths))]
        lengths = [width * min(side, POOLED) ** 2 for width, side in zip(widths, sides, strict=True)]
        self.make_clusters(sum(lengths) if params["features"] == "maps" else widths[-1])
        self.given = self.pipeline("given")

    def split(self, batch: Batch) -> Iterator[Batch]:
        """Yield the discriminator's step, then the generator's; a single image has no batch statistics."""
        if len(batch.indices) > 1:
            yield batch
            yield dataclasses.replace(batch, phase="generator")

    def trains(self, batch: Batch) -> list[nn.Parameter]:
        """Return the parameters of the network whose turn it is."""
        return list((self.generator if batch.phase == "generator" else self.discriminator).parameters())

    def networks(self) -> list[nn.Module]:
        """Return the parts with nearly all of the arithmetic."""
        return [self.discriminator, self.generator]

    def loss(self, batch: Batch) -> Step:
        """The loss of the network whose turn it is."""
        made = self._made(batch)
        if batch.phase == "generator":
            return Step(*generator_loss(self.discriminator(made)))
        real = 2 * self.given(batch.images, batch.rng("given")) - 1
        loss, parts = discriminator_loss(self.discriminator(real), self.discriminator(made.detach()))
        return Step(loss, parts)

    def _made(self, batch: Batch) -> Tensor:
        """Return images of the generator in [-1, 1], from noise of this turn."""
        shape, draw = (len(batch.indices), self.params["noise_size"]), batch.rng(f"noise-{batch.phase}")
        noise = torch.rand(shape, generator=draw, device=batch.images.device, dtype=torch.get_default_dtype())
        return torch.tanh(self.generator(2 * noise - 1))

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return maps of the discriminator for the un-augmented view, pooled, (n, d)."""
        self.check_layer(layer)
        x, maps = 2 * self.test_view(images) - 1, []
        for part in self.discriminator.body:
            x = part(x)
            if isinstance(part, nn.LeakyReLU):
                maps.append(x)
        if self.params["features"] == "last":
            return maps[-1].mean(dim=(2, 3))
        return torch.cat([F.adaptive_max_pool2d(x, min(x.shape[-1], POOLED)).flatten(1) for x in maps], dim=1)


METHOD = GAN
