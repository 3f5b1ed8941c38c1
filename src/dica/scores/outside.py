"""Score anyone's predictions for a data set of the archive, with the metrics of its own runs."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dica.data import catalog
from dica.data.paths import labels_file, prepared_folder
from dica.data.prepared import image_names
from dica.files import ARRAYS_LIMIT, IntegrityError, UserError, load_arrays, plain_cell
from dica.scores.chance import ami_of, chance
from dica.scores.evaluation import SPLITS
from dica.scores.metrics import confusion, evaluate
from dica.validation import hint

LIMITS = {  # bytes; the labels of 1.3 million images fit in each, in a csv with long file names beside them
    ".npz": ARRAYS_LIMIT,
    ".npy": ARRAYS_LIMIT,
    ".csv": 256 * 2**20,
    ".txt": 16 * 2**20,
}
KINDS = tuple(LIMITS)
COLUMNS = ("assignment", "cluster", "prediction", "label")
FILE = "file"  # column of a csv that names the images: then the order of its rows does not matter
MOST_COUNTS = 40_000  # of clusters against classes, up to which random labels are drawn: seconds


def read_assignments(path: Path) -> np.ndarray:
    """Read one cluster index a sample: (n,) integers.

    npz: the splits' `<split>_assignment` (train before test) or its only array; npy: the array; csv: the only column,
    or the one called assignment, cluster, prediction or label; txt: one number a line. The order is that of the file.

    Raises
    ------
    UserError
        If the file is missing, of another kind, or holds anything but non-negative integers.
    """
    if path.suffix not in KINDS:
        raise UserError(f"{path}: of unknown kind; allowed: {', '.join(KINDS)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.stat().st_size > LIMITS[path.suffix]:
        raise UserError(f"{path}: has {path.stat().st_size} bytes, at most {LIMITS[path.suffix]} are read")
    readers = {".npz": _from_npz, ".npy": _from_npy, ".csv": _from_csv, ".txt": _from_txt}
    values = readers[path.suffix](path)
    if values.ndim != 1 or not values.size:
        raise UserError(f"{path}: has shape {values.shape}; needs one cluster index a sample, (n,)")
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.floor(values)).all():
        values = values.astype(np.int64)  # other programs write 3.0 for 3
    if values.dtype.kind not in "iu":
        raise UserError(f"{path}: is of type {values.dtype}; needs integer cluster indices")
    if values.min() < 0:
        raise UserError(f"{path}: sample {int(values.argmin())} has cluster {values.min()}; indices start at 0")
    if values.max() >= max(1000, values.size):
        raise UserError(f"{path}: has cluster {values.max()} for {values.size} samples; indices, not labels, are meant")
    return values.astype(np.int64)


def _from_npz(path: Path) -> np.ndarray:
    arrays = load_arrays(path)
    named = [arrays[f"{split}_assignment"] for split in SPLITS if f"{split}_assignment" in arrays]
    if named:
        return np.concatenate(named)
    if len(arrays) != 1:
        raise UserError(
            f"{path}: holds {', '.join(sorted(arrays))}; needs train_assignment, test_assignment or one array"
        )
    return next(iter(arrays.values()))


def _from_npy(path: Path) -> np.ndarray:
    try:
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))  # mapped first: a header can claim any shape
    except Exception as error:  # numpy has several errors for a damaged file
        raise UserError(f"{path}: not a readable npy file ({error})") from None


def _from_csv(path: Path) -> np.ndarray:
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = (row for row in csv.reader(file) if row)
        try:
            header = next(rows, None)
            if header is None:
                raise UserError(f"{path}: is empty")
            if is_number(header[0]) and len(header) == 1:
                return _numbers(path, chain(header, (row[0] for row in rows)), 1)
            names = [name for name in COLUMNS if name in header] if len(header) > 1 else header
            if not names:
                raise UserError(f"{path}: has the columns {', '.join(header)}; call one of them {' or '.join(COLUMNS)}")
            place = header.index(names[0])
            return _numbers(path, (row[place] if place < len(row) else "" for row in rows), 2)
        except csv.Error as error:
            raise UserError(f"{path}: not readable as csv ({error})") from None


def read_file_names(path: Path) -> list[str]:
    """Return the cells of column `file` of a csv that `read_assignments` has read; empty where it has none."""
    if path.suffix != ".csv":
        return []
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = (row for row in csv.reader(file) if row)
        header = next(rows)
        if FILE not in header or len(header) == 1:
            return []
        place = header.index(FILE)
        return [plain_cell(row[place]) if place < len(row) else "" for row in rows]


def _from_txt(path: Path) -> np.ndarray:
    return _numbers(path, path.read_text(encoding="utf-8-sig", errors="replace").split(), 1)


def is_number(text: str) -> bool:
    """Whether a text reads as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(path: Path, texts: Iterable[str], first_line: int) -> np.ndarray:
    values = array("d")
    for line, text in enumerate(texts, start=first_line):
        if not is_number(text):
            raise UserError(f"{path}:{line}: {text[:50]!r} is no number")
        values.append(float(text))
    return np.array(values)


