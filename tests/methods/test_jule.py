"""JULE: merging against a slow one on dense matrices, triplets one by one, mates, and how training goes on and ends."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from dica.losses.jule import others, triplet_loss
from dica.methods.agglomeration import MANY, Merging
from dica.methods.jule import chains, weights
from tiny import make_prepared, make_trainer, tiny_config

# Merging


def block_affinity(weights: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Both directions of 1' W_ab W_ba 1 over the squared size of the cluster that it starts from."""
    there, back = weights[np.ix_(a, b)], weights[np.ix_(b, a)]
    return (there @ back).sum() / len(a) ** 2 + (back @ there).sum() / len(b) ** 2


def slowly_merged(weights: np.ndarray, labels: np.ndarray, clusters: int) -> set[frozenset[int]]:
    """Merge with all affinities computed anew for each merge, as two dense products."""
    groups = [np.flatnonzero(labels == k) for k in range(labels.max() + 1)]
    while len(groups) > clusters:
        member = np.array([np.isin(np.arange(len(weights)), group) for group in groups], dtype=float)
        one_way = (member @ weights) * (weights @ member.T).T @ member.T / member.sum(axis=1)[:, None] ** 2
        affinity = one_way + one_way.T
        np.fill_diagonal(affinity, 0)
        leading = -np.sort(-np.pad(affinity, ((0, 0), (0, 5))), axis=1)[:, :5]
        score = leading[:, 0] + (leading[:, :1] - leading[:, 1:]).sum(axis=1) / 4 * (len(groups) > MANY)
        place = int(np.where(leading[:, 0] > 0, score, -1).argmax())
        pair = (place, int(affinity[place].argmax()))
        if not affinity.any():
            pair = tuple(sorted(range(len(groups)), key=lambda k: (len(groups[k]), groups[k].min()))[:2])
        a, b = sorted(pair)
        groups[a] = np.concatenate([groups[a], groups.pop(b)])
    return {frozenset(group.tolist()) for group in groups}


def graph(points: int, neighbours: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    matrix = np.zeros((points, points))
    for row in range(points):
        to = draw.choice(np.delete(np.arange(points), row), neighbours, replace=False)
        matrix[row, to] = draw.random(neighbours)
    return matrix


def groups_of(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == k).tolist()) for k in np.unique(labels)}


@pytest.mark.parametrize(("points", "neighbours", "clusters"), [(24, 4, 3), (MANY + 12, 6, 90), (12, 1, 1)])
def test_the_pair_of_largest_affinity_is_merged_first(points: int, neighbours: int, clusters: int) -> None:
    matrix = graph(points, neighbours, seed=points)
    start = np.arange(points)
    found = Merging(csr_matrix(matrix), start).until(clusters)
    assert groups_of(found) == slowly_merged(matrix, start, clusters)
    assert sorted(set(found)) == list(range(clusters))


def test_affinities_are_sums_of_products_of_blocks() -> None:
    matrix, labels = graph(20, 6, seed=2), np.arange(20) // 4
    merging = Merging(csr_matrix(matrix), labels)
    for a, b in product(range(5), range(5)):
        expected = block_affinity(matrix, np.flatnonzero(labels == a), np.flatnonzero(labels == b))
        if a != b:
            assert merging.near[a].get(b, 0.0) == pytest.approx(expected)


def test_merging_may_begin_with_larger_clusters() -> None:
    matrix, start = graph(30, 5, seed=1), np.arange(30) // 3
    found = Merging(csr_matrix(matrix), start).until(4)
    assert groups_of(found) == slowly_merged(matrix, start, 4)


def test_clusters_without_affinity_are_merged_the_smallest_first() -> None:
    found = Merging(csr_matrix((6, 6)), np.array([0, 0, 0, 1, 1, 2])).until(2)
    assert groups_of(found) == {frozenset({0, 1, 2}), frozenset({3, 4, 5})}


def test_chains_follow_the_nearest_others() -> None:
    assert groups_of(chains(torch.tensor([[1], [0], [1], [4], [3]]))) == {frozenset({0, 1, 2}), frozenset({3, 4})}


