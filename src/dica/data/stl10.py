"""STL-10 from the authors' binary archive.

Images are 3x96x96 bytes, channel by channel and *column* by column; labels are 1..10 on disk and 0..9 here. The
unlabelled part has 2.8 GB, so images are streamed. https://cs.stanford.edu/~acoates/stl10/
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dica.data.archives import Member, tar_members
from dica.data.decoded import Block, Content, whole
from dica.files import UserError

SIDE = 96
PIXELS = 3 * SIDE * SIDE
FOLDER = "stl10_binary"
STEP = 1000  # images of one block


def read(entry: dict[str, Any], form: str, files: dict[str, Path]) -> Content:
    """Read `stl10_binary.tar.gz`, whose digest has been verified.

    The counts are the declared ones: each file's length is checked against them when it comes by.

    Raises
    ------
    UserError
        If a file is missing or of a wrong length, or a label is outside 1..10.
    """
    (path,) = files.values()
    counts = dict(entry["splits"])
    content = Content(classes=[], shape=(SIDE, SIDE, 3), counts=counts, blocks=())
    content.blocks = _stream(path, content)
    return content


def _stream(path: Path, content: Content) -> Iterator[Block]:
    if "unlabeled" in content.counts:
        content.labels["unlabeled"] = np.full(content.counts["unlabeled"], -1, np.int16)
    pixel_files = {f"{FOLDER}/{split}_X.bin": split for split in content.counts}
    label_files = {f"{FOLDER}/{split}_y.bin": split for split in content.counts if split != "unlabeled"}
    missing = {*pixel_files, *label_files, f"{FOLDER}/class_names.txt"}
    for member in tar_members(path, path.name):
        if member.name not in missing:
            continue
        missing.discard(member.name)
        if split := pixel_files.get(member.name):
            yield from _images(member, split, content.counts[split])
        elif split := label_files.get(member.name):
            content.labels[split] = _labels(member, content.counts[split])
        else:
            content.classes.extend(member.read().decode("utf-8").split())
    if missing:
        raise UserError(f"{path.name}: {sorted(missing)[0]!r} is missing; this is not the STL-10 binary archive")


def _images(member: Member, split: str, count: int) -> Iterator[Block]:
    _require_size(member, count * PIXELS, f"{count} images")
    for start in range(0, count, STEP):
        number = min(STEP, count - start)
        data = member.take(number * PIXELS)
        # (n, channel, column, row) -> (n, row, column, channel)
        yield whole(split, np.frombuffer(data, np.uint8).reshape(-1, 3, SIDE, SIDE).transpose(0, 3, 2, 1), start)


def _labels(member: Member, count: int) -> np.ndarray:
    _require_size(member, count, f"{count} labels")
    labels = np.frombuffer(member.read(), np.uint8).astype(np.int16) - 1
    if labels.size and not 0 <= labels.min() <= labels.max() <= 9:
        raise UserError(f"{member.archive}: member {member.name!r} has a label outside 1..10")
    return labels


def _require_size(member: Member, size: int, meaning: str) -> None:
    if member.size != size:
        raise UserError(
            f"{member.archive}: member {member.name!r} has {member.size} bytes; {meaning} (declared under `splits` in "
            f"params/datasets.yaml) are {size} bytes"
        )
