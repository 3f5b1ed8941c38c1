"""Features that another program has computed: a file `NAME.npy` of shape (n, d), a row an image.

A row becomes an image of one pixel with d channels, in float32, so that all that holds for images holds for it: a
fingerprint, runs with an identity, new rows. `NAME.txt` beside it may name the rows, a line each; where these names are
image files below the same folder, the page shows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dica.data.decoded import Block, Content, whole
from dica.files import UserError

SUFFIX = ".npy"
PART = 10_000  # rows read at a time
MOST = 65_536  # numbers a row


def read(entry: dict[str, Any], form: str, files: dict[str, Path]) -> Content:
    """Return the rows as split `train`, without labels.

    Raises
    ------
    UserError
        If the file is not such an array, or the names are not as many.
    """
    (path,) = files.values()
    rows = open_rows(path)
    return Content(
        classes=[],
        shape=(1, 1, rows.shape[1]),
        counts={"train": len(rows)},
        blocks=_blocks(rows, path),
        labels={"train": np.full(len(rows), -1, np.int16)},
        names={"train": row_names(path, len(rows))},
        dtype="<f4",
    )


def open_rows(path: Path) -> np.ndarray:
    """Map an array of features (n, d), read only; its numbers are looked at when they are read.

    Raises
    ------
    UserError
        If it is no array of numbers with two axes.
    """
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not readable as a NumPy array ({error}); write it with numpy.save") from None
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiu" or rows.ndim != 2 or 0 in rows.shape:
        found = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else "an archive of arrays"
        raise UserError(f"{path}: holds {found}; features are one array of numbers of shape (n, d), a row an image")
    if rows.shape[1] > MOST:
        raise UserError(f"{path}: has {rows.shape[1]} numbers a row, at most {MOST} are read")
    return rows


def checked(rows: np.ndarray, path: Path, start: int = 0) -> np.ndarray:
    """Return rows (n, d) as images (n, 1, 1, d) float32.

    Raises
    ------
    UserError
        If a number is not finite, or too large.
    """
    with np.errstate(over="ignore"):
        values = np.array(rows, dtype=np.float32)  # a copy: the file is mapped read only
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise UserError(
            f"{path.resolve()}: row {start + bad[0]} (counted from 0) holds what is no finite number of 32 bits, as do "
            f"{len(bad)} of rows {start} to {start + len(rows) - 1}; replace such numbers or leave these rows out"
        )
    return values[:, None, None, :]


def row_names(path: Path, count: int) -> list[str]:
    """Return the names of the rows: those of the text file beside the array, else their numbers."""
    listing = path.resolve().with_suffix(".txt")
    if not listing.is_file():
        return [f"row {number}" for number in range(count)]
    try:
        names = listing.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{listing}: not UTF-8 ({error.reason} at byte {error.start})") from None
    if len(names) != count or len(set(names)) < count or not all(names):
        raise UserError(
            f"{listing}: {len(names)} lines, {len(set(names))} of them different, for {count} rows of {path.name}; it "
            "names each row on a line of its own"
        )
    return names


def _blocks(rows: np.ndarray, path: Path) -> Iterator[Block]:
    for start in range(0, len(rows), PART):
        yield whole("train", checked(rows[start : start + PART], path, start), start)