def test_weights_fall_with_the_distance_over_its_mean() -> None:
    found = weights(torch.tensor([[1.0, 3.0], [1.0, 3.0], [2.0, 2.0]]), torch.tensor([[1, 2], [0, 2], [0, 1]]))
    expected = np.exp(-np.array([[0, 1, 3], [1, 0, 3], [2, 2, 0]]) / 2)
    np.testing.assert_allclose(found.toarray(), np.where(np.eye(3), 0, expected), rtol=1e-6)


# Triplets


def test_triplets_are_those_counted_one_by_one() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 3, 0])
    negatives, counted = others(labels, 7, torch.Generator().manual_seed(1))
    pairs = (labels[:, None] == labels) & ~torch.eye(8, dtype=torch.bool)
    loss, parts = triplet_loss(x, pairs, negatives, counted, margin=0.5, gamma=0.7)
    each = []
    for i, j in product(range(8), range(8)):
        for other in range(8):
            if i != j and labels[i] == labels[j] != labels[other]:
                near, far = (x[i] - x[j]).square().sum(), (x[i] - x[other]).square().sum()
                each.append((0.7 * near - far + 0.5).clamp_min(0))
    torch.testing.assert_close(loss, torch.stack(each).mean())
    torch.testing.assert_close(parts["active"], (torch.stack(each) > 0).double().mean())


def test_others_are_drawn_from_other_clusters_alone() -> None:
    labels = torch.arange(40) % 4
    rows, counted = others(labels, 10, torch.Generator().manual_seed(0))
    assert bool(counted.all())
    assert not (labels[rows] == labels[:, None]).any()
    assert len(rows.unique()) > 30, "and not always the same ones"
    assert all(len(set(row)) == 10 for row in rows.tolist())
    _, counted = others(torch.zeros(5), 5, torch.Generator().manual_seed(0))
    assert not counted.any()


def test_without_triplets_there_is_nothing_to_learn() -> None:
    x = torch.ones(3, 2, requires_grad=True)
    none = torch.zeros(3, 3, dtype=torch.bool)
    loss, _ = triplet_loss(x, none, torch.zeros(3, 3, dtype=torch.long), none)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not x.grad.any()


# The method


def test_mates_are_all_others_of_the_cluster_and_an_image_alone_is_its_own(tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config("jule"), make_prepared(tmp_path / "data"), tmp_path / "state")
    method, labels = trainer.method, np.array([2, 0, 2, 1, 2] + [3] * 43)
    method._remember(labels)
    found = {row: set() for row in range(5)}
    for draw in np.linspace(0, 0.999, 10):
        for row, mate in enumerate(method.mates(torch.arange(5), torch.full((5,), draw)).tolist()):
            found[row].add(mate)
    assert found == {0: {2, 4}, 1: {1}, 2: {0, 4}, 3: {3}, 4: {0, 2}}


def test_clusters_are_merged_after_each_period_and_training_ends_at_k(tmp_path: Path) -> None:
    settings = tiny_config("jule", epochs=9, period=2, rate=0.5, num_clusters=4)
    trainer = make_trainer(settings, make_prepared(tmp_path / "data"), tmp_path / "state")
    trainer.run()
    left = [row["clusters"] for row in trainer.history]
    assert left[0] == left[1] > left[2] == left[3]
    assert left[2] == max(4, left[0] - np.ceil(left[0] / 2))
    assert trainer.method.finished()
    assert len(left) < 9, "it ended before the last epoch"


def test_a_run_that_ends_too_soon_still_has_k_clusters_and_new_images_join_the_nearest(tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config("jule", num_clusters=5), make_prepared(tmp_path / "data"), tmp_path / "state")
    trainer.run()
    method, images = trainer.method, {"train": trainer.images.all_of("train")}
    assert int(method.left) > 5
    with torch.no_grad():
        method.before_predict(images, None)
        points = method.eval().features(images["train"])
        known = method.known()["train"]
        assert sorted(known.unique().tolist()) == list(range(5))
        means = torch.stack([points[known == k].mean(dim=0) for k in range(5)])
        found = method.predict(images["train"]).argmax(dim=1)
    assert torch.equal(found, torch.cdist(points, means).argmin(dim=1))
