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

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from dica.data.pipelines import check_step
from dica.files import UserError
from dica.views.rand_augment import RandAugment
from dica.views.steps import (
    Affine,
    CenterCrop,
    ChannelShift,
    ChannelShuffle,
    ColorJitter,
    Cutout,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    KerasAffine,
    Normalize,
    RandomCrop,
    RandomResizedCrop,
    Rescale,
    Resize,
    Step,
    Stretch,
)
from dica.views.whole import check_first, first_steps, unpack

TOLERANCE, FEW = 1e-2, 0.01  # compiled views: what is another pixel; nearest pixels may be ties, but only a few
OPS = {
    "random_resized_crop": RandomResizedCrop,
    "resize": Resize,
    "stretch": Stretch,
    "center_crop": CenterCrop,
    "random_crop": RandomCrop,
    "horizontal_flip": HorizontalFlip,
    "color_jitter": ColorJitter,
    "grayscale": Grayscale,
    "gaussian_blur": GaussianBlur,
    "affine": Affine,
    "keras_affine": KerasAffine,
    "channel_shift": ChannelShift,
    "channel_shuffle": ChannelShuffle,
    "rand_augment": RandAugment,
    "cutout": Cutout,
    "rescale": Rescale,
    "normalize": Normalize,
}


class Pipeline:
    """Steps applied in order, to square images or to whole pictures; made by `build_pipeline`.

    Attributes
    ----------
    fast : whether views come from the compiled function, if there is one
    """

    def __init__(self, steps: tuple[Step, ...], whole: bool = False) -> None:
        self.steps, self.whole, self.fast = steps, whole, False
        self._compiled: Callable[[Tensor, Sequence[Tensor]], Tensor] | None = None
        self._checked: set[torch.Size] = set()

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return one view of every image.

        Parameters
        ----------
        images
            (n, c, h, w) uint8; of whole pictures with the row that tells their sides (`dica.data.whole`).
        generator
            Made for this view alone; faster on the images' own device.

        Returns
        -------
        Tensor
            (n, c, h', w') floats of torch's default type on the images' device.

        Raises
        ------
        UserError
            For images of another kind, and if the compiled function makes other images of them.
        """
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
            raise UserError(f"images: need uint8 (n, 1 or 3, h, w), got {images.dtype} of shape {tuple(images.shape)}")
        # bfloat16 products would cost more than the rounding to 8 bits that the images come with
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            drawn = [step.draw(images, generator) for step in self.steps]
            if self._compiled is None or not self.fast:
                return self._apply(images, drawn)
            views = self._compiled(images, drawn)
            if images.shape not in self._checked:
                self._require_alike(views, self._apply(images, drawn))
                self._checked.add(images.shape)
            return views

    def compile(self, backend: str | Callable) -> None:
        """Make one function of all that follows the draws, for when `fast` is set; each shape is compiled by itself.

        The first views of each shape are made both ways: a mistake of the compiler would show nowhere else.
        """
        self._compiled = torch.compile(
            self._apply, backend=backend, dynamic=False, fullgraph=True, isolate_recompiles=True
        )

    def _require_alike(self, views: Tensor, expected: Tensor) -> None:
        other = ((views - expected).abs() > TOLERANCE).float().mean().item()
        if not other < FEW:  # NaN, too
            raise UserError(
                f"views: the compiler makes other images of {tuple(expected.shape)} than torch does ({other:.0%} of "
                "the pixels): leave `speed: compile` (--compile) out"
            )

    def _apply(self, images: Tensor, drawn: Sequence[Tensor]) -> Tensor:
        """Return the views that these numbers, one block a step, make of the images."""
        sides, done = None, 0
        if self.whole:
            images, sides = unpack(images)
        images = images.to(torch.get_default_dtype()).div_(255)
        if sides is not None:
            images, done = first_steps(self.steps, images, sides, drawn)
        for step, u in zip(self.steps[done:], drawn[done:], strict=True):
            images = step(images, u)
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
    whole: bool = False,
) -> Pipeline:
    """Turn a list of steps into a pipeline.

    Parameters
    ----------
    spec
        Mappings with a key `op` (a key of `OPS`) and the settings of that step.
    mean, std
        What `normalize` uses, one number a channel.
    whole
        Whether the images are whole pictures (`dica.data.whole`); the steps then must say what they take of them.

    Raises
    ------
    UserError
        For an unknown step or key, a missing key or a value out of range; the message names the allowed ones.
    """
    steps = tuple(_build_step(step, mean, std) for step in spec)
    if whole:
        check_first(steps)
    return Pipeline(steps, whole)


def _build_step(step: Mapping[str, Any], mean: Sequence[float] | None, std: Sequence[float] | None) -> Any:
    check_step(step, "augmentation")
    settings = {key: value for key, value in step.items() if key != "op"}
    if step["op"] == "normalize":
        if mean is None or std is None or len(mean) != len(std):
            raise UserError("augmentation: normalize needs a mean and a std of the data set, of one length")
        return Normalize(tuple(mean), tuple(std))
    return OPS[step["op"]](**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})
