"""CRLC's losses against the reference vectors, loops written from the equations, and the degenerate cases."""

from __future__ import annotations

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dica.files import UserError
from dica.losses import crlc
from dica.losses.crlc import bank_loss, bank_update, cluster_loss, crlc_loss, semi_loss
from vectors_check import cases, check


def renamed(options):
    return {"temperature" if key == "tau" else key: value for key, value in options.items()}


def parts_of(function):
    def call(x, o):
        loss, parts = function(**x, **renamed(o))
        return {"loss": loss, **parts}

    return call


def loss_of(function):
    return lambda x, o: {"loss": function(*x.values(), **renamed(o))}


EQUATIONS = {
    "crlc.smooth": lambda x, o: {"p": crlc.smooth(x["p"], **o)},
    "crlc.critic": lambda x, o: {"f": crlc.critic_scores(x["p"], x["q"], **o)},
    "crlc.L_PC": loss_of(crlc.probability_contrast),
    "crlc.L_FC": loss_of(crlc.feature_contrast),
    "crlc.entropy": loss_of(crlc.marginal_entropy),
    "crlc.logit_reg": loss_of(crlc.logit_regulariser),
    "crlc.total": parts_of(crlc_loss),
    "crlc.two_stage": parts_of(cluster_loss),
    "crlc.semi": parts_of(semi_loss),
    "crlc.bank_update": lambda x, o: {"bank": bank_update(**x, **o)},
    "crlc.bank_L_PC": loss_of(crlc.bank_probability_contrast),
    "crlc.bank_total": parts_of(bank_loss),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("case", "dtype"), cases("crlc"))
def test_reference_vectors(case, dtype):
    check(case, EQUATIONS[case.equation], dtype)


def test_probability_contrast_equals_a_loop_over_images():
    p1, p2 = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator()).softmax(-1)
    rows = [[0.99 * float(v) + 0.01 / 3 for v in row] for row in torch.cat([p1, p2])]
    expected = 0.0
    for i, row in enumerate(rows):
        agree = [sum(a * b for a, b in zip(row, other, strict=True)) for other in rows]
        expected -= math.log(agree[(i + 4) % 8] / (sum(agree) - agree[i])) / 8
    assert crlc.probability_contrast(p1, p2).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("critic", crlc.CRITICS)
def test_sub_heads_are_averaged(critic):
    logits1, logits2 = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=generator())
    together, parts = cluster_loss(logits1, logits2, critic=critic)
    apart = [cluster_loss(a, b, critic=critic)[0] for a, b in zip(logits1, logits2, strict=True)]
    torch.testing.assert_close(together, torch.stack(apart).mean())
    torch.testing.assert_close(parts["heads"], torch.stack(apart))


def test_without_features_only_the_clustering_loss_is_left():
    logits1, logits2 = torch.randn(2, 3, 5, 4, generator=generator())
    loss, parts = crlc_loss(None, None, logits1, logits2)
    torch.testing.assert_close(loss, cluster_loss(logits1, logits2, reg_weight=0.01)[0])
    assert "L_FC" not in parts


def test_more_images_may_enter_the_feature_loss_alone():
    z1, z2 = torch.randn(2, 5, 6, generator=generator())
    wide = tuple(torch.randn(2, 9, 6, generator=generator(1)))
    logits1, logits2 = torch.randn(2, 3, 5, 4, generator=generator())
    loss, parts = crlc_loss(z1, z2, logits1, logits2, wide=wide)
    torch.testing.assert_close(parts["L_FC"], (crlc.feature_contrast(z1, z2) + crlc.feature_contrast(*wide)) / 2)
    torch.testing.assert_close(loss, cluster_loss(logits1, logits2, reg_weight=0.01)[0] + 10 * parts["L_FC"])


def test_bank_contrast_with_all_rows_as_negatives_equals_the_definition():
    p = torch.randn(3, 4, dtype=torch.float64, generator=generator()).softmax(-1)
    bank = torch.randn(5, 4, dtype=torch.float64, generator=generator(1)).softmax(-1)
    index = torch.tensor([4, 0, 2])
    negatives = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4], [0, 1, 3, 4]])
    agree = crlc.smooth(p) @ crlc.smooth(bank).T
    expected = -(agree[range(3), index] / agree.sum(1)).log().mean()
    torch.testing.assert_close(crlc.bank_probability_contrast(p, bank, index, negatives), expected)


def test_bank_update_takes_sub_heads_and_leaves_its_argument_alone():
    bank = torch.full((2, 6, 4), 0.25)
    new = torch.randn(2, 3, 4, generator=generator()).softmax(-1)
    updated = bank_update(bank, torch.tensor([5, 0, 2]), new, alpha=0.2)
    torch.testing.assert_close(updated[:, [5, 0, 2]], 0.05 + 0.8 * new)
    assert (bank == 0.25).all()
    assert (updated[:, [1, 3, 4]] == 0.25).all()


def test_drawn_negatives_are_the_other_rows_uniformly():
    index = torch.tensor([0, 2, 4])
    rows = crlc.draw_negatives(index, 5, 8000, generator=generator())
    shares = torch.stack([row.bincount(minlength=5) for row in rows]) / 8000
    expected = torch.full((3, 5), 0.25).scatter(1, index.unsqueeze(1), 0.0)
    torch.testing.assert_close(shares, expected, atol=0.02, rtol=0)
    assert torch.equal(rows, crlc.draw_negatives(index, 5, 8000, generator=generator()))


@pytest.mark.parametrize("critic", crlc.CRITICS)
@pytest.mark.parametrize("gamma", [0.0, 0.01])
@pytest.mark.parametrize("shape", [(2, 6, 4), (2, 1, 4), (2, 6, 1)])
def test_saturated_outputs_stay_finite(critic, gamma, shape):
    """One-hot views that disagree, with and without smoothing; one image; one cluster."""
    logits1 = torch.full(shape, -500.0).index_fill(-1, torch.tensor([0]), 500.0).requires_grad_()
    logits2 = (-logits1.detach()).requires_grad_()
    z1, z2 = torch.zeros(shape[1], 3, requires_grad=True), torch.ones(shape[1], 3, requires_grad=True)
    loss, _ = crlc_loss(z1, z2, logits1, logits2, critic=critic, gamma=gamma)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(x.grad).all() for x in (logits1, logits2, z1, z2))


def test_no_value_is_read_back_from_the_device():
    """Fake tensors have no values: any .item(), boolean-mask indexing or nonzero would raise."""
    with FakeTensorMode():
        z1, z2 = torch.randn(2, 6, 5, requires_grad=True)
        logits1, logits2 = torch.randn(2, 3, 6, 4, requires_grad=True)
        labels, index = torch.zeros(6, dtype=torch.long), torch.zeros(6, dtype=torch.long)
        for critic in crlc.CRITICS:
            semi_loss(z1, z2, logits1, logits2, logits1, labels, critic=critic)[0].backward()
        negatives = crlc.draw_negatives(index, 9, 4)
        loss, _ = bank_loss(z1, logits1, torch.randn(9, 5), torch.rand(3, 9, 4), index, negatives)
        loss.backward()
        bank_update(torch.rand(3, 9, 4), index, torch.rand(3, 6, 4))


def test_wrong_options_are_named():
    with pytest.raises(UserError, match="critic"):
        crlc.critic_scores(torch.rand(2, 2), torch.rand(2, 2), critic="cosine")
    with pytest.raises(UserError, match="kind"):
        bank_update(torch.rand(2, 2), torch.tensor([0]), torch.rand(1, 2), kind="logit")
