"""Clustering metrics, computed from stored assignments and labels. Training never opens the labels of a test split.

Conventions (they differ between papers, so each is named):
ACC is the accuracy after the best one-to-one map of clusters to classes, surplus clusters count as wrong;
NMI is normalised by the arithmetic mean of the two entropies (headline) or the geometric one (DCCM Eq. 16);
ARI is the Hubert-Arabie index (DCCM Eq. 18).
A supervised run (a probe on frozen features) names classes: its map is the identity, and `error` is 1 - ACC.
Top-5 accuracy counts an image whose class is that of one of its five most probable clusters, under the map of ACC.
`num_clusters` and `num_classes` may differ and clusters may be empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy.special import entr

from dica.files import UserError

SMALL = 1000  # clusters that any number of images may be evaluated with; more only up to one an image
COUNTS_LIMIT = 2**25  # counts of clusters against classes (268 MB); a file from elsewhere can hold the index 2^31


def as_labels(values: Any, name: str) -> np.ndarray:
    """Return `values` as a 1-d int64 array of indices >= 0.

    Raises
    ------
    UserError
        If the array is empty, not 1-d, not of an integer type (NaN included) or holds a negative value.
    """
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0:
        raise UserError(f"{name}: needs a non-empty 1-d array, got shape {array.shape}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise UserError(f"{name}: holds NaN; needs integer indices")
    if array.dtype.kind not in "iu":
        raise UserError(f"{name}: needs an integer type, got {array.dtype}")
    if array.min() < 0:
        raise UserError(f"{name}: holds {array.min()}; indices start at 0")
    return array.astype(np.int64)


def as_pair(y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return true classes and predicted clusters as checked arrays of one length."""
    true, pred = as_labels(y_true, "y_true"), as_labels(y_pred, "y_pred")
    if true.size != pred.size:
        raise UserError(f"y_true has {true.size} samples, y_pred {pred.size}: they must be the same images")
    return true, pred


def contingency(y_true: Any, y_pred: Any, num_classes: int = 0, num_clusters: int = 0) -> np.ndarray:
    """Return the counts (clusters, classes); given sizes are lower bounds, so that empty ones are kept."""
    true, pred = as_pair(y_true, y_pred)
    shape = (max(num_clusters, int(pred.max()) + 1), max(num_classes, int(true.max()) + 1))
    if shape[0] * shape[1] > COUNTS_LIMIT:
        raise UserError(f"{shape[0]} clusters and {shape[1]} classes are too many to count against each other")
    return np.bincount(pred * shape[1] + true, minlength=shape[0] * shape[1]).reshape(shape)


def cluster_map(y_true: Any, y_pred: Any, num_classes: int = 0, num_clusters: int = 0) -> np.ndarray:
    """Return the class (or -1) of every cluster under the best one-to-one map (Hungarian algorithm).

    Several maps may be the best; what reads more than their total (top-5 accuracy, confusions) takes the one that
    scipy's solver finds for the counts with clusters as rows. It is a function of the counts alone.
    """
    table = contingency(y_true, y_pred, num_classes, num_clusters)
    clusters, classes = matched(table)
    mapping = np.full(table.shape[0], -1, dtype=np.int64)
    mapping[clusters] = classes
    return mapping


