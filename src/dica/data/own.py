"""A user's own images become a data set: looked at, declared under params/own/<name>/, prepared and fingerprinted."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dica.data import features, folder, layout
from dica.data.catalog import OWN
from dica.data.images import FORMATS, PIXEL_LIMIT
from dica.data.paths import OWN_PREFIX, RAW, prepared_folder
from dica.data.prepare import prepare as prepare_arrays
from dica.data.prepared import MANIFEST, load_manifest, open_split
from dica.files import (
    UserError,
    atomic_write_bytes,
    atomic_write_text,
    canonical_json,
    no_empty_folders,
    sha256_bytes,
    sha256_file,
)

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip")
TABLES = (".csv", ".tsv", ".txt", ".npz", ".mat", ".h5", ".hdf5", ".parquet", ".pt", ".pkl")  # of features, perhaps
SAMPLED = 200  # images whose size and colours are looked at before all of them are read
MEASURED = 2000  # prepared images that mean and standard deviation are taken of
LEAST_STD = 0.01
DARK = 2**14  # a quarter of what 16 bits hold: cameras of 10 to 12 bits save less
NO_MEANING = {"top": "", "split_folders": {}, "labels": "none"}  # of folders: all images are of one split


@dataclass(frozen=True)
class Look:
    """What a first look at the images says.

    Attributes
    ----------
    form : `folder` or `archive`; `array` for images in memory; `npy` for features
    splits : number of images by split
    classes : names of sub-folders that count as labels
    side : shorter side in pixels of the middle one of the sampled images
    grey : whether all sampled images are without colour
    listing : changes when a file is added, removed, renamed or written to
    prepare : what the data set's entry says of folders and damaged images
    features : numbers a row, where rows of features are given and no images; else 0
    remark : why folders are no labels, where they look like some, which pictures are of a kind that is not read,
        and that 16-bit images are dark
    """

    form: str
    splits: dict[str, int]
    classes: list[str]
    side: int
    grey: bool
    listing: str
    prepare: dict[str, Any] = field(default_factory=dict)
    remark: str = ""
    features: int = 0

    @property
    def count(self) -> int:
        """Number of images."""
        return sum(self.splits.values())


def default_name(source: Path) -> str:
    """Return what images are called after their folder or archive: small letters, digits and dashes."""
    stem = source.resolve().name.lower()
    for suffix in sorted((*ARCHIVES, features.SUFFIX), key=len, reverse=True):
        stem = stem.removesuffix(suffix)
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-") or "images"


def check_name(name: str) -> None:
    """Raise a UserError unless `name` can be part of a path and of a data set's name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise UserError(f"--name: {name!r} must be small letters, digits and dashes")


def look(source: Path, labels: bool = True, skip: bool = False, follow: bool = False) -> Look:
    """Look at a folder or an archive of images, or at features (`dica.data.features`), without reading all of it.

    Parameters
    ----------
    labels
        Whether folders in it may be classes; they are not where they could mean several things (`Look.remark`).
    skip
        Whether damaged images are left out.
    follow
        Whether linked folders are read.

    Raises
    ------
    UserError
        If it is neither, or has no image.
    """
    if source.is_file() and source.name.lower().endswith(features.SUFFIX):
        return _look_at_features(source)
    form, names, passed_over = list_images(source, follow)
    if form == "file":
        raise UserError(f"{source}: one image; give a folder or an archive of many")
    stamps = [_stamp(source, name) for name in names] if form == "folder" else []
    listing = sha256_bytes(canonical_json(stamps).encode()) if stamps else sha256_file(source)
    places, prepare, remark = _meaning(names, source.name, labels)
    prepare |= ({"skip_unreadable": True} if skip else {}) | ({"links": "follow"} if follow else {})
    sides, grey, deepest = _sample(source, form, names)
    dark = _dark(deepest)
    return Look(
        form=form,
        splits=dict(Counter(place.split for place in places)),
        classes=layout.class_names(places, {}),
        side=int(np.median(sides)),
        grey=grey,
        listing=listing,
        prepare=prepare,
        remark=". ".join(filter(None, (remark, passed_over, dark))),
    )


def _look_at_features(source: Path) -> Look:
    rows = features.open_rows(source)
    names = features.row_names(source, len(rows))
    return Look(
        form="npy",
        splits={"train": len(rows)},
        classes=[],
        side=1,
        grey=False,
        listing=sha256_bytes(canonical_json([sha256_file(source), names]).encode()),
        prepare={"labels": "none"},
        features=rows.shape[1],
    )


def _meaning(names: list[str], where: str, labels: bool) -> tuple[list[layout.ImagePlace], dict[str, Any], str]:
    """Return where images belong, the keys of `prepare` that say so, and why folders that could be are no classes."""
    remark = ""
    if labels:
        try:
            places = layout.arrange(names, where)
            classes = {place.label for place in places if place.label is not None}
            if len(classes) > 1:
                return places, {}, ""
        except UserError as error:
            remark = f"its folders are not taken as labels ({str(error).split(';')[0]})"
    return layout.arrange(names, where, NO_MEANING), dict(NO_MEANING), remark


