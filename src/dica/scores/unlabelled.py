"""What can be said of clusters without labels, what it means and what it cannot; and how many clusters to ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from dica.files import UserError
from dica.scores.metrics import ari, matched

MEANING = {
    "entropy": (
        "Evenness of sizes",
        "Entropy of the cluster sizes divided by log K: 1 for equal clusters, 0 for a single one. It shows a collapse. "
        "It cannot show that clusters are right: a random partition has 1.",
    ),
    "confidence": (
        "Mean confidence",
        "How sure the network is of its first choice, on average. A low value shows images between clusters. A high "
        "one proves nothing: training drives confidence up whether or not the clusters are right.",
    ),
    "silhouette": (
        "Silhouette",
        "Distance to the next cluster against the distance within the own one, from -1 to 1, on the features of the "
        "same network. It shows how far apart clusters lie for that network, not that people would draw these borders.",
    ),
    "agreement": (
        "Agreement between seeds",
        "ARI between the partitions of two runs that differ in their seed alone: 1 for the same partition, 0 for "
        "chance. What changes with the seed is no property of the images. But runs may agree on what is of no "
        "interest, such as the background.",
    ),
}


def agreement(partitions: Sequence[np.ndarray]) -> list[float]:
    """Return the ARI between each two partitions of the same images."""
    return [ari(one, other) for one, other in combinations(partitions, 2)]


def aligned(reference: np.ndarray, other: np.ndarray, k: int) -> np.ndarray:
    """Return the partition `other` with its clusters renumbered so that most images have the number of `reference`."""
    table: np.ndarray = np.zeros((k, k), np.int64)
    np.add.at(table, (other, reference), 1)
    rows, columns = matched(table)
    number: np.ndarray = np.empty(k, np.int64)
    number[rows] = columns
    return number[other]


def seed_agreement(partitions: Sequence[np.ndarray], k: int) -> np.ndarray:
    """Return for each image the share of the other runs that put it into the cluster that the first run did (n,)."""
    if len(partitions) < 2:
        return np.full(len(partitions[0]), np.nan)
    others = [aligned(partitions[0], other, k) == partitions[0] for other in partitions[1:]]
    return np.mean(others, axis=0)


@dataclass(frozen=True)
class Counted:
    """What runs say of numbers of clusters: one entry for each number in `k`.

    `spread` is half the range of the agreement between pairs of seeds; the rest are means over seeds or pairs.
    """

    k: np.ndarray
    agreement: np.ndarray
    spread: np.ndarray
    silhouette: np.ndarray
    evenness: np.ndarray


@dataclass(frozen=True)
class Recommendation:
    """The number of clusters to ask for; `low` to `high` are as good as the runs can tell."""

    k: int
    low: int
    high: int
    reason: str


def compare_counts(
    k: np.ndarray, partitions: Sequence[np.ndarray], silhouettes: Sequence[np.ndarray], low: int = 2
) -> Counted:
    """Compare the partitions of several seeds for each number of clusters from `low` on.

    Parameters
    ----------
    k
        (m,) numbers of clusters.
    partitions
        For each seed (m, n), of the same images.
    silhouettes
        For each seed (m,).
    """
    if len(partitions) < 2:
        raise UserError("numbers of clusters are compared by the agreement between seeds: needs --seeds 2 or more")
    chosen = np.flatnonzero(k >= low)
    alike = np.array([agreement([one[row] for one in partitions]) for row in chosen])
    sizes = [[np.bincount(one[row], minlength=k[row]) / one.shape[1] for one in partitions] for row in chosen]
    evenness = [np.mean([_evenness(share) for share in shares]) for shares in sizes]
    return Counted(
        k=k[chosen],
        agreement=alike.mean(axis=1),
        spread=np.ptp(alike, axis=1) / 2,
        silhouette=np.nanmean(silhouettes, axis=0)[chosen],
        evenness=np.array(evenness),
    )


def _evenness(shares: np.ndarray) -> float:
    used = shares[shares > 0]
    return float(abs((used * np.log(used)).sum()) / math.log(len(shares)))


def recommend(found: Counted) -> Recommendation:
    """Return the number of clusters of the highest sum of agreement and silhouette, and those that are as good.

    Agreement alone favours few large clusters, which any run finds; silhouette alone favours what one network happens
    to separate. They are added as they are: to stretch both to one range would turn noise into a verdict. Half the
    range between few pairs of seeds is about a standard deviation; as good as the best is what lies within two of its
    own and two of the best one's.
    """
    score = found.agreement + np.nan_to_num(found.silhouette, nan=-1.0)
    best = int(score.argmax())
    close = np.flatnonzero(score + 2 * (found.spread + found.spread[best]) >= score[best])
    k, low, high = int(found.k[best]), int(found.k[close[0]]), int(found.k[close[-1]])
    at_edge = best == len(score) - 1 or (best == 0 and k > 2)
    edge = " It is the end of the range that was tried: try further." if at_edge else ""
    others = f"K from {low} to {high} is as good as these runs can tell" if low < high else "no other K is as good"
    reason = (
        f"K = {k}: seeds agree by {found.agreement[best]:.2f} (ARI), silhouette {found.silhouette[best]:.2f}; "
        f"{others}.{edge}"
    )
    return Recommendation(k, low, high, reason)
