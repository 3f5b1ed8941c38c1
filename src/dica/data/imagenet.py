"""Subsets of ILSVRC-2012: chosen classes of the training and the validation images.

From the three official archives (training tar of one tar per class, flat validation tar, development kit with the
validation labels), or from an extracted copy:

    <folder>/train/<wnid>/*.JPEG
    <folder>/val/<wnid>/*.JPEG                         or
    <folder>/val/ILSVRC2012_val_00000001.JPEG ...      with the kit beside it: ILSVRC2012_devkit_t12.tar.gz or
                                                       ILSVRC2012_devkit_t12/data/

Validation images become split `test`. Images are sorted by class (position in the class list), then by name; both
sources give the same arrays.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dica.data.archives import Member, tar_members
from dica.data.decoded import Block, Content, names_in_order
from dica.data.images import Encoded, Recipe, decode_all
from dica.data.whole import stored_shape
from dica.files import UserError

IMAGE = re.compile(r"[\w-]+\.JPEG")
VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
KIT = "ILSVRC2012_devkit_t12"
TRUTH = f"{KIT}/data/ILSVRC2012_validation_ground_truth.txt"
META = f"{KIT}/data/meta.mat"


class Listing:
    """Images found, each under (split, class number, name), with what is needed to read its bytes later."""

    def __init__(self) -> None:
        self.found: dict[str, list[tuple[int, str]]] = {"train": [], "test": []}

    def add(self, split: str, number: int, name: str) -> None:
        self.found[split].append((number, name))

    def targets(self) -> dict[str, tuple[str, int]]:
        """Return name -> (split, row), rows sorted by class, then by name."""
        return {
            name: (split, row) for split, pairs in self.found.items() for row, (_, name) in enumerate(sorted(pairs))
        }

    def labels(self) -> dict[str, np.ndarray]:
        return {split: np.array([n for n, _ in sorted(pairs)], np.int16) for split, pairs in self.found.items()}


def read(entry: dict[str, Any], form: str, files: dict[str, Path]) -> Content:
    """Read the classes of `entry["wnids"]`.

    Parameters
    ----------
    entry
        The data set's entry, with `wnids` (label = position), `image_size` and `prepare`.
    form
        `tar` (`files` has train, val and devkit) or `folder` (`files` has folder).
    files
        Archives whose digests have been verified, or the extracted copy.

    Raises
    ------
    UserError
        If a class, a list or the kit is missing, or images are unreadable.
    """
    number_of = {wnid: number for number, wnid in enumerate(entry["wnids"])}
    listing = Listing()
    if form == "tar":
        offsets = _list_tars(files, number_of, listing)
        contents = _tar_bytes(files, offsets)
    else:
        paths = _list_folder(files["folder"], number_of, listing)
        contents = ((name, path.read_bytes()) for name, path in paths.items())
    targets = listing.targets()
    return Content(
        classes=list(entry["wnids"]),
        shape=(*stored_shape(entry["image_size"], entry["prepare"]["mode"]), 3),
        counts={split: len(pairs) for split, pairs in listing.found.items()},
        blocks=_blocks(contents, targets, entry),
        labels=listing.labels(),
        names=names_in_order(targets),
    )


def _blocks(contents: Any, targets: dict[str, tuple[str, int]], entry: dict[str, Any]) -> Iterator[Block]:
    recipe = Recipe(entry["prepare"]["size"], entry["prepare"]["mode"])
    items = (Encoded(*targets[name], name, data) for name, data in contents)
    for split, rows, images in decode_all(items, recipe, entry["image_size"], entry["name"]):
        yield Block(split, rows, images)


def _list_tars(files: dict[str, Path], number_of: dict[str, int], listing: Listing) -> set[str]:
    seen = set()
    for wnid, _, member in _training_members(files["train"], number_of):
        listing.add("train", number_of[wnid], f"{wnid}/{member.name}")
        seen.add(wnid)
    if missing := sorted(number_of.keys() - seen):
        raise UserError(f"{files['train'].name}: class {missing[0]} is missing")
    truth = _truth_of_kit(files["devkit"])
    for name in _validation_members(files["val"]):
        wnid = _validation_class(name.name, truth, files["val"].name)
        if wnid in number_of:
            listing.add("test", number_of[wnid], name.name)
    return {name for pairs in listing.found.values() for _, name in pairs}


def _training_members(path: Path, number_of: dict[str, int]) -> Iterator[tuple[str, Member, Member]]:
    """Yield the images of the wanted classes; the outer tar is not compressed, so the rest is skipped by seeking."""
    for outer in tar_members(path, path.name, "r:"):
        wnid = outer.name.removesuffix(".tar")
        if wnid in number_of:
            for member in tar_members(outer.stream, f"{path.name}: {outer.name}", "r:"):
                if IMAGE.fullmatch(member.name):
                    yield wnid, outer, member


def _validation_members(path: Path) -> Iterator[Member]:
    for member in tar_members(path, path.name, "r:"):
        if VALIDATION.fullmatch(member.name):
            yield member


def _tar_bytes(files: dict[str, Path], wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    wnids = {name.split("/")[0]: 0 for name in wanted if "/" in name}
    for wnid, _, member in _training_members(files["train"], wnids):
        yield f"{wnid}/{member.name}", member.read()
    for member in _validation_members(files["val"]):
        if member.name in wanted:
            yield member.name, member.read()


def _list_folder(folder: Path, number_of: dict[str, int], listing: Listing) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for wnid in number_of:
        for path in _jpegs(folder / "train" / wnid):
            paths[f"{wnid}/{path.name}"] = path
            listing.add("train", number_of[wnid], f"{wnid}/{path.name}")
    for wnid, path in _validation_paths(folder, number_of):
        paths[path.name] = path
        listing.add("test", number_of[wnid], path.name)
    return paths


def _validation_paths(folder: Path, number_of: dict[str, int]) -> Iterator[tuple[str, Path]]:
    if any((folder / "val" / wnid).is_dir() for wnid in number_of):
        for wnid in number_of:
            for path in _jpegs(folder / "val" / wnid):
                yield wnid, path
        return
    archive = folder / f"{KIT}.tar.gz"
    truth = _truth_of_kit(archive) if archive.is_file() else _truth_of_folder(folder)
    for path in _jpegs(folder / "val"):
        wnid = _validation_class(path.name, truth, str(folder / "val"))
        if wnid in number_of:
            yield wnid, path


def _jpegs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected an extracted ILSVRC-2012 (train/<wnid>, val/)")
    return sorted(path for path in folder.iterdir() if IMAGE.fullmatch(path.name) and path.is_file())


def _validation_class(name: str, truth: list[str], where: str) -> str:
    match = VALIDATION.fullmatch(name)
    if not match or not 1 <= int(match[1]) <= len(truth):
        raise UserError(f"{where}: {name!r} is not one of the {len(truth)} validation images of the kit")
    return truth[int(match[1]) - 1]


def _truth_of_kit(archive: Path) -> list[str]:
    held = {m.name: m.read() for m in tar_members(archive, archive.name) if m.name in (TRUTH, META)}
    return _truth(held.get(TRUTH), held.get(META), archive.name)


def _truth_of_folder(folder: Path) -> list[str]:
    held = {name: (folder / name).read_bytes() for name in (TRUTH, META) if (folder / name).is_file()}
    return _truth(held.get(TRUTH), held.get(META), str(folder))


def _truth(truth: bytes | None, meta: bytes | None, where: str) -> list[str]:
    """Return the wnid of each validation image: line i of the truth file is the ILSVRC id of image i + 1."""
    if truth is None or meta is None:
        raise UserError(f"{where}: {TRUTH if truth is None else META} is missing; it has the validation labels")
    from scipy.io import loadmat

    synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
    wnid_of = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    try:
        return [wnid_of[int(line)] for line in truth.split()]
    except (KeyError, ValueError) as error:
        raise UserError(f"{where}: a line of {TRUTH} is not an id of meta.mat ({error})") from None
