"""An encoder and the decoder that mirrors it: convolutions that halve the image, or fully connected layers.

The two of auto-encoders, and in the other order the two of generative adversarial networks (Radford, Metz and Chintala,
ICLR 2016): a convolution of 4x4 with stride 2 in the encoder is a transposed one of the same shape in the decoder.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from dica.files import UserError

SLOPE = 0.2  # of the leaky ReLU in adversarial networks


class Encoder(nn.Module):
    """Images (n, c, size, size) to codes (n, code).

    Parameters
    ----------
    widths
        Channels of each convolution, or units of each hidden layer.
    dense
        Fully connected layers on flattened pixels, instead of convolutions.
    leaky
        Leaky ReLU instead of ReLU.
    """

    def __init__(
        self, channels: int, size: int, widths: Sequence[int], code: int, dense: bool = False, leaky: bool = False
    ) -> None:
        super().__init__()
        self.dense = dense
        if dense:
            layers = [nn.Flatten(), *_hidden(channels * size**2, widths, leaky)]
            inside = widths[-1]
        else:
            layers = []
            for index, (inputs, outputs) in enumerate(itertools.pairwise((channels, *widths))):
                layers.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1))
                layers += [nn.BatchNorm2d(outputs)] if index else []  # not on the first layer, as in DCGAN
                layers.append(nn.LeakyReLU(SLOPE) if leaky else nn.ReLU())
            inside = widths[-1] * map_side(size, widths) ** 2
        self.body = nn.Sequential(*layers)
        self.code = nn.Linear(inside, code)

    def forward(self, images: Tensor) -> Tensor:
        """Map (n, c, size, size) to (n, code)."""
        return self.code(self.body(images).flatten(1))


class Decoder(nn.Module):
    """Codes (n, code) to logits of images (n, c, size, size); the layers of `Encoder` backwards."""

    def __init__(self, channels: int, size: int, widths: Sequence[int], code: int, dense: bool = False) -> None:
        super().__init__()
        reverse = tuple(reversed(widths))
        if dense:
            last = nn.Linear(reverse[-1], channels * size**2)
            self.body = nn.Sequential(*_hidden(code, reverse), last, nn.Unflatten(1, (channels, size, size)))
            return
        side = map_side(size, widths)
        layers: list[nn.Module] = [nn.Linear(code, reverse[0] * side**2), nn.Unflatten(1, (reverse[0], side, side))]
        for inputs, outputs in itertools.pairwise((*reverse, channels)):
            layers += [nn.BatchNorm2d(inputs), nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)]
        self.body = nn.Sequential(*layers)

    def forward(self, codes: Tensor) -> Tensor:
        """Map (n, code) to (n, c, size, size)."""
        return self.body(codes)


def map_side(size: int, widths: Sequence[int]) -> int:
    """Return the side of the last map, after one halving for each of `widths`.

    Raises
    ------
    UserError
        If the images cannot be halved so often.
    """
    side, rest = divmod(size, 2 ** len(widths))
    if rest or not side:
        raise UserError(f"widths: images of {size} pixels cannot be halved {len(widths)} times; give fewer widths")
    return side


def _hidden(inputs: int, widths: Sequence[int], leaky: bool = False) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise((inputs, *widths)):
        layers += [nn.Linear(before, after), nn.LeakyReLU(SLOPE) if leaky else nn.ReLU()]
    return layers
