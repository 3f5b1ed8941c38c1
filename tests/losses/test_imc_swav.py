"""IMC-SwAV's losses against the reference vectors, loops written from the equations, and the degenerate cases."""

from __future__ import annotations

import math

import pytest
import torch

from dica.files import UserError
from dica.losses.imc_swav import (
    cluster_loss,
    cosines,
    imc_swav_loss,
    jensen_shannon,
    logit_regulariser,
    sinkhorn,
    swap_loss,
)
from vectors_check import cases, check


def renamed(o):
    return {"temperature" if key == "tau" else key: value for key, value in o.items()}


def total(x, o):
    options = {{"tau": "temperature", "iterations": "sinkhorn_iters"}.get(k, k): v for k, v in o.items()}
    loss, parts = imc_swav_loss(cosines(x["z"], x["prototypes"]), x["logits"], **options)
    return {"loss": loss, **parts}


def codes(x, o):
    """Eq. 2: the losses take the scores, and the softmax at their temperature is inside them."""
    scores = cosines(x["z"], x["prototypes"])
    return {"scores": scores, "u": torch.softmax(scores / o["tau"], dim=-1)}


EQUATIONS = {
    "imc-swav.codes": codes,
    "imc-swav.sinkhorn": lambda x, o: {"q": sinkhorn(x["scores"], **o)},
    "imc-swav.L_swap": lambda x, o: {"loss": swap_loss(x["scores"], **renamed(o))},
    "imc-swav.L_cluster": lambda x, o: {"loss": cluster_loss(x["logits"], x["scores"], **renamed(o))},
    "imc-swav.L_reg": lambda x, o: {"loss": logit_regulariser(x["logits"], **o)},
    "imc-swav.total": total,
    "imc-swav.jsd": lambda x, o: {"jsd": jensen_shannon(x["u1"], x["u2"])},
}


@pytest.mark.parametrize(("case", "dtype"), cases("imc-swav"))
def test_reference_vectors(case, dtype):
    check(case, EQUATIONS[case.equation], dtype)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_cluster_loss_equals_a_loop_over_pairs_of_views():
    logits, scores = random(3, 6, 4), random(3, 6, 5, seed=1).tanh()
    y, u = logits.softmax(-1), (scores / 0.1).softmax(-1)
    expected = 0.0
    for i in range(3):
        for j in range(3):
            joint = y[j].T @ u[i]
            joint = joint / joint.sum()
            p_u, p_y = joint.sum(0), joint.sum(1)
            expected += ((joint * (p_u / joint).log()).sum() + 4 * (p_y * p_y.log()).sum()) / 9
    assert cluster_loss(logits, scores).item() == pytest.approx(expected.item(), rel=1e-10)


def test_swap_loss_equals_a_loop_over_pairs_of_views():
    scores = random(4, 6, 5).tanh()
    terms = [
        -(sinkhorn(scores[a]) * (scores[b] / 0.1).log_softmax(-1)).sum(-1).mean()
        for a in range(2)
        for b in range(4)
        if a != b
    ]
    assert swap_loss(scores).item() == pytest.approx((sum(terms) / len(terms)).item(), rel=1e-12)


def test_sinkhorn_solves_leading_axes_apart_and_stays_finite_for_a_tiny_epsilon():
    scores = random(2, 7, 5).tanh().float()
    both = sinkhorn(scores)
    torch.testing.assert_close(both, torch.stack([sinkhorn(scores[0]), sinkhorn(scores[1])]))
    sharp = sinkhorn(scores, epsilon=1e-3)
    assert torch.isfinite(sharp).all()
    torch.testing.assert_close(sharp.sum(-1), torch.ones(2, 7))


def test_cluster_gradient_is_finite_when_probabilities_underflow():
    logits = (random(2, 6, 4).float() * 500).requires_grad_()
    loss = cluster_loss(logits, random(2, 6, 5).float() * 50)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_jensen_shannon_is_bounded_by_log_2():
    u = torch.eye(3)
    assert torch.allclose(jensen_shannon(u, u), math.log(2) * (1 - torch.eye(3)))


def test_swap_loss_refuses_a_single_view():
    with pytest.raises(UserError, match="it takes 2 or more"):
        swap_loss(torch.zeros(1, 3, 4), assign_views=1)
