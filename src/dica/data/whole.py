"""Whole pictures in arrays of one shape, for views that take other parts of a picture than its centre square.

A picture is resized to a square of `image_size` pixels, both sides, and the row of bytes below it holds the width and
the height that it had: (image_size + 1, image_size, 3). So nothing of the picture is cut away, all pictures of a set
lie in one array, and the proportions go wherever the picture goes. A view brings them back (`dica.views.whole`).
"""

from __future__ import annotations

import numpy as np

MODE = "whole"
LONGEST = 2**16 - 1  # pixels of a side: two bytes hold it


def stored_shape(size: int, mode: str | None) -> tuple[int, int]:
    """Return height and width of the arrays of images that are stored with `size` pixels a side."""
    return (size + 1 if mode == MODE else size, size)


def pack(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return a square picture (s, s, 3) with the row that tells its first width and height, (s + 1, s, 3) uint8.

    Raises
    ------
    ValueError
        If a side does not fit into two bytes.
    """
    if max(width, height) > LONGEST:
        raise ValueError(f"a side of {max(width, height)} pixels; at most {LONGEST} can be told")
    row = np.zeros(picture.shape[1] * 3, np.uint8)
    row[:4] = np.array([width, height], "<u2").view(np.uint8)
    return np.concatenate([picture, row.reshape(1, -1, 3)])


def is_whole(height: int, width: int) -> bool:
    """Whether arrays of this shape are whole pictures; all others are square."""
    return height == width + 1


def sides(image: np.ndarray) -> tuple[int, int]:
    """Return the width and height that a stored whole picture (s + 1, s, 3) once had."""
    width, height = np.ascontiguousarray(image[-1]).reshape(-1)[:4].view("<u2")
    return int(width), int(height)


def centre_square(image: np.ndarray) -> np.ndarray:
    """Return what people are shown of a stored image: of a whole picture the centre square, else the image itself."""
    from PIL import Image

    if not is_whole(*image.shape[:2]):
        return image
    size, (width, height) = image.shape[1], sides(image)
    across, down = size * min(1, height / width) / 2, size * min(1, width / height) / 2
    box = (size / 2 - across, size / 2 - down, size / 2 + across, size / 2 + down)
    return np.asarray(Image.fromarray(image[:-1]).resize((size, size), Image.Resampling.BILINEAR, box=box))
