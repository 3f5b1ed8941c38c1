"""RandAugment on batches: a few operations per image, drawn from a fixed list."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dica.views.pixels import autocontrast, equalize, jitter_lerp, posterize, sharpen, solarize, warp
from dica.views.steps import Step, _between, corner_matrix

# The ranges of SCAN and of FixMatch; the rotation is symmetric about 0.
ENHANCE, ROTATE, SOLARIZE, POSTERIZE = (0.05, 0.95), 30.0, (0.0, 256.0), (4.0, 8.0)
RAND_AUGMENT_OPS = (
    "identity",
    "autocontrast",
    "equalize",
    "solarize",
    "posterize",
    "sharpness",
    "brightness",
    "contrast",
    "color",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)


@dataclass(frozen=True)
class RandAugment(Step):
    """`count` operations one after the other, each one of fourteen (`RAND_AUGMENT_OPS`) at a random strength.

    RandAugment in the form of SCAN (Van Gansbeke et al., ECCV 2020), whose operations and ranges these are: drawn
    with repetition, geometry with the nearest pixel and black outside. FixMatch has the same operations with `shear`
    and `translate` (fractions, either way) of 0.3, each done with probability `p` 0.5. In every turn each operation
    gets an equal share of the batch, drawn at random, and works on that alone. So an image's operation is uniform over
    the fourteen, and images differ independently but for the equal shares.
    """

    count: int
    shear: float = 0.1
    translate: float = 0.1
    p: float = 1.0

    def shape(self, count: int, channels: int) -> tuple[int, int]:
        """Return the rows and columns of its numbers: a row for each slot, equally many an operation."""
        share = -(-count // len(RAND_AUGMENT_OPS))  # rounded up: some slots have no image of their own
        return share * len(RAND_AUGMENT_OPS), 3 * self.count

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        share = len(u) // len(RAND_AUGMENT_OPS)
        for turn in u.split(3, dim=1):
            member = turn[:, 0].argsort()
            result = self.apply(images[member % len(images)], turn[:, 1], share)[member.argsort()[: len(images)]]
            images = torch.where((turn[: len(images), 2] < self.p)[:, None, None, None], result, images)
        return images

    def apply(self, images: Tensor, u: Tensor, share: int) -> Tensor:
        """Apply the fourteen operations to `share` images each, in the order of `RAND_AUGMENT_OPS`.

        Parameters
        ----------
        images
            (14 share, c, h, w).
        u
            (14 share,) uniform numbers: the strengths, as fractions of the operations' ranges.
        """
        part, v = images.split(share), u.split(share)
        blended, moved = images[6 * share : 9 * share], images[9 * share :]
        kind = torch.arange(3, device=images.device).repeat_interleave(share)
        return torch.cat(
            [
                part[0],
                autocontrast(part[1]),
                equalize(part[2]),
                solarize(part[3], _between(v[3], SOLARIZE) / 255),
                posterize(part[4], _between(v[4], POSTERIZE).floor()),
                sharpen(part[5], _between(v[5], ENHANCE)),
                jitter_lerp(blended, kind, _between(u[6 * share : 9 * share], ENHANCE)),
                warp(moved, self.matrices(u[9 * share :], *images.shape[-2:]), mode="nearest"),
            ]
        )

    def matrices(self, u: Tensor, height: int, width: int) -> Tensor:
        """Return the maps of the five geometric operations, an equal share of `u` (n,) each."""
        amount = (2 * u - 1).unflatten(0, (5, -1))
        alone = torch.zeros(5, 5, amount.shape[1], dtype=u.dtype, device=u.device)
        rotate, *rest = torch.diagonal_scatter(alone, amount.mT).flatten(1)
        shear, shift = (torch.stack(pair, dim=1) for pair in (rest[:2], rest[2:]))
        return corner_matrix(torch.deg2rad(ROTATE * rotate), self.shear * shear, self.translate * shift, height, width)