def matched(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the clusters and their classes under the best one-to-one map of counts (clusters, classes)."""
    return _solver()(table, maximize=True)


@cache
def _solver() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Return scipy's solver of assignments without the rest of `scipy.optimize`, which takes half a second to import.

    It is the same compiled function; where scipy does not have it in a file of its own, the whole is imported.
    """
    kinds = (ExtensionFileLoader, EXTENSION_SUFFIXES)
    spec = FileFinder(str(Path(scipy.__file__).with_name("optimize")), kinds).find_spec("_lsap")
    if spec is None or spec.loader is None:
        from scipy.optimize import linear_sum_assignment

        return linear_sum_assignment
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.linear_sum_assignment


@dataclass(frozen=True)
class Confusion:
    """Images with a label by cluster and class: `counts` (clusters, classes); `mapping`: each cluster's class or -1."""

    counts: np.ndarray
    mapping: np.ndarray

    @property
    def order(self) -> list[int]:
        """The clusters in the order of the classes they stand for, surplus ones last."""
        place = np.where(self.mapping < 0, self.counts.shape[1], self.mapping)
        return np.argsort(place, kind="stable").tolist()

    @property
    def right(self) -> np.ndarray:
        """The images of each class (classes,) that are in the cluster which stands for it."""
        return (self.counts * (self.mapping[:, None] == np.arange(self.counts.shape[1]))).sum(axis=0)


def confusion(
    y_true: Any, y_pred: Any, num_classes: int = 0, num_clusters: int = 0, supervised: bool = False
) -> Confusion:
    """Count clusters against classes under the map of ACC; samples with label -1 are left out.

    Parameters
    ----------
    num_classes, num_clusters
        Lower bounds, so that empty ones are kept.
    supervised
        Clusters are classes: cluster k stands for class k.

    Raises
    ------
    UserError
        See `as_pair`; no sample with a label is empty input.
    """
    true, pred = np.asarray(y_true), np.asarray(y_pred)
    if true.shape != pred.shape:
        raise UserError(f"labels have shape {true.shape}, assignments {pred.shape}: they must be the same images")
    true, pred = true[true != -1], pred[true != -1]
    counts = contingency(true, pred, num_classes, num_clusters)
    if not supervised:
        return Confusion(counts, cluster_map(true, pred, *counts.shape[::-1]))
    clusters = np.arange(len(counts))
    return Confusion(counts, np.where(clusters < counts.shape[1], clusters, -1))


def accuracy(y_true: Any, y_pred: Any) -> float:
    """Clustering accuracy in [0, 1] (DCCM Eq. 19-20): one-to-one map, surplus clusters are wrong.

    Examples
    --------
    The names of the clusters do not matter, and one image of four is in another cluster than its class:

    >>> accuracy([0, 0, 1, 1], [1, 1, 0, 1])
    0.75
    """
    return accuracy_of(contingency(y_true, y_pred))


def accuracy_of(table: np.ndarray) -> float:
    """`accuracy` of counts (clusters, classes)."""
    clusters, classes = matched(table)
    return float(table[clusters, classes].sum() / table.sum())


def nmi(y_true: Any, y_pred: Any, average: str = "arithmetic") -> float:
    """Normalised mutual information in [0, 1]; two trivial partitions give 1.

    `average` names the mean of the two entropies that divides: `arithmetic` or `geometric`.

    Examples
    --------
    >>> nmi([0, 0, 1, 1], [1, 1, 0, 0]), nmi([0, 0, 1, 1], [0, 1, 0, 1])
    (1.0, 0.0)
    >>> round(nmi([0, 0, 1, 1], [0, 0, 1, 2]), 4), round(nmi([0, 0, 1, 1], [0, 0, 1, 2], "geometric"), 4)
    (0.8, 0.8165)
    """
    return nmi_of(contingency(y_true, y_pred), average)


def nmi_of(table: np.ndarray, average: str = "arithmetic") -> float:
    """`nmi` of counts (clusters, classes)."""
    if average not in ("arithmetic", "geometric"):
        raise UserError(f"nmi: average is {average!r}, allowed: arithmetic, geometric")
    # All of it follows from the counts; scikit-learn's own functions go through the samples several times, and
    # importing it takes longer than a run's scores.
    entropies = [float(entr(counts / table.sum()).sum()) for counts in (table.sum(axis=0), table.sum(axis=1))]
    if max(entropies) == 0:
        return 1.0
    shared = _mutual_information(table)
    if shared <= np.finfo(np.float64).eps:
        return 0.0
    mean = sum(entropies) / 2 if average == "arithmetic" else np.sqrt(entropies[0] * entropies[1])
    return float(min(shared / mean, 1.0))  # rounding takes a perfect partition above 1


def _mutual_information(table: np.ndarray) -> float:
    """Return the mutual information of counts in nats: the sum of p log(p / (p of row × p of column)).

    The logarithms are added in the order of scikit-learn's, so that stored scores keep their last digit.
    """
    rows, columns = np.nonzero(table)
    if min(table.shape) == 1:
        return 0.0
    counts, total = table[rows, columns], table.sum()
    margins = table.sum(axis=1)[rows] * table.sum(axis=0)[columns]
    share = counts / total
    terms = share * (np.log(counts) - math.log(total)) + share * (2 * math.log(total) - np.log(margins))
    terms[np.abs(terms) < np.finfo(np.float64).eps] = 0
    return max(float(terms.sum()), 0.0)


def ari(y_true: Any, y_pred: Any) -> float:
    """Adjusted Rand index (Hubert-Arabie), at most 1 and about 0 for random partitions.

    Examples
    --------
    >>> ari([0, 0, 1, 1], [1, 1, 0, 0]), round(ari([0, 0, 1, 1], [0, 0, 1, 2]), 4)
    (1.0, 0.5714)
    """
    return ari_of(contingency(y_true, y_pred))


def ari_of(table: np.ndarray) -> float:
    """`ari` of counts (clusters, classes)."""
    # Python integers: products of pair counts pass 2^63 from about 60,000 samples on.
    together, a, b, total = (
        int((counts * (counts - 1)).sum()) for counts in (table, table.sum(axis=0), table.sum(axis=1), table.sum())
    )
    return 1.0 if a == b == together else 2 * (together * total - a * b) / ((a + b) * total - 2 * a * b)


def bcubed(weights: Any, y_true: Any) -> dict[str, float]:
    """BCubed precision and recall of a 0/1 graph (DCCM Fig. 5); a sample's link to itself counts.

    Parameters
    ----------
    weights
        (n, n) with entry 1 where row and column are linked; every row needs a link.
    """
    true = as_labels(y_true, "y_true")
    graph = np.asarray(weights, dtype=np.float64)
    if graph.shape != (true.size, true.size) or (graph.sum(axis=1) <= 0).any():
        raise UserError(f"weights: needs shape ({true.size}, {true.size}) and a link in every row")
    same = true[:, None] == true[None, :]
    linked_same = (graph * same).sum(axis=1)
    return {
        "precision": float((linked_same / graph.sum(axis=1)).mean()),
        "recall": float((linked_same / same.sum(axis=1)).mean()),
    }


def variance(probabilities: Any, y_true: Any) -> dict[str, float]:
    """Intra- and inter-class variance of (n, K) outputs (DRC Fig. 6).

    Both are means over classes; the grand mean is taken over samples.
    """
    true = as_labels(y_true, "y_true")
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or len(p) != true.size or not np.isfinite(p).all():
        raise UserError(f"probabilities: needs a finite ({true.size}, K) array, got shape {p.shape}")
    groups = [p[true == label] for label in np.unique(true)]
    intra = [((group - group.mean(axis=0)) ** 2).sum(axis=1).mean() for group in groups]
    inter = [((group.mean(axis=0) - p.mean(axis=0)) ** 2).sum() for group in groups]
    return {"intra": float(np.mean(intra)), "inter": float(np.mean(inter))}


def cluster_shares(y_pred: Any, num_clusters: int) -> np.ndarray:
    """Return the share of samples in each of `num_clusters` clusters.

    Examples
    --------
    >>> cluster_shares([0, 0, 2, 2], 3).tolist()
    [0.5, 0.0, 0.5]
    """
    pred = as_labels(y_pred, "y_pred")
    if pred.max() >= num_clusters:
        raise UserError(f"y_pred: holds cluster {pred.max()}, but there are {num_clusters} (0 to {num_clusters - 1})")
    return np.bincount(pred, minlength=num_clusters) / pred.size


def cluster_entropy(y_pred: Any, num_clusters: int) -> float:
    """Entropy of the cluster sizes in nats: 0 for one cluster, log K for K equal ones.

    Examples
    --------
    >>> cluster_entropy([1, 1, 1], 2), round(cluster_entropy([0, 1], 2), 4)
    (0.0, 0.6931)
    """
    shares = cluster_shares(y_pred, num_clusters)
    used = shares[shares > 0]
    return float(abs((used * np.log(used)).sum()))


def evaluate(
    y_true: Any,
    y_pred: Any,
    num_clusters: int,
    num_classes: int,
    top5: np.ndarray | None = None,
    supervised: bool = False,
) -> dict[str, Any]:
    """Return every reported number of one partition; samples with label -1 are left out.

    Parameters
    ----------
    top5
        (n, 5) most probable clusters; adds `acc_top5`.
    supervised
        Clusters are classes: `acc` is plain accuracy, and there is an `error`.

    Raises
    ------
    UserError
        If no sample has a label, lengths differ, or an index is out of range.
    """
    true, pred = np.asarray(y_true), np.asarray(y_pred)
    if true.ndim != 1 or true.shape != pred.shape:
        raise UserError(f"labels have shape {true.shape}, assignments {pred.shape}: they must be the same images")
    labelled = true != -1
    true, pred = true[labelled], pred[labelled]
    if not true.size:
        raise UserError("no sample has a label: nothing to evaluate")
    if not 0 < num_clusters <= max(SMALL, labelled.size):
        raise UserError(
            f"num_clusters is {num_clusters}; for {labelled.size} images at most {max(SMALL, labelled.size)}"
        )
    shares = cluster_shares(pred, num_clusters)
    acc = float((true == pred).mean()) if supervised else accuracy(true, pred)
    more = {"error": 1 - acc} if supervised else {}
    if top5 is not None:
        mapping = np.arange(num_clusters) if supervised else cluster_map(true, pred, num_classes, num_clusters)
        more["acc_top5"] = top5_accuracy(true, top5[labelled], mapping)
    return {
        "acc": acc,
        "nmi": nmi(true, pred),
        "nmi_geometric": nmi(true, pred, "geometric"),
        "ari": ari(true, pred),
        "n": int(true.size),
        "num_clusters": int(num_clusters),
        "num_classes": int(num_classes),
        "used_clusters": int((shares > 0).sum()),
        "largest_cluster_share": float(shares.max()),
        "cluster_entropy": cluster_entropy(pred, num_clusters),
        **more,
    }


def top5_accuracy(y_true: np.ndarray, top5: np.ndarray, mapping: np.ndarray) -> float:
    """Return the share of samples whose class is that of one of their clusters in `top5` (n, 5), under `mapping`."""
    if top5.min() < 0 or top5.max() >= len(mapping):
        raise UserError(f"top5: holds a cluster outside 0 to {len(mapping) - 1}")
    return float((mapping[top5] == y_true[:, None]).any(axis=1).mean())


def unlabelled(y_pred: Any, confidence: Any, num_clusters: int) -> dict[str, Any]:
    """Return what can be said of one partition without labels; how to read it: `dica.scores.unlabelled`."""
    shares = cluster_shares(y_pred, num_clusters)
    return {
        "n": int(np.size(y_pred)),
        "num_clusters": int(num_clusters),
        "num_classes": 0,
        "used_clusters": int((shares > 0).sum()),
        "largest_cluster_share": float(shares.max()),
        "smallest_cluster_share": float(shares.min()),
        "cluster_entropy": cluster_entropy(y_pred, num_clusters),
        "mean_confidence": float(np.asarray(confidence, np.float64).mean()),
    }
