"""SwAV and DeepCluster-v2: the queue, the bank of the last epoch and its groups; what they share is IMC-SwAV's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from dica import methods
from dica.data.splits import DataInfo
from dica.files import UserError
from dica.losses.deepcluster_v2 import group_loss, spherical_kmeans
from dica.losses.imc_swav import cosines, sinkhorn, swap_loss
from dica.methods.base import Batch
from dica.rng import generator
from tiny import tiny_config

IMAGES = torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def build(name: str, **overrides: object):
    torch.manual_seed(0)
    params = tiny_config(name, **overrides)["params"]
    return methods.build(name, params, DataInfo(1, 8, {"train": len(IMAGES)}))


def batch(start: int = 0, epoch: int = 0, step: int = 0) -> Batch:
    rows = torch.arange(start, start + 12)
    return Batch(IMAGES[rows], rows, epoch, step, "main", lambda purpose: generator(0, purpose, epoch, step))


def projected(model, given: Batch) -> torch.Tensor:
    with torch.no_grad():
        return F.normalize(model.project(model.embed(given.images, given.rng)), dim=-1)


def test_the_queue_takes_what_the_crops_gave_and_is_balanced_with_the_batch_once_it_is_time() -> None:
    low = {"low": [{"op": "color_jitter", "brightness": 0.3}]}
    model = build("swav", queue=24, queue_start=1, low_crops=1, views=low)
    model.eval()  # no batch statistics: what is projected twice is the same
    for number in range(2):
        given = batch(12 * number, step=number)
        step = model.loss(given)
        z = projected(model, given)
        torch.testing.assert_close(step.loss, swap_loss(cosines(z, model.prototypes.unit_rows())), msg="no queue yet")
        model.after_step(given, step.carry)
        torch.testing.assert_close(model.queue[12 * number :][:12], torch.cat([z[0], z[1]], dim=1))
    given = batch(24, epoch=1, step=2)
    prototypes = model.prototypes.unit_rows()
    scores = cosines(projected(model, given), prototypes)
    earlier = torch.stack(model.queue.chunk(2, dim=1)) @ prototypes.T
    terms = []
    for a in range(2):
        q = sinkhorn(torch.cat([earlier[a], scores[a]]))[24:]
        terms += [-(q * (scores[b] / 0.1).log_softmax(-1)).sum(-1).mean() for b in range(3) if b != a]
    torch.testing.assert_close(model.loss(given).loss, torch.stack(terms).mean())


def test_swav_prototypes_wait_for_their_turn() -> None:
    model = build("swav", prototype_freeze_steps=1)
    for step, moves in ((0, False), (1, True)):
        model.zero_grad()
        given = batch(step=step)
        model.loss(given).loss.backward()
        model.after_backward(given)
        assert (model.prototypes.linear.weight.grad is not None) == moves


def test_a_queue_that_cannot_be_full_in_time_is_refused() -> None:
    with pytest.raises(UserError, match="swav: queue: 101 images are not there after 2 epochs of 100 images"):
        build("swav", queue=101, queue_start=2)
    with pytest.raises(UserError, match="deepcluster-v2: num_prototypes is 51, but there are 50 images"):
        build("deepcluster-v2", num_prototypes=51)


def test_the_first_epoch_groups_what_one_look_at_all_images_gave() -> None:
    model = build("deepcluster-v2", heads=3, num_prototypes=6)
    weights = [p.clone() for p in model.parameters()]
    model.before_epoch(0, {"train": IMAGES}, lambda purpose: generator(0, purpose, 0))
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True)), "without a step"
    torch.testing.assert_close(model.bank.norm(dim=-1), torch.ones(2, 50))
    for head in range(3):
        near = (model.bank[head % 2] @ model.centroids[head].T).argmax(dim=1)
        assert torch.equal(model.group[head], near), "heads take the crops in turn"
    assert not torch.equal(model.group[0], model.group[2]), "two groupings of the same crop begin elsewhere"
    before = model.bank.clone()
    model.before_epoch(1, {"train": IMAGES}, lambda purpose: generator(0, purpose, 1))
    assert torch.equal(model.bank, before), "later epochs look at nothing anew"


def test_the_bank_keeps_what_a_step_saw_of_its_images_alone() -> None:
    model = build("deepcluster-v2", num_prototypes=6)
    model.before_epoch(0, {"train": IMAGES}, lambda purpose: generator(0, purpose, 0))
    model.eval()
    before, centroids, given = model.bank.clone(), model.centroids.clone(), batch(5)
    step = model.loss(given)
    step.loss.backward()
    model.after_backward(given)
    model.after_step(given, step.carry)
    z = projected(model, given)
    torch.testing.assert_close(model.bank[:, 5:17], z)
    assert torch.equal(model.bank[:, 17:], before[:, 17:])
    assert torch.equal(model.centroids, centroids)
    logits = torch.einsum("vnd,hkd->hvnk", z, centroids) / 0.1
    each = [F.cross_entropy(logits[h].flatten(0, 1), model.group[h, 5:17].repeat(2)) for h in range(3)]
    torch.testing.assert_close(step.loss.detach(), torch.stack(each).mean())


def test_group_loss_counts_the_crops_that_are_nearest_to_their_groups_centroid() -> None:
    scores = torch.tensor([[[[0.9, 0.1], [0.2, 0.3]], [[0.1, 0.0], [0.8, 0.1]]]])  # a head, two crops, two images
    assert group_loss(scores, torch.tensor([[0, 1]]))[1]["right"] == 0.75


def test_spherical_k_means_equals_a_loop_and_an_empty_group_keeps_its_centroid() -> None:
    torch.manual_seed(0)
    points = F.normalize(torch.randn(40, 3, dtype=torch.float64), dim=1)
    start = torch.cat([points[:4], -F.normalize(points.mean(dim=0, keepdim=True), dim=1)])
    points = points[(points @ start.T).argmax(dim=1) != 4]  # none is nearest to the last
    centroids = start.clone()
    for _ in range(3):
        near = (points @ centroids.T).argmax(dim=1)
        for k in range(5):
            if (near == k).any():
                centroids[k] = F.normalize(points[near == k].sum(dim=0), dim=0)
    found, group = spherical_kmeans(points, start, iterations=3)
    torch.testing.assert_close(found, centroids)
    assert torch.equal(group, (points @ centroids.T).argmax(dim=1))
    only_first = spherical_kmeans(points, start, iterations=1)[0]
    torch.testing.assert_close(only_first[4], start[4])
