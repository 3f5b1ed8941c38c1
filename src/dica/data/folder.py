"""Any folder, tar or zip of images: classes from sub-folders, or none.

    train/<class>/a.jpg, test/<class>/b.jpg     two labelled splits
    <class>/a.jpg                               one labelled split, `train`
    a.jpg                                       one split without labels, `train`

Splits are called train, test and unlabeled; one wrapping folder around them is skipped. The order is that of the sorted
names, whatever the archive's own order, so a folder and an archive of it give the same arrays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dica.data.archives import IMAGE_LIMIT, archive_members, archive_names
from dica.data.decoded import Block, Content, names_in_order
from dica.data.images import Encoded, Recipe, decode_all
from dica.files import UserError

SPLITS = ("train", "test", "unlabeled")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


class Place(NamedTuple):
    """Where an image belongs: its split, class (None without labels) and name."""

    split: str
    label: str | None
    name: str


def read(entry: dict[str, Any], form: str, files: dict[str, Path]) -> Content:
    """Read a folder or an archive of images.

    Parameters
    ----------
    entry
        The data set's entry: `image_size`, and `prepare.size` / `prepare.mode` if images are to be resized.
    form
        `archive` or `folder`.
    files
        The one archive or folder.

    Raises
    ------
    UserError
        If there is no image, the layout is mixed, images differ in size and none is declared, or some are unreadable.
    """
    (path,) = files.values()
    names = list(_folder_names(path)) if form == "folder" else _archive_names(path)
    places = sorted(arrange(names, path.name), key=lambda place: (place.split, place.label or "", place.name))
    classes = sorted({place.label for place in places if place.label is not None})
    number_of = {name: number for number, name in enumerate(classes)}
    labels: dict[str, list[int]] = {}
    targets: dict[str, tuple[str, int]] = {}
    for place in places:
        values = labels.setdefault(place.split, [])
        targets[place.name] = (place.split, len(values))
        values.append(-1 if place.label is None else number_of[place.label])
    return Content(
        classes=classes,
        shape=(entry["image_size"], entry["image_size"], 3),
        counts={split: len(values) for split, values in labels.items()},
        blocks=_blocks(path, form, targets, entry),
        labels={split: np.array(values, np.int16) for split, values in labels.items()},
        names=names_in_order(targets),
    )


def arrange(names: list[str], where: str) -> list[Place]:
    """Sort image names (with `/`) into splits and classes, as the module text says."""
    paths = {name: name.split("/") for name in names}
    if not paths:
        raise UserError(f"{where}: no image found (looked for {', '.join(SUFFIXES)})")
    depth = 0
    while _wrapper(paths.values(), depth):
        depth += 1
    tops = {parts[depth] for parts in paths.values() if len(parts) > depth + 1}
    flat = any(len(parts) == depth + 1 for parts in paths.values())
    if not flat and tops <= set(SPLITS):
        by_split = {split: [n for n, p in paths.items() if p[depth] == split] for split in tops}
        return [place for split in by_split for place in _split_places(split, by_split[split], paths, depth + 1, where)]
    return _split_places("train", list(paths), paths, depth, where)


def _wrapper(paths: Any, depth: int) -> bool:
    """Whether all names share one folder at `depth` that is not a split: then it carries no meaning."""
    heads = {parts[depth] if len(parts) > depth + 1 else None for parts in paths}
    return len(heads) == 1 and not heads & {None, *SPLITS}


def _split_places(split: str, names: list[str], paths: dict[str, list[str]], depth: int, where: str) -> list[Place]:
    nested = [name for name in names if len(paths[name]) > depth + 1]
    if nested and len(nested) != len(names):
        loose = next(name for name in names if len(paths[name]) == depth + 1)
        raise UserError(f"{where}: {split} has images inside class folders and outside ({loose!r}); use one way")
    labelled = bool(nested) and split != "unlabeled"
    return [Place(split, paths[name][depth] if labelled else None, name) for name in names]


def _is_image(name: str) -> bool:
    """Hidden files are what systems leave behind (`._a.jpg`, `.DS_Store`), not images."""
    return name.lower().endswith(SUFFIXES) and not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _archive_names(path: Path) -> list[str]:
    return [name for name in archive_names(path) if _is_image(name)]


def _folder_names(path: Path) -> Iterator[str]:
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    for folder, _, files in os.walk(path):
        for file in files:
            name = (Path(folder) / file).relative_to(path).as_posix()
            if not _is_image(name):
                continue
            try:
                name.encode("utf-8")
            except UnicodeEncodeError:
                raise UserError(f"{path}: the name {name!a} is not UTF-8; rename it") from None
            yield name


def _blocks(path: Path, form: str, targets: dict[str, tuple[str, int]], entry: dict[str, Any]) -> Iterator[Block]:
    prepare = entry.get("prepare", {})
    recipe = Recipe(prepare.get("size"), prepare.get("mode"), upright=True)
    contents = _folder_bytes(path, targets) if form == "folder" else _archive_bytes(path, targets)
    items = (Encoded(*targets[name], name, data) for name, data in contents)
    for split, rows, images in decode_all(items, recipe, entry["image_size"], entry["name"]):
        yield Block(split, rows, images)


def _archive_bytes(path: Path, targets: dict[str, tuple[str, int]]) -> Iterator[tuple[str, bytes]]:
    for member in archive_members(path):
        if member.name in targets:
            yield member.name, member.read()


def _folder_bytes(path: Path, targets: dict[str, tuple[str, int]]) -> Iterator[tuple[str, bytes]]:
    for name in targets:
        file = path / name
        if not file.is_file():  # a broken link, a fifo
            raise UserError(f"{path}: {name!r} is not a plain file")
        if file.stat().st_size > IMAGE_LIMIT:
            raise UserError(f"{path}: {name!r} has more than {IMAGE_LIMIT} bytes")
        yield name, file.read_bytes()
