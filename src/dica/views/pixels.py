"""Operations on batches of images with explicit parameters, one per image: images in, images out."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R 601, the digits torchvision uses


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
    return _resized(images, (size * height // short, size * width // short))


def stretch(images: Tensor, size: int) -> Tensor:
    """Resize both sides to `size`, antialiased bilinear."""
    return images if images.shape[-2:] == (size, size) else _resized(images, (size, size))


def _resized(images: Tensor, new: tuple[int, int]) -> Tensor:
    rows, columns = (
        _resize_weights(old, images.new_zeros(1), images.new_full((1,), old), out)
        for old, out in zip(images.shape[-2:], new, strict=True)
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
    dtype = dtype or like.dtype
    if torch.compiler.is_compiling():  # part of the compiled function: filled where it is used
        return torch.stack([torch.full((), value, dtype=dtype, device=like.device) for value in values])
    return _cached(values, dtype, like.device)


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
    read = position[None] + torch.arange(-radius, radius + 1, device=taps.device)[:, None]
    read = (length - 1) - ((length - 1) - read.abs()).abs()
    picks = (read[..., None] == position).to(taps.dtype)  # (k, out, in)
    return (taps @ picks.flatten(1)).view(-1, length, length)
