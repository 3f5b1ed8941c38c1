"""Where the files of a data set lie, relative to the project: told once."""

from __future__ import annotations

from pathlib import Path

RAW = "data/raw"  # the archives
MANIFEST = "manifest.json"  # beside a data set's arrays
OWN_PREFIX = "own-"  # of the name of a data set that `dica cluster` has declared
LABELS = "data/labels"  # Git keeps them, so that a clone can be scored without its images


def prepared_folder(dataset: str) -> str:
    """Return the folder of a data set's arrays and their manifest."""
    return f"data/prepared/{dataset}"


def manifest_file(dataset: str) -> str:
    """Return the file that says what has been prepared; it is written last."""
    return f"{prepared_folder(dataset)}/{MANIFEST}"


def labels_file(dataset: str) -> str:
    """Return the file of the true classes by split."""
    return f"{LABELS}/{dataset}.npz"


def labels_record(dataset: str) -> str:
    """Return what tells of the labels: splits with the digests that make the fingerprint, and the names of classes."""
    return f"{LABELS}/{dataset}.json"


def labels_of_prepared(folder: Path) -> Path:
    """Return the labels that belong to prepared arrays wherever these lie, in a project or not."""
    folder = folder.resolve()
    return folder.parents[1] / "labels" / f"{folder.name}.npz"
