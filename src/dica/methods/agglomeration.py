"""Merging of clusters along a graph, the pair of largest affinity first (Zhang et al., ECCV 2012; JULE, CVPR 2016).

With W the weights of a directed graph, A(a > b) is the sum over the points of b of what they get from a times what they
give to a, and the affinity of two clusters is A(a > b) / |a|^2 + A(b > a) / |b|^2. All of it is kept sparse: nothing
grows with the square of the number of points or of clusters.
"""

from __future__ import annotations

import heapq

import numpy as np
from scipy.sparse import csr_matrix

LEADING = 5  # affinities of a cluster that are compared, while there are many clusters
MANY = 100


class Merging:
    """The clusters of a graph's points, and their affinities.

    Parameters
    ----------
    weights
        (n, n); row i holds the weights of the edges from i.
    labels
        (n,) cluster of each point, 0 to k - 1, none of them empty.
    """

    def __init__(self, weights: csr_matrix, labels: np.ndarray) -> None:
        self.labels: np.ndarray = labels.astype(np.int64)
        count, clusters = len(labels), int(labels.max()) + 1
        self.sizes = np.bincount(labels).astype(float)
        membership = csr_matrix((np.ones(count), (np.arange(count), labels)), shape=(count, clusters))
        self.points, self.given, self.got = _columns(weights.T @ membership, weights @ membership)
        self.members = _groups(self.labels, clusters)
        self.to = [self._reach(cluster) for cluster in range(clusters)]
        self.near: list[dict[int, float]] = [{} for _ in range(clusters)]
        for a, reached in enumerate(self.to):
            for b in reached:
                self.near[a][b] = self.near[b][a] = self._affinity(a, b)
        self.left = clusters
        self.best, self.partner = np.full(clusters, -np.inf), np.full(clusters, -1)
        self._rate_all()

    def until(self, clusters: int) -> np.ndarray:
        """Merge until so many clusters are left; return the clusters (n,), numbered from 0."""
        while self.left > clusters:
            a, b = self._next()
            self._merge(min(a, b), max(a, b))
            if self.left == MANY:
                self._rate_all()
        return np.unique(self.labels, return_inverse=True)[1]

    def _next(self) -> tuple[int, int]:
        """Return the pair to merge; the two smallest clusters where no two have an affinity."""
        a = int(self.best.argmax())
        if np.isfinite(self.best[a]):
            return a, int(self.partner[a])
        alive = np.flatnonzero(self.sizes)
        first, second = alive[np.argsort(self.sizes[alive], kind="stable")[:2]]
        return int(first), int(second)

    def _merge(self, a: int, b: int) -> None:
        """Make one cluster of two; it keeps the number `a`."""
        self.labels[self.members[b]] = a
        self.members[a] = np.concatenate([self.members[a], self.members[b]])
        self.sizes[a], self.sizes[b] = self.sizes[a] + self.sizes[b], 0
        points, places = np.unique(np.concatenate([self.points[a], self.points[b]]), return_inverse=True)
        for values in (self.given, self.got):
            values[a] = np.bincount(places, np.concatenate([values[a], values[b]]))
        self.points[a] = points
        self.to[a] = self._reach(a)
        touched = (set(self.near[a]) | set(self.near[b]) | set(self.to[a])) - {a, b}
        self.near[a], self.near[b], self.to[b], self.best[b] = {}, {}, {}, -np.inf
        for other in sorted(touched):
            reached = self.to[other]
            value = reached.pop(a, 0.0) + reached.pop(b, 0.0)
            if value:
                reached[a] = value
            self.near[other].pop(a, None)
            self.near[other].pop(b, None)
            if affinity := self._affinity(a, other):
                self.near[other][a] = self.near[a][other] = affinity
            self._rate(other)
        self.left -= 1
        self._rate(a)

    def _reach(self, a: int) -> dict[int, float]:
        """Return A(a > b) of the other clusters b where it is not 0."""
        product = self.given[a] * self.got[a]
        clusters, places = np.unique(self.labels[self.points[a]], return_inverse=True)
        sums = np.bincount(places, product, minlength=len(clusters))
        return {int(b): float(value) for b, value in zip(clusters, sums, strict=True) if value and b != a}

    def _affinity(self, a: int, b: int) -> float:
        there, back = self.to[a].get(b, 0.0), self.to[b].get(a, 0.0)
        return there / self.sizes[a] ** 2 + back / self.sizes[b] ** 2

    def _rate_all(self) -> None:
        for cluster in np.flatnonzero(self.sizes):
            self._rate(int(cluster))

    def _rate(self, a: int) -> None:
        """Note the best partner of `a`; with many clusters also by how much it is better than the next ones."""
        found = heapq.nlargest(LEADING, self.near[a].items(), key=lambda item: (item[1], -item[0]))
        if not found:
            self.best[a], self.partner[a] = -np.inf, -1
            return
        values = np.zeros(LEADING)
        values[: len(found)] = [value for _, value in found]
        lead = (values[0] - values[1:]).sum() / (LEADING - 1) if self.left > MANY else 0.0
        self.best[a], self.partner[a] = values[0] + lead, found[0][0]


def _columns(given: csr_matrix, got: csr_matrix) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return by column the rows where one of two matrices (n, k) is not 0, and the values of both there."""
    rows, columns = given.shape
    parts = [matrix.tocoo() for matrix in (given, got)]
    keys = [part.col.astype(np.int64) * rows + part.row for part in parts]
    every = np.unique(np.concatenate(keys))
    ends = np.searchsorted(every, np.arange(1, columns) * rows)
    values = []
    for key, part in zip(keys, parts, strict=True):
        row = np.zeros(len(every))
        row[np.searchsorted(every, key)] = part.data
        values.append(np.split(row, ends))
    return np.split(every % rows, ends), values[0], values[1]


def _groups(labels: np.ndarray, clusters: int) -> list[np.ndarray]:
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.searchsorted(labels[order], np.arange(1, clusters)))
