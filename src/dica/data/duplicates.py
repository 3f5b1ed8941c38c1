"""Images of a data set that are nearly the same, found on small grey thumbnails.

Methods that train on train and test images together, and contrastive ones most of all, gain by near copies across the
two. Found are copies that are re-encoded, brighter by a little or slightly blurred; shifted, rescaled or mirrored ones
are not.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dica.data.prepared import load_manifest, open_split
from dica.data.whole import centre_square, is_whole
from dica.files import UserError, atomic_write_bytes

SIDE = 8  # pixels of a thumbnail's side
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
BLOCK = 250
SHEET_PAIRS, TILE = 48, 64


@dataclass(frozen=True)
class Pair:
    """Two images, each as (split, position), and how far their thumbnails are apart in grey levels."""

    one: tuple[str, int]
    other: tuple[str, int]
    distance: float


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Return grey thumbnails (n, SIDE * SIDE) float32, 0..255, of uint8 images (n, H, W, C); areas are averaged.

    Raises
    ------
    UserError
        If the images are smaller than a thumbnail.
    """
    if is_whole(*images.shape[1:3]):
        images = images[:, :-1]
    count, height, width, channels = images.shape
    if min(height, width) < SIDE:
        raise UserError(f"images of {width} by {height} pixels are smaller than the thumbnails ({SIDE} by {SIDE})")
    rows, columns = (np.arange(SIDE) * length // SIDE for length in (height, width))
    found = np.empty((count, SIDE, SIDE), dtype=np.float32)
    for start in range(0, count, BLOCK):
        part = np.asarray(images[start : start + BLOCK], dtype=np.float32)
        grey = part @ GREY if channels == 3 else part[..., 0]
        sums = np.add.reduceat(np.add.reduceat(grey, rows, axis=1), columns, axis=2)
        areas = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
        found[start : start + BLOCK] = sums / areas
    return found.reshape(count, -1)


def close_pairs(points: np.ndarray, limit: float) -> list[tuple[int, int, float]]:
    """Return every pair i < j of points (n, d) whose root mean square difference is at most `limit`, with that."""
    squares = np.einsum("nd,nd->n", points, points)
    rounding = 1e-5 * float(squares.max(initial=0))  # of the product; a candidate is measured again
    bound = limit**2 * points.shape[1] + rounding
    found = []
    for start in range(0, len(points), BLOCK):
        block = points[start : start + BLOCK]
        distances = squares[start : start + len(block), None] + squares[start:] - 2 * (block @ points[start:].T)
        rows, columns = np.nonzero(distances <= bound)
        for row, column in zip(rows[columns > rows], columns[columns > rows], strict=True):
            distance = float(np.sqrt(np.mean((block[row] - points[start + column]) ** 2)))
            if distance <= limit:
                found.append((start + int(row), start + int(column), distance))
    return found


def near_duplicates(folder: Path, limit: float) -> list[Pair]:
    """Return the pairs of nearly equal images of a prepared data set, the closest first, over all its splits.

    Parameters
    ----------
    folder
        The prepared data set.
    limit
        Largest root mean square difference of two thumbnails in grey levels, 0 to 64.

    Raises
    ------
    UserError
        If the data set is not prepared, or the limit is out of range.
    """
    if not 0 <= limit <= 64:
        raise UserError(f"--limit: {limit} grey levels, allowed: 0 to 64 (above that most images are alike)")
    splits = sorted(load_manifest(folder)["splits"])
    images = {split: open_split(folder, split) for split in splits}
    place = [(split, row) for split in splits for row in range(len(images[split]))]
    points = np.concatenate([thumbnails(images[split]) for split in splits])
    pairs = [Pair(place[i], place[j], distance) for i, j, distance in close_pairs(points, limit)]
    return sorted(pairs, key=lambda pair: (pair.distance, pair.one, pair.other))


def write_sheet(folder: Path, pairs: list[Pair], out: Path) -> None:
    """Write a PNG with the closest `SHEET_PAIRS` pairs side by side, each with its places and distance."""
    columns, height = 4, TILE + 14
    shown = pairs[:SHEET_PAIRS]
    sheet = Image.new("RGB", (columns * (2 * TILE + 16), max(1, -(-len(shown) // columns)) * height + 4), "white")
    draw = ImageDraw.Draw(sheet)
    for number, pair in enumerate(shown):
        left, top = number % columns * (2 * TILE + 16) + 4, number // columns * height + 2
        for offset, (split, row) in enumerate((pair.one, pair.other)):
            tile = centre_square(np.asarray(open_split(folder, split)[row]))
            image = Image.fromarray(tile if tile.shape[2] == 3 else tile[..., 0])
            sheet.paste(
                image.resize((TILE, TILE), Image.Resampling.NEAREST).convert("RGB"), (left + offset * TILE, top)
            )
        names = " ".join(f"{split}:{row}" for split, row in (pair.one, pair.other))
        draw.text((left, top + TILE), f"{names}  {pair.distance:.1f}", fill="black", font_size=9)
    atomic_write_bytes(out, _png(sheet))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
