"""From archives to `data/prepared/<name>/*.npy`, `data/labels/<name>.{npz,json}` and, last of all, the manifest.

The same archives give the same bytes everywhere: no times, no paths, a fixed order. Arrays are written under temporary
names and the manifest last, so a folder with a manifest is complete, and a crash leaves what was there before.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dica.data import catalog, cifar, digits, features, folder, imagenet, stl10, tiny
from dica.data.decoded import BYTES, Block, Content, first_per_class, without
from dica.data.fetch import fetch_dataset
from dica.data.paths import labels_file, labels_record, prepared_folder
from dica.data.prepared import MANIFEST, NAMES, check_length, check_names, fingerprint, labels_digest, load_manifest
from dica.data.whole import stored_shape
from dica.files import IntegrityError, UserError, load_arrays, sha256_file, sync_folder, write_json, write_npz

BLOCK = 2**22

READERS = {
    "cifar": cifar.read,
    "stl10": stl10.read,
    "imagenet": imagenet.read,
    "tiny-imagenet": tiny.read,
    "folder": folder.read,
    "digits": digits.read,
    "features": features.read,
}


def prepare(name: str, root: Path | str, mirror: str | Path | None = None) -> dict[str, Any]:
    """Fetch, read and write one data set.

    Parameters
    ----------
    name
        A data set of `params/datasets.yaml`.
    root
        The project root.
    mirror
        See `fetch.fetch`.

    Returns
    -------
    dict
        The manifest: dataset, data_id (None while nothing declared identifies the content), kind, classes, image_size,
        channels, splits {file, n, shape, bytes, sha256 (of the file), pixels_sha256, labels_sha256, and left_out
        {name, sha256, why} of the images that were skipped}, fingerprint, sources {file, sha256, md5}, prepared_with,
        and names (the sha256 of `names.json`) where images are files.

    Raises
    ------
    IntegrityError
        If an archive's digest or the declared fingerprint does not agree.
    UserError
        If the data cannot be had, are not as declared, or the disk is too small.
    """
    root = Path(root)
    entry = catalog.entry(root, name)
    alternative, paths, sources = fetch_dataset(entry, root, mirror)
    content = READERS[entry["kind"]](entry, alternative["format"], paths)
    if "per_class" in entry["prepare"]:
        content = first_per_class(content, entry["prepare"]["per_class"], name, entry["prepare"].get("others"))
    if "without" in entry["prepare"]:
        content = without(content, entry["prepare"]["without"], name)
    _require_declared(entry, content)
    target = root / prepared_folder(name)
    target.mkdir(parents=True, exist_ok=True)
    with _only_one(target), _temporary_files(target, content.counts) as temporary:
        _require_space(target, content)
        _write_arrays(entry, content, temporary)
        splits = {split: _record(split, temporary[split], content) for split in sorted(content.counts)}
        manifest = _manifest(entry, content, splits, sources)
        _require_fingerprint(entry, manifest)
        (target / MANIFEST).unlink(missing_ok=True)  # from here on the folder is incomplete until the end
        for split, record in splits.items():
            temporary[split].replace(target / record["file"])
        sync_folder(target)
        write_npz(root / labels_file(name), _known_labels(content.labels))
        write_json(root / labels_record(name), _anchor(manifest))
        manifest |= _write_names(target / NAMES, content.names)
        write_json(target / MANIFEST, manifest)
    return manifest


def verify(name: str, root: Path | str) -> dict[str, Any]:
    """Hash the prepared arrays and labels again and compare with manifest and catalogue.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    IntegrityError
        If a byte differs, a file has another length, or the fingerprints disagree.
    UserError
        If the data set is unknown or not prepared.
    """
    root = Path(root)
    entry = catalog.entry(root, name)
    target = root / prepared_folder(name)
    manifest = load_manifest(target)
    for record in manifest["splits"].values():
        path = target / record["file"]
        check_length(path, record["bytes"])
        file_digest, pixel_digest = _array_digests(path, _size(record["shape"], record.get("dtype", BYTES)))
        if (file_digest, pixel_digest) != (record["sha256"], record["pixels_sha256"]):
            raise IntegrityError(
                f"{path}: sha256 is {file_digest}, the manifest says {record['sha256']}; prepare {name} again"
            )
    _verify_labels(root / labels_file(name), manifest)
    if "names" in manifest:
        check_names(target / NAMES, manifest)
    if (again := fingerprint(manifest["splits"], manifest["classes"])) != manifest["fingerprint"]:
        raise IntegrityError(
            f"{target / MANIFEST}: fingerprint is {manifest['fingerprint']}, its parts give {again}; "
            f"prepare {name} again"
        )
    _require_fingerprint(entry, manifest)
    return manifest


def _require_declared(entry: dict[str, Any], content: Content) -> None:
    name, declared = entry["name"], dict(entry["splits"])
    if content.counts != declared:
        found = ", ".join(f"{split}: {number}" for split, number in sorted(content.counts.items()))
        wanted = ", ".join(f"{split}: {number}" for split, number in sorted(declared.items()))
        raise UserError(f"{name}: found {{{found}}}, params/datasets.yaml declares under `splits` {{{wanted}}}")
    expected = (*stored_shape(entry["image_size"], entry["prepare"].get("mode")), entry["channels"])
    if tuple(content.shape) != expected:
        raise UserError(
            f"{name}: images are {tuple(content.shape)}, but `image_size` and `channels` declare {expected}"
        )


def _require_classes(entry: dict[str, Any], content: Content) -> None:
    declared = f"`num_classes` in params/datasets.yaml is {entry['num_classes']}"
    if entry["prepare"].get("labels") == "none":
        return
    if not content.classes:
        raise UserError(
            f"{entry['name']}: no class found, {declared}; if the images have no labels and {entry['num_classes']} "
            f"clusters are to be found, declare `prepare: {{labels: none}}`"
        )
    if len(content.classes) != entry["num_classes"]:
        raise UserError(f"{entry['name']}: {len(content.classes)} classes found, {declared}{_lone_class(content)}")


def _lone_class(content: Content) -> str:
    """Explain what a single folder full of images is taken for: half of the time its author meant none."""
    if len(content.classes) > 1 or not content.names:
        return ""
    return (
        f": all images lie in {content.classes[0]!r}; if that is no class, declare `prepare: {{labels: none}}`; if its "
        f"folders are the classes, `prepare: {{top: ...}}`"
    )


def _require_fingerprint(entry: dict[str, Any], manifest: dict[str, Any]) -> None:
    declared = entry.get("fingerprint")
    if declared and declared != manifest["fingerprint"]:
        raise IntegrityError(
            f"{entry['name']}: fingerprint is {manifest['fingerprint']}, params/datasets.yaml declares {declared}. "
            f"If you changed the data, its labels or `prepare` on purpose, declare the new one (runs get new ids); if "
            f"not, the archive or the image decoder differs (written with {manifest['prepared_with']})"
        )


@contextlib.contextmanager
def _only_one(target: Path) -> Iterator[None]:
    with open(target / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _temporary_files(target: Path, splits: dict[str, int]) -> Iterator[dict[str, Path]]:
    """Give a temporary name per split (fixed: what a killed process left is overwritten) and clean up on failure."""
    paths = {split: target / f".{split}.npy.part" for split in splits}
    try:
        yield paths
    finally:
        for path in paths.values():
            path.unlink(missing_ok=True)


def _require_space(target: Path, content: Content) -> None:
    needed = _size([sum(content.counts.values()), *content.shape], content.dtype)
    free = shutil.disk_usage(target).free
    if needed > free:
        raise UserError(f"{target}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")


def _write_arrays(entry: dict[str, Any], content: Content, paths: dict[str, Path]) -> None:
    """Stream all blocks to disk with plain writes: a full disk is then an error, not a killed process as with mmap."""
    missing: dict[str, np.ndarray] = {split: np.ones(number, bool) for split, number in content.counts.items()}
    with contextlib.ExitStack() as stack:
        files, starts = {}, {}
        for split, path in paths.items():
            files[split] = stack.enter_context(open(path, "wb"))
            header = {"descr": content.dtype, "fortran_order": False, "shape": (content.counts[split], *content.shape)}
            np.lib.format.write_array_header_1_0(files[split], header)
            starts[split] = files[split].tell()
        for block in content.blocks:
            _write_block(block, files[block.split], starts[block.split])
            missing[block.split][block.rows] = False
        for split, file in files.items():
            if missing[split].any():
                raise UserError(f"{entry['name']}: {int(missing[split].sum())} images of {split} never came")
            file.flush()
            os.fsync(file.fileno())
    _require_classes(entry, content)


def _write_block(block: Block, file: BinaryIO, start: int) -> None:
    images = np.ascontiguousarray(block.images)
    size = images[0].nbytes if len(images) else 0
    breaks: np.ndarray = np.flatnonzero(np.diff(block.rows) != 1) + 1  # runs of consecutive rows are one write each
    for first, last in zip([0, *breaks], [*breaks, len(images)], strict=True):
        if first < last:
            file.seek(start + int(block.rows[first]) * size)
            file.write(images[first:last].data)


def _record(split: str, path: Path, content: Content) -> dict[str, Any]:
    left_out = content.left_out.get(split)
    shape = [content.counts[split], *content.shape]
    file_digest, pixel_digest = _array_digests(path, _size(shape, content.dtype))
    kind = {} if content.dtype == BYTES else {"dtype": content.dtype}
    return (
        kind
        | {
            "file": f"{split}.npy",
            "n": shape[0],
            "shape": [int(side) for side in shape],
            "bytes": path.stat().st_size,
            "sha256": file_digest,
            "pixels_sha256": pixel_digest,
            "labels_sha256": labels_digest(content.labels[split]),
        }
        | ({"left_out": left_out} if left_out else {})
    )


def _size(shape: Sequence[int], dtype: str) -> int:
    """Return the bytes of an array."""
    return int(np.prod(shape)) * np.dtype(dtype).itemsize


def _array_digests(path: Path, pixels: int) -> tuple[str, str]:
    """Return the digests of a whole .npy file and of the pixels after its header, in one pass."""
    whole, data = hashlib.sha256(), hashlib.sha256()
    with open(path, "rb") as file:
        whole.update(file.read(path.stat().st_size - pixels))
        while block := file.read(BLOCK):
            whole.update(block)
            data.update(block)
    return whole.hexdigest(), data.hexdigest()


def _write_names(path: Path, names: dict[str, list[str]]) -> dict[str, str]:
    """Write the file names beside the arrays and return their digest for the manifest; nothing where there are none."""
    if not names:
        path.unlink(missing_ok=True)
        return {}
    write_json(path, dict(sorted(names.items())))
    return {"names": sha256_file(path)}


def _known_labels(labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {split: values.astype("<i2") for split, values in labels.items() if split != "unlabeled"}


def _verify_labels(path: Path, manifest: dict[str, Any]) -> None:
    if not path.is_file():
        raise IntegrityError(f"{path}: is missing; prepare {manifest['dataset']} again")
    try:
        found = {split: labels_digest(values) for split, values in load_arrays(path).items()}
    except (UserError, ValueError) as error:
        raise IntegrityError(f"{error}; prepare {manifest['dataset']} again") from None
    expected = {split: r["labels_sha256"] for split, r in manifest["splits"].items() if split != "unlabeled"}
    if found != expected:
        raise IntegrityError(f"{path}: labels are not those of the manifest; prepare {manifest['dataset']} again")


def _anchor(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what ties labels to a fingerprint without the images: Git keeps it for those who audit."""
    keys = ("shape", "pixels_sha256", "labels_sha256", "left_out")
    splits = {
        split: {key: record[key] for key in keys if key in record} for split, record in manifest["splits"].items()
    }
    return {"fingerprint": manifest["fingerprint"], "classes": manifest["classes"], "splits": splits}


def _manifest(
    entry: dict[str, Any], content: Content, splits: dict[str, Any], sources: list[dict[str, Any]]
) -> dict[str, Any]:
    import PIL

    return {
        "dataset": entry["name"],
        "data_id": catalog.data_id(entry) if catalog.is_identified(entry) else None,
        "kind": entry["kind"],
        "fingerprint": fingerprint(splits, content.classes),
        "image_size": entry["image_size"],
        "channels": entry["channels"],
        "classes": content.classes,
        "splits": splits,
        "sources": sources,
        "prepared_with": {"numpy": np.__version__, "pillow": PIL.__version__},
    }
