"""MMDC: what images exchange, when K-means takes over, and the pass of quarter turns."""

from __future__ import annotations

from itertools import permutations

import torch
from torch.nn import functional as F

from dica import methods
from dica.data.splits import DataInfo
from dica.losses.mmdc import reassigned, renamed, target_loss
from dica.methods.base import Batch
from dica.rng import generator
from tiny import tiny_config

IMAGES = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def build(**overrides: object):
    torch.manual_seed(0)
    params = tiny_config("mmdc", **{"num_clusters": 3, **overrides})["params"]
    return methods.build("mmdc", params, DataInfo(1, 8, {"train": len(IMAGES)})).train()


def batch(phase: str = "main", epoch: int = 0) -> Batch:
    rows = torch.arange(4, 16)
    return Batch(IMAGES[rows], rows, epoch, 0, phase, lambda purpose: generator(0, purpose, epoch))


def test_images_exchange_targets_for_the_least_sum_of_distances() -> None:
    torch.manual_seed(0)
    z, targets = F.normalize(torch.randn(6, 3), dim=1), torch.tensor([0, 0, 1, 1, 1, 2])
    found = reassigned(z, targets)
    assert torch.equal(found.sort().values, targets)
    distance = lambda given: float((z - F.one_hot(given, 3)).square().sum())  # noqa: E731
    best = min(distance(targets[list(order)]) for order in permutations(range(6)))
    assert abs(distance(found) - best) < 1e-5
    assert target_loss(z, found)[0] < target_loss(z, targets)[0]


def test_groups_take_the_names_of_the_targets_that_they_share_most_with() -> None:
    targets = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    assert torch.equal(
        renamed(torch.tensor([1, 1, 1, 2, 2, 0, 0, 2]), targets, 3), torch.tensor([0, 0, 0, 1, 1, 2, 2, 1])
    )


def test_a_step_keeps_as_many_images_at_each_corner() -> None:
    model, given = build(refine_from=1), batch()
    before, plain = model.target.clone(), model._plain(given.images)
    step = model.loss(given)
    assert all(part.training for part in model.modules()), "the plain look is in eval mode, the step is not"
    model.after_step(given, step.carry)
    assert torch.equal(model.target[4:16], reassigned(plain, before[4:16]))
    assert torch.equal(model.target[16:], before[16:])


def test_k_means_gives_the_targets_of_the_refinement_and_nothing_is_reassigned() -> None:
    model, given = build(refine_from=1), batch(epoch=1)
    rng = lambda purpose: generator(0, purpose)  # noqa: E731
    before = model.target.clone()
    model.before_epoch(0, {"train": IMAGES}, rng)
    assert torch.equal(model.target, before)
    model.before_epoch(1, {"train": IMAGES}, rng)
    points = model.eval()._outputs(model.test_view(IMAGES)).detach()
    means = torch.stack([points[model.target == k].mean(dim=0) for k in range(3)])
    assert torch.equal(torch.cdist(points, means).argmin(dim=1), model.target)
    assert torch.equal(model.loss(given).carry["targets"], model.target[4:16])


def test_quarter_turns_teach_the_backbone_and_leave_the_corners() -> None:
    model = build()
    before, given = model.target.clone(), batch("turns")
    assert [phase.name for phase in model.phases(0)] == ["turns", "main"]
    assert [phase.name for phase in build(rotations=False).phases(0)] == ["main"]
    step = model.loss(given)
    step.loss.backward()
    model.after_step(given, step.carry)
    assert torch.equal(model.target, before)
    assert model.output.weight.grad is None
    assert all(p.grad is not None for p in model.backbone.parameters())
