"""Decode image files to uint8 arrays of one shape, in a small thread pool (Pillow decodes outside the lock)."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from dica.files import UserError

PIXEL_LIMIT = 64_000_000  # a decoded image above this is refused: a small file can claim to be enormous
CHUNK = 256  # images in flight at once
SMALL = 4096  # bytes: images of fewer on average are decoded faster by one thread (32x32 JPEGs: 1.2 s against 1.9 s)
SHOWN = 20  # unreadable files that an error message lists


class Encoded(NamedTuple):
    """An image file still compressed, and where it goes."""

    split: str
    row: int
    name: str
    data: bytes


class Recipe(NamedTuple):
    """How an image becomes an array: target size and mode (both None: keep as it is), and whether EXIF turns it."""

    size: int | None = None
    mode: str | None = None
    upright: bool = False


def decode(data: bytes, recipe: Recipe) -> np.ndarray:
    """Return one image as (H, W, 3) uint8.

    Grey, palette and CMYK become RGB, an alpha channel is dropped, 16-bit grey keeps its upper byte. With a size, mode
    `crop` makes the shorter side `size` and cuts the centre square, `stretch` resizes both sides to it (bilinear with
    antialiasing, as Pillow does it).

    Raises
    ------
    Exception
        Whatever Pillow raises for a damaged file; ValueError for a pixel type or an extent that is not supported.
    """
    with Image.open(io.BytesIO(data)) as image:
        if image.width * image.height > PIXEL_LIMIT:
            raise ValueError(f"{image.width}x{image.height} pixels are too many")
        image.load()
        if recipe.upright:
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise ValueError(f"pixels of type {image.mode} are not supported")
        image = image.convert("RGB")
        if recipe.size is not None:
            image = _resized(image, recipe.size, recipe.mode or "crop")
        return np.asarray(image)


def _resized(image: Image.Image, size: int, mode: str) -> Image.Image:
    if mode == "stretch":
        return image.resize((size, size), Image.Resampling.BILINEAR)
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def decode_all(
    items: Iterable[Encoded], recipe: Recipe, side: int, where: str
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield (split, rows, images) for image files, with bounded memory.

    Parameters
    ----------
    items
        The files, any order.
    recipe
        See `decode`.
    side
        Every decoded image must be side x side.
    where
        Names the data set in messages.

    Raises
    ------
    UserError
        For an image of another size, at once; for unreadable images, at the end, with a list of them.
    """
    workers = min(8, len(os.sched_getaffinity(0)))
    bad: list[str] = []

    def attempt(group: list[Encoded]) -> list[np.ndarray | str]:
        results: list[np.ndarray | str] = []
        for item in group:
            try:
                results.append(decode(item.data, recipe))
            except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
                results.append(f"{item.name} ({' '.join(str(error).split()) or type(error).__name__})")
        return results

    iterator = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        while chunk := list(itertools.islice(iterator, CHUNK)):
            if sum(len(item.data) for item in chunk) < SMALL * len(chunk):
                results = attempt(chunk)
            else:
                step = -(-len(chunk) // workers)
                groups = [chunk[start : start + step] for start in range(0, len(chunk), step)]
                results = list(itertools.chain.from_iterable(pool.map(attempt, groups)))
            good: dict[str, list[tuple[int, np.ndarray]]] = {}
            for item, result in zip(chunk, results, strict=True):
                if isinstance(result, str):
                    bad.append(result)
                    continue
                _require_side(item, result, side, where)
                good.setdefault(item.split, []).append((item.row, result))
            for split, pairs in good.items():
                yield split, np.array([row for row, _ in pairs]), np.stack([image for _, image in pairs])
    if bad:
        listed = "\n  ".join(sorted(bad)[:SHOWN]) + ("\n  ..." if len(bad) > SHOWN else "")
        raise UserError(f"{where}: {len(bad)} unreadable images; mend or remove them:\n  {listed}")


def _require_side(item: Encoded, image: np.ndarray, side: int, where: str) -> None:
    height, width = image.shape[:2]
    if (height, width) != (side, side):
        raise UserError(
            f"{where}: image {item.name!r} is {width}x{height}, but `image_size` is {side}; set `prepare.size: {side}` "
            f"for this data set in params/datasets.yaml to resize all images"
        )
