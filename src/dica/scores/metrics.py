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

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import entr
from sklearn.metrics import mutual_info_score

from dica.files import UserError, load_arrays, read_json, sha256_file, write_json
from dica.runs.files import CONFIG

SPLITS = ("train", "test")
EVAL_SPLITS = ("all", *SPLITS)
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
    clusters, classes = linear_sum_assignment(table, maximize=True)
    mapping = np.full(table.shape[0], -1, dtype=np.int64)
    mapping[clusters] = classes
    return mapping


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
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / table.sum())


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
    # All of it follows from the counts; scikit-learn's own functions go through the samples several times.
    entropies = [float(entr(counts / table.sum()).sum()) for counts in (table.sum(axis=0), table.sum(axis=1))]
    if max(entropies) == 0:
        return 1.0
    shared = mutual_info_score(None, None, contingency=table)
    if shared <= np.finfo(np.float64).eps:
        return 0.0
    mean = sum(entropies) / 2 if average == "arithmetic" else np.sqrt(entropies[0] * entropies[1])
    return float(min(shared / mean, 1.0))  # rounding takes a perfect partition above 1


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


def judged_labels(split: str, labels: np.ndarray, stored: dict[str, np.ndarray]) -> np.ndarray:
    """Return the labels (n,) of a split, -1 for the images on which a run is not to be scored (`<split>_judged`)."""
    judged = stored.get(f"{split}_judged")
    return labels if judged is None else np.where(judged, labels, -1)


