"""Facts about the images of a data set, and the names of its splits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataInfo:
    """Facts about the images that decide a network's shape."""

    channels: int
    image_size: int
    counts: dict[str, int]


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