def list_images(source: Path, follow: bool = False) -> tuple[str, list[str], str]:
    """Return `folder`, `archive` or `file`, the sorted names of the images in it, and what was passed over, in words.

    Raises
    ------
    UserError
        If it is none of them, or has no image.
    """
    prepare, others = {"links": "follow"} if follow else {}, Counter[str]()

    def is_picture(name: str) -> bool:
        if layout.is_image(name) or layout.is_foreign(name):
            return True
        others[_suffix(name)] += not layout.is_hidden(name)
        return False

    if source.is_dir():
        form, found = "folder", folder.names_in(source, "folder", prepare, is_picture)
    elif source.is_file() and source.name.lower().endswith(ARCHIVES):
        form, found = "archive", folder.names_in(source, "archive", prepare, is_picture)
    elif source.is_file() and layout.is_image(source.name):
        form, found = "file", [source.name]
    elif source.is_file() and source.name.lower().endswith(TABLES):
        raise UserError(f"{source}: features are one array (n, d), a row an image; save it with numpy.save as .npy")
    elif source.exists():
        raise UserError(
            f"{source}: neither a folder nor an archive ({', '.join(ARCHIVES)}) of images, nor features "
            f"({features.SUFFIX})"
        )
    else:
        raise UserError(f"{source}: no such folder or archive")
    passed_over = _passed_over(Counter(_suffix(name) for name in found if layout.is_foreign(name)), +others)
    names = sorted(name for name in found if layout.is_image(name))
    if not names:
        looked_for = f"no image found (looked for {', '.join(layout.SUFFIXES)})"
        raise UserError(f"{source}: {'; '.join(filter(None, (looked_for, passed_over)))}")
    return form, names, passed_over


def _suffix(name: str) -> str:
    return Path(name).suffix.lower().encode("utf-8", "backslashreplace").decode() or "without suffix"


def _passed_over(foreign: Counter[str], others: Counter[str]) -> str:
    """Return in words which pictures and which other files are not read, by suffix."""
    kinds, rest = (", ".join(f"{number} {suffix}" for suffix, number in sorted(c.items())) for c in (foreign, others))
    told = [f"files of kinds that are not read are passed over ({kinds}); save them as JPEG or PNG" if kinds else ""]
    told.append(f"files that are not called like images are passed over ({rest})" if rest else "")
    return ". ".join(filter(None, told))


def _stamp(source: Path, name: str) -> list[Any]:
    found = (source / name).lstat() if not (source / name).exists() else (source / name).stat()
    return [name, found.st_size, found.st_mtime_ns]


def _dark(deepest: int) -> str:
    if not 0 < deepest < DARK:
        return ""
    return (
        f"the largest value of the 16-bit images that were looked at is {deepest} of 65535, and of 16 bits the upper 8 "
        "are kept, so these images become nearly black; rescale them to the whole range if that is not meant"
    )


def _sample(source: Path, form: str, names: list[str]) -> tuple[list[int], bool, int]:
    """Return the shorter sides of some images spread over all, whether none has colour, and the largest 16-bit value.

    Damaged ones are passed over; `prepare` names all of them.
    """
    chosen = [names[k] for k in np.unique(np.linspace(0, len(names) - 1, SAMPLED).astype(int))]
    sides, grey, deepest = [], True, 0
    for _, data, _ in folder.contents(source, form, chosen):
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > PIXEL_LIMIT:
                    continue
                sides.append(min(image.size))
                if image.mode.startswith("I;16"):
                    deepest = max(deepest, int(np.asarray(image).max()))
                image.info.pop("transparency", None)
                image.draft("RGB", (64, 64))  # JPEG alone: decoded small
                pixels = np.asarray(image.convert("RGB").resize((32, 32))).astype(int)
                grey = grey and int(np.ptp(pixels, axis=2).max()) == 0
        except Exception:  # Pillow's plugins raise nearly anything; preparing names every damaged file
            continue
    if not sides:
        raise UserError(
            f"{source}: none of the {len(chosen)} images that were tried can be read, {chosen[0]!r} the first"
        )
    return sides, grey, deepest


def declare(
    root: Path, name: str, source: Path, found: Look, side: int, k: int, enough: bool = False
) -> dict[str, Any]:
    """Prepare the images and return their entry, complete with fingerprint and normalisation.

    Parameters
    ----------
    side
        Height and width to bring them to.
    k
        Number of clusters, which stands for the number of classes where there are no labels.
    enough
        Refuse, before anything is written, if too few images for `k` are left without damaged ones.

    Raises
    ------
    UserError
        If images are damaged, with a list of them; see `dica.data.images`. Nothing new is left behind.
    """
    path = root / OWN / name / "dataset.yaml"
    before = path.read_bytes() if path.is_file() else b""
    prepared = root / prepared_folder(f"{OWN_PREFIX}{name}")
    with no_empty_folders(root / RAW, *prepared.parents[:2], prepared, *path.parents[:2]):
        try:
            return _declare(root, name, source, found, side, k, enough)
        except BaseException:  # no entry of images that are not there
            atomic_write_bytes(path, before) if before else _forget(root, name, source)
            raise


