"""TCC: the networks, the twin, the queues, and the descent of L1 over the whole training set."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from dica import methods
from dica.data.splits import DataInfo
from dica.engine.optim import build_optimizer
from dica.files import UserError
from dica.losses import tcc as losses
from dica.losses.dec import dec_loss, target
from dica.methods.base import Batch
from dica.methods.tcc import simplex
from dica.rng import generator
from tiny import make_prepared, make_trainer, tiny_config

INFO = DataInfo(channels=1, image_size=8, counts={"train": 48})


def make(variant="full", **overrides):
    torch.manual_seed(0)
    return methods.build("tcc", tiny_config("tcc", variant, **overrides)["params"], INFO)


def make_batch(index=0, phase="main", count=16):
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator(0, "images", index))
    return Batch(images, torch.arange(count), 0, index, phase, lambda purpose: generator(0, purpose, 0, phase, index))


def take_step(method, optimizer, batch):
    optimizer.zero_grad(set_to_none=True)
    step = method.loss(batch)
    step.loss.backward()
    method.after_backward(batch)
    optimizer.step()
    method.after_step(batch, step.carry)
    return step


def copy_of(method):
    return {name: value.clone() for name, value in method.state_dict().items()}


@pytest.mark.parametrize(("count", "size"), [(2, 1), (10, 9), (10, 128)])
def test_the_simplex_is_equidistant(count, size):
    torch.manual_seed(0)
    rows = simplex(count, size)
    expected = torch.full((count, count), -1 / (count - 1)).fill_diagonal_(1.0)
    torch.testing.assert_close(rows @ rows.T, expected, atol=1e-4, rtol=0)


def test_too_many_prototypes_for_a_simplex_are_spread_all_the_same():
    rows = simplex(200, 128)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(200))
    assert rows.mean(dim=0).norm() < 0.02
    assert (rows @ rows.T).fill_diagonal_(-1).max() < 0.5


def test_dec_divergence_equals_its_definition_and_is_zero_for_one_hot():
    pi = torch.rand(6, 3, generator=generator(0, "pi")).softmax(dim=1)
    sharpened = pi**2 / pi.sum(dim=0)
    sharpened = sharpened / sharpened.sum(dim=1, keepdim=True)
    expected = F.kl_div(pi.log(), sharpened, reduction="batchmean")
    torch.testing.assert_close(dec_loss(pi, target(pi))[0], expected)
    assert dec_loss(torch.eye(3), target(torch.eye(3)))[0] == 0


def test_the_loss_is_that_of_the_pure_functions():
    method, batch = make(alpha=0.3, momentum=0.9), make_batch()
    own, twin = method._branches(batch)
    names = ("temperature", "gumbel_temperature", "agg", "entropy", "normalise_logits")
    params = {key: method.params[key] for key in names}
    expected, _ = losses.tcc_loss(own, twin, method.queue_p, method.queue_q, alpha=0.3, **params)
    step = method.loss(batch)
    torch.testing.assert_close(step.loss, expected)
    torch.testing.assert_close(step.loss, 0.3 * step.parts["L1"] + 0.7 * step.parts["L2"])


def test_the_two_branches_see_other_views_and_other_noise_and_only_one_has_a_gradient():
    own, twin = make()._branches(make_batch())
    assert own.f.shape == twin.f.shape == (16, 128)
    assert own.noise.shape == (1, 16, 10)
    assert not torch.equal(own.noise, twin.noise)
    assert not torch.equal(own.f, twin.f)
    assert own.f.requires_grad
    assert not any(tensor.requires_grad for tensor in twin)


def test_a_step_moves_network_twin_and_queues():
    method = make(momentum=0.9, cluster_queue=3, instance_queue=40)
    start = copy_of(method)
    assert torch.equal(start["own.last.weight"], start["twin.last.weight"]), "the twin starts as a copy"
    batch = make_batch()
    step = take_step(method, build_optimizer(method, method.params, torch.device("cpu")), batch)
    after = method.state_dict()
    assert not torch.equal(after["own.last.weight"], start["own.last.weight"])
    expected = 0.9 * start["twin.last.weight"] + 0.1 * after["own.last.weight"]
    torch.testing.assert_close(after["twin.last.weight"], expected)
    torch.testing.assert_close(after["queue_p"][:10], step.carry["r_hat"])
    torch.testing.assert_close(after["queue_q"][:16], step.carry["e_hat"])
    assert torch.equal(after["queue_p"][10:], start["queue_p"][10:])
    assert torch.equal(after["queue_q"][16:], start["queue_q"][16:])
    assert (int(method.pointer_p), int(method.pointer_q)) == (10, 16)
    torch.testing.assert_close(after["queue_q"].norm(dim=1), torch.ones(40))


def test_own_and_twin_keep_running_statistics_of_their_own():
    method = make()
    take_step(method, build_optimizer(method, method.params, torch.device("cpu")), make_batch())
    own, twin = (network.backbone.stem[1].running_mean for network in (method.own, method.twin))
    assert own.abs().sum() > 0
    assert twin.abs().sum() > 0
    assert not torch.equal(own, twin)


def test_the_optimiser_gets_the_own_network_only():
    method = make()
    given = {id(p) for group in method.parameter_groups() for p in group["params"]}
    assert given == {id(p) for p in method.own.parameters()}


def test_predictions_are_probabilities_and_do_not_depend_on_the_company():
    method = make().eval()
    images = make_batch(count=12).images
    with torch.no_grad():
        pi = method.predict(images)
        torch.testing.assert_close(pi[:5], method.predict(images[:5]))
    assert pi.shape == (12, 10)
    torch.testing.assert_close(pi.sum(dim=1), torch.ones(12))


def test_plain_cluster_views_leave_l2_alone_and_change_l1():
    parts = make().loss(make_batch()).parts
    plain = make("without-aug-a").loss(make_batch()).parts
    torch.testing.assert_close(plain["L2"], parts["L2"])
    assert abs(float(plain["L1"] - parts["L1"])) > 1e-6


def test_several_gumbel_samples_put_one_row_an_image_into_the_queue():
    method, batch = make("multi-sampling"), make_batch()
    assert method.loss(batch).carry["e_hat"].shape == (16, 128)


def whole_set_batches():
    return [make_batch(index, "clusters") for index in range(3)]


@pytest.mark.parametrize("agg", ["pi", "gumbel"])
def test_two_passes_give_the_gradient_of_l1_over_the_whole_set(agg):
    method = make("without-aug-c", agg=agg)
    start = copy_of(method)
    sums = torch.zeros(2, 10, 128)
    for batch in whole_set_batches():
        sums = sums + torch.stack(
            [method._batch_sums(network, batch, name) for name, network in (("own", method.own), ("twin", method.twin))]
        )
    r, r_hat = F.normalize(sums, dim=-1)
    expected = losses.cluster_contrast(r, r_hat, method.queue_p, temperature=method.params["temperature"])
    gradients = torch.autograd.grad(expected, method.own.cluster_parameters())

    method.load_state_dict(start)
    optimizer = build_optimizer(method, method.params, torch.device("cpu"))
    assert not any(list(method.split(batch)) for batch in whole_set_batches()), "the first pass takes no step"
    for index, batch in enumerate(whole_set_batches()):
        assert len(list(method.split(batch))) == 1
        before = method.own.last.weight.clone()
        step = take_step(method, optimizer, batch)
        torch.testing.assert_close(step.loss, expected)
        assert torch.equal(method.own.last.weight, before) == (index < 2), "one step, at the last batch"
    for parameter, gradient in zip(method.own.cluster_parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(method.queue_p[:10], r_hat.detach())
    assert (int(method.pointer_p), int(method.pointer_q), int(method.seen)) == (10, 0, 0)


def test_the_loop_carries_the_two_passes(tmp_path: Path):
    settings = tiny_config("tcc", "without-aug-c")
    trainer = make_trainer(settings, make_prepared(tmp_path / "data"), tmp_path / "state")
    trainer.run()
    assert int(trainer.method.pointer_p) == 2 * 10, "L1 is descended once an epoch"
    assert int(trainer.method.pointer_q) == 2 * 48
    assert {"loss", "clusters_loss", "L2", "DEC"} <= set(trainer.history[0])


@pytest.mark.parametrize("wrong", [{"drop_last": True}, {"agg": "hard"}])
def test_the_whole_set_needs_every_image_and_soft_weights(wrong):
    with pytest.raises(UserError, match="subset: all"):
        make("without-aug-c", **wrong)


def test_an_unknown_choice_is_named():
    with pytest.raises(UserError, match="agg is 'mean'"):
        make(agg="mean").loss(make_batch())
