"""Decode image files to uint8 arrays of one shape, in a small thread pool (Pillow decodes outside the lock)."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dica.data.whole import MODE, pack, stored_shape
from dica.files import UserError

FORMATS = (
    "JPEG",
    "PNG",
    "BMP",
    "GIF",
    "TIFF",
    "WEBP",
    "PPM",
)  # told by content; Pillow opens others with outside programs
PIXEL_LIMIT = 64_000_000  # an image that has or needs more on its way is refused: a small file can claim to be enormous
LARGE = 4_000_000  # pixels: above this one image is decoded at a time, so that the threads' memory does not add up
CHUNK = 256  # images in flight at once
CHUNK_BYTES = 64 * 2**20  # compressed bytes in flight at once
SMALL = 4096  # bytes: images of fewer on average are decoded faster by one thread (32x32 JPEGs: 1.2 s against 1.9 s)
SHOWN = 20  # unreadable files that an error message lists


_one_large = threading.Lock()
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `PIXEL_LIMIT` refuses such images and names them


class Encoded(NamedTuple):
    """An image file still compressed, and where it goes; `why` says that it could not even be read."""

    split: str
    row: int
    name: str
    data: bytes
    why: str = ""


class Recipe(NamedTuple):
    """How an image becomes an array: target size and mode (both None: keep as it is), and whether EXIF turns it."""

    size: int | None = None
    mode: str | None = None
    upright: bool = False

    @property
    def stretches(self) -> bool:
        """Whether both sides become `size`, whatever the proportions."""
        return self.mode in ("stretch", MODE)


def decode(data: bytes, recipe: Recipe) -> np.ndarray:
    """Return one image as (H, W, 3) uint8.

    Grey, palette and CMYK become RGB, an alpha channel is dropped, 16-bit grey keeps its upper byte. With a size, mode
    `crop` makes the shorter side `size` and cuts the centre square, `stretch` resizes both sides to it (bilinear with
    antialiasing, as Pillow does it), `whole` does the same and tells the first sides in one row more, (H + 1, W, 3).

    Raises
    ------
    Exception
        Whatever Pillow raises for a damaged file; ValueError for a format, pixel type or extent that is not supported.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"its content is none of {', '.join(FORMATS)}") from None
    with image:
        if image.mode in ("I", "F"):
            raise ValueError(f"pixels of type {image.mode} are not supported")
        work = _work(image.width, image.height, recipe)
        if work > PIXEL_LIMIT:
            raise ValueError(f"{image.width}x{image.height} pixels are too many, as they are or resized")
        with _one_large if work > LARGE else contextlib.nullcontext():
            return _pixels(image, recipe)


def _work(width: int, height: int, recipe: Recipe) -> int:
    """Return the pixels of the largest array on the way; a thin strip grows beyond all bounds when it is resized."""
    if recipe.size is None:
        return width * height
    longer = max(width, height)
    resized = recipe.size * (longer if recipe.stretches else -(-longer * recipe.size // min(width, height)))
    return max(width * height, resized)


def _pixels(image: Image.Image, recipe: Recipe) -> np.ndarray:
    image.load()
    if recipe.upright:
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode != "RGB":
        image.info.pop("transparency", None)  # alpha is dropped; of a palette's, Pillow would warn for every file
        image = image.convert("RGB")
    if recipe.size is None:
        return np.asarray(image)
    pixels = np.asarray(_resized(image, recipe.size, recipe.stretches))
    return pack(pixels, *image.size) if recipe.mode == MODE else pixels


def _resized(image: Image.Image, size: int, stretches: bool) -> Image.Image:
    if stretches:
        return image.resize((size, size), Image.Resampling.BILINEAR)
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def decoded(items: Iterable[Encoded], recipe: Recipe) -> Iterator[tuple[Encoded, np.ndarray | str]]:
    """Yield every file with its image, or with the reason why it has none, in the given order and bounded memory."""
    workers = min(8, len(os.sched_getaffinity(0)))

    def attempt(group: list[Encoded]) -> list[np.ndarray | str]:
        results: list[np.ndarray | str] = []
        for item in group:
            if item.why:
                results.append(item.why)
                continue
            try:
                results.append(decode(item.data, recipe))
            except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
                results.append(" ".join(str(error).split()) or type(error).__name__)
        return results

    with ThreadPoolExecutor(workers) as pool:
        for chunk in _chunks(items):
            if sum(len(item.data) for item in chunk) < SMALL * len(chunk):
                results = attempt(chunk)
            else:
                step = -(-len(chunk) // workers)
                groups = [chunk[start : start + step] for start in range(0, len(chunk), step)]
                results = list(itertools.chain.from_iterable(pool.map(attempt, groups)))
            yield from zip(chunk, results, strict=True)


def _chunks(items: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    """Yield the files in groups of at most `CHUNK`, and of about `CHUNK_BYTES`."""
    chunk: list[Encoded] = []
    total = 0
    for item in items:
        chunk.append(item)
        total += len(item.data)
        if len(chunk) == CHUNK or total >= CHUNK_BYTES:
            yield chunk
            chunk, total = [], 0
    if chunk:
        yield chunk


def decode_all(
    items: Iterable[Encoded],
    recipe: Recipe,
    side: int,
    where: str,
    advice: str = "mend or remove them",
    left_out: dict[str, str] | None = None,
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield (split, rows, images) for image files, with bounded memory.

    Parameters
    ----------
    items
        The files, any order.
    recipe
        See `decode`.
    side
        Every decoded image must be side x side; in mode `whole`, with one row more.
    where
        Names the data set in messages.
    advice
        What to do about unreadable images.
    left_out
        Takes the unreadable images, name to reason, where they are no error.

    Raises
    ------
    UserError
        For an image of another size, at once; for unreadable images, at the end, with a list of them.
    """
    bad: list[str] = []
    results = decoded(items, recipe)
    while chunk := list(itertools.islice(results, CHUNK)):
        good: dict[str, list[tuple[int, np.ndarray]]] = {}
        for item, result in chunk:
            if isinstance(result, str):
                if left_out is None:
                    bad.append(f"{item.name} ({result})")
                else:
                    left_out[item.name] = result
                continue
            _require_side(item, result, stored_shape(side, recipe.mode), where)
            good.setdefault(item.split, []).append((item.row, result))
        for split, pairs in good.items():
            yield split, np.array([row for row, _ in pairs]), np.stack([image for _, image in pairs])
    if bad:
        listed = "\n  ".join(sorted(bad)[:SHOWN]) + ("\n  ..." if len(bad) > SHOWN else "")
        raise UserError(f"{where}: {len(bad)} unreadable images; {advice}:\n  {listed}")


def _require_side(item: Encoded, image: np.ndarray, wanted: tuple[int, int], where: str) -> None:
    height, width = image.shape[:2]
    if (height, width) != wanted:
        side = wanted[1]
        raise UserError(
            f"{where}: image {item.name!r} is {width}x{height}, but `image_size` is {side}; set `prepare.size: {side}` "
            f"for this data set in params/datasets.yaml to resize all images"
        )
