"""What every reader hands to `prepare`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from dica.files import UserError

BYTES = "|u1"


class Block(NamedTuple):
    """Some decoded images of one split and the rows where they belong."""

    split: str
    rows: np.ndarray  # (b,) int
    images: np.ndarray  # (b, H, W, C), uint8 but for features


@dataclass
class Content:
    """A data set as its reader found it.

    `counts` is known before the first image is decoded. `labels` holds one (n,) int16 array per split, -1 where there
    is no label; a reader that streams may fill it while `blocks` is consumed, so read it afterwards. `names` holds the
    file of each row where images are files: those who look at clusters want it, and it is no part of the content.
    `left_out` lists, by split, the files that were declared to be skipped when they cannot be read; their digests are
    part of the content's identity. `dtype` is that of the arrays in NumPy's words.
    """

    classes: list[str]
    shape: tuple[int, int, int]
    counts: dict[str, int]
    blocks: Iterable[Block]
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    dtype: str = BYTES


def whole(split: str, images: np.ndarray, start: int = 0) -> Block:
    """Return consecutive images as one block that begins at row `start`."""
    return Block(split, np.arange(start, start + len(images)), images)


def names_in_order(targets: dict[str, tuple[str, int]]) -> dict[str, list[str]]:
    """Return the file names of each split in the order of their rows, from name -> (split, row)."""
    names: dict[str, list[str]] = {}
    for name, (split, _) in sorted(targets.items(), key=lambda item: item[1]):
        names.setdefault(split, []).append(name)
    return names


def first_per_class(content: Content, per_class: dict[str, int], name: str, others: str | None = None) -> Content:
    """Return the data set with only the first images of each class, in the order they had.

    Parameters
    ----------
    content
        A data set whose reader knows the labels before the images.
    per_class
        Images of each class to keep, by split; other splits stay whole.
    name
        The data set, for messages.
    others
        A new split that gets the images that are left of the one split of `per_class`; None leaves them out.

    Raises
    ------
    UserError
        If a split is not there, its labels are not known beforehand (STL-10), or a class has too few images; if
        `others` names a split that is there, or is to come from several.
    """
    keep = {}
    for split, number in per_class.items():
        if split not in content.labels:
            raise UserError(f"{name}.prepare.per_class.{split}: there is no such split whose labels come first")
        labels = content.labels[split]
        counts = np.bincount(labels[labels >= 0], minlength=len(content.classes))
        if counts.min() < number:
            poorest = content.classes[int(counts.argmin())]
            raise UserError(f"{name}.prepare.per_class.{split}: {number} asked for, {poorest} has {counts.min()}")
        keep[split] = np.sort(np.concatenate([np.flatnonzero(labels == k)[:number] for k in range(len(counts))]))
    if others is None:
        return _with_rows(content, keep)
    if len(keep) > 1 or others in content.counts:
        raise UserError(f"{name}.prepare.others: {others}: a split that is not there yet, of what one split leaves")
    return _split(content, *keep.popitem(), others)


def _split(content: Content, split: str, first: np.ndarray, others: str) -> Content:
    """Return the data set with the rows `first` of a split under its name and its other rows as the split `others`."""
    parts = {split: first, others: np.setdiff1d(np.arange(content.counts[split]), first)}
    named = content.names.get(split)
    return replace(
        content,
        counts=content.counts | {part: len(rows) for part, rows in parts.items()},
        labels=content.labels | {part: content.labels[split][rows] for part, rows in parts.items()},
        names=content.names | ({part: [named[row] for row in rows] for part, rows in parts.items()} if named else {}),
        blocks=(part for block in content.blocks for part in _parted(block, split, parts)),
    )


def _parted(block: Block, split: str, parts: dict[str, np.ndarray]) -> Iterator[Block]:
    if block.split != split:
        yield block
        return
    for part, rows in parts.items():
        yield from (found._replace(split=part) for found in _kept([block], {split: rows}))


def without(content: Content, left_out: dict[str, list[int]], name: str) -> Content:
    """Return the data set without some images, the others in the order they had.

    Parameters
    ----------
    content
        A data set whose reader knows the labels before the images.
    left_out
        Positions of images, by split.
    name
        The data set, for messages.

    Raises
    ------
    UserError
        If a split is not there, its labels are not known beforehand (STL-10), or it has no image at a position.
    """
    keep = {}
    for split, rows in left_out.items():
        if split not in content.labels:
            raise UserError(f"{name}.prepare.without.{split}: there is no such split whose labels come first")
        if (last := max(rows)) >= content.counts[split]:
            raise UserError(f"{name}.prepare.without.{split}: {last}: there are {content.counts[split]} images")
        keep[split] = np.setdiff1d(np.arange(content.counts[split]), rows)
    return _with_rows(content, keep)


def _with_rows(content: Content, keep: dict[str, np.ndarray]) -> Content:
    """Return the data set with these rows of some splits alone; `keep` has them in ascending order."""
    return replace(
        content,
        counts=content.counts | {split: len(rows) for split, rows in keep.items()},
        labels=content.labels | {split: content.labels[split][rows] for split, rows in keep.items()},
        names={
            split: [names[row] for row in keep[split]] if split in keep else names
            for split, names in content.names.items()
        },
        blocks=_kept(content.blocks, keep),
    )


def _kept(blocks: Iterable[Block], keep: dict[str, np.ndarray]) -> Iterator[Block]:
    for block in blocks:
        if block.split not in keep:
            yield block
            continue
        chosen = np.isin(block.rows, keep[block.split])
        if chosen.any():
            rows: Any = np.searchsorted(keep[block.split], block.rows[chosen])
            yield Block(block.split, rows, block.images[chosen])
