"""IDFD, MoCo, MiCE and SCAN as methods: memories, queues, prototypes and sources; their losses are tested apart."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from dica import methods
from dica.data.splits import DataInfo
from dica.losses.common import l2_normalise
from dica.methods.base import Batch
from dica.plan import parameters as config
from dica.rng import generator


def build(root, name, counts=None, seed=0, variant="full", **overrides):
    torch.manual_seed(seed)
    params = config.resolve(name, variant, "digits", {"overrides": {name: overrides}}, root)
    return methods.build(name, params, DataInfo(1, 8, counts or {"train": 40}))


def batch(n=12, epoch=0):
    images = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    rng = lambda purpose: generator(0, purpose, epoch)  # noqa: E731
    return Batch(images[:n], torch.arange(n), epoch, 0, "main", rng, take=lambda rows: images[rows])


IMAGES = {"train": batch(40).images}


# IDFD


def test_idfd_stores_what_it_saw_and_nothing_else(root):
    model, given = build(root, "idfd"), batch()
    before = model.bank.clone()
    carry = model.loss(given).carry
    model.after_step(given, carry)
    assert torch.equal(model.bank[12:], before[12:])
    torch.testing.assert_close(model.bank[:12], F.normalize(before[:12] + carry["f"], dim=1))


@pytest.mark.parametrize("where", ["bank", "features"])
def test_idfd_clusters_the_memory_or_the_features(root, where):
    model = build(root, "idfd", cluster_on=where, num_clusters=3)
    model.before_predict(IMAGES, lambda purpose: generator(0, purpose))
    points = model.bank if where == "bank" else model.clustered(IMAGES["train"])
    nearest = torch.cdist(points, model.clusters.centroids).argmin(1)
    for number in range(3):
        torch.testing.assert_close(points[nearest == number].mean(0), model.clusters.centroids[number])


# MoCo


def test_moco_queue_takes_the_twins_embeddings_and_the_twin_follows(root):
    model, given = build(root, "moco", momentum=0.75), batch()
    model.own[1].weight.data += 1
    before = model.twin[1].weight.clone()
    carry = model.loss(given).carry
    model.after_step(given, carry)
    torch.testing.assert_close(model.queue[:12], carry["e_hat"])
    assert int(model.pointer) == 12
    torch.testing.assert_close(model.twin[1].weight, 0.75 * before + 0.25 * model.own[1].weight)


def test_moco_gradient_reaches_its_own_network_alone(root):
    model = build(root, "moco")
    model.loss(batch()).loss.backward()
    assert all(p.grad is not None for p in model.own.parameters())
    assert all(p.grad is None for p in model.twin.parameters())


def test_moco_clusters_the_layer_that_is_named(root):
    for layer, size in (("backbone", 64), ("projection", 32)):
        model = build(root, "moco", clustered_layer=layer)
        model.before_predict(IMAGES, lambda purpose: generator(0, purpose))
        assert model.clusters.centroids.shape == (10, size)
        assert model.predict(IMAGES["train"]).shape == (40, 10)


# MiCE


def mice_step(model, given):
    carry = model.loss(given).carry
    model.after_step(given, carry)
    return carry


def test_mice_replaces_its_prototypes_when_an_epoch_is_over(root):
    model = build(root, "mice")
    first = batch()
    carry = mice_step(model, first)
    sums = torch.zeros_like(model.sums)
    for row, expert in enumerate(carry["expert"].tolist()):
        sums[expert] += carry["v"][row, expert]
    torch.testing.assert_close(model.sums, sums)
    before = model.prototypes.detach().clone()
    mice_step(model, batch())
    assert torch.equal(model.prototypes, before), "within an epoch they stay"
    sums = model.sums.clone()
    mice_step(model, batch(epoch=1))
    found = sums.norm(dim=1) > 0
    torch.testing.assert_close(model.prototypes.detach()[found], l2_normalise(sums)[found])
    assert torch.equal(model.prototypes[~found], before[~found]), "an expert without images keeps its own"


def test_mice_predictions_do_not_depend_on_how_often_they_are_made(root):
    model = build(root, "mice")
    mice_step(model, batch())
    found = []
    for _ in range(2):
        model.before_predict(IMAGES, lambda purpose: generator(0, purpose))
        found.append(model.eval().predict(IMAGES["train"]))
    assert torch.equal(*found)


def test_mice_keeps_its_prototypes_if_told_so(root):
    model = build(root, "mice", replace_prototypes=False)
    before = model.prototypes.detach().clone()
    mice_step(model, batch())
    mice_step(model, batch(epoch=1))
    assert torch.equal(model.prototypes, before)


def test_mice_queue_holds_every_experts_embedding_in_its_place(root):
    model, given = build(root, "mice"), batch()
    carry = mice_step(model, given)
    torch.testing.assert_close(model.queue.unflatten(1, (10, 32))[:12], carry["v"])


# SCAN


def scan_neighbours(root, **overrides):
    model = build(root, "scan-neighbours", neighbours=3, **overrides)
    model.adopt(build(root, "simclr", seed=1).eval(), IMAGES)
    return model


def test_scan_counts_an_image_among_its_neighbours(root):
    model = scan_neighbours(root)
    assert model.neighbours.shape == (40, 4)
    assert torch.equal(model.neighbours[:, 0], torch.arange(40))
    assert not (model.neighbours[:, 1:] == torch.arange(40)[:, None]).any()
    assert scan_neighbours(root, with_self=False).neighbours.shape == (40, 3)


def test_scan_chooses_a_sub_head_with_another_weight_than_it_trains_with(root):
    model, given = scan_neighbours(root, sub_heads=3, weight=5.0, select_weight=1.0), batch()
    step = model.loss(given)
    parts = step.parts
    trained = 3 * (parts["consistency"] - 5 * parts["H"])  # summed over the sub-heads
    torch.testing.assert_close(step.loss.detach(), trained)
    chosen = step.carry["heads"]
    torch.testing.assert_close(chosen.mean(), parts["consistency"] - parts["H"])


@pytest.mark.parametrize("ema", [None, 0.9])
def test_scan_goes_on_from_the_chosen_sub_head(root, ema):
    below = scan_neighbours(root, sub_heads=3)
    below.head_losses.copy_(torch.tensor([0.0, -1.0, 0.0]))
    model = build(root, "scan", ema=ema)
    model.adopt(below.eval(), IMAGES)
    torch.testing.assert_close(model.eval().predict(IMAGES["train"]), below.predict(IMAGES["train"]))
    if ema:
        model.train()
        given = batch()
        model.own[1].layers[0].weight.data += 1
        model.after_step(given, model.loss(given).carry)
        moved = model.average[1].layers[0].weight - below.c_head.heads[1].layers[0].weight
        torch.testing.assert_close(moved, torch.full_like(moved, 0.1))
