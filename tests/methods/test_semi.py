"""The semi-supervised baselines as methods: ramps, batch statistics and mixing. Their losses are tested apart."""

from __future__ import annotations

import pytest
import torch

from dica import methods
from dica.data.splits import DataInfo
from dica.losses.semi import squared_difference
from dica.methods.base import Batch
from dica.methods.semi import _interleave
from dica.plan import parameters as config
from dica.rng import generator

IMAGES = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def build(root, variant, **overrides):
    torch.manual_seed(0)
    given = {"num_clusters": 4, "labelled_batch": 8, **overrides}
    params = config.resolve("semi", variant, "digits", {"overrides": {"semi": given}}, root)
    model = methods.build("semi", params, DataInfo(1, 8, {"train": 40}))
    model.give_labels(torch.arange(40) % 4)
    return model


def batch(epoch=0):
    return Batch(
        IMAGES[:12], torch.arange(12), epoch, 0, "main", lambda purpose: generator(0, purpose), take=IMAGES.__getitem__
    )


@pytest.mark.parametrize(("epoch", "share"), [(0, 0.0), (2, 0.5), (4, 1.0), (9, 1.0)])
def test_the_weight_grows_over_its_share_of_training(root, epoch, share):
    model = build(root, "short-pi", epochs=10).eval()
    step = model.loss(batch(epoch))
    torch.testing.assert_close(step.loss.detach(), step.parts["L_s"] + 10 * share * step.parts["L_u"])


def test_uda_has_its_full_weight_at_once(root):
    step = build(root, "full", threshold=0.0).loss(batch())
    torch.testing.assert_close(step.loss.detach(), step.parts["L_s"] + step.parts["L_u"])
    assert step.parts["L_u"] > 0


@pytest.mark.parametrize("variant", ["short-pi", "short-mean-teacher", "short-pseudo-label", "short-mixmatch", "full"])
def test_running_statistics_follow_the_images_that_are_named(root, variant):
    model = build(root, variant)
    norm = next(part for part in model.own.modules() if isinstance(part, torch.nn.BatchNorm2d))
    model.loss(batch())
    assert int(norm.num_batches_tracked) >= 1
    once = build(root, variant, ramp=0.0)
    first = next(part for part in once.own.modules() if isinstance(part, torch.nn.BatchNorm2d))
    few = once.weak(
        batch().take(once.labelled.positions[once.labelled.draw(8, batch().rng("labelled images"))]),
        batch().rng("labelled"),
    )
    once.own(few)
    if variant in ("short-pi", "short-mean-teacher", "short-pseudo-label"):
        torch.testing.assert_close(norm.running_mean, first.running_mean)
    else:
        assert not torch.allclose(norm.running_mean, first.running_mean)
    assert norm.momentum == first.momentum, "as it was"


def test_the_mean_teacher_is_the_average(root):
    model = build(root, "short-mean-teacher")
    model.average[1].weight.data += 3
    given = batch()
    with torch.no_grad():
        teacher = model.average(model.weak(given.images, given.rng("weak")))
        student = model.own(model.weak(given.images, given.rng("other")))
    torch.testing.assert_close(model.loss(given).parts["L_u"], squared_difference(teacher, student))


def test_interleaving_twice_changes_nothing():
    parts = [torch.arange(8) + 10 * k for k in range(3)]
    mixed = _interleave(parts)
    assert sorted(int(x) // 10 for x in mixed[0]) == [0, 0, 0, 1, 1, 1, 2, 2], "some of every kind"
    for part, back in zip(parts, _interleave(mixed), strict=True):
        assert torch.equal(part, back)


def test_mixmatch_keeps_at_least_half_of_each_image(root):
    share, partners = build(root, "short-mixmatch")._shares(36, generator(0, "mix"), torch.zeros(1))
    assert ((share >= 0.5) & (share <= 1)).all()
    assert sorted(partners.tolist()) == list(range(36))


def test_a_step_reaches_every_weight_of_its_own_network_alone(root):
    for variant in ("short-mixmatch", "short-pseudo-label"):
        model = build(root, variant)
        model.loss(batch(epoch=5)).loss.backward()
        assert all(p.grad is not None for p in model.own.parameters())
        assert all(p.grad is None for p in model.average.parameters())
