"""DeepCluster: what is grouped, how images are drawn, and how an epoch begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dica.files import UserError
from dica.methods.deepcluster import evenly_drawn, whitened
from dica.rng import generator
from tiny import make_prepared, make_trainer, tiny_config


def test_whitened_points_have_unit_covariance_in_as_many_directions_as_vary() -> None:
    torch.manual_seed(0)
    points = torch.randn(200, 3, dtype=torch.float64) @ torch.randn(3, 5, dtype=torch.float64) + 4
    found = whitened(points, 4)
    assert found.shape == (200, 3)
    torch.testing.assert_close(found.T @ found / 200, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(whitened(points, 2), found[:, 1:], msg="those that vary most are kept")


def test_all_groups_are_drawn_alike_however_large_they_are() -> None:
    groups = torch.tensor([7] * 900 + [2] * 90 + [5] * 10)
    drawn = evenly_drawn(groups, torch.Generator().manual_seed(0))
    assert len(drawn) == 1000
    counts = torch.bincount(groups[drawn], minlength=8)
    assert all(280 < int(counts[group]) < 390 for group in (2, 5, 7))
    assert set(drawn[groups[drawn] == 5].tolist()) == set(range(990, 1000)), "any of its images"


def test_an_epoch_begins_with_new_groups_and_a_new_last_layer(tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config("deepcluster", groups=6), make_prepared(tmp_path / "data"), tmp_path / "state")
    method, images = trainer.method, {"train": trainer.images.all_of("train")}
    method.network.hidden_bn.running_mean.fill_(1.0)  # else nothing is below zero, and a ReLU would change nothing
    before = method.network.output.weight.clone()
    method.before_epoch(0, images, lambda purpose: generator(0, purpose, 0))
    with torch.no_grad():
        features = method.eval().network.represent(method.test_view(images["train"]), "before-relu")
    assert (features < 0).any(), "before the ReLU"
    points = whitened(features, method.params["components"])
    points = points / points.norm(dim=1, keepdim=True)
    means = torch.stack([points[method.group == k].mean(dim=0) for k in range(6)])
    assert torch.equal(torch.cdist(points, means).argmin(dim=1), method.group), "the groups are those of K-means"
    assert not torch.equal(method.network.output.weight, before)
    assert 0.005 < float(method.network.output.weight.detach().std()) < 0.02
    assert not method.network.output.bias.any()


def test_the_last_layer_learns_without_momentum(tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config("deepcluster"), make_prepared(tmp_path / "data"), tmp_path / "state")
    others, last = trainer.optimizer.param_groups
    assert (others["momentum"], last["momentum"]) == (0.9, 0.0)
    assert {id(p) for p in last["params"]} == {id(p) for p in trainer.method.network.output.parameters()}


def test_more_groups_than_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="groups is 1000, but there are"):
        make_trainer(tiny_config("deepcluster", groups=1000), make_prepared(tmp_path / "data"), tmp_path / "state")