def scored_partition(
    stored: dict[str, np.ndarray], labels: dict[str, np.ndarray], evaluated_on: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return classes and clusters of the splits that a run is scored on, class -1 for an image that does not count.

    Parameters
    ----------
    stored, labels
        Arrays of predictions.npz and of the data set's label file.
    evaluated_on
        `all`, `train` or `test`.

    Raises
    ------
    UserError
        If predictions and labels are not of the same images.
    """
    splits = [split for split in SPLITS if evaluated_on in ("all", split) and len(labels.get(split, ()))]
    for split in splits:
        if (name := f"{split}_assignment") not in stored:
            raise UserError(f"lacks {name}")
        if stored[name].shape != labels[split].shape:
            raise UserError(f"{name}: {stored[name].size} assignments, {labels[split].size} labels")
    true = np.concatenate([judged_labels(split, labels[split], stored) for split in splits])
    return true, np.concatenate([stored[f"{split}_assignment"] for split in splits])


def recompute(predictions: Path | str, labels: Path | str, eval_split: str, supervised: bool = False) -> dict[str, Any]:
    """Return `evaluated_on`, `headline` and `splits` for stored predictions, writing nothing.

    Parameters
    ----------
    predictions, labels
        npz files; see `evaluate_files`.
    eval_split
        `all` (train followed by test), `train` or `test`.
    supervised
        See `evaluate`.
    """
    if eval_split not in EVAL_SPLITS:
        raise UserError(f"eval_split is {eval_split!r}, allowed: {', '.join(EVAL_SPLITS)}")
    stored, truth = load_arrays(predictions), load_arrays(labels)
    if "num_clusters" not in stored or stored["num_clusters"].size != 1:
        raise UserError(f"{predictions}: lacks the number num_clusters")
    num_clusters = int(stored["num_clusters"].item())
    parts = {split: _split(split, stored, truth, predictions, labels) for split in SPLITS}
    has_labels = [split for split in SPLITS if len(truth.get(split, ()))]
    needed = (has_labels or SPLITS) if eval_split == "all" else (eval_split,)
    for split in needed:
        if parts[split] is None:
            raise UserError(f"{predictions}: no {split}_assignment with labels; eval_split {eval_split!r} needs it")
    num_classes = max(int(values.max()) + 1 for values in truth.values() if values.size)
    chosen = [part for split in needed if (part := parts[split]) is not None]
    if not num_classes:
        return {"evaluated_on": eval_split, **_without_labels(stored, needed, predictions)}

    def score(*parts: tuple[np.ndarray, ...]) -> dict[str, Any]:
        if len({len(part) for part in parts}) > 1:
            raise UserError("top5 is stored for one split and not for the other")
        true, pred, *top5 = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return evaluate(true, pred, num_clusters, num_classes, top5[0] if top5 else None, supervised)

    try:
        headline = score(*chosen)
        splits = {split: score(part) for split, part in parts.items() if part is not None and (part[0] != -1).any()}
    except UserError as error:
        raise UserError(f"{predictions} with {labels}: {error}") from None
    return {"evaluated_on": eval_split, "headline": headline, "splits": splits}


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


def _without_labels(
    stored: dict[str, np.ndarray], needed: Sequence[str], predictions: Path | str
) -> dict[str, dict[str, Any]]:
    """Return `headline` and `splits` of a run on a data set of which no image has a label."""
    there = [split for split in needed if f"{split}_assignment" in stored]
    pairs = {split: tuple(stored.get(f"{split}_{what}") for what in ("assignment", "confidence")) for split in there}
    for split, (assignment, confidence) in pairs.items():
        if confidence is None or confidence.shape != assignment.shape or not np.isfinite(confidence).all():
            raise UserError(f"{predictions}: {split}_confidence must be one number for each {split}_assignment")
    clusters = int(stored["num_clusters"].item())
    whole = [np.concatenate(arrays) for arrays in zip(*pairs.values(), strict=True)]
    try:
        splits = {split: unlabelled(*pair, clusters) for split, pair in pairs.items()}
        return {"headline": unlabelled(*whole, clusters), "splits": splits}
    except UserError as error:
        raise UserError(f"{predictions}: {error}") from None


def _split(
    split: str,
    stored: dict[str, np.ndarray],
    truth: dict[str, np.ndarray],
    predictions: Path | str,
    labels: Path | str,
) -> tuple[np.ndarray, ...] | None:
    """Return labels, assignment and, if stored, top5 of one split; None where run or label file does not have it.

    An image that is not to be judged (`<split>_judged`) has label -1, as one without a label.
    """
    name = f"{split}_assignment"
    if name not in stored or split not in truth or not len(truth[split]):
        return None
    true, pred = truth[split], stored[name]
    if true.ndim != 1 or true.shape != pred.shape:
        raise UserError(f"{predictions}: {name} has shape {pred.shape}, {labels} has {true.shape} for {split}")
    if true.dtype.kind not in "iu" or true.min() < -1:
        raise UserError(f"{labels}: {split} needs integer class indices (-1 = no label)")
    if (judged := stored.get(f"{split}_judged")) is not None:
        if judged.dtype != bool or judged.shape != true.shape:
            raise UserError(f"{predictions}: {split}_judged is {judged.dtype} {judged.shape}; needs bool {true.shape}")
        true = judged_labels(split, true, stored)
    top5 = stored.get(f"{split}_top5")
    if top5 is not None and (top5.shape != (len(pred), 5) or top5.dtype.kind not in "iu"):
        raise UserError(f"{predictions}: {split}_top5 is {top5.dtype} {top5.shape}; needs integers ({len(pred)}, 5)")
    return (true, pred) if top5 is None else (true, pred, top5)


def evaluate_files(
    predictions: Path | str, labels: Path | str, out: Path | str, eval_split: str, supervised: bool = False
) -> dict[str, Any]:
    """Evaluate stored predictions and write metrics.json.

    Parameters
    ----------
    predictions
        npz with `<split>_assignment` (n,) for train and/or test, the scalar `num_clusters` and, where the
        run stores it, `<split>_top5` (n, 5) and `<split>_judged` (n,), which images to score. The id is read
        from the config.json beside it, if there is one.
    labels
        npz with `train` and `test` class indices in the same order; -1 marks a sample without label.
    out
        Path of metrics.json.
    eval_split
        What the headline is computed on: `all`, `train` or `test`.
    supervised
        See `evaluate`.

    Returns
    -------
    dict
        What was written.

    Raises
    ------
    UserError
        If a file is missing or damaged, or lengths, types or index ranges are wrong; the file is named.
    """
    config = Path(predictions).with_name(CONFIG)
    result = {
        "id": read_json(config)["id"] if config.is_file() else None,
        **recompute(predictions, labels, eval_split, supervised),
        "predictions_sha256": sha256_file(predictions),
        "labels_sha256": sha256_file(labels),
    }
    write_json(out, result)
    return result
