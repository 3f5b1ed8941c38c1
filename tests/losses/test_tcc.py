"""TCC's losses, queues and momentum against the reference vectors, loops and the degenerate cases."""

from __future__ import annotations

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dica.files import UserError
from dica.losses import tcc
from dica.losses.tcc import Branch, enqueue, instance_loss, momentum_update, tcc_loss
from vectors_check import cases, check

NAMES = {"tau": "temperature", "lambda": "gumbel_temperature"}


def renamed(options):
    return {NAMES.get(key, key): value for key, value in options.items()}


def branch(x, suffix=""):
    return Branch(*(x[f"{name}{suffix}"] for name in ("f", "mu", "nn_w", "nn_b", "noise")))


def l2(x, o):
    loss, parts = instance_loss(branch(x), x["e_hat"], x["Q"], **renamed(o))
    return {"loss": loss, **parts}


def total(x, o):
    loss, parts = tcc_loss(branch(x), branch(x, "_hat"), x["P"], x["Q"], **renamed(o))
    return {"loss": loss, **parts}


def momentum(x, o):
    momentum_update([x["theta_hat"]], [x["theta"]], momentum=o["m"])
    return {"theta_hat": x["theta_hat"]}


EQUATIONS = {
    "tcc.pi": lambda x, o: {"pi": tcc.assignments(x["f"], x["mu"], **o)},
    "tcc.r": lambda x, o: {"r": tcc.cluster_representations(x["f"], x["pi"], **o)},
    "tcc.L1": lambda x, o: {"loss": tcc.cluster_contrast(x["r"], x["r_hat"], x["P"], **renamed(o))},
    "tcc.gumbel": lambda x, o: {"c": tcc.gumbel_softmax(**x, **renamed(o))},
    "tcc.e": lambda x, o: {"e": tcc.embed(**x)},
    "tcc.L2": l2,
    "tcc.total": total,
    "tcc.queue": lambda x, o: dict(zip(("queue", "pointer"), enqueue(**x, **o), strict=True)),
    "tcc.momentum": momentum,
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_branch(batch, num_clusters, dim=5, samples=1, seed=0, scale=1.0):
    g = generator(seed)
    shapes = ((batch, dim), (num_clusters, dim), (dim, num_clusters), (dim,), (samples, batch, num_clusters))
    return Branch(*((scale * torch.randn(shape, generator=g)).requires_grad_() for shape in shapes))


@pytest.mark.parametrize(("case", "dtype"), cases("tcc"))
def test_reference_vectors(case, dtype):
    check(case, EQUATIONS[case.equation], dtype)


def test_cluster_contrast_equals_a_loop_over_clusters_and_slots():
    r, r_hat = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator())
    queue = torch.randn(12, 5, dtype=torch.float64, generator=generator(1))
    expected = 0.0
    for k in range(3):
        positive = math.exp(float(r[k] @ r_hat[k]) / 0.7)
        negative = sum(math.exp(float(r[k] @ queue[slot]) / 0.7) for slot in range(12) if slot % 3 != k)
        expected -= math.log(positive / (positive + negative)) / 3
    assert tcc.cluster_contrast(r, r_hat, queue, temperature=0.7).item() == pytest.approx(expected, rel=1e-12)


def test_instance_contrast_equals_a_loop_over_samples():
    e, e_hat = torch.randn(2, 2, 3, 5, dtype=torch.float64, generator=generator())
    queue = torch.randn(4, 5, dtype=torch.float64, generator=generator(1))
    expected = 0.0
    for s in range(2):
        for i in range(3):
            positive = math.exp(float(e[s, i] @ e_hat[s, i]))
            negative = sum(math.exp(float(e[s, i] @ q)) for q in queue)
            expected -= math.log(positive / (positive + negative)) / 6
    assert tcc.instance_contrast(e, e_hat, queue).item() == pytest.approx(expected, rel=1e-12)


def test_plain_features_change_l1_alone():
    """Ablation v: representations from images without augmentation."""
    own, twin = random_branch(6, 3), random_branch(6, 3, seed=1)
    queues = torch.randn(9, 5, generator=generator(2)), torch.randn(7, 5, generator=generator(3))
    plain, plain_hat = torch.randn(2, 6, 5, generator=generator(4))
    _, usual = tcc_loss(own, twin, *queues)
    _, parts = tcc_loss(own, twin, *queues, plain_f=plain, plain_f_hat=plain_hat)
    expected = tcc.cluster_representations(plain, tcc.assignments(plain, own.mu))
    torch.testing.assert_close(parts["r"], expected.detach())
    torch.testing.assert_close(parts["L2"], usual["L2"])
    assert not torch.equal(parts["L1"], usual["L1"])


