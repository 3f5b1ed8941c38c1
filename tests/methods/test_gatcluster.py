"""GATCluster: its losses beside plain loops, the targets of an outer batch, and when K-means is not believed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dica import methods
from dica.data.splits import DataInfo
from dica.files import UserError
from dica.losses.dec import target
from dica.losses.gatcluster import attention, balanced, gat_loss
from dica.methods.base import Batch
from dica.methods.gatcluster import Network
from dica.rng import generator
from tiny import tiny_config

IMAGES = torch.randint(0, 256, (24, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
WEIGHTS = {"similarity_weight": 5.0, "entropy_weight": 3.0, "relation_weight": 1.0, "attention_weight": 5.0}


def build(channels: int = 1, **overrides: object):
    torch.manual_seed(0)
    small = {"num_clusters": 3, "inner_batch": 6, "inner_passes": 2}
    params = tiny_config("gatcluster", **{**small, **overrides})["params"]
    return methods.build("gatcluster", params, DataInfo(channels, 8, {"train": len(IMAGES)})).train()


def batch() -> Batch:
    return Batch(IMAGES, torch.arange(len(IMAGES)), 0, 0, "main", lambda purpose: generator(0, purpose))


def by_loops(p, attended, to_balance, sharpened, together) -> float:
    """The four terms, entry by entry, as the code has them."""
    count, clusters = p.shape
    cross = lambda q, t: -(t * math.log(q) + (1 - t) * math.log(1 - q))  # noqa: E731
    similarity = -sum(p[i][k] * to_balance[i][k] for i in range(count) for k in range(clusters)) / count
    sums = 0.0
    for given in (p, attended):
        for k in range(clusters):
            mean = sum(given[i][k] for i in range(count)) / count
            sums += mean * math.log(mean)
    pairs = []
    for i in range(count):
        for j in range(i):
            cosine = p[i] @ p[j] / math.sqrt((p[i] @ p[i]) * (p[j] @ p[j]))
            pairs.append(cross(cosine, float(together[i][j])))
    relation = sum(pairs) / (count * (count + 1) / 2)  # an image with itself costs nothing
    second = [cross(attended[i][k], sharpened[i][k]) for i in range(count) for k in range(clusters)]
    return 5 * similarity + 3 * sums + relation + 5 * sum(second) / len(second)


def test_the_loss_is_that_of_plain_loops() -> None:
    draw = torch.Generator().manual_seed(1)
    p, attended, q = (torch.rand(4, 3, generator=draw, dtype=torch.float64).softmax(dim=1) for _ in range(3))
    group = torch.tensor([0, 1, 0, 2])
    given = (p, attended, balanced(q), target(q), group[:, None] == group)
    found = gat_loss(*given, **WEIGHTS)[0]
    assert abs(float(found) - by_loops(*(x.numpy() for x in given))) < 1e-5  # cosines of 1 are cut off


def test_balanced_probabilities_and_the_bump_are_the_equations() -> None:
    q = torch.tensor([[0.6, 0.4], [0.9, 0.1]], dtype=torch.float64)
    first = [0.6 / 1.5, 0.4 / 0.5]
    assert balanced(q)[0].tolist() == pytest.approx([x / sum(first) for x in first], abs=1e-4)
    row, column, width = theta = [0.2, 0.7, 0.5]
    found = attention(torch.tensor([theta], dtype=torch.float64), 4)[0, 0]
    for i in range(4):
        for j in range(4):
            distance = (i / 3 - row) ** 2 + (j / 3 - column) ** 2
            assert float(found[i, j]) == pytest.approx(math.exp(-distance / (2 * 0.05 * width)), abs=1e-4)


def test_targets_are_of_the_images_as_they_are_in_eval_mode() -> None:
    model, given = build(), batch()
    with torch.no_grad():
        found = model.targets(given)
        p = model.eval().network(model.original(IMAGES, given.rng("targets"))).p
    assert model.train().network.training
    torch.testing.assert_close(found.to_balance, balanced(p))
    torch.testing.assert_close(found.sharpened, target(p))
    torch.testing.assert_close(found.views, model.augmented(IMAGES, given.rng("augmented")))


def test_every_pass_sees_the_views_of_the_outer_batch_in_a_new_order() -> None:
    steps = list(build().split(batch()))
    assert [len(step.images) for step in steps] == [6] * 8
    views = [torch.cat([step.extra["views"] for step in part]) for part in (steps[:4], steps[4:])]
    rows = [torch.cat([step.indices for step in part]) for part in (steps[:4], steps[4:])]
    assert not torch.equal(rows[0], rows[1])
    torch.testing.assert_close(views[0][rows[0].argsort()], views[1][rows[1].argsort()])
    inner = steps[0]
    assert torch.equal(inner.extra["together"], inner.extra["together"].T)


def test_k_means_is_not_believed_if_a_cluster_is_small() -> None:
    model = build(least_share=0.5)
    points = np.repeat(np.eye(3), [4, 4, 4], axis=0)
    assert len(np.unique(model._groups(points, 0))) == 3
    assert model._groups(np.repeat(np.eye(3), [6, 5, 1], axis=0), 0).tolist() == list(range(12))
    assert model._groups(np.repeat(np.eye(3), [6, 6, 0], axis=0), 0).tolist() == list(range(12)), "two points"


def test_colours_are_taken_as_their_luminance() -> None:
    model, grey = build(channels=3).eval(), torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(model.network(grey.expand(-1, 3, -1, -1)).p, model.network(grey).p)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(UserError, match="gat-8 takes images 8 pixels wide, the views give 9"):
        build().network(torch.rand(2, 1, 9, 9))


@pytest.mark.parametrize(("layout", "size"), [("gat-32", 32), ("gat-96", 96), ("gat-128", 128)])
def test_the_networks_end_in_maps_of_their_side(layout: str, size: int) -> None:
    network = Network(layout, 10, 4).eval()
    maps = network.convolutions(torch.rand(1, 1, size, size))
    assert maps.shape == (1, 10, network.side, network.side)
    assert network(torch.rand(1, 3, size, size)).attended.shape == (1, 4)
