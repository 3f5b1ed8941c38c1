"""Any folder, tar or zip of images; `layout` says what the folders in it mean.

The order is that of the sorted names, whatever the archive's own order, so a folder and an archive of it give the same
arrays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dica.data.archives import IMAGE_LIMIT, archive_members, archive_names
from dica.data.decoded import Block, Content, names_in_order
from dica.data.images import Encoded, Recipe, decode_all, decoded
from dica.data.layout import ImagePlace, arrange, class_names, is_image
from dica.files import UserError, sha256_bytes


def read(entry: dict[str, Any], form: str, files: dict[str, Path]) -> Content:
    """Read a folder or an archive of images.

    Parameters
    ----------
    entry
        The data set's entry: `image_size`, and under `prepare` how images are resized, what the folders mean
        (`layout`), `links: follow` for linked folders and `skip_unreadable: true` for damaged images.
    form
        `archive` or `folder`.
    files
        The one archive or folder.

    Raises
    ------
    UserError
        If there is no image, the layout is ambiguous, images differ in size and none is declared, or some are
        unreadable and not to be left out.
    """
    (path,) = files.values()
    prepare = entry["prepare"]
    places = arrange(names_in(path, form, prepare), path.name, prepare)
    left_out = _unreadable(path, form, places, entry) if prepare.get("skip_unreadable") else {}
    bad = {record["name"] for records in left_out.values() for record in records}
    places = [place for place in places if place.name not in bad]
    classes = class_names(places, prepare)
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
        left_out=left_out,
    )


def names_in(path: Path, form: str, prepare: dict[str, Any], wanted: Callable[[str], bool] = is_image) -> list[str]:
    """Return the names of the images, or of what is `wanted`, in a folder or an archive, with `/` between folders."""
    if form == "folder":
        return list(_folder_names(path, prepare.get("links") == "follow", wanted))
    return [name for name in archive_names(path) if wanted(name)]


def _folder_names(path: Path, follow: bool, wanted: Callable[[str], bool]) -> Iterator[str]:
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    for folder, below, files in os.walk(path, followlinks=follow, onerror=_raise):
        _check_links(path, Path(folder), below, follow)
        for file in files:
            name = (Path(folder) / file).relative_to(path).as_posix()
            if not wanted(name):
                continue
            try:
                name.encode("utf-8")
            except UnicodeEncodeError:
                raise UserError(f"{path}: the name {name!a} is not UTF-8; rename it") from None
            if "\\" in name:
                raise UserError(
                    f"{path}: the name {name!r} has a backslash, which separates folders in archives made on Windows; "
                    f"declare the archive itself as the source, or rename the file"
                )
            yield name


def _raise(error: OSError) -> None:
    """Stop at a folder that cannot be listed: `os.walk` by itself would leave its images out and say nothing."""
    raise error


def _check_links(path: Path, folder: Path, below: list[str], follow: bool) -> None:
    for name in below:
        if not (folder / name).is_symlink():
            continue
        place = (folder / name).relative_to(path)
        if not follow:
            raise UserError(
                f"{path}: {str(place)!r} is a link to a folder, of which DVC and Git keep no image; copy the folder, "
                f"or declare `prepare: {{links: follow}}` (`--follow-links`) to read what it leads to"
            )
        if folder.resolve().is_relative_to((folder / name).resolve()):
            raise UserError(f"{path}: {str(place)!r} is a link to a folder that it lies in; remove it")


def _unreadable(
    path: Path, form: str, places: list[ImagePlace], entry: dict[str, Any]
) -> dict[str, list[dict[str, str]]]:
    """Return, by split, the images that cannot be decoded: the name, the digest of the file, and why."""
    split_of = {place.name: place.split for place in places}
    items = (Encoded(split_of[name], 0, name, data, why) for name, data, why in contents(path, form, split_of))
    found: dict[str, list[dict[str, str]]] = {}
    for item, result in decoded(items, _recipe(entry)):
        if isinstance(result, str):
            record = {"name": item.name, "sha256": sha256_bytes(item.data), "why": result}
            found.setdefault(item.split, []).append(record)
    return {split: sorted(records, key=lambda record: record["name"]) for split, records in found.items()}


def _recipe(entry: dict[str, Any]) -> Recipe:
    return Recipe(entry["prepare"].get("size"), entry["prepare"].get("mode"), upright=True)


def _blocks(path: Path, form: str, targets: dict[str, tuple[str, int]], entry: dict[str, Any]) -> Iterator[Block]:
    items = (Encoded(*targets[name], name, data, why) for name, data, why in contents(path, form, targets))
    advice = (
        "mend or remove them, or declare `prepare: {skip_unreadable: true}` (`dica cluster --skip-unreadable`) to "
        "leave them out"
    )
    for split, rows, images in decode_all(items, _recipe(entry), entry["image_size"], entry["name"], advice):
        yield Block(split, rows, images)


def contents(path: Path, form: str, names: Collection[str]) -> Iterator[tuple[str, bytes, str]]:
    """Yield each named file of a folder or an archive: name, bytes, and why there are none, empty where there are."""
    if form == "folder":
        yield from ((name, *_read(path / name)) for name in names)
        return
    for member in archive_members(path):
        if member.name in names:
            yield member.name, member.read(), ""


def _read(file: Path) -> tuple[bytes, str]:
    if not file.is_file():  # a broken link, a fifo
        return b"", "is not a plain file"
    if file.stat().st_size > IMAGE_LIMIT:
        return b"", f"has more than {IMAGE_LIMIT} bytes"
    try:
        return file.read_bytes(), ""
    except OSError as error:
        return b"", str(error.strerror)
