"""Augmentation of whole batches on their device, with parameters of its own for every image.

Images come in as uint8 (n, c, h, w), c = 1 or 3, and leave as floats (n, c, s, s) of torch's default type; between
the steps they are in [0, 1]. (Stored arrays are (n, h, w, c): transpose them once, when they are made resident.)
A pipeline is data, a list of steps in order::

    build_pipeline(
        [
            {"op": "random_resized_crop", "size": 28, "scale": [0.2, 1.0]},
            {"op": "color_jitter", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8},
            {"op": "grayscale", "p": 0.25},
            {"op": "normalize"},
        ],
        mean=[0.4914, 0.4822, 0.4465],
        std=[0.2023, 0.1994, 0.2010],
    )

Every step draws one block of uniform numbers whose shape depends on the batch size alone, never on the images or
on earlier draws. So the views are a function of the generator, and the number of draws is always the same.

The steps do what torchvision's of the same name do to one float image. Differences, each deliberate:

- No rounding to 8 bits between the steps, which PIL images imply.
- The order of colour jitter is drawn per image: brightness, contrast and saturation in a random order, and hue at
  one of the four places, each place taken by a random quarter of the batch (so the exact hue is computed once an
  image and not four times). An image's order is uniform over the 24; images differ independently but for the
  equal quarters. A batch of fewer than four images does not fill them all.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from dica.files import UserError

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R 601, the digits torchvision uses
CROP_ATTEMPTS = 10


# Functions: images and explicit parameters in, images out.


def crop_resize(images: Tensor, boxes: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """Cut one box out of each image and resize it to (size, size), antialiased bilinear.

    Two batched matrix products with per-image interpolation weights, without a loop or a gather.

    Parameters
    ----------
    images
        (n, c, h, w) floats.
    boxes
        (n, 4): top, left, height, width in pixels, inside the image.
    flip
        (n,) booleans: mirror the result left to right.
    """
    top, left, height, width = boxes.to(images.dtype).unbind(1)
    rows = _resize_weights(images.shape[-2], top, height, size)
    columns = _resize_weights(images.shape[-1], left, width, size)
    if flip is not None:
        columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    return _apply_matrices(images, rows, columns)


def resize(images: Tensor, size: int) -> Tensor:
    """Resize so that the shorter side is `size`, antialiased bilinear, keeping the aspect ratio."""
    height, width = images.shape[-2:]
    short = min(height, width)
    if short == size:
        return images
    new = (size * height // short, size * width // short)
    rows, columns = (
        _resize_weights(old, images.new_zeros(1), images.new_full((1,), old), out)
        for old, out in zip((height, width), new, strict=True)
    )
    return rows[0] @ (images @ columns[0].mT)


def crop(images: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Cut a (size, size) window out of each image; `top` and `left` are (n,) integers."""
    offsets = torch.arange(size, device=images.device)
    rows, columns = top[:, None] + offsets, left[:, None] + offsets
    samples = torch.arange(len(images), device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return images[samples, channels, rows[:, None, :, None], columns[:, None, None, :]]


def rgb_to_grey(images: Tensor) -> Tensor:
    """Return luminance (n, 1, h, w); a one-channel image is its own."""
    if images.shape[1] == 1:
        return images
    weights = _constant(GREY_WEIGHTS, images)
    return (weights @ images.flatten(2)).view(len(images), 1, *images.shape[2:])


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of RGB images in [0, 1] by `shift` (n,), in turns; exact in HSV.

    Value and chroma stay. With V the largest and C the range of the channels and h the hue in turns, a channel is
    V - C clamp(2 - 6 |d|, 0, 1), where d is h + o less its nearest integer and o = 1/2, 1/6, -1/6 for red, green,
    blue. (The in-place steps are for the CPU, where this is the dearest part of a pipeline.)
    """
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    scale = chroma.clamp_min(torch.finfo(images.dtype).tiny).mul_(6).reciprocal_()
    hue = torch.where(
        value == red,
        (green - blue).mul_(scale),
        torch.where(value == green, (blue - red).mul_(scale).add_(1 / 3), (red - green).mul_(scale).add_(2 / 3)),
    )
    hue += shift[:, None, None]
    distance = hue[:, None] + _constant((1 / 2, 1 / 6, -1 / 6), images)[:, None, None]
    distance -= distance.round()
    weight = distance.abs_().mul_(-6).add_(2).clamp_(0, 1)
    return weight.mul_(-chroma[:, None]).add_(value[:, None])


def jitter_lerp(images: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """Move images away from or towards a target: target + factor * (image - target), clamped to [0, 1].

    Parameters
    ----------
    kind
        (n,) integers: 0 brightness (target black), 1 contrast (mean luminance), 2 saturation (luminance).
    factor
        (n,) non-negative; 1 changes nothing.
    """
    grey = rgb_to_grey(images)
    mean = grey.mean((1, 2, 3), keepdim=True)
    kind = kind[:, None, None, None]
    if images.shape[1] == 1:
        factor = torch.where(kind[:, 0, 0, 0] == 2, 1.0, factor)  # without colour there is nothing to saturate
    factor = factor[:, None, None, None]
    target = torch.addcmul(mean * ((kind == 1) * (1 - factor)), grey, (kind == 2) * (1 - factor))
    return torch.addcmul(target, images, factor).clamp_(0, 1)


def gaussian_blur(images: Tensor, sigma: Tensor, kernel_size: int, apply: Tensor | None = None) -> Tensor:
    """Blur each image with its own sigma (n,), reflecting at the border.

    Parameters
    ----------
    kernel_size
        Odd; its half must be smaller than the image.
    apply
        (n,) booleans: the others are left as they are.
    """
    radius = kernel_size // 2
    steps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    taps = torch.exp(-0.5 * (steps / sigma[:, None]) ** 2)
    taps = taps / taps.sum(1, keepdim=True)
    if apply is not None:
        taps = torch.where(apply[:, None], taps, (steps == 0).to(taps))
    rows, columns = (_convolution_matrix(taps, length) for length in images.shape[-2:])
    return _apply_matrices(images, rows, columns)


def warp(images: Tensor, matrix: Tensor, nearest_fill: bool = False, mode: str = "bilinear") -> Tensor:
    """Sample each image at `matrix` times the output position.

    Parameters
    ----------
    matrix
        (n, 2, 3): maps output (x, y, 1) to input (x, y), in pixels from the image's centre.
    nearest_fill
        Outside the image: the nearest border pixel if true, else zero.
    mode
        `bilinear` or `nearest`.
    """
    height, width = images.shape[-2:]
    half = _constant((width / 2, height / 2), matrix)
    # affine_grid counts in half image sizes: rescale both ends of the map
    theta = torch.cat([matrix[:, :, :2] * half / half[:, None], matrix[:, :, 2:] / half[:, None]], dim=2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    fill = "border" if nearest_fill else "zeros"
    return F.grid_sample(images, grid, mode=mode, padding_mode=fill, align_corners=False)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel of each image to the whole of [0, 1]; a flat channel stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    flat = high <= low
    return torch.where(flat, images, (images - low) / torch.where(flat, 1.0, high - low))


def equalize(images: Tensor) -> Tensor:
    """Equalise the histogram of each channel at 256 levels, as PIL does.

    With `below` the number of darker pixels and `step` = (pixels below the brightest level) // 255, a pixel goes to
    level (below + step // 2) // step. If the step is 0, as for images of fewer than 256 pixels, nothing changes.
    """
    levels = images.mul(255).round().flatten(2)
    below = torch.searchsorted(levels.sort(dim=2).values, levels)
    step = below.amax(2, keepdim=True) // 255
    found = ((below + step // 2) // step.clamp_min(1)).clamp_max(255).to(images.dtype).div(255)
    return torch.where(step[..., None] == 0, images, found.view_as(images))


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the pixels at or above `threshold` (n,), in [0, 1] or beyond."""
    return torch.where(images >= threshold[:, None, None, None], 1 - images, images)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the leading `bits` (n,) of the 8 bits of each pixel."""
    size = torch.exp2(8 - bits.to(images.dtype))[:, None, None, None]
    return torch.floor(images.mul(255).round() / size) * size / 255


def sharpen(images: Tensor, factor: Tensor) -> Tensor:
    """Move images from a smoothed copy (factor 0) to themselves (1) and beyond; `factor` is (n,).

    The kernel is [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13; the outermost pixels stay. Images have 3 x 3 pixels or more.
    """
    kernel = _constant((1.0, 1.0, 1.0, 1.0, 5.0, 1.0, 1.0, 1.0, 1.0), images).view(1, 1, 3, 3) / 13
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = F.conv2d(images.flatten(0, 1)[:, None], kernel).view(*images.shape[:2], *_inner(images))
    return torch.addcmul(smooth, images - smooth, factor[:, None, None, None]).clamp_(0, 1)


def _inner(images: Tensor) -> tuple[int, int]:
    return images.shape[2] - 2, images.shape[3] - 2


@functools.lru_cache(maxsize=256)
def _cached(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def _constant(values: tuple[float, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a small constant on the device of `like`; made once, because each copy to a GPU waits for it."""
    return _cached(values, dtype or like.dtype, like.device)


def _resize_weights(length: int, start: Tensor, extent: Tensor, out: int) -> Tensor:
    """Return (n, out, length) triangle-filter weights that resize [start, start + extent) to `out` pixels."""
    pixel = torch.arange(length, device=start.device, dtype=start.dtype) + 0.5
    step = (extent / out)[:, None]
    centre = (torch.arange(out, device=start.device, dtype=start.dtype) + 0.5) * step
    support = step.clamp_min(1.0)[..., None]
    position = (pixel - start[:, None])[:, None]  # within the box
    weights = (position - centre[..., None]).abs_().div_(support).neg_().add_(1).clamp_(min=0)
    weights *= (position > 0) & (position < extent[:, None, None])  # pixels beyond the box do not bleed in
    return weights.div_(weights.sum(-1, keepdim=True))


def _apply_matrices(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return rows @ image @ columns^T for each image and channel; rows (n, a, h), columns (n, b, w)."""
    n, c, h, w = images.shape
    along_width = torch.bmm(images.reshape(n, c * h, w), columns.mT).view(n, c, h, -1)
    return torch.matmul(rows[:, None], along_width)


def _convolution_matrix(taps: Tensor, length: int) -> Tensor:
    """Return (n, length, length) matrices that apply centred kernels (n, k) with reflection at both ends."""
    radius = taps.shape[1] // 2
    position = torch.arange(length, device=taps.device)
    source = position[None] + torch.arange(-radius, radius + 1, device=taps.device)[:, None]
    source = (length - 1) - ((length - 1) - source.abs()).abs()
    picks = (source[..., None] == position).to(taps.dtype)  # (k, out, in)
    return (taps @ picks.flatten(1)).view(-1, length, length)


# Steps: a frozen record of the settings, called with images and a generator.


def _uniform(generator: Generator, images: Tensor, columns: int, rows: int | None = None) -> Tensor:
    """Draw (n or `rows`, columns) numbers in [0, 1) where the generator lives and bring them to the images."""
    drawn = torch.rand(rows or len(images), columns, generator=generator, device=generator.device)
    return drawn.to(images.device, non_blocking=True)


def _between(u: Tensor, bounds: Sequence[float]) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * u


@dataclass(frozen=True)
class RandomResizedCrop:
    """A crop of random area (fraction `scale`) and aspect `ratio`, resized to `size`; mirrored with `flip_p`.

    Ten candidates are drawn and the first that fits is taken; if none does, the central crop of the nearest
    allowed ratio.
    """

    size: int
    scale: Sequence[float] = (0.08, 1.0)
    ratio: Sequence[float] = (3 / 4, 4 / 3)
    flip_p: float = 0.0

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        u = _uniform(generator, images, 2 * CROP_ATTEMPTS + 3)
        boxes = self.boxes(u[:, :-1], *images.shape[-2:])
        return crop_resize(images, boxes, self.size, u[:, -1] < self.flip_p if self.flip_p else None)

    def boxes(self, u: Tensor, height: int, width: int) -> Tensor:
        """Turn uniform numbers (n, 22) into boxes (n, 4): top, left, height, width."""
        area = height * width * _between(u[:, :CROP_ATTEMPTS], self.scale)
        log_ratio = [math.log(r) for r in self.ratio]
        ratio = torch.exp(_between(u[:, CROP_ATTEMPTS : 2 * CROP_ATTEMPTS], log_ratio))
        w, h = torch.round(torch.sqrt(area * ratio)), torch.round(torch.sqrt(area / ratio))
        fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
        first = fits.to(torch.int8).argmax(1, keepdim=True)  # argmax of booleans: the first true
        found = fits.any(1)
        fallback_h, fallback_w = self._fallback(height, width)
        h = torch.where(found, h.gather(1, first)[:, 0], fallback_h)
        w = torch.where(found, w.gather(1, first)[:, 0], fallback_w)
        top = torch.where(found, torch.floor(u[:, -2] * (height - h + 1)), (height - fallback_h) // 2)
        left = torch.where(found, torch.floor(u[:, -1] * (width - w + 1)), (width - fallback_w) // 2)
        return torch.stack([top, left, h, w], dim=1)

    def _fallback(self, height: int, width: int) -> tuple[int, int]:
        if width / height < self.ratio[0]:
            return round(width / self.ratio[0]), width
        if width / height > self.ratio[1]:
            return height, round(height * self.ratio[1])
        return height, width


@dataclass(frozen=True)
class Resize:
    """Resize the shorter side to `size`."""

    size: int

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        return resize(images, self.size)


@dataclass(frozen=True)
class CenterCrop:
    """The central (size, size) window."""

    size: int

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        height, width = images.shape[-2:]
        _need_size("center_crop", self.size, height, width)
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return images[..., top : top + self.size, left : left + self.size]


@dataclass(frozen=True)
class RandomCrop:
    """A (size, size) window at a random place, after padding each side by `padding`."""

    size: int
    padding: int = 0
    padding_mode: str = "constant"

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        u = _uniform(generator, images, 2)
        if self.padding:
            images = F.pad(images, [self.padding] * 4, mode=self.padding_mode)
        height, width = images.shape[-2:]
        _need_size("random_crop", self.size, height, width)
        room = _constant((height - self.size + 1.0, width - self.size + 1.0), u)
        top, left = (u * room).long().unbind(1)
        return crop(images, top, left, self.size)


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirror left to right with probability `p`."""

    p: float = 0.5

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        flip = _uniform(generator, images, 1) < self.p
        return torch.where(flip[:, :, None, None], images.flip(-1), images)


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue in random order, all or none with probability `p`.

    The first three are factors in [max(0, 1 - x), 1 + x], the hue shift is in [-hue, hue] turns. One-channel
    images get brightness and contrast only.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    p: float = 1.0

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        u = _uniform(generator, images, 9)
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
class Grayscale:
    """Replace the colours by luminance with probability `p`, keeping three channels."""

    p: float = 1.0

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        chosen = _uniform(generator, images, 1) < self.p
        return torch.where(chosen[:, :, None, None], rgb_to_grey(images), images)


@dataclass(frozen=True)
class GaussianBlur:
    """Blur with probability `p` and a sigma drawn uniformly from `sigma` (pixels)."""

    kernel_size: int
    sigma: Sequence[float] = (0.1, 2.0)
    p: float = 1.0

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        u = _uniform(generator, images, 2)
        _need_size("gaussian_blur", self.kernel_size // 2 + 1, *images.shape[-2:])
        return gaussian_blur(images, _between(u[:, 0], self.sigma), self.kernel_size, u[:, 1] < self.p)


@dataclass(frozen=True)
class Affine:
    """Rotation (degrees, either way), shift (fraction of the size), scale (above 1 enlarges) and x-shear (degrees).

    Bilinear, about the centre; outside is zero (`fill: zeros`) or the border (`fill: nearest`).
    """

    rotation: float = 0.0
    shift: float = 0.0
    scale: Sequence[float] = (1.0, 1.0)
    shear: float = 0.0
    fill: str = "zeros"
    p: float = 1.0

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        u = _uniform(generator, images, 6)
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
class KerasAffine:
    """The geometric part of Keras' ImageDataGenerator, channels first, as DCCM uses it.

    Rotation in +-`rotation` degrees, shifts in +-`shift` of the size, zoom factors of both axes drawn apart from
    `zoom` (below 1 enlarges); border pixels fill the outside. `interpolation: nearest` is what Keras did at the time
    of DCCM. Unlike Keras, which was a pixel off, it turns about the true centre.
    """

    rotation: float = 0.0
    shift: float = 0.0
    zoom: Sequence[float] = (1.0, 1.0)
    interpolation: str = "nearest"

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        u = _uniform(generator, images, 5)
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


@dataclass(frozen=True)
class ChannelShift:
    """Add to every channel its own number in +-`amount`, clipped to the range the image had (Keras' semantics)."""

    amount: float

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        added = (2 * _uniform(generator, images, images.shape[1]) - 1) * self.amount
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        return torch.clamp(images + added[:, :, None, None], low, high)


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
class RandAugment:
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

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        share = -(-len(images) // len(RAND_AUGMENT_OPS))  # rounded up: some slots have no image of their own
        slots = share * len(RAND_AUGMENT_OPS)
        for turn in _uniform(generator, images, 3 * self.count, rows=slots).split(3, dim=1):
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


@dataclass(frozen=True)
class Cutout:
    """Set one square to 0, its side about a whole number drawn from 1 to `size`, its centre anywhere in the image.

    As in SCAN: from centre - side // 2 to centre + side // 2, so that a side of 1 changes nothing. After `normalize`
    the square has the mean colour.
    """

    size: int

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        u = _uniform(generator, images, 3)
        half = torch.floor(1 + u[:, 0] * self.size) // 2
        inside = []
        for draw, length in zip(u[:, 1:].unbind(1), images.shape[-2:], strict=True):
            offset = torch.arange(length, device=images.device) - torch.floor(draw * length)[:, None]
            inside.append((offset >= -half[:, None]) & (offset < half[:, None]))
        hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return torch.where(hole, 0.0, images)


@dataclass(frozen=True)
class Rescale:
    """Multiply by `factor`."""

    factor: float

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        return images * self.factor


@dataclass(frozen=True)
class Normalize:
    """Subtract the mean and divide by the standard deviation of each channel."""

    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        mean, std = (_constant(x, images)[:, None, None] for x in (self.mean, self.std))
        return (images - mean) / std


OPS = {
    "random_resized_crop": RandomResizedCrop,
    "resize": Resize,
    "center_crop": CenterCrop,
    "random_crop": RandomCrop,
    "horizontal_flip": HorizontalFlip,
    "color_jitter": ColorJitter,
    "grayscale": Grayscale,
    "gaussian_blur": GaussianBlur,
    "affine": Affine,
    "keras_affine": KerasAffine,
    "channel_shift": ChannelShift,
    "rand_augment": RandAugment,
    "cutout": Cutout,
    "rescale": Rescale,
    "normalize": Normalize,
}


@dataclass(frozen=True)
class Pipeline:
    """Steps applied in order; made by `build_pipeline`."""

    steps: tuple[Any, ...]

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return one view of every image.

        Parameters
        ----------
        images
            (n, c, h, w) uint8.
        generator
            Made for this view alone; faster on the images' own device.

        Returns
        -------
        Tensor
            (n, c, h', w') floats of torch's default type on the images' device.
        """
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
            raise UserError(f"images: need uint8 (n, 1 or 3, h, w), got {images.dtype} of shape {tuple(images.shape)}")
        # bfloat16 products would cost more than the rounding to 8 bits that the images come with
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            images = images.to(torch.get_default_dtype()).div_(255)
            for step in self.steps:
                images = step(images, generator)
        return images

    def views(self, images: Tensor, generator: Generator, count: int) -> Tensor:
        """Return `count` views of every image in one pass, (count, n, c, h', w').

        On a GPU the number of launches is then that of one view; on a CPU it saves time for small images.
        """
        repeated = images.repeat(count, 1, 1, 1)
        return self(repeated, generator).unflatten(0, (count, len(images)))


def build_pipeline(
    spec: Sequence[Mapping[str, Any]],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Pipeline:
    """Turn a list of steps into a pipeline.

    Parameters
    ----------
    spec
        Mappings with a key `op` (a key of `OPS`) and the settings of that step.
    mean, std
        What `normalize` uses, one number a channel.

    Raises
    ------
    UserError
        For an unknown step or key, a missing key or a value out of range; the message names the allowed ones.
    """
    return Pipeline(tuple(_build_step(step, mean, std) for step in spec))


def _build_step(step: Mapping[str, Any], mean: Sequence[float] | None, std: Sequence[float] | None) -> Any:
    if not isinstance(step, Mapping):
        raise UserError(f"augmentation: a step is a mapping with the key op, got {step!r}")
    settings = dict(step)
    name = settings.pop("op", None)
    if name not in OPS:
        raise UserError(f"augmentation: op {name!r} is not one of {', '.join(OPS)}")
    if name == "normalize":
        if settings:
            raise UserError(f"augmentation: normalize takes no keys, got {', '.join(settings)}")
        if mean is None or std is None or len(mean) != len(std):
            raise UserError("augmentation: normalize needs a mean and a std of the data set, of one length")
        return Normalize(tuple(mean), tuple(std))
    fields = dataclasses.fields(OPS[name])
    allowed = [field.name for field in fields]
    for key in settings:
        if key not in allowed:
            raise UserError(f"augmentation: {name} has no key {key!r}; allowed: {', '.join(allowed)}")
    for field in fields:
        if field.default is dataclasses.MISSING and field.name not in settings:
            raise UserError(f"augmentation: {name} needs the key {field.name!r}")
    for key, value in settings.items():
        _check_value(name, key, value)
    return OPS[name](**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


_CHOICES = {
    "fill": ("zeros", "nearest"),
    "interpolation": ("nearest", "bilinear"),
    "padding_mode": ("constant", "reflect"),
}


def _check_value(name: str, key: str, value: Any) -> None:
    """Raise UserError if `value` is not what `key` can hold."""
    if key in _CHOICES:
        good, want = value in _CHOICES[key], f"one of {', '.join(_CHOICES[key])}"
    elif key in ("scale", "ratio", "sigma", "zoom"):
        good = isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))
        good, want = good and 0 < value[0] <= value[1], "[low, high] with 0 < low <= high"
    elif key in ("size", "kernel_size", "count"):
        good, want = type(value) is int and value > 0, "a whole number above 0"
        if key == "kernel_size":
            good, want = good and value % 2 == 1, "an odd whole number"
    elif key == "padding":
        good, want = type(value) is int and value >= 0, "a whole number, 0 or more"
    elif key in ("p", "flip_p"):
        good, want = _is_number(value) and 0 <= value <= 1, "a probability in [0, 1]"
    elif key == "hue":
        good, want = _is_number(value) and 0 <= value <= 0.5, "a number in [0, 0.5]"
    else:
        good, want = _is_number(value) and value >= 0, "a number, 0 or more"
    if not good:
        raise UserError(f"augmentation: {name}: {key} is {value!r} but must be {want}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _need_size(name: str, size: int, height: int, width: int) -> None:
    if min(height, width) < size:
        raise UserError(f"augmentation: {name} needs images of {size} px or more, got {height}x{width}")
