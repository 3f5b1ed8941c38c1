"""Bounds between ACC, NMI and ARI: against every table of small sizes, and on what the papers print."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from functools import cache

import numpy as np
import pytest
from scipy.special import xlogy
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from dica.scores import bounds, consistency
from dica.scores.bounds import certify

SMALL = [(2, 12), (3, 9), (3, 12), (3, 18), (4, 8)]


@cache
def every_table(k: int, n: int) -> np.ndarray:
    """All integer tables (classes, clusters) of n samples in k balanced classes and k clusters."""
    per_class = n // k
    rows = [row for row in itertools.product(range(per_class + 1), repeat=k) if sum(row) == per_class]
    return np.array(list(itertools.product(rows, repeat=k)))


@cache
def scores(k: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ACC, NMI and ARI of each of these tables, written here a second time."""
    tables = every_table(k, n)
    places = [[(i, order[i]) for i in range(k)] for order in itertools.permutations(range(k))]
    acc = np.max([sum(tables[:, i, j] for i, j in place) for place in places], axis=0) / n
    p = tables / n
    clusters = p.sum(axis=1)
    joint, entropy = -xlogy(p, p).sum(axis=(1, 2)), -xlogy(clusters, clusters).sum(axis=1)
    nmi = 2 * (math.log(k) + entropy - joint) / (math.log(k) + entropy)
    pairs = lambda counts: counts * (counts - 1) / 2  # noqa: E731
    together = pairs(tables).sum(axis=(1, 2))
    a, b, total = k * pairs(n // k), pairs(tables.sum(axis=1)).sum(axis=1), pairs(n)
    ari = (together - a * b / total) / ((a + b) / 2 - a * b / total)
    return acc, nmi, ari


def test_the_scores_of_this_file_are_those_of_scikit_learn() -> None:
    for index in (0, 17, 200, 999):
        table = every_table(3, 9)[index]
        pairs = [(i, j) for i in range(3) for j in range(3) for _ in range(table[i, j])]
        true, pred = zip(*pairs, strict=True)
        _, nmi, ari = (values[index] for values in scores(3, 9))
        assert nmi == pytest.approx(normalized_mutual_info_score(true, pred))
        assert ari == pytest.approx(adjusted_rand_score(true, pred))


@pytest.mark.parametrize(("k", "n"), SMALL)
def test_no_table_lies_below_a_floor_and_both_are_reached(k: int, n: int) -> None:
    acc, nmi, ari = scores(k, n)
    reached = Counter()
    for value in np.unique(acc):
        mine = acc == value
        least = {"nmi": nmi[mine].min() - bounds.nmi_floor(value, k)}
        least["ari"] = ari[mine].min() - bounds.ari_floor(value, k, n)
        assert min(least.values()) > -1e-12, value
        reached.update(name for name, gap in least.items() if abs(gap) < 1e-12 and value < 1)
    assert "nmi" in reached
    assert "ari" in reached or (k, n) == (4, 8)  # so few that the general floor is given


@pytest.mark.parametrize(("k", "n"), SMALL)
def test_equal_clusters_stay_inside_their_bounds(k: int, n: int) -> None:
    acc, nmi, ari = scores(k, n)
    equal = (every_table(k, n).sum(axis=1) == n // k).all(axis=1)
    assert equal.sum() > 5
    term = k / n  # the bounds are those of many samples
    for value in np.unique(acc[equal]):
        mine = equal & (acc == value)
        ends = bounds.equal_cluster_bounds(value, k)
        assert ends["nmi"][0] - 1e-12 <= nmi[mine].min() <= nmi[mine].max() <= ends["nmi"][1] + 1e-12
        assert ends["ari"][0] - term <= ari[mine].min() <= ari[mine].max() <= ends["ari"][1] + term


@pytest.mark.parametrize(("k", "n"), SMALL)
def test_no_certificate_excludes_a_table_that_exists(k: int, n: int) -> None:
    acc, _, ari = scores(k, n)
    shares = np.full(k, 1 / k)
    for value, index in zip(*np.unique(acc.round(9), return_index=True), strict=True):
        least = ari[acc.round(9) == value].min()
        value = float(acc[index])
        assert certify((value, value), least, shares, n).margin <= 0
        assert certify((value, value), least + 0.2, shares, n).margin <= 0


def test_no_certificate_excludes_random_partitions_of_unlike_classes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        k = int(rng.integers(3, 8))
        true = rng.choice(k, 400, p=rng.dirichlet(np.full(k, 20.0)))
        pred = np.where(rng.random(400) < rng.random(), true, rng.integers(0, k + 2, 400) * rng.integers(0, 2))
        acc = float((true == pred).mean())  # of a one-to-one map, if not the best one
        shares = np.bincount(true, minlength=k) / 400
        assert certify((acc, acc), adjusted_rand_score(true, pred), shares, 400).margin <= 0


@pytest.mark.parametrize("k", [3, 10, 20, 200])
@pytest.mark.parametrize("size", [50, math.inf])
def test_the_certificate_proves_the_floor(k: int, size: float) -> None:
    shares, n = np.full(k, 1 / k), size * k
    for acc in np.linspace(1.5 / k, 0.999, 25):
        floor = bounds.ari_floor(acc, k, n)
        if floor > 0.01:
            assert certify((acc, acc), floor - 1e-4, shares, n).margin > 0, acc
        assert certify((acc, acc), floor + 1e-6, shares, n).margin <= 0, acc


def test_a_cut_polygon_bounds_the_largest_cluster() -> None:
    acc, _, ari = scores(3, 18)
    largest = every_table(3, 18).sum(axis=1).max(axis=1) / 18
    for value in (0.5, 2 / 3, 7 / 9):
        mine = np.isclose(acc, value)
        limit = np.median(ari[mine])
        needed = largest[mine & (ari <= limit)].min()
        for beta in (0.4, 0.5, 0.6):
            if certify((value, value), limit, np.full(3, 1 / 3), 18, largest=beta).margin > 0:
                assert needed > beta
    interval = (0.8525, 0.8535)
    assert bounds.largest_cluster_needed(interval, 0.6915, 10) == pytest.approx(0.114, abs=0.001)


def test_known_values() -> None:
    proof = certify((0.9055, 0.9065), 0.7335, np.full(10, 0.1))
    assert (proof.lam, proof.mu, proof.margin) == pytest.approx((0.108581, -0.104649, 3.2e-3), abs=5e-5)
    assert bounds.ari_floor(0.906, 10) == pytest.approx(0.7685, abs=5e-5)
    for k, acc, nmi, ari, equal in ((10, 0.5, 0.222, 0.088, 0.198), (15, 0.6, 0.362, 0.149, 0.327)):
        found = bounds.nmi_floor(acc, k), bounds.ari_floor(acc, k)
        assert (*found, bounds.equal_cluster_bounds(acc, k)["ari"][0]) == pytest.approx((nmi, ari, equal), abs=6e-4)
    assert bounds.ari_floor(1.0, 10) == bounds.nmi_floor(1.0, 10) == 1


@pytest.fixture(scope="module")
def rows(root) -> list[dict[str, str]]:
    return consistency.audit_published(root)


def test_the_papers_triples(root, rows) -> None:
    triples = consistency.triples(root)
    assert len(triples) == 222
    assert sum(len(triple.rows) for triple in triples) == 447
    verdicts = Counter(row["verdict"] for row in rows if row["kind"] == "triple")
    assert verdicts == {"impossible": 2, "needs uneven clusters": 3, "possible": 217}
    impossible = {(row["method"], row["dataset"], row["acc"], row["ari"]) for row in rows if row["certificate"]}
    assert impossible == {("tcc", "cifar10", "0.906", "0.733"), ("tcc-multi-sampling", "cifar10", "0.901", "0.742")}
    assert all(row["verdict"] == "impossible" for row in rows if row["certificate"])


def test_cells_that_papers_print_differently_are_those_that_a_reader_found(root, rows) -> None:
    listed = {
        (row["method"], row["dataset"], row["metric"], frozenset((row["paper_a"], row["paper_b"])))
        for row in consistency.load_discrepancies(root)
        if row["metric"] in ("acc", "nmi", "ari") and row["paper_b"] not in ("", "bound", row["paper_a"])
    }
    clash = {cell for cell in listed if cell[0] == "kmeans"}  # two methods of one printed name
    found = {
        (row["method"], row["dataset"], row["detail"][:3], frozenset(row["places"].split("; ")))
        for row in rows
        if row["kind"] == "disagreement"
    }
    assert found == listed - clash
    assert any(row["kind"] == "remark" and row["verdict"] == "claim" for row in rows)


def test_wrong_metrics_of_ones_own_are_noticed() -> None:
    shares = np.full(10, 0.1)
    good = {"acc": 0.9, "nmi": 0.8, "ari": 0.79, "n": 1000, "num_clusters": 10}
    assert consistency.check_own(good, shares)["verdict"] == "possible"
    assert "ARI" in consistency.check_own({**good, "ari": 0.6}, shares)["detail"]
    assert "NMI" in consistency.check_own({**good, "nmi": 0.6}, shares)["detail"]


def test_one_class_has_no_bounds() -> None:
    line = {"acc": 1.0, "nmi": 1.0, "ari": 1.0, "n": 10, "num_clusters": 1}
    assert consistency.check_own(line, np.ones(1))["verdict"] == "possible"
