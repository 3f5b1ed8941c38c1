"""The 1,797 real 8x8 digits inside scikit-learn: a data set that needs no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dica.data.decoded import Content, whole


def read(entry: dict[str, Any], form: str, files: dict[str, Path]) -> Content:
    """Return the test part of the UCI set "Optical Recognition of Handwritten Digits" as split `train`.

    Pixels 0..16 become round(v * 255 / 16), one channel. There is no test split: scikit-learn ships only these images.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)[..., None]
    return Content(
        classes=[str(name) for name in digits.target_names],
        shape=images.shape[1:],
        counts={"train": len(images)},
        blocks=[whole("train", images)],
        labels={"train": digits.target.astype(np.int16)},
    )
