"""Score anyone's predictions for a data set of the archive, with the metrics of its own runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dica.data import catalog
from dica.data.paths import labels_file, prepared_folder
from dica.data.prepared import image_names
from dica.files import IntegrityError, UserError, load_arrays
from dica.scores.chance import ami_of, chance
from dica.scores.evaluation import SPLITS
from dica.scores.given import FILE, read_assignments
from dica.scores.metrics import confusion, evaluate
from dica.validation import hint

MOST_COUNTS = 40_000  # of clusters against classes, up to which random labels are drawn: seconds


def score(
    path: Path, dataset: str, root: Path, split: str = "", num_clusters: int = 0, column: str = ""
) -> dict[str, Any]:
    """Return the metrics of the assignments in a file, their confusion table, and what of the file was scored.

    Parameters
    ----------
    split
        `all`, `train` or `test`; empty: the one that has as many samples.
    num_clusters
        Number of clusters where not all are used (0: as many as the largest index says, at least the classes).
    column
        The column of a csv that is meant, where several could be.

    Raises
    ------
    UserError
        For what `read_assignments` refuses, an unknown data set, no labels, a number of assignments that is not one of
        its splits', or a csv whose column `file` does not name each image of a split once.
    """
    labels = load_labels(dataset, root)
    given = read_assignments(path, column)
    values = given.values
    splits = {name: labels[name] for name in SPLITS if labels.get(name) is not None and labels[name].size}
    if len(splits) > 1:
        splits = {"all": np.concatenate(list(splits.values())), **splits}
    if split and split not in splits:
        raise UserError(f"{dataset} has no split {split!r}; {hint(split, splits)}")
    if given.names:
        split, order = _by_name(path, given.names, _names(path, dataset, splits, root), split)
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
    if (true == -1).all():
        raise UserError(
            f"{dataset}: no image of {fitting[0]} has a label, so that {path} cannot be scored; own images have labels "
            "where they lie in one folder a class (`dica cluster`, without --no-labels)"
        )
    classes = int(max(part.max() for part in splits.values())) + 1
    clusters = num_clusters or max(classes, int(values.max()) + 1)
    found = evaluate(true, values, clusters, classes)
    matrix = confusion(true, values, classes, clusters)
    counted = {"confusion": matrix.counts.tolist(), "map": matrix.mapping.tolist()}
    if matrix.counts.size <= MOST_COUNTS:
        level = chance(matrix.counts.sum(axis=0), matrix.counts.sum(axis=1))
        found |= {"ami": ami_of(matrix.counts), "chance": {name: found.mean for name, found in level.items()}}
    read = {"scored": given.scored, "order": given.order}
    return {"dataset": dataset, "split": fitting[0], **read, **found, **counted}


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


def _by_name(path: Path, given: Sequence[str], names: dict[str, list[str]], split: str) -> tuple[str, np.ndarray]:
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