def _declare(root: Path, name: str, source: Path, found: Look, side: int, k: int, enough: bool) -> dict[str, Any]:
    own = f"{OWN_PREFIX}{name}"
    entry: dict[str, Any] = {
        "label": name,
        "kind": "features" if found.features else "folder",
        "sources": [_source(root, name, source, found)],
        "licence": "not stated",
        "citation": "none",
        "num_classes": len(found.classes) or k,
        "image_size": side,
        "channels": found.features or 3,
        "splits": found.splits,
        "prepare": {**found.prepare, **({} if found.features else {"size": side, "mode": "crop"})},
        "normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3},  # until the pixels are there; features have none
    }
    if found.prepare.get("skip_unreadable"):  # what is left is known only when all are read
        entry = _of_what_is_left({**entry, "name": own}, found.form, source, k)
        if enough:
            require_enough(k, sum(entry["splits"].values()))
    write_entry(root, name, entry)
    manifest = prepare_arrays(own, root)
    if not found.features:
        entry["normalisation"] = _statistics(root / prepared_folder(own))
    entry["fingerprint"] = manifest["fingerprint"]
    write_entry(root, name, entry)
    return entry


def _of_what_is_left(entry: dict[str, Any], form: str, source: Path, k: int) -> dict[str, Any]:
    """Return an entry with the numbers of images and classes that are left without damaged images."""
    content = folder.read(entry, form, {"source": source})
    if len(content.classes) == 1:  # the others were wholly damaged; one class says nothing
        entry = {**entry, "prepare": {**entry["prepare"], **NO_MEANING}}
        content = folder.read(entry, form, {"source": source})
    if not sum(content.counts.values()):
        raise UserError(f"{source}: no image is left without the damaged ones")
    known = {key: value for key, value in entry.items() if key != "name"}
    return {**known, "splits": content.counts, "num_classes": len(content.classes) or k}


def require_enough(k: int, count: int) -> None:
    """Raise a UserError unless there are two images a cluster."""
    if k * 2 > count:
        raise UserError(f"--k: {k} clusters of {count} images; at most half as many as images")


def _forget(root: Path, name: str, source: Path) -> None:
    """Remove what a first attempt has left of a data set that never came to be."""
    prepared, link = root / prepared_folder(f"{OWN_PREFIX}{name}"), _link(root, name, source)
    if link.is_symlink():
        link.unlink()
        link.with_name(f".{link.name}.lock").unlink(missing_ok=True)
    (root / OWN / name / "dataset.yaml").unlink(missing_ok=True)
    if not (prepared / MANIFEST).exists():
        (prepared / ".lock").unlink(missing_ok=True)
    for place in (root / OWN / name, prepared):
        with contextlib.suppress(OSError):  # it is not there, or holds something else
            place.rmdir()


def left_out(root: Path, name: str) -> list[dict[str, str]]:
    """Return the damaged images that were left out of a prepared data set of one's own: `name` and `why`."""
    splits = load_manifest(root / prepared_folder(f"{OWN_PREFIX}{name}"))["splits"]
    return [image for _, record in sorted(splits.items()) for image in record.get("left_out", [])]


def write_entry(root: Path, name: str, entry: dict[str, Any]) -> None:
    """Write the data set's entry under params/own/<name>/."""
    import yaml

    path = root / OWN / name / "dataset.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({f"{OWN_PREFIX}{name}": entry}, sort_keys=False, allow_unicode=True, width=120)
    atomic_write_text(path, f"# Written by `dica cluster`; the keys are those of params/datasets.yaml.\n{text}")


def _source(root: Path, name: str, source: Path, found: Look) -> dict[str, Any]:
    if found.form == "folder":
        return {"format": "folder", "folder": os.fspath(source.resolve())}
    link = _link(root, name, source)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(source.resolve())  # where the reader looks for archives; no second copy
    form = "npy" if found.features else "archive"
    return {"format": form, "files": [{"file": link.name, "sha256": sha256_file(source)}]}


def _link(root: Path, name: str, source: Path) -> Path:
    """Return where the link to an archive or to features lies."""
    return root / RAW / f"{OWN_PREFIX}{name}-{source.name}"


def _statistics(prepared: Path) -> dict[str, list[float]]:
    images = open_split(prepared, "train")
    rows = images[:: -(-len(images) // MEASURED)].astype(np.float64) / 255
    mean, std = rows.mean(axis=(0, 1, 2)), rows.std(axis=(0, 1, 2))
    return {"mean": mean.round(4).tolist(), "std": std.round(4).clip(LEAST_STD).tolist()}
