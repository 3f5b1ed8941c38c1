"""What a pipeline's steps may be, without the code that does them: plans are checked before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dica.files import UserError

# Step -> the keys that it needs, and those that it may have; `dica.views.steps` says what they do.
STEPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "random_resized_crop": (("size",), ("scale", "ratio", "flip_p")),
    "resize": (("size",), ()),
    "stretch": (("size",), ()),
    "center_crop": (("size",), ()),
    "random_crop": (("size",), ("padding", "padding_mode")),
    "horizontal_flip": ((), ("p",)),
    "color_jitter": ((), ("brightness", "contrast", "saturation", "hue", "p")),
    "grayscale": ((), ("p",)),
    "gaussian_blur": (("kernel_size",), ("sigma", "p")),
    "affine": ((), ("rotation", "shift", "scale", "shear", "fill", "p")),
    "keras_affine": ((), ("rotation", "shift", "zoom", "interpolation")),
    "channel_shift": (("amount",), ()),
    "channel_shuffle": ((), ()),
    "rand_augment": (("count",), ("shear", "translate", "p")),
    "cutout": (("size",), ()),
    "rescale": (("factor",), ()),
    "normalize": ((), ()),  # mean and std are those of `normalisation`
}
_CHOICES = {
    "fill": ("zeros", "nearest"),
    "interpolation": ("nearest", "bilinear"),
    "padding_mode": ("constant", "reflect"),
}


def check_steps(steps: Sequence[Mapping[str, Any]], where: str, size: int | None = None) -> None:
    """Check a pipeline as it is declared.

    Parameters
    ----------
    where
        What the pipeline is called in messages.
    size
        Side of the square images that go in, where it is known: crops may not be larger than what they are of.

    Raises
    ------
    UserError
        For an unknown step or key, a missing key, or a value out of range; the message names what is allowed.
    """
    for place, step in enumerate(steps):
        check_step(step, f"{where}.{place}")
        size = _size_after(step, size, f"{where}.{place}")


def check_step(step: Mapping[str, Any], where: str) -> None:
    """Check one step; see `check_steps`."""
    if not isinstance(step, Mapping):
        raise UserError(f"{where}: a step is a mapping with the key op, got {step!r}")
    name, keys = step.get("op"), [key for key in step if key != "op"]
    if not isinstance(name, str) or name not in STEPS:
        raise UserError(f"{where}: op {name!r} is not one of {', '.join(STEPS)}")
    needed, more = STEPS[name]
    for key in keys:
        if key not in (*needed, *more):
            allowed = f"allowed: {', '.join((*needed, *more))}" if needed or more else "it takes none"
            raise UserError(f"{where}: {name} has no key {key!r}; {allowed}")
    for key in needed:
        if key not in step:
            raise UserError(f"{where}: {name} needs the key {key!r}")
    for key in keys:
        if want := _wanted(key, step[key]):
            raise UserError(f"{where}: {name}: {key} is {step[key]!r} but must be {want}")


def check_normalisation(found: Any, channels: int | None, where: str) -> None:
    """Check mean and std of the channels of pixels in 0..1; None and names are left alone.

    Raises
    ------
    UserError
        If they are not one number a channel, a mean is not in 0..1, or a std is not above 0.
    """
    if not isinstance(found, dict):
        return
    mean, std = found["mean"], found["std"]
    if len(mean) != len(std) or (channels and len(mean) != channels):
        said = f"the images have {channels} channel{'s' if channels != 1 else ''}" if channels else "one a channel"
        raise UserError(f"{where}: mean has {len(mean)} and std {len(std)} numbers; {said}")
    for key, good, want in (("mean", _in_range, "in 0..1, as pixels are"), ("std", _above, "above 0")):
        if wrong := [value for value in found[key] if not good(value)]:
            raise UserError(f"{where}: {key}: {wrong[0]!r} must be a number {want}")


def _size_after(step: Mapping[str, Any], size: int | None, where: str) -> int | None:
    name = step["op"]
    if size is not None and name in ("center_crop", "random_crop"):
        least = size + 2 * step.get("padding", 0)
        if step["size"] > least:
            raise UserError(f"{where}: {name}: size is {step['size']} but the images have {least} pixels a side there")
    return step["size"] if name != "cutout" and "size" in step else size


def _wanted(key: str, value: Any) -> str:
    """Return what a value of `key` must be, or an empty text if this one is."""
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
        good, want = _in_range(value), "a probability in [0, 1]"
    elif key == "hue":
        good, want = _is_number(value) and 0 <= value <= 0.5, "a number in [0, 0.5]"
    else:
        good, want = _is_number(value) and value >= 0, "a number, 0 or more"
    return "" if good else want


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _in_range(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _above(value: Any) -> bool:
    return _is_number(value) and value > 0
