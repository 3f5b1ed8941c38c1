"""The first steps of views of whole pictures, which are stored as squares with their proportions (`dica.data.whole`).

A view says what it takes of a picture: `stretch` all of it; `resize` and a crop a window of the picture whose shorter
side has that length; `random_resized_crop` a part anywhere in it, with the areas and proportions of the picture as it
was. Windows are laid in the picture's own pixels and cut out of the stored square, so that nothing is distorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dica.data.whole import is_whole
from dica.files import UserError
from dica.views.pixels import crop_resize
from dica.views.steps import (
    CenterCrop,
    ChannelShift,
    ColorJitter,
    Grayscale,
    HorizontalFlip,
    Normalize,
    RandomCrop,
    RandomResizedCrop,
    Rescale,
    Resize,
    Step,
    Stretch,
)

ANYWHERE = (HorizontalFlip, ColorJitter, Grayscale, ChannelShift, Rescale, Normalize)  # the same in any proportions


def squares(images: Tensor) -> Tensor:
    """Return stored images (n, c, h, w) as squares: of whole pictures, all of each, stretched."""
    return images[:, :, :-1] if is_whole(*images.shape[-2:]) else images


def unpack(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squares (n, 3, s, s) of whole pictures (n, 3, s + 1, s) and their heights and widths, (n, 2)."""
    told = images[:, :, -1].transpose(1, 2).flatten(1)[:, :4].to(torch.get_default_dtype())
    return images[:, :, :-1], (told[:, 1::2] * 256 + told[:, ::2]).flip(1)


def check_first(steps: tuple[Any, ...]) -> int:
    """Return which step says what a view takes of a whole picture.

    Raises
    ------
    UserError
        If none does, or what comes before it changes the shape.
    """
    for place, step in enumerate(steps):
        following = steps[place + 1] if place + 1 < len(steps) else None
        if isinstance(step, Stretch | RandomResizedCrop):
            return place
        if isinstance(step, Resize) and isinstance(following, CenterCrop | RandomCrop):
            if following.size > step.size or (isinstance(following, RandomCrop) and following.padding > 0):
                raise UserError(
                    f"augmentation: a crop of {following.size} out of whole pictures with shorter sides of {step.size} "
                    "needs pixels beyond their border; make `resize` at least as large, without padding"
                )
            return place
        if not isinstance(step, ANYWHERE):
            break
    raise UserError(
        "augmentation: the data set stores whole pictures, each with proportions of its own; before other changes of "
        "shape say what a view takes of them: stretch, random_resized_crop, or resize and right after it a crop"
    )


def first_steps(steps: tuple[Step, ...], images: Tensor, sides: Tensor, drawn: Sequence[Tensor]) -> tuple[Tensor, int]:
    """Apply the steps up to the one that gives all views one shape.

    Parameters
    ----------
    steps
        Of a pipeline, which `check_first` has seen.
    images, sides
        As `unpack` returns them, the images as floats.
    drawn
        The numbers of each step.

    Returns
    -------
    tuple
        The views (n, 3, size, size) and how many steps are done.
    """
    place = check_first(steps)
    for step, u in zip(steps[:place], drawn, strict=False):
        images = step(images, u)
    step = steps[place]
    if isinstance(step, RandomResizedCrop):
        return step(images, drawn[place], sides), place + 1
    if isinstance(step, Stretch):
        return step(images, drawn[place]), place + 1
    assert isinstance(step, Resize)  # `check_first` allows nothing else
    return _window(step.size, steps[place + 1], images, sides, drawn[place + 1]), place + 2


def _window(short: int, window: Any, images: Tensor, sides: Tensor, u: Tensor) -> Tensor:
    """Return the window (n, 3, size, size) of each picture whose shorter side is resized to `short`."""
    resized = torch.floor(sides * (short / sides.amin(1, keepdim=True)) + 1e-3)  # + the quotient's rounding
    corner = window.corner(resized - window.size, u)
    boxes = torch.cat([corner, torch.full_like(corner, window.size)], dim=1)
    return crop_resize(images, boxes * (images.shape[-1] / resized).repeat(1, 2), window.size)
