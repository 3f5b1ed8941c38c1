"""The table of assignments: one line an image, the same for a run's own images and for new ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from dica.files import safe_cell

COLUMNS = ("file", "cluster", "confidence", "second_cluster", "second_confidence", "seed_agreement")


def assignments_csv(
    names: Sequence[str],
    cluster: np.ndarray,
    confidence: np.ndarray,
    second: np.ndarray,
    second_confidence: np.ndarray,
    shared: np.ndarray,
) -> str:
    """Return the table as CSV; all arrays are (n,).

    A file name that a spreadsheet would run as a formula gets a `'` in front (`dica.files.plain_cell` takes it off).

    Parameters
    ----------
    confidence, second_confidence
        Probabilities of the first and the second choice; as float16, in which a run stores them.
    shared
        Share of the other seeds that agree; NaN where that is not known.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    kept: tuple[np.ndarray, ...] = (
        cluster,
        confidence.astype(np.float16),
        second,
        second_confidence.astype(np.float16),
        shared,
    )
    for name, first, sure, other, less, alike in zip(names, *kept, strict=True):
        text = "" if np.isnan(alike) else f"{alike:.3f}"
        writer.writerow((safe_cell(name), int(first), f"{sure:.4f}", int(other), f"{less:.4f}", text))
    return out.getvalue()


def second_choice(probability: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the most probable cluster of each image beside its `first` one, and its probability."""
    others = probability.copy()
    others[np.arange(len(others)), first.astype(np.int64)] = -1  # the choice that was made, whatever the last bit says
    return others.argmax(axis=1).astype(np.int16), others.max(axis=1).astype(np.float16)
