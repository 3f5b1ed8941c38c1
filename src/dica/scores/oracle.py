"""What choosing with the help of labels would give: the best epoch, the best cluster head. No verdict uses it.

Some published numbers are chosen so. Beside them a reader wants to know what the same choice does here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dica.scores.metrics import accuracy, ari, evaluate, nmi

SCORES: dict[str, Callable[..., float]] = {
    "acc": accuracy,
    "nmi": nmi,
    "nmi_geometric": partial(nmi, average="geometric"),
    "ari": ari,
}
KEPT = ("acc", "nmi", "ari")


def followed(trace: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return classes (m,) and assignments (epochs, m) of the labelled images that a trace follows.

    Parameters
    ----------
    trace, labels
        Arrays of trace.npz and of the data set's label file.
    """
    splits = [split for split in ("train", "test") if f"{split}_assignment" in trace and len(labels.get(split, ()))]
    if not splits:
        return np.empty(0, np.int64), np.empty((len(trace["epoch"]), 0), np.int64)
    true = np.concatenate([labels[split][trace[f"{split}_index"]] for split in splits]).astype(np.int64)
    assigned = np.concatenate([trace[f"{split}_assignment"] for split in splits], axis=1).astype(np.int64)
    return true[true >= 0], assigned[:, true >= 0]


def best_epoch(trace: dict[str, np.ndarray], labels: dict[str, np.ndarray], metric: str) -> float | None:
    """Return the highest score among the epochs of a trace, None where it follows no labelled image.

    Examples
    --------
    >>> import numpy as np
    >>> trace = {"epoch": np.array([0, 9]), "train_index": np.arange(4)}
    >>> trace["train_assignment"] = np.array([[0, 0, 1, 1], [0, 1, 0, 1]])
    >>> best_epoch(trace, {"train": np.array([1, 1, 0, 0])}, "acc")
    1.0
    """
    true, assigned = followed(trace, labels)
    return max(float(SCORES[metric](true, row)) for row in assigned) if len(true) else None


def of_heads(true: np.ndarray, heads: np.ndarray, num_clusters: int, num_classes: int) -> dict[str, Any]:
    """Return how many cluster heads a run has, their mean scores, and those of the head of highest accuracy.

    Parameters
    ----------
    true
        (n,) classes, -1 for an image that does not count.
    heads
        (H, n) the cluster that each head gives.
    """
    scores = [evaluate(true, each, num_clusters, num_classes) for each in heads]
    return {
        "count": len(heads),
        "mean": {name: float(np.mean([score[name] for score in scores])) for name in KEPT},
        "oracle": {name: max(scores, key=lambda score: score["acc"])[name] for name in KEPT},
    }
