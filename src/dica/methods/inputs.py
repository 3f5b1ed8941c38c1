"""What a method without a network clusters: pixels, or simple features of them, as they are or rescaled.

Two choices, because each moves the numbers of K-means by more than its seeds do: `map`, which numbers stand for an
image, and `scale`, what is done to them over the whole training set.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional as F

from dica.files import UserError
from dica.rng import generator
from dica.views.pixels import rgb_to_grey, stretch
from dica.views.whole import squares

PART, PART_SIDE = 1000, 32  # images at a time, of that side; fewer of larger ones, as filters need room for each pixel
LEVELS = 8  # of each channel in a colour histogram
FILTERS, KERNEL = 512, 5
FEATURES = "features"  # rows of numbers that another program has computed (`dica.data.features`), not shades of 255
LEAST_SPREAD = 1e-8  # a constant image or feature stays at zero


def image_standardised(images: Tensor) -> Tensor:
    """Return each image with mean 0 and standard deviation 1 over all its numbers, (n, C h w)."""
    flat = images.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    return flat / flat.std(dim=1, keepdim=True, correction=0).clamp(min=LEAST_SPREAD)


def histogram(images: Tensor) -> Tensor:
    """Return the shares of an image's pixels in the cells of a colour cube, `LEVELS` a channel: (n, LEVELS ** C)."""
    levels = (images * LEVELS).long().clamp(max=LEVELS - 1)
    place = sum(levels[:, channel] * LEVELS**channel for channel in range(images.shape[1]))
    pixels = place.flatten(1)
    counts = images.new_zeros(len(images), LEVELS ** images.shape[1])
    return counts.scatter_add_(1, pixels, images.new_ones(()).expand_as(pixels)) / pixels.shape[1]


MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "pixels": lambda images: images.flatten(1),
    "grey": lambda images: rgb_to_grey(images)[:, :1].flatten(1) if images.shape[1] == 3 else images.flatten(1),
    "image-standardised": image_standardised,
    "histogram": histogram,
    "histogram-root": lambda images: histogram(images).sqrt(),
    "mean-colour": lambda images: images.mean(dim=(2, 3)),
    FEATURES: lambda rows: rows.flatten(1),
}
SCALES = ("as-is", "standardised", "pca", "whitened")


class Inputs(nn.Module):
    """A map from images to points, fitted to the training images where it has something to fit.

    Parameters
    ----------
    map
        A name in `MAPS` (`features` takes float32 images of one pixel as they are), or `filters`: the mean response
        of `FILTERS` random filters after a ReLU.
    scale
        `as-is`; `standardised` (each number to mean 0 and deviation 1 over the images); `pca` (its leading principal
        components); `whitened` (the same, each with variance 1).
    components
        Number of principal components.
    channels, size
        Of the images.
    """

    def __init__(
        self, channels: int, size: int, map: str = "pixels", scale: str = "as-is", components: int = 50
    ) -> None:
        super().__init__()
        self.size = size
        self.dtype, self.largest = (torch.float32, 1) if map == FEATURES else (torch.uint8, 255)
        self.scale, self.map = scale, self._filtered if map == "filters" else MAPS[map]
        self.register_buffer("filters", torch.zeros(FILTERS if map == "filters" else 0, channels, KERNEL, KERNEL))
        width = self.map(torch.zeros(1, channels, size, size)).shape[1]
        reduced = scale in ("pca", "whitened")
        if reduced and components > width:
            raise UserError(f"inputs.components: {components}, but {map} gives {width} numbers an image")
        self.width = self.out_features = components if reduced else width
        self.register_buffer("center", torch.zeros(0 if scale == "as-is" else width))
        self.register_buffer("matrix", torch.zeros(width, components) if reduced else torch.zeros(len(self.center)))

    def fit(self, images: Tensor, seed: int) -> Tensor:
        """Draw and fit what there is to draw and fit on uint8 images (n, C, h, w); return their points (n, width)."""
        if len(self.filters):
            drawn = torch.randn(self.filters.shape, generator=generator(seed, "filters"))
            self.filters.copy_(drawn / drawn.flatten(1).norm(dim=1)[:, None, None, None])
        points = self._mapped(images)
        if self.scale == "standardised":
            self.center.copy_(points.mean(dim=0))
            self.matrix.copy_(points.std(dim=0, correction=0).clamp(min=LEAST_SPREAD).reciprocal())
        elif self.scale != "as-is":
            if len(points) < self.width:
                raise UserError(f"inputs.components: {self.width}, but there are {len(points)} images; lower it")
            fitted = PCA(self.width, svd_solver="covariance_eigh").fit(points.cpu().double().numpy())
            rows = torch.from_numpy(fitted.components_)
            if self.scale == "whitened":
                rows = rows / torch.from_numpy(fitted.explained_variance_).clamp(min=LEAST_SPREAD).sqrt()[:, None]
            self.center.copy_(torch.from_numpy(fitted.mean_))
            self.matrix.copy_(rows.T)
        return torch.cat([self._scaled(part) for part in points.split(PART)])  # as `forward`, to the last bit

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the points (n, width) of uint8 images (n, C, h, w)."""
        return self._scaled(self._mapped(images))

    @torch.no_grad()
    def _mapped(self, images: Tensor) -> Tensor:
        at_once = min(PART, max(1, PART * PART_SIDE**2 // self.size**2))
        parts = (part.to(self.center.device).float() / self.largest for part in images.split(at_once))
        return torch.cat([self.map(self._sized(part)) for part in parts])

    def _sized(self, images: Tensor) -> Tensor:
        return stretch(squares(images), self.size)

    def _scaled(self, points: Tensor) -> Tensor:
        if self.scale == "as-is":
            return points
        moved = points - self.center
        return moved * self.matrix if self.scale == "standardised" else moved @ self.matrix

    def _filtered(self, images: Tensor) -> Tensor:
        return F.conv2d(images - 0.5, self.filters).relu().mean(dim=(2, 3))
