"""What a number is worth: the level that random labels reach, and the interval of a single run.

An ACC of .14 or an NMI of .50 is nothing where independent labels reach as much: ACC takes the best of all maps from
clusters to classes, and NMI grows with the number of clusters and with fewer images. ARI and AMI are corrected for it.

Model: the images keep their classes, the clusters keep their sizes, and which image is in which cluster is drawn anew
(Hubert and Arabie, Comparing partitions, 1985). NMI's expectation is exact (Vinh et al., JMLR 11, 2010); ACC has no
closed form, so it is drawn.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import entr, gammaln

from dica.files import UserError, load_arrays
from dica.scores import evaluation, metrics

DRAWS = 200


@dataclass(frozen=True)
class Level:
    """Mean and standard deviation of a metric under random labels; `sd` is None where the mean is exact."""

    mean: float
    sd: float | None = None


def equal_sizes(total: int, parts: int) -> np.ndarray:
    """Return `parts` sizes that differ by at most one and sum to `total`.

    Examples
    --------
    >>> equal_sizes(10, 4).tolist()
    [3, 3, 2, 2]
    """
    if not 1 <= parts <= total:
        raise UserError(f"{total} images cannot make {parts} clusters that are not empty")
    return total // parts + (np.arange(parts) < total % parts)


def random_tables(class_sizes: Any, cluster_sizes: Any, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Draw contingency tables (draws, clusters, classes) of labels that are independent of the classes.

    Parameters
    ----------
    class_sizes, cluster_sizes
        Numbers of images >= 0 with the same sum.

    Raises
    ------
    UserError
        If the sums differ.
    """
    classes, clusters = np.asarray(class_sizes, dtype=np.int64), np.asarray(cluster_sizes, dtype=np.int64)
    if classes.sum() != clusters.sum() or min(classes.min(), clusters.min()) < 0:
        raise UserError(
            f"sizes: {classes.sum()} images in classes, {clusters.sum()} in clusters; they must be the same"
        )
    generator = np.random.default_rng(seed)
    tables: np.ndarray = np.empty((draws, len(clusters), len(classes)), dtype=np.int64)
    for table in tables:
        left = classes.copy()
        for row, size in zip(table, clusters, strict=True):
            row[:] = generator.multivariate_hypergeometric(left, size)
            left -= row
    return tables


def chance(class_sizes: Any, cluster_sizes: Any, draws: int = DRAWS, seed: int = 0) -> dict[str, Level]:
    """Return the level of `acc`, `nmi`, `ari` and `ami` under random labels of the same sizes.

    Parameters
    ----------
    class_sizes, cluster_sizes
        Numbers of images in each class and cluster.
    draws, seed
        Of the draws behind ACC and ARI's spread.

    Examples
    --------
    >>> level = chance([100] * 10, [100] * 10)
    >>> round(level["acc"].mean, 2), round(level["nmi"].mean, 2), level["ari"].mean
    (0.14, 0.02, 0.0)
    """
    classes, clusters = np.asarray(class_sizes, dtype=np.int64), np.asarray(cluster_sizes, dtype=np.int64)
    tables = random_tables(classes, clusters, draws, seed)
    acc = [metrics.accuracy_of(table) for table in tables]
    ari = [metrics.ari_of(table) for table in tables]
    return {
        "acc": Level(float(np.mean(acc)), float(np.std(acc, ddof=1))),
        "nmi": Level(_expected_nmi(classes, clusters)),
        "ari": Level(0.0, float(np.std(ari, ddof=1))),
        "ami": Level(0.0),
    }


def ami_of(table: np.ndarray) -> float:
    """Return NMI corrected for chance, from counts (clusters, classes): 0 for independent labels, 1 for the same.

    Adjusted mutual information (Vinh et al., JMLR 11, 2010), normalised by the arithmetic mean of the entropies.

    Examples
    --------
    >>> round(ami_of(np.array([[5, 0], [0, 5]])), 4), round(ami_of(np.array([[3, 3], [2, 2]])), 4)
    (1.0, -0.0985)
    """
    return adjusted(metrics.nmi_of(table), _expected_nmi(table.sum(axis=1), table.sum(axis=0)))


