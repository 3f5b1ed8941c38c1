"""The catalogue of data sets, `params/datasets.yaml` and what `dica cluster` adds to it, read and checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dica.data.paths import OWN_PREFIX
from dica.data.pipelines import check_normalisation
from dica.files import UserError, canonical_json, sha256_bytes
from dica.validation import hint, load_yaml, validate

CATALOG = Path("params/datasets.yaml")
OWN = Path("params/own")  # <name>/dataset.yaml in it holds the one data set own-<name>


def load(root: Path | str) -> dict[str, dict[str, Any]]:
    """Return all data sets by name, checked against the schema.

    Each entry gains `name` and, where it names a class list, `wnids` (the list's lines).

    Raises
    ------
    UserError
        If a file is missing or not YAML, or an entry is not what the schema allows; the message names file and key.
    """
    root = Path(root)
    entries = _load_file(root / CATALOG, root)
    for path in sorted((root / OWN).glob("*/dataset.yaml")):
        own = _load_file(path, root)
        if list(own) != [(name := f"{OWN_PREFIX}{path.parent.name}")]:
            raise UserError(f"{path}: must declare the one data set {name!r}, has {', '.join(own) or 'none'}")
        if name in entries:
            raise UserError(f"{path}: {root / CATALOG} has a data set {name!r} already; rename this folder")
        entries |= own
    return entries


def _load_file(path: Path, root: Path) -> dict[str, dict[str, Any]]:
    entries = load_yaml(path)
    validate(entries, "datasets", str(path), root)
    for name, entry in entries.items():
        entry["name"] = name
        if "class_list" in entry:
            entry["wnids"] = _class_list(root / entry["class_list"], entry)
        if entry["kind"] != "features":  # a table's columns are no channels, and have no pixels' range
            check_normalisation(entry["normalisation"], entry["channels"], f"{path}: {name}: normalisation")
        size = entry["prepare"].get("size")
        if size not in (None, entry["image_size"]):
            raise UserError(
                f"{path}: {name}.prepare.size is {size}, but {name}.image_size is {entry['image_size']}; "
                f"make them equal"
            )
    return entries


def entry(root: Path | str, name: str) -> dict[str, Any]:
    """Return one data set's entry.

    Raises
    ------
    UserError
        As `load` and `entry_of`.
    """
    return entry_of(load(root), name)


def entry_of(entries: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """Return one data set's entry of those loaded, which takes time: whoever asks often keeps them.

    Raises
    ------
    UserError
        If there is no such data set; the message lists those there are, the nearest ones first.
    """
    if name not in entries:
        raise UserError(f"{CATALOG}: no data set {name!r}; {hint(name, entries)}")
    return entries[name]


def data_id(entry: dict[str, Any]) -> str:
    """Return what identifies a data set's content in a run's identity.

    The declared `fingerprint` where there is one. Otherwise a hash over everything declared that decides the
    content: the digests of the first alternative under `sources`, kind, preparation, splits and class list.

    Parameters
    ----------
    entry
        An entry as `load` returns it.

    Raises
    ------
    UserError
        If neither a fingerprint nor a digest is declared (a plain folder of images).
    """
    if entry.get("fingerprint"):
        return entry["fingerprint"]
    if not is_identified(entry):
        raise UserError(
            f"{CATALOG}: {entry['name']} has neither a fingerprint nor an archive digest, so runs on it could not "
            f"be told apart; run `python -m dica.data fingerprint {entry['name']}` and paste the line it prints"
        )
    decisive = {
        "archives": _declared_digests(entry),
        "kind": entry["kind"],
        "prepare": {**entry["prepare"], "image_size": entry["image_size"]},
        "splits": entry["splits"],
        "classes": sha256_bytes(canonical_json(entry.get("wnids", entry["num_classes"])).encode()),
    }
    return sha256_bytes(canonical_json(decisive).encode())


def is_identified(entry: dict[str, Any]) -> bool:
    """Whether a fingerprint or an archive digest is declared, so that `data_id` has an answer."""
    return bool(entry.get("fingerprint") or _declared_digests(entry))


def local_folder(alternative: dict[str, Any], root: Path | str) -> Path | None:
    """Return the folder that a `format: folder` source points to: its environment variable first, then its path."""
    value = os.environ.get(alternative.get("env", ""), "") or alternative.get("folder")
    return Path(root, value).expanduser() if value else None


def _declared_digests(entry: dict[str, Any]) -> list[list[str]]:
    for alternative in entry["sources"]:
        if alternative.get("files"):
            return sorted([f["file"], f.get("sha256") or f["md5"]] for f in alternative["files"])
    return []


def _class_list(path: Path, entry: dict[str, Any]) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path}: no such file (class_list of {entry['name']} in {CATALOG})")
    wnids = path.read_text(encoding="utf-8").split()
    if len(set(wnids)) != entry["num_classes"] or len(wnids) != entry["num_classes"]:
        raise UserError(f"{path}: {len(set(wnids))} distinct classes, {entry['name']} declares {entry['num_classes']}")
    return wnids
