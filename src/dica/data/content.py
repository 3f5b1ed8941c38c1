"""What every reader hands to `prepare`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class Block(NamedTuple):
    """Some decoded images of one split and the rows where they belong."""

    split: str
    rows: np.ndarray  # (b,) int
    images: np.ndarray  # (b, H, W, C) uint8


@dataclass
class Content:
    """A data set as its reader found it.

    `counts` is known before the first image is decoded. `labels` holds one (n,) int16 array per split, -1 where there
    is no label; a reader that streams may fill it while `blocks` is consumed, so read it afterwards.
    """

    classes: list[str]
    shape: tuple[int, int, int]
    counts: dict[str, int]
    blocks: Iterable[Block]
    labels: dict[str, np.ndarray] = field(default_factory=dict)


def whole(split: str, images: np.ndarray, start: int = 0) -> Block:
    """Return consecutive images as one block that begins at row `start`."""
    return Block(split, np.arange(start, start + len(images)), images)
