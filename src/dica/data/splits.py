"""Facts about the images of a data set, and the names of its splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dica.files import UserError


@dataclass(frozen=True)
class DataInfo:
    """Facts about the images that decide a network's shape, and whether they are whole pictures (`dica.data.whole`)."""

    channels: int
    image_size: int
    counts: dict[str, int]
    whole: bool = False


SPLITS = {
    "all": ("train", "test"),
    "train": ("train",),
    "test": ("test",),
    "train+unlabeled": ("train", "unlabeled"),
    "all+unlabeled": ("train", "unlabeled", "test"),
}


def splits_of(name: str, data: DataInfo) -> tuple[str, ...]:
    """Return the splits behind a `train_split` value that the data set really has."""
    return tuple(split for split in SPLITS[name] if data.counts.get(split))


def require_enough(params: dict[str, Any], data: DataInfo) -> None:
    """Raise a UserError for more clusters than training images, or one alone: each method would fail in its own way."""
    wanted, name = params["num_clusters"], params["train_split"]
    count = sum(data.counts[split] for split in splits_of(name, data)) if name in SPLITS else wanted
    if wanted > count:
        raise UserError(
            f"num_clusters is {wanted}, but there are {count} images to train on (train_split: {name}); ask for fewer "
            f"clusters or give more images"
        )
    if count == 1:
        raise UserError(f"there is 1 image to train on (train_split: {name}); give at least 2")
