"""Bounds between the ACC, the NMI and the ARI of one partition, each with its proof.

One partition of n samples of K classes has an ACC, an NMI and an ARI that are not free of each other. With p_ij the
share of all samples that are of class i and in cluster j, clusters numbered so that the one-to-one map is i -> i,
q = 1 - ACC, d_j = p_jj and e_j the rest of cluster j:

* NMI >= 1 - (h(q) + q log(K-1)) / log K, h the binary entropy (Fano; sharp; convex in ACC, so it holds for means too);
* ARI is smallest when one cluster swallows every error, evenly from the other classes (`ari_floor`; sharp).

That nothing lies below the ARI floor is not taken on trust: `certify` proves each claim by Lagrange multipliers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.optimize import minimize

NOISE = 1e-9  # what rounding errors of the proof itself may amount to
GRID = 4001


def nmi_floor(acc: float, num_classes: int) -> float:
    """Return the smallest NMI of a partition of balanced classes with this ACC (Fano), for every normalisation.

    Sharp as long as no cluster beyond `num_classes` is used.
    """
    return fano(acc, math.log(num_classes), num_classes, num_classes)


def fano(acc: float, class_entropy: float, num_classes: int, num_clusters: int) -> float:
    """Return the smallest NMI with this ACC where classes have this entropy, balanced or not."""
    q = 1 - acc
    if class_entropy == 0:
        return 0.0
    unknown = sum(-x * math.log(x) for x in (q, acc) if x > 0) + q * math.log(max(num_classes - 1, 1))
    return max(0.0, 2 * (class_entropy - unknown) / (class_entropy + math.log(num_clusters)))


def ari_floor(acc: float, num_classes: int, n: float = math.inf) -> float:
    """Return the smallest ARI of a partition of balanced classes with this ACC >= 1/K: one cluster swallows all errors.

    `n` is the number of samples; the limit of many differs by less than 0.001 from 5,000 on. Where n is so small or
    the ARI so near to 0 that the proof does not hold, the floor is the one of all partitions, a little below 0.
    """
    k, q = num_classes, 1 - acc
    d, off = 1 / k - q / (k - 1), q / (k - 1)
    floor = _ari(1 / k**2 + (k - 1) * (d**2 + off**2), 1 / k, (1 / k + q) ** 2 + (k - 1) * d**2, n)
    a = _pairs(1 / k, n)
    return floor if (floor / 2 + (1 - floor) * a) * k >= 1 else 0.0 - (1 - a) / (a * n)


def _ari(joint: float, classes: float, clusters: float, n: float) -> float:
    """Return the ARI of three sums of squared shares."""
    s, a, b = (_pairs(x, n) for x in (joint, classes, clusters))
    return (s - a * b) / ((a + b) / 2 - a * b)


def _pairs(squares: float, n: float) -> float:
    """Return the share of pairs of different samples that lie together."""
    return squares if math.isinf(n) else (n * squares - 1) / (n - 1)


def ari_floor_of_means(acc: float, num_classes: int) -> float:
    """Return the smallest mean ARI of any runs with this mean ACC: the lower convex envelope of `ari_floor`."""
    return float(np.interp(acc, *_envelope(num_classes)))


@cache
def _envelope(num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    accs = np.linspace(1 / num_classes, 1, GRID)
    points = [(acc, ari_floor(acc, num_classes)) for acc in accs]
    hull: list[tuple[float, float]] = []
    for point in points:  # lower hull, points come sorted
        while len(hull) > 1 and _turns_down(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return np.array([x for x, _ in hull]), np.array([y for _, y in hull])


def _turns_down(a: tuple, b: tuple, c: tuple) -> bool:
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])


def equal_cluster_bounds(acc: float, num_classes: int) -> dict[str, tuple[float, float]]:
    """Return (least, most) `nmi` and `ari` if every cluster holds 1/K of the samples."""
    share = (num_classes * acc - 1) / (num_classes - 1)
    most = math.log(max(num_classes * acc, 1)) / math.log(num_classes)
    return {"nmi": (nmi_floor(acc, num_classes), most), "ari": (share**2, share)}


@dataclass(frozen=True)
class Certificate:
    """Numbers that prove, if `margin` > 0, that no partition with that ACC has an ARI of `t` or less."""

    t: float
    lam: float
    mu: float
    margin: float


def certify(
    acc: tuple[float, float], t: float, shares: np.ndarray, n: float = math.inf, largest: float = 1.0
) -> Certificate:
    """Try to prove that ARI <= `t` is impossible for every ACC in the interval `acc`.

    ARI <= t is, since class sizes are fixed, S - cB <= r for sums of squares S of cells and B of clusters. Column j
    adds at least phi = d² + e²/(K-1) - c(d+e)² to the left side, with (d, e) in the polygon 0 <= d <= largest class,
    0 <= e <= q - (smallest class - d), d + e <= `largest`. As the d_j add up to ACC and the e_j to q, for any λ and μ
    S - cB >= K min(phi - λd - μe) + λ ACC + μ q; phi is an indefinite quadratic, its minimum is on an edge. If that
    exceeds r the claim is proved, whatever λ and μ are. Any number of clusters is covered (`_surplus_cannot_help`).

    Parameters
    ----------
    acc
        Least and greatest ACC that the print allows; need not be of the best map, one-to-one is enough.
    t
        ARI in (0, 1].
    shares
        Share of each class (they need not be balanced).
    n
        Number of samples.
    largest
        Only partitions whose largest cluster has at most this share.

    Returns
    -------
    Certificate
        With `margin` <= 0 (or -inf) where nothing is proved.
    """
    problem = _Problem(acc, t, shares, n, largest)
    if not problem.sound:
        return Certificate(t, 0.0, 0.0, -math.inf)
    lam, mu = problem.start()
    if largest < 1:
        found = minimize(lambda x: -problem.margin(*x), (lam, mu), method="Nelder-Mead", options={"xatol": 1e-7})
        lam, mu = found.x
    margin = problem.margin(lam, mu) if problem.surplus_cannot_help(mu) else -math.inf
    return Certificate(t, float(lam), float(mu), float(margin))


class _Problem:
    """The Lagrangian of `certify`."""

    def __init__(self, acc: tuple[float, float], t: float, shares: np.ndarray, n: float, largest: float) -> None:
        self.acc, self.k, self.q = acc, len(shares), 1 - acc[0]
        a = _pairs(float(np.sum(shares**2)), n)
        self.c = t / 2 + (1 - t) * a
        self.right = t * a / 2 if math.isinf(n) else ((n - 1) * t * a / 2 + 1 - self.c) / n
        self.corners = _polygon(self.q, float(shares.min()), float(shares.max()), largest)
        # What the edges have without multipliers, which are many for each problem.
        self.step = np.roll(self.corners, -1, axis=0) - self.corners
        self.height, self.square = self.phi(*self.corners.T), self.phi(*self.step.T)
        self.rise: np.ndarray = 2 * _bilinear(self.corners, self.step, self.k, self.c)
        # An indefinite phi has no minimum inside the polygon; elsewhere nothing is claimed.
        self.sound = self.k > 1 and 0 < t <= 1 and self.c * self.k >= 1 and len(self.corners) > 1 and self.q > 0

    def start(self) -> tuple[float, float]:
        """Return the multipliers that are tight for the absorbing table, the one of `ari_floor`."""
        k, q = self.k, self.q
        d = 1 / k - q / (k - 1)
        lam = 2 * (1 - self.c) * d
        plain, absorbing = (1 - self.c) * d**2 - lam * d, self.phi(1 / k, q) - lam / k
        return lam, (absorbing - plain) / q

    def phi(self, d: Any, e: Any) -> Any:
        return d**2 + e**2 / (self.k - 1) - self.c * (d + e) ** 2

    def margin(self, lam: float, mu: float) -> float:
        linear = min(lam * acc + mu * (1 - acc) for acc in self.acc)
        return self.k * self._least(lam, mu) + linear - self.right - NOISE

    def _least(self, lam: float, mu: float) -> float:
        """Return min(phi - lam d - mu e) over the polygon: on each edge a quadratic in one variable."""
        values = self.height - self.corners @ (lam, mu)
        square, slope = self.square, self.rise - self.step @ (lam, mu)
        inside = np.clip(np.divide(-slope, 2 * square, out=np.zeros_like(slope), where=square > 0), 0, 1)
        return float(min(values.min(), (values + slope * inside + square * inside**2).min()))

    def surplus_cannot_help(self, mu: float) -> bool:
        """Whether clusters without a class only add to the left side: e²(1/K - c) - mu e >= 0 on [0, q]."""
        return self.q * (1 / self.k - self.c) - mu >= 0 if self.c >= 1 / self.k else mu <= 0


def _bilinear(x: np.ndarray, y: np.ndarray, k: int, c: float) -> np.ndarray:
    """Return the bilinear form of phi, row by row."""
    return x[:, 0] * y[:, 0] + x[:, 1] * y[:, 1] / (k - 1) - c * x.sum(axis=1) * y.sum(axis=1)


def _polygon(q: float, smallest: float, largest_class: float, largest_cluster: float) -> np.ndarray:
    """Return the corners of the (d, e) that a matched cluster can have."""
    left = max(0.0, smallest - q)
    room = q - smallest
    corners = [(left, 0.0), (largest_class, 0.0), (largest_class, room + largest_class), (left, max(room + left, 0.0))]
    kept = []
    for (d, e), (d2, e2) in zip(corners, corners[1:] + corners[:1], strict=True):
        over, over2 = d + e - largest_cluster, d2 + e2 - largest_cluster
        if over <= 0:
            kept.append((d, e))
        if over * over2 < 0:
            share = over / (over - over2)
            kept.append((d + share * (d2 - d), e + share * (e2 - e)))
    return np.array(kept).reshape(-1, 2)


@cache
def largest_cluster_needed(acc: tuple[float, float], ari: float, num_classes: int) -> float:
    """Return a share that the largest cluster must at least have for that ACC and an ARI of at most `ari`."""
    shares = np.full(num_classes, 1 / num_classes)
    low, high = 1 / num_classes, 1.0  # equal clusters are excluded, any are not
    while high - low > 1e-4:
        middle = (low + high) / 2
        proved = certify(acc, ari, shares, largest=middle).margin > 0
        low, high = (middle, high) if proved else (low, middle)
    return low
