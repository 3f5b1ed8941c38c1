"""The semi-supervised baselines as methods: ramps, batch statistics and mixing. Their losses are tested apart."""

from __future__ import annotations

import pytest
import torch

from dica import methods
from dica.data.splits import DataInfo
from dica.losses.semi import aligned_guess, remixmatch_loss, squared_difference
from dica.losses.tcc import enqueue
from dica.methods.base import Batch
from dica.methods.remixmatch import REMEMBERED, rotated
from dica.methods.semi import interleave
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


def test_labelled_weak_and_strong_images_of_uda_share_their_batch_statistics(root):
    model, given = build(root, "full"), batch()
    few = given.take(model.labelled.positions[model.labelled.draw(8, given.rng("labelled images"))])
    views = [model.weak(few, given.rng("labelled")), model.weak(given.images, given.rng("weak"))]
    views.append(model.strong(given.images, given.rng("strong")))
    other = build(root, "full")
    other.own(torch.cat(views))
    model.loss(given)
    for mine, theirs in zip(model.own.buffers(), other.own.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


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
    mixed = interleave(parts)
    assert sorted(int(x) // 10 for x in mixed[0]) == [0, 0, 0, 1, 1, 1, 2, 2], "some of every kind"
    for part, back in zip(parts, interleave(mixed), strict=True):
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


# ReMixMatch


def build_remixmatch(root, **overrides):
    torch.manual_seed(0)
    given = {"num_clusters": 4, **overrides}
    params = config.resolve("remixmatch", "full", "digits", {"overrides": {"remixmatch": given}}, root)
    model = methods.build("remixmatch", params, DataInfo(1, 8, {"train": 40}))
    model.give_labels(torch.arange(40) % 4)
    return model


def test_remixmatch_weighs_its_four_losses_and_only_two_of_them_grow(root):
    model = build_remixmatch(root, epochs=10, ramp=0.4).eval()
    for epoch, share in ((0, 0.0), (2, 0.5), (9, 1.0)):
        step = model.loss(batch(epoch))
        parts = step.parts
        grown = share * (1.5 * parts["L_u"] + 0.5 * parts["L_first"])
        torch.testing.assert_close(step.loss.detach(), parts["L_s"] + grown + 0.5 * parts["L_rotation"])


def test_remixmatch_remembers_what_it_predicted_on_weak_views(root):
    model, given = build_remixmatch(root), batch()
    model.eval()
    carry = model.loss(given).carry
    with torch.no_grad():
        expected = model.own(model.weak(given.images, given.rng("weak"))).softmax(dim=1).mean(dim=0)
    model.after_step(given, carry)
    torch.testing.assert_close(model.predicted[0], expected)
    torch.testing.assert_close(model.predicted[1:], torch.full((127, 4), 0.25))
    assert int(model.pointer) == 1


def test_remixmatch_moves_running_statistics_by_one_batch_alone(root):
    model = build_remixmatch(root)
    norm = next(part for part in model.own.modules() if isinstance(part, torch.nn.BatchNorm2d))
    seen = []
    handle = norm.register_forward_hook(lambda part, given, _: seen.append((part.momentum, given[0].detach())))
    model.loss(batch())
    handle.remove()
    assert [momentum for momentum, _ in seen[:-1]] == [0.0] * (len(seen) - 1)
    momentum, last = seen[-1]
    torch.testing.assert_close(norm.running_mean, momentum * last.mean(dim=(0, 2, 3)))


def test_rotations_turn_each_quarter_by_its_angle():
    views = torch.arange(4 * 9.0).view(4, 1, 3, 3)
    turned, angles = rotated(views)
    assert angles.tolist() == [0, 1, 2, 3]
    for view, result, angle in zip(views, turned, angles.tolist(), strict=True):
        assert torch.equal(result.rot90(-angle, dims=(1, 2)), view)


def test_aligned_guesses_and_losses_are_those_of_the_worked_example():
    weak = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.5]], dtype=torch.float64)
    strong = torch.tensor([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0]], dtype=torch.float64)
    given = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    aligned = aligned_guess(weak.softmax(dim=1), given, temperature=1.0)
    guess = aligned_guess(weak.softmax(dim=1), given, temperature=0.5)
    expected = [[0.639429, 0.144229, 0.216343], [0.103603, 0.469368, 0.427029]]
    torch.testing.assert_close(aligned, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)
    remembered = torch.full((REMEMBERED, 3), 1 / 3, dtype=torch.float64)
    remembered, _ = enqueue(remembered, weak.softmax(dim=1).mean(dim=0, keepdim=True), torch.tensor(0))
    expected = torch.tensor([0.334531, 0.333124, 0.332345], dtype=torch.float64)
    torch.testing.assert_close(remembered.mean(dim=0), expected, atol=1e-6, rtol=0)
    expected = [[0.858112, 0.043658, 0.098230], [0.025964, 0.532922, 0.441113]]
    torch.testing.assert_close(guess, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)
    rotation = torch.zeros(2, 4, dtype=torch.float64), torch.tensor([0, 3])
    _, parts = remixmatch_loss(
        *(weak, guess, strong, guess, strong, guess, *rotation), weight=1.5, first_weight=0.5, rotation_weight=0.5
    )
    assert float(parts["L_first"]) == pytest.approx(0.967347, abs=1e-6)
    assert float(parts["L_u"]) == pytest.approx(0.967347, abs=1e-6)
    assert float(parts["L_rotation"]) == pytest.approx(float(torch.log(torch.tensor(4.0))))