def test_queue_keeps_cluster_order_over_many_steps():
    """Slot l must hold cluster l mod K for ever, or Eq. 5 would exclude the wrong negatives."""
    queue, pointer = torch.full((6, 1), -1.0), 0
    for step in range(5):
        queue, pointer = enqueue(queue, torch.arange(3.0).unsqueeze(1) + 10 * step, pointer)
        assert all(value < 0 or value % 10 == slot % 3 for slot, value in enumerate(queue.flatten().tolist()))
    assert queue.flatten().tolist() == [40, 41, 42, 30, 31, 32]


@pytest.mark.parametrize("pointer", [4, torch.tensor(4)])
def test_a_batch_larger_than_the_queue_leaves_its_last_rows(pointer):
    rows = torch.arange(12.0).unsqueeze(1)
    queue, following = enqueue(torch.zeros(5, 1), rows, pointer)
    one_by_one, at = torch.zeros(5, 1), 4
    for row in rows:
        one_by_one, at = enqueue(one_by_one, row.unsqueeze(0), at)
    assert torch.equal(queue, one_by_one)
    assert following == at
    assert type(following) is type(pointer)


def test_momentum_moves_a_whole_module():
    net, twin = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    expected = [0.9 * a.detach() + 0.1 * b.detach() for a, b in zip(twin.parameters(), net.parameters())]  # noqa: B905
    momentum_update(list(twin.parameters()), list(net.parameters()), momentum=0.9)
    torch.testing.assert_close([p.detach() for p in twin.parameters()], expected)


def test_gumbel_noise_has_its_mean_and_follows_the_generator():
    noise = tcc.draw_gumbel((20000,), generator=generator())
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.03)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.06)
    assert torch.equal(noise, tcc.draw_gumbel((20000,), generator=generator()))


@pytest.mark.parametrize("agg", tcc.AGGREGATIONS)
@pytest.mark.parametrize("use_queue_p", [True, False])
@pytest.mark.parametrize(("batch", "num_clusters", "scale"), [(6, 3, 100.0), (6, 1, 1.0), (1, 3, 1.0), (4, 3, 0.0)])
def test_degenerate_batches_stay_finite(agg, use_queue_p, batch, num_clusters, scale):
    """Saturated assignments with empty clusters; one cluster; one image; features that are all zero."""
    own = random_branch(batch, num_clusters, scale=scale)
    twin = random_branch(batch, num_clusters, scale=scale, seed=1)
    queues = torch.randn(2 * num_clusters, 5, generator=generator()), torch.randn(7, 5, generator=generator())
    loss, parts = tcc_loss(own, twin, *queues, agg=agg, use_queue_p=use_queue_p)
    assert not any(part.requires_grad for part in parts.values())
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(x.grad).all() for x in own)
    assert all(x.grad is None for x in twin)


def test_half_precision_outputs_are_raised():
    """Under autocast the network hands over bfloat16; the losses must not compute in it."""
    own, twin = random_branch(6, 3), random_branch(6, 3, seed=1)
    queues = torch.randn(9, 5, generator=generator(2)), torch.randn(7, 5, generator=generator(3))
    own, twin = (b._replace(f=b.f.detach().bfloat16()) for b in (own, twin))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered, parts = tcc_loss(own, twin, *queues)
    exact, _ = tcc_loss(own._replace(f=own.f.float()), twin._replace(f=twin.f.float()), *queues)
    assert torch.equal(lowered, exact)
    assert parts["enqueue_Q"].dtype == torch.float32


def test_no_value_is_read_back_from_the_device():
    """Fake tensors have no values: any .item(), boolean-mask indexing or nonzero would raise."""
    with FakeTensorMode():
        shapes = ((6, 5), (3, 5), (5, 3), (5,), (2, 6, 3))
        own = Branch(*(torch.randn(shape, requires_grad=True) for shape in shapes))
        twin = Branch(*(torch.randn(shape) for shape in shapes))
        queue_p, queue_q, pointer = torch.randn(9, 5), torch.randn(7, 5), torch.zeros((), dtype=torch.long)
        for agg in tcc.AGGREGATIONS:
            loss, parts = tcc_loss(own, twin, queue_p, queue_q, agg=agg)
            loss.backward()
        enqueue(queue_q, parts["enqueue_Q"], pointer)


def test_wrong_options_are_named():
    own, queue = random_branch(6, 3), torch.randn(6, 5)
    with pytest.raises(UserError, match="agg"):
        tcc_loss(own, own, queue, queue, agg="mean")
    with pytest.raises(UserError, match="entropy"):
        tcc_loss(own, own, queue, queue, entropy="batch")