def adjusted(nmi: float, expected: float) -> float:
    """Return an NMI corrected for the one that random labels reach."""
    return 1.0 if expected == 1 else (nmi - expected) / (1 - expected)


def of_run(metrics_json: dict[str, Any], labels: Path) -> dict[str, Level]:
    """Return the levels for the images that a run is scored on, its classes, and as many clusters of equal sizes.

    Empty where there is nothing to say: no label file, or a run that names classes and so has no map to choose.

    Parameters
    ----------
    metrics_json
        What metrics.json holds.
    labels
        The label file of the data set.
    """
    headline = metrics_json["headline"]
    if "error" in headline or not labels.is_file():
        return {}
    sizes = _class_sizes(labels, metrics_json["evaluated_on"])
    if sum(sizes) != headline["n"] or headline["num_clusters"] > headline["n"]:
        return {}
    return _levels(sizes, headline["num_clusters"])


def _class_sizes(labels: Path, evaluated_on: str) -> tuple[int, ...]:
    try:
        stored = load_arrays(labels)
    except UserError:  # scoring the run and auditing it both say so
        return ()
    splits = evaluation.SPLITS if evaluated_on == "all" else (evaluated_on,)
    known = np.concatenate([stored.get(split, np.zeros(0, int)) for split in splits])
    return tuple(np.bincount(known[known >= 0]).tolist())


@cache
def _levels(class_sizes: tuple[int, ...], clusters: int) -> dict[str, Level]:
    return chance(class_sizes, equal_sizes(sum(class_sizes), clusters))


def _expected_nmi(classes: np.ndarray, clusters: np.ndarray) -> float:
    """Return the exact expectation of the mutual information over the arithmetic mean of the entropies."""
    total = int(classes.sum())
    classes, clusters = classes[classes > 0], clusters[clusters > 0]
    entropy = sum(float(entr(sizes / total).sum()) for sizes in (classes, clusters)) / 2
    if entropy == 0:
        return 1.0
    pairs = Counter((int(a), int(b)) for a in classes for b in clusters)  # sizes repeat: few pairs differ
    return sum(count * _expected_information(a, b, total) for (a, b), count in pairs.items()) / entropy


def _expected_information(a: int, b: int, total: int) -> float:
    """Return what a class of `a` images and a cluster of `b` add to the expected mutual information, in nats.

    The number of images they share is hypergeometric (Vinh et al., Eq. 24a).
    """
    shared: np.ndarray = np.arange(max(1, a + b - total), min(a, b) + 1, dtype=np.float64)
    if not shared.size or total in (a, b):
        return 0.0
    ways = [gammaln(n + 1) for n in (a, b, total - a, total - b)]
    rest = [gammaln(n + 1) for n in (total, shared, a - shared, b - shared, total - a - b + shared)]
    probability = np.exp(sum(ways) - sum(rest))
    return float((shared / total * np.log(total * shared / (a * b)) * probability).sum())


def bootstrap(y_true: Any, y_pred: Any, metric: str, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile interval of `acc`, `nmi` or `ari` of one partition over images drawn with replacement.

    The map from clusters to classes is found again in every draw. NMI of a resample lies above that of the sample
    (about .005 at 1,800 images and ten clusters), so its interval is moved by the difference of the means.

    Parameters
    ----------
    y_true, y_pred
        (n,) classes and clusters.
    """
    score = {"acc": metrics.accuracy_of, "nmi": metrics.nmi_of, "ari": metrics.ari_of}.get(metric)
    if score is None:
        raise UserError(f"bootstrap: metric is {metric!r}, allowed: acc, nmi, ari")
    table = metrics.contingency(y_true, y_pred)
    total = int(table.sum())
    drawn = np.random.default_rng(seed).multinomial(total, table.ravel() / total, size=draws)
    found = np.array([score(counts.reshape(table.shape)) for counts in drawn])
    if metric == "nmi":
        found -= found.mean() - score(table)
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(min(high, 1.0))
