"""True classes, opened by evaluation only: training code has no reason to import this module."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from dica.files import UserError

EVALUATED_ON = ("all", "train", "test")


def load_labels(path: Path | str, evaluated_on: str) -> np.ndarray:
    """Return the class indices of the chosen images, in prepared order.

    Parameters
    ----------
    path
        `data/labels/<dataset>.npz` with int16 arrays `train` and, where the data set has it, `test`.
    evaluated_on
        `train`, `test`, or `all`: train followed by test where there is one.

    Returns
    -------
    np.ndarray
        (n,) int64, 0..classes-1, or -1 for an image without a label.

    Raises
    ------
    UserError
        If the file is missing or unreadable, or has no such split.
    """
    if evaluated_on not in EVALUATED_ON:
        raise UserError(f"evaluated_on: {evaluated_on!r} is not one of {', '.join(EVALUATED_ON)}")
    wanted = ("train", "test") if evaluated_on == "all" else (evaluated_on,)
    try:
        with np.load(path, allow_pickle=False) as archive:
            if evaluated_on != "all" and evaluated_on not in archive.files:
                raise UserError(f"{path}: no split {evaluated_on!r} (it has {', '.join(sorted(archive.files))})")
            parts = [archive[split] for split in wanted if split in archive.files]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; prepare the data set first") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not readable as a label file ({error})") from None
    return np.concatenate(parts).astype(np.int64)
