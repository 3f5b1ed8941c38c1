"""Tiny-ImageNet from `tiny-imagenet-200.zip`.

train/<wnid>/images/*.JPEG is split `train`, val/images with val_annotations.txt is split `test`; the test images of the
archive have no labels and are left out. Classes are the sorted wnids, images are sorted by class, then by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dica.data.archives import archive_names, zip_members
from dica.data.decoded import Block, Content, names_in_order
from dica.data.images import Encoded, Recipe, decode_all
from dica.files import UserError

TOP = "tiny-imagenet-200"
TRAIN = re.compile(rf"{TOP}/train/(n\d{{8}})/images/\1_\d+\.JPEG")
VAL = re.compile(rf"{TOP}/val/images/(val_\d+\.JPEG)")
WNIDS = f"{TOP}/wnids.txt"
ANNOTATIONS = f"{TOP}/val/val_annotations.txt"


def read(entry: dict[str, Any], form: str, files: dict[str, Path]) -> Content:
    """Read the archive, whose digest has been verified.

    Raises
    ------
    UserError
        If a list is missing, an image is of an unknown class or unreadable.
    """
    (path,) = files.values()
    names = archive_names(path)
    if missing := {WNIDS, ANNOTATIONS} - set(names):
        raise UserError(f"{path.name}: {sorted(missing)[0]!r} is missing; this is not Tiny-ImageNet")
    texts = {m.name: m.read().decode("utf-8") for m in zip_members(path, path.name, {WNIDS, ANNOTATIONS})}
    classes = sorted(texts[WNIDS].split())
    number_of = {wnid: number for number, wnid in enumerate(classes)}
    annotated = dict(line.split("\t")[:2] for line in texts[ANNOTATIONS].splitlines() if line.strip())
    found: dict[str, list[tuple[int, str]]] = {"train": [], "test": []}
    for name in names:
        if match := TRAIN.fullmatch(name):
            found["train"].append((_number(match[1], number_of, name, path), name))
        elif match := VAL.fullmatch(name):
            found["test"].append((_number(annotated.get(match[1]), number_of, name, path), name))
    for pairs in found.values():
        pairs.sort()
    targets = {name: (split, row) for split, pairs in found.items() for row, (_, name) in enumerate(pairs)}
    return Content(
        classes=classes,
        shape=(entry["image_size"], entry["image_size"], 3),
        counts={split: len(pairs) for split, pairs in found.items()},
        blocks=_blocks(path, targets, entry),
        labels={split: np.array([number for number, _ in pairs], np.int16) for split, pairs in found.items()},
        names=names_in_order(targets),
    )


def _number(wnid: str | None, number_of: dict[str, int], name: str, path: Path) -> int:
    if wnid not in number_of:
        raise UserError(f"{path.name}: {name!r} belongs to class {wnid!r}, which wnids.txt does not have")
    return number_of[wnid]


def _blocks(path: Path, targets: dict[str, tuple[str, int]], entry: dict[str, Any]) -> Iterator[Block]:
    prepare = entry.get("prepare", {})
    members = zip_members(path, path.name, set(targets))
    items = (Encoded(*targets[member.name], member.name, member.read()) for member in members)
    recipe = Recipe(prepare.get("size"), prepare.get("mode"))
    for split, rows, images in decode_all(items, recipe, entry["image_size"], entry["name"]):
        yield Block(split, rows, images)
