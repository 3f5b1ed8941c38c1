"""Open prepared arrays. Needs NumPy only, because every training process and many light rules import it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dica.data.paths import MANIFEST, labels_file, labels_record, prepared_folder
from dica.files import (
    IntegrityError,
    UserError,
    canonical_json,
    read_json,
    require_small_arrays,
    sha256_bytes,
    sha256_file,
)

NAMES = "names.json"


def load_manifest(folder: Path | str) -> dict[str, Any]:
    """Return the manifest of a prepared data set; it is written last, so its presence means complete.

    Raises
    ------
    UserError
        If the folder has no manifest, that is, the data set is not prepared.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder}: not prepared; run `python -m dica.data prepare {folder.name}`")
    return read_json(folder / MANIFEST)


def is_current(root: Path, entry: dict[str, Any]) -> bool:
    """Return whether arrays and labels of a catalogue entry are there in full, prepared as it is declared now."""
    from dica.data.catalog import data_id, is_identified

    folder = root / prepared_folder(entry["name"])
    needed = [folder / MANIFEST, root / labels_file(entry["name"]), root / labels_record(entry["name"])]
    if not all(path.is_file() for path in needed) or not is_identified(entry):
        return False
    try:
        found = read_json(folder / MANIFEST)
        arrays = [(folder / split["file"], split["bytes"]) for split in found["splits"].values()]
        prints = found["data_id"], found["fingerprint"]
    except (UserError, AttributeError, KeyError, TypeError):
        return False  # a manifest that is damaged, or of an older form
    whole = all(path.is_file() and path.stat().st_size == size for path, size in arrays)
    return whole and data_id(entry) in prints


def fingerprint(splits: dict[str, dict[str, Any]], classes: list[str]) -> str:
    """Return the hash that identifies content: of each split name, shape, pixel and label digest, and the class names.

    The container (archive, order of its members, NumPy header) has no influence. Images that were left out because they
    cannot be read count by their digests.
    """
    parts = [
        [split, record["shape"], record["pixels_sha256"], record["labels_sha256"], *_left_out(record)]
        for split, record in sorted(splits.items())
    ]
    return sha256_bytes(canonical_json({"splits": parts, "classes": classes}).encode())


def _left_out(record: dict[str, Any]) -> list[list[str]]:
    """Return nothing where nothing was left out, so that such fingerprints are those of before."""
    left_out = sorted(image["sha256"] for image in record.get("left_out", ()))
    return [left_out] if left_out else []


def labels_digest(labels: np.ndarray) -> str:
    return sha256_bytes(np.ascontiguousarray(labels, dtype="<i2").tobytes())


def open_split(folder: Path | str, split: str) -> np.memmap:
    """Map the images of one split, read only.

    Returns
    -------
    np.memmap
        (n, H, W, C) uint8, 0..255; features (n, 1, 1, d) float32.

    Raises
    ------
    UserError
        If the data set is not prepared or has no such split.
    IntegrityError
        If the file is not as long, or not of the shape, that the manifest says.
    """
    folder = Path(folder)
    splits = load_manifest(folder)["splits"]
    if split not in splits:
        raise UserError(f"{folder}: no split {split!r} (it has {', '.join(sorted(splits))})")
    record = splits[split]
    path = folder / record["file"]
    check_length(path, record["bytes"])
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise IntegrityError(f"{path}: not a NumPy array ({error}); prepare {folder.name} again") from None
    expected = np.dtype(record.get("dtype", np.uint8))
    if images.dtype != expected or list(images.shape) != record["shape"]:
        raise IntegrityError(
            f"{path}: holds {images.dtype} {list(images.shape)}, the manifest says {expected} {record['shape']}; "
            f"prepare {folder.name} again"
        )
    return images


def image_names(folder: Path | str, split: str) -> list[str]:
    """Return the file name of each image of a split in stored order, with `/` below the data set's folder or archive.

    Names are no part of the fingerprint: the same pixels under other names are the same data.

    Raises
    ------
    UserError
        If the data set is not prepared, has no such split, or its images are no files (CIFAR, digits).
    IntegrityError
        If the names are not those that were written with the arrays.
    """
    folder = Path(folder)
    manifest = load_manifest(folder)
    if split not in manifest["splits"]:
        raise UserError(f"{folder}: no split {split!r} (it has {', '.join(sorted(manifest['splits']))})")
    if "names" not in manifest:
        raise UserError(
            f"{folder}: no file names are stored (a kind without image files, or prepared by an older version); "
            f"to store them: `python -m dica.data prepare {folder.name}`"
        )
    path = folder / NAMES
    check_names(path, manifest)
    return read_json(path)[split]


def check_names(path: Path, manifest: dict[str, Any]) -> None:
    """Raise an IntegrityError unless the file of names is the one of the manifest."""
    if not path.is_file() or sha256_file(path) != manifest["names"]:
        raise IntegrityError(f"{path}: not the names of the manifest; prepare {manifest['dataset']} again")


def class_names(root: Path, dataset: str, count: int) -> list[str]:
    """Return the names of a data set's classes; their numbers where it does not name all `count` of them."""
    path = root / labels_record(dataset)
    names = read_json(path).get("classes", []) if path.is_file() else []
    return names if len(names) == count else [str(index) for index in range(count)]


def train_labels(folder: Path | str, file: Path | str) -> np.ndarray:
    """Return the labels of the train split, (n,) int64, -1 for none; those of the test split are not read.

    Parameters
    ----------
    folder
        The prepared data set.
    file
        Its labels, ``data/labels/<name>.npz``.

    Raises
    ------
    UserError
        If the file is missing or damaged.
    IntegrityError
        If the labels are not those of the prepared images.
    """
    try:
        require_small_arrays(file)
        with np.load(file, allow_pickle=False) as archive:
            labels = archive["train"]
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; a supervised method needs the labels of the train split") from None
    except Exception as error:  # zip, zlib and numpy each have their own errors for a damaged file
        raise UserError(f"{file}: not readable labels ({error})") from None
    if labels_digest(labels) != load_manifest(folder)["splits"]["train"]["labels_sha256"]:
        raise IntegrityError(f"{file}: not the labels of {folder}; prepare {Path(folder).name} again")
    return labels.astype(np.int64)


def check_length(path: Path, expected: int) -> None:
    """Raise an IntegrityError unless `path` is a file of `expected` bytes."""
    length = path.stat().st_size if path.is_file() else None
    if length != expected:
        found = "is missing" if length is None else f"has {length} bytes"
        raise IntegrityError(f"{path}: {found}, the manifest says {expected} bytes; prepare {path.parent.name} again")
