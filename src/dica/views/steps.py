"""The steps of a pipeline: each turns uniform numbers into its parameters and applies an operation of
`dica.views.pixels`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from dica.files import UserError
from dica.views.pixels import (
    _constant,
    adjust_hue,
    crop,
    crop_resize,
    gaussian_blur,
    jitter_lerp,
    resize,
    rgb_to_grey,
    stretch,
    warp,
)

CROP_ATTEMPTS = 10
NO_NUMBERS = torch.empty(0)


class Step:
    """A step: a function of images (n, c, h, w) and of the uniform numbers that it asks for.

    Attributes
    ----------
    columns : how many numbers it takes an image
    """

    columns: ClassVar[int] = 0

    def shape(self, count: int, channels: int) -> tuple[int, int]:
        """Return the rows and columns of the numbers that it takes for so many images."""
        return count, self.columns

    def draw(self, images: Tensor, generator: Generator) -> Tensor:
        """Draw its numbers, in [0, 1), where the generator lives and bring them to the images."""
        rows, columns = self.shape(*images.shape[:2])
        if not columns:
            return NO_NUMBERS
        drawn = torch.rand(rows, columns, generator=generator, device=generator.device)
        return drawn.to(images.device, non_blocking=True)

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return the changed images; `u` are the numbers that `draw` has drawn."""
        raise NotImplementedError


def _column(side: int | Tensor) -> int | Tensor:
    return side[:, None] if isinstance(side, Tensor) else side


def _between(u: Tensor, bounds: Sequence[float]) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * u


