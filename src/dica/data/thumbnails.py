"""Small pictures of a data set's images: from the files where these are at hand, else from the prepared arrays."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dica.data import catalog
from dica.data.folder import contents
from dica.data.images import Recipe, decode
from dica.data.layout import is_image
from dica.data.paths import RAW
from dica.data.prepared import load_manifest, open_split
from dica.data.whole import centre_square

QUALITY = 85
BLANK = 16  # pixels of a picture that stands for no image


class Thumbnails:
    """Pictures of rows of a prepared data set, its splits laid end to end.

    Parameters
    ----------
    folder
        ``data/prepared/<name>``.
    entry, root
        The data set's entry and the project root, to find its files by.
    splits, names
        The splits, and the file name of every row.
    """

    def __init__(self, folder: Path, entry: dict[str, Any], root: Path, splits: Sequence[str], names: Sequence[str]):
        self.arrays = [open_split(folder, split) for split in splits]
        self.names = names
        self.side = load_manifest(folder)["image_size"]
        self.place = _place(entry, root)

    def of(self, rows: Sequence[int], side: int) -> dict[int, Image.Image]:
        """Return a square picture of each row, of `side` pixels where the image has as many."""
        rows = list(dict.fromkeys(int(row) for row in rows))
        files = self._decoded(rows, side) if side > self.side else {}
        return {row: files.get(row) or self._prepared(row, side) for row in rows}

    def _prepared(self, row: int, side: int) -> Image.Image:
        for array in self.arrays:
            if row < len(array):
                pixels = centre_square(np.asarray(array[row]))
                if pixels.dtype != np.uint8:  # features of an image that is not here
                    return Image.new("RGB", (min(side, BLANK),) * 2, "#dddddd")
                image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).convert("RGB")
                return image.resize((side, side), Image.Resampling.LANCZOS) if side < self.side else image
            row -= len(array)
        raise IndexError(row)

    def _decoded(self, rows: list[int], side: int) -> dict[int, Image.Image]:
        """Return what can be read of the files themselves; one that is gone or changed is left to the arrays."""
        if self.place is None:
            return {}
        path, form = self.place
        wanted, found = {self.names[row]: row for row in rows if _is_below(self.names[row])}, {}
        for name, data, _ in contents(path, form, wanted):
            try:
                pixels = decode(data, Recipe(None, None, upright=True))
            except Exception:  # Pillow's plugins raise nearly anything
                continue
            if min(pixels.shape[:2]) > self.side:
                pixels = decode(data, Recipe(min(side, *pixels.shape[:2]), "crop", upright=True))
                found[wanted[name]] = Image.fromarray(pixels)
        return found


def _is_below(name: str) -> bool:
    """Whether a name is that of an image below the data set's folder: those of features can be anything."""
    return is_image(name) and not name.startswith("/")


def _place(entry: dict[str, Any], root: Path) -> tuple[Path, str] | None:
    """Return folder or archive of a data set of kind `folder`, and which of the two; None where it is not here."""
    source = entry["sources"][0]
    if entry["kind"] == "features":  # names of the rows may be those of images beside them
        array = (root / RAW / source["files"][0]["file"]).resolve()
        return (array.parent, "folder") if array.is_file() else None
    if entry["kind"] != "folder":
        return None
    path = catalog.local_folder(source, root) if source["format"] == "folder" else None
    path = path or root / RAW / source.get("files", [{"file": ""}])[0]["file"]
    return (path, source["format"]) if path.exists() else None


def jpeg(image: Image.Image) -> bytes:
    """Return an image as JPEG."""
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=QUALITY, subsampling=0)
    return out.getvalue()