def score(path: Path, dataset: str, root: Path, split: str = "", num_clusters: int = 0) -> dict[str, Any]:
    """Return the metrics of the assignments in a file, and their confusion table.

    Parameters
    ----------
    split
        `all`, `train` or `test`; empty: the one that has as many samples.
    num_clusters
        Number of clusters where not all are used (0: as many as the largest index says, at least the classes).

    Raises
    ------
    UserError
        For an unknown data set, no labels, a number of assignments that is not one of its splits', or a csv whose
        column `file` does not name each image of a split once.
    """
    labels = load_labels(dataset, root)
    values = read_assignments(path)
    splits = {name: labels[name] for name in SPLITS if labels.get(name) is not None and labels[name].size}
    if len(splits) > 1:
        splits = {"all": np.concatenate(list(splits.values())), **splits}
    if split and split not in splits:
        raise UserError(f"{dataset} has no split {split!r}; {hint(split, splits)}")
    if given := read_file_names(path):
        split, order = _by_name(path, given, _names(path, dataset, splits, root), split)
        values = values[order]
    sizes = ", ".join(f"{name} {len(true)}" for name, true in splits.items())
    fitting = [name for name, true in splits.items() if len(true) == values.size and split in ("", name)]
    if not fitting:
        raise UserError(
            f"{path}: has {values.size} assignments; {dataset} has {sizes}"
            + (f", {split} was asked for" if split else "")
        )
    if len(fitting) > 1:
        raise UserError(f"{path}: {' and '.join(fitting)} of {dataset} are equally long; say which with --split")
    true = splits[fitting[0]]
    classes = int(max(part.max() for part in splits.values())) + 1
    clusters = num_clusters or max(classes, int(values.max()) + 1)
    found = evaluate(true, values, clusters, classes)
    matrix = confusion(true, values, classes, clusters)
    counted = {"confusion": matrix.counts.tolist(), "map": matrix.mapping.tolist()}
    if matrix.counts.size <= MOST_COUNTS:
        level = chance(matrix.counts.sum(axis=0), matrix.counts.sum(axis=1))
        found |= {"ami": ami_of(matrix.counts), "chance": {name: found.mean for name, found in level.items()}}
    return {"dataset": dataset, "split": fitting[0], **found, **counted}


def _names(path: Path, dataset: str, splits: Iterable[str], root: Path) -> dict[str, list[str]]:
    """Return the names of the images of each split, in the order of its labels."""
    folder = root / prepared_folder(dataset)
    try:
        names = {split: image_names(folder, split) for split in splits if split != "all"}
    except IntegrityError:
        raise
    except UserError as error:
        raise UserError(
            f"{path}: its column {FILE!r} cannot be compared with the names of {dataset} ({error}); without that "
            "column the rows are taken in the order of the data set"
        ) from None
    return {"all": list(chain.from_iterable(names.values())), **names} if len(names) > 1 else names


def _by_name(path: Path, given: list[str], names: dict[str, list[str]], split: str) -> tuple[str, np.ndarray]:
    """Return the split whose images a file names, and the row of each of them (n,).

    Raises
    ------
    UserError
        If a name is unknown, missing or there twice.
    """
    row_of = {name: row for row, name in enumerate(given)}
    if len(row_of) < len(given):
        twice = next(name for row, name in enumerate(given) if row_of[name] != row)
        raise UserError(f"{path}: names {twice!r} more than once; needs one row an image")
    asked = [split] if split else sorted(names, key=lambda name: len(names[name]))
    fitting = [name for name in asked if row_of.keys() <= set(names[name])]
    if not fitting:
        known = set(names[asked[-1]])
        unknown = [name for name in given if name not in known]
        raise UserError(
            f"{path}: names {unknown[0]!r}, which is no image of {asked[-1]} of the data set; {len(unknown)} of "
            f"{len(given)} names are unknown"
        )
    split = fitting[0]
    if missing := [name for name in names[split] if name not in row_of]:
        raise UserError(f"{path}: lacks {missing[0]!r}; {len(missing)} of the images of {split} are not named")
    return split, np.array([row_of[name] for name in names[split]])


def load_labels(dataset: str, root: Path) -> dict[str, np.ndarray]:
    """Return the labels of a data set by split."""
    catalog.entry(root, dataset)
    path = root / labels_file(dataset)
    if not path.is_file():
        command = f"snakemake --cores all -- results/state/{dataset}.ready"
        raise UserError(f"{labels_file(dataset)}: no labels yet; prepare the data set: {command}")
    return load_arrays(path)