@dataclass(frozen=True)
class RandomResizedCrop(Step):
    """A crop of random area (fraction `scale`) and aspect `ratio`, resized to `size`; mirrored with `flip_p`.

    Ten candidates are drawn and the first that fits is taken; if none does, the central crop of the nearest
    allowed ratio.
    """

    columns: ClassVar[int] = 2 * CROP_ATTEMPTS + 3
    size: int
    scale: Sequence[float] = (0.08, 1.0)
    ratio: Sequence[float] = (3 / 4, 4 / 3)
    flip_p: float = 0.0

    def __call__(self, images: Tensor, u: Tensor, sides: Tensor | None = None) -> Tensor:
        """Return the crops; `sides` (n, 2) are the heights and widths of whole pictures stored as squares."""
        if sides is None:
            boxes = self.boxes(u[:, :-1], *images.shape[-2:])
        else:
            boxes = self.boxes(u[:, :-1], *sides.unbind(1)) * (images.shape[-1] / sides).repeat(1, 2)
        return crop_resize(images, boxes, self.size, u[:, -1] < self.flip_p if self.flip_p else None)

    def boxes(self, u: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
        """Turn uniform numbers (n, 22) into boxes (n, 4): top, left, height, width; of images of one shape or (n,)."""
        fallback_h, fallback_w = self._fallback(height, width)
        area = _column(height) * _column(width) * _between(u[:, :CROP_ATTEMPTS], self.scale)
        log_ratio = [math.log(r) for r in self.ratio]
        ratio = torch.exp(_between(u[:, CROP_ATTEMPTS : 2 * CROP_ATTEMPTS], log_ratio))
        w, h = torch.round(torch.sqrt(area * ratio)), torch.round(torch.sqrt(area / ratio))
        fits = (w > 0) & (w <= _column(width)) & (h > 0) & (h <= _column(height))
        first = fits.to(torch.int8).argmax(1, keepdim=True)  # argmax of booleans: the first true
        found = fits.any(1)
        h = torch.where(found, h.gather(1, first)[:, 0], fallback_h)
        w = torch.where(found, w.gather(1, first)[:, 0], fallback_w)
        top = torch.where(found, torch.floor(u[:, -2] * (height - h + 1)), (height - fallback_h) // 2)
        left = torch.where(found, torch.floor(u[:, -1] * (width - w + 1)), (width - fallback_w) // 2)
        return torch.stack([top, left, h, w], dim=1)

    def _fallback(self, height: Any, width: Any) -> tuple[Any, Any]:
        if isinstance(height, Tensor):
            low, high = (torch.round(width / self.ratio[0]), torch.round(height * self.ratio[1]))
            return torch.minimum(low, height), torch.minimum(high, width)
        if width / height < self.ratio[0]:
            return round(width / self.ratio[0]), width
        if width / height > self.ratio[1]:
            return height, round(height * self.ratio[1])
        return height, width


@dataclass(frozen=True)
class Resize(Step):
    """Resize the shorter side to `size`."""

    size: int

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        return resize(images, self.size)


@dataclass(frozen=True)
class Stretch(Step):
    """Resize both sides to `size`: all of an image, in other proportions if it is no square."""

    size: int

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        return stretch(images, self.size)


@dataclass(frozen=True)
class CenterCrop(Step):
    """The central (size, size) window."""

    size: int

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        _need_size("center_crop", self.size, height, width)
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return images[..., top : top + self.size, left : left + self.size]

    def corner(self, room: Tensor, u: Tensor) -> Tensor:
        """Return the top left corners (n, 2) in images that are larger than the window by `room` (n, 2)."""
        return torch.round(room / 2)


@dataclass(frozen=True)
class RandomCrop(Step):
    """A (size, size) window at a random place, after padding each side by `padding`."""

    columns: ClassVar[int] = 2
    size: int
    padding: int = 0
    padding_mode: str = "constant"

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        if self.padding:
            images = F.pad(images, [self.padding] * 4, mode=self.padding_mode)
        height, width = images.shape[-2:]
        _need_size("random_crop", self.size, height, width)
        room = _constant((height - self.size + 1.0, width - self.size + 1.0), u)
        top, left = (u * room).long().unbind(1)
        return crop(images, top, left, self.size)

    def corner(self, room: Tensor, u: Tensor) -> Tensor:
        """Return the top left corners (n, 2) in images that are larger than the window by `room` (n, 2)."""
        return torch.floor(u * (room + 1))


@dataclass(frozen=True)
class HorizontalFlip(Step):
    """Mirror left to right with probability `p`."""

    columns: ClassVar[int] = 1
    p: float = 0.5

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        flip = u < self.p
        return torch.where(flip[:, :, None, None], images.flip(-1), images)


@dataclass(frozen=True)
class ColorJitter(Step):
    """Brightness, contrast, saturation and hue in random order, all or none with probability `p`.

    The first three are factors in [max(0, 1 - x), 1 + x], the hue shift is in [-hue, hue] turns. One-channel
    images get brightness and contrast only.
    """

    columns: ClassVar[int] = 9
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    p: float = 1.0

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        apply = u[:, 4:5] < self.p
        ranges = [(max(0.0, 1 - x), 1 + x) for x in (self.brightness, self.contrast, self.saturation)]
        factors = torch.stack([_between(u[:, i], r) for i, r in enumerate(ranges)], dim=1)
        factors = torch.where(apply, factors, 1.0)
        colour = images.shape[1] == 3
        strengths = (self.brightness, self.contrast, self.saturation and colour)
        active = tuple(i for i, x in enumerate(strengths) if x)
        order = u[:, 5 : 5 + len(active)].argsort(1)
        kinds = _constant(active, images, torch.int64)[order]
        if not (self.hue and colour):
            for place in range(len(active)):
                images = self._lerp(images, kinds, factors, place)
            return images
        shift = torch.where(apply[:, 0], _between(u[:, 3], (-self.hue, self.hue)), 0.0)
        groups = u[:, 8].argsort().tensor_split(len(active) + 1)  # who gets the hue before, between, after
        for place, group in enumerate(groups):
            turned = adjust_hue(images[group], shift[group])
            # the first copy leaves the caller's images alone, the later ones work on our own
            images = images.index_copy_(0, group, turned) if place else images.index_copy(0, group, turned)
            if place < len(active):
                images = self._lerp(images, kinds, factors, place)
        return images

    @staticmethod
    def _lerp(images: Tensor, kinds: Tensor, factors: Tensor, place: int) -> Tensor:
        kind = kinds[:, place]
        return jitter_lerp(images, kind, factors.gather(1, kind[:, None])[:, 0])


@dataclass(frozen=True)
class Grayscale(Step):
    """Replace the colours by luminance with probability `p`, keeping three channels."""

    columns: ClassVar[int] = 1
    p: float = 1.0

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        chosen = u < self.p
        return torch.where(chosen[:, :, None, None], rgb_to_grey(images), images)


@dataclass(frozen=True)
class GaussianBlur(Step):
    """Blur with probability `p` and a sigma drawn uniformly from `sigma` (pixels)."""

    columns: ClassVar[int] = 2
    kernel_size: int
    sigma: Sequence[float] = (0.1, 2.0)
    p: float = 1.0

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        _need_size("gaussian_blur", self.kernel_size // 2 + 1, *images.shape[-2:])
        return gaussian_blur(images, _between(u[:, 0], self.sigma), self.kernel_size, u[:, 1] < self.p)


@dataclass(frozen=True)
class Affine(Step):
    """Rotation (degrees, either way), shift (fraction of the size), scale (above 1 enlarges) and x-shear (degrees).

    Bilinear, about the centre; outside is zero (`fill: zeros`) or the border (`fill: nearest`).
    """

    columns: ClassVar[int] = 6
    rotation: float = 0.0
    shift: float = 0.0
    scale: Sequence[float] = (1.0, 1.0)
    shear: float = 0.0
    fill: str = "zeros"
    p: float = 1.0

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        chosen = (u[:, 5] < self.p).to(u.dtype)
        centred = (2 * u - 1) * chosen[:, None]
        angle, shear = (torch.deg2rad(centred[:, i] * x) for i, x in ((0, self.rotation), (3, self.shear)))
        scale = 1 + (_between(u[:, 4], self.scale) - 1) * chosen
        height, width = images.shape[-2:]
        shift = centred[:, 1:3] * self.shift * _constant((float(width), float(height)), u)
        return warp(images, affine_matrix(angle, shift, scale, shear), self.fill == "nearest")


def affine_matrix(angle: Tensor, shift: Tensor, scale: Tensor, shear: Tensor) -> Tensor:
    """Return the (n, 2, 3) map from output to input of torchvision's `affine` (shear along x).

    Parameters
    ----------
    angle, shear
        (n,) radians, clockwise as the image is seen.
    shift
        (n, 2) pixels right and down.
    scale
        (n,) enlargement.
    """
    # forward: scale * rotation(angle) @ [[1, -tan shear], [0, 1]] and then the shift; here is its inverse
    cos, sin, tan = angle.cos(), angle.sin(), shear.tan()
    inverse = torch.stack([cos - tan * sin, sin + tan * cos, -sin, cos], dim=1).view(-1, 2, 2)
    inverse = inverse / scale[:, None, None]
    return torch.cat([inverse, -inverse @ shift[:, :, None]], dim=2)


@dataclass(frozen=True)
class KerasAffine(Step):
    """The geometric part of Keras' ImageDataGenerator, channels first, as DCCM uses it.

    Rotation in +-`rotation` degrees, shifts in +-`shift` of the size, zoom factors of both axes drawn apart from
    `zoom` (below 1 enlarges); border pixels fill the outside. `interpolation: nearest` is what Keras did at the time
    of DCCM. Unlike Keras, which was a pixel off, it turns about the true centre.
    """

    columns: ClassVar[int] = 5
    rotation: float = 0.0
    shift: float = 0.0
    zoom: Sequence[float] = (1.0, 1.0)
    interpolation: str = "nearest"

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        angle = torch.deg2rad(self.rotation * (2 * u[:, 0] - 1))
        height, width = images.shape[-2:]
        shift = (2 * u[:, 1:3] - 1) * self.shift * _constant((float(width), float(height)), u)
        matrix = keras_matrix(angle, shift, _between(u[:, 3:5], self.zoom))
        return warp(images, matrix, nearest_fill=True, mode=self.interpolation)


def keras_matrix(angle: Tensor, shift: Tensor, zoom: Tensor) -> Tensor:
    """Return the (n, 2, 3) map from output to input pixels of Keras: zoom, then shift, then rotation.

    Parameters
    ----------
    angle
        (n,) radians, anticlockwise as the image is seen.
    shift, zoom
        (n, 2) along x and y.
    """
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([cos, sin, -sin, cos], dim=1).view(-1, 2, 2)
    return torch.cat([rotation * zoom[:, None], rotation @ shift[:, :, None]], dim=2)


class _OfChannels(Step):
    """A step that takes a number for each channel of an image."""

    def shape(self, count: int, channels: int) -> tuple[int, int]:
        """Return the rows and columns of its numbers: one for each channel."""
        return count, channels


@dataclass(frozen=True)
class ChannelShift(_OfChannels):
    """Add to every channel its own number in +-`amount`, clipped to the range the image had (Keras' semantics)."""

    amount: float

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        added = (2 * u - 1) * self.amount
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        return torch.clamp(images + added[:, :, None, None], low, high)


@dataclass(frozen=True)
class ChannelShuffle(_OfChannels):
    """Put the channels of each image in a random order; all orders are as likely."""

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        order = u.argsort(dim=1)
        return images.gather(1, order[:, :, None, None].expand_as(images))


def corner_matrix(angle: Tensor, shear: Tensor, shift: Tensor, height: int, width: int) -> Tensor:
    """Return the (n, 2, 3) map from output to input of PIL's rotation about the centre, shear and translation.

    Parameters
    ----------
    angle
        (n,) radians, anticlockwise as the image is seen.
    shear
        (n, 2): x moves by shear[0] times y, y by shear[1] times x, both counted from the top left corner.
    shift
        (n, 2) fractions of the width and the height; the content moves left and up.
    """
    cos, sin = angle.cos(), angle.sin()
    linear = torch.stack([cos, shear[:, 0] - sin, shear[:, 1] + sin, cos], dim=1).view(-1, 2, 2)
    size = _constant((float(width), float(height)), angle)
    return torch.cat([linear, (shift * size + shear * size.flip(0) / 2)[:, :, None]], dim=2)


@dataclass(frozen=True)
class Cutout(Step):
    """Set one square to 0, its side about a whole number drawn from 1 to `size`, its centre anywhere in the image.

    As in SCAN: from centre - side // 2 to centre + side // 2, so that a side of 1 changes nothing. After `normalize`
    the square has the mean colour.
    """

    columns: ClassVar[int] = 3
    size: int

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        half = torch.floor(1 + u[:, 0] * self.size) // 2
        inside = []
        for draw, length in zip(u[:, 1:].unbind(1), images.shape[-2:], strict=True):
            offset = torch.arange(length, device=images.device) - torch.floor(draw * length)[:, None]
            inside.append((offset >= -half[:, None]) & (offset < half[:, None]))
        hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return torch.where(hole, 0.0, images)


@dataclass(frozen=True)
class Rescale(Step):
    """Multiply by `factor`."""

    factor: float

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        return images * self.factor


@dataclass(frozen=True)
class Normalize(Step):
    """Subtract the mean and divide by the standard deviation of each channel."""

    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        mean, std = (_constant(tuple(x), images)[:, None, None] for x in (self.mean, self.std))
        return (images - mean) / std


def _need_size(name: str, size: int, height: int, width: int) -> None:
    if min(height, width) < size:
        raise UserError(f"augmentation: {name} needs images of {size} px or more, got {height}x{width}")
