"""DRC's losses against the reference vectors, a loop written from the equations, and the degenerate cases."""

from __future__ import annotations

import math

import pytest
import torch

from dica.files import UserError
from dica.losses.drc import (
    assignment_feature_loss,
    assignment_probability_loss,
    cluster_regularisation,
    drc_loss,
)
from vectors_check import cases, check


def total(x, o):
    options = {k: v for k, v in o.items() if k not in ("T_AF", "T_AP", "lambda")}
    loss, parts = drc_loss(
        x["z"],
        x["z2"],
        temperature_af=o["T_AF"],
        temperature_ap=o["T_AP"],
        cr_weight=o["lambda"],
        **options,
    )
    return {"loss": loss, **parts}


EQUATIONS = {
    "drc.L_AF": lambda x, o: {
        "loss": assignment_feature_loss(x["z"], x["z2"], temperature=o["T"], normalise=o["normalise"])
    },
    "drc.L_AP": lambda x, o: {
        "loss": assignment_probability_loss(x["p"], x["p2"], temperature=o["T"], normalise=o["normalise"])
    },
    "drc.L_CR": lambda x, o: {"loss": cluster_regularisation(x["p"])},
    "drc.total": total,
}


@pytest.mark.parametrize(("case", "dtype"), cases("drc"))
def test_reference_vectors(case, dtype):
    check(case, EQUATIONS[case.equation], dtype)


def test_feature_loss_equals_a_loop_over_images():
    z, z2 = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for i in range(5):
        scores = [math.exp(float(z[i] @ z2[j]) / 0.5) for j in range(5)]
        expected -= math.log(scores[i] / sum(scores)) / 5
    assert assignment_feature_loss(z, z2).item() == pytest.approx(expected, rel=1e-12)


def test_probability_loss_equals_a_loop_over_clusters():
    p, p2 = torch.rand(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).softmax(-1)
    expected = 0.0
    for k in range(3):
        scores = [math.exp(float(p[:, k] @ p2[:, other]) / 0.95) for other in range(3)]
        expected -= math.log(scores[k] / sum(scores)) / 3
    assert assignment_probability_loss(p, p2).item() == pytest.approx(expected, rel=1e-12)


def test_mean_over_repeats_is_the_mean_of_single_losses():
    z, a, b = torch.randn(3, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (loss, both), (loss_a, first), (loss_b, second) = (drc_loss(z, x) for x in (torch.stack([a, b]), a[None], b[None]))
    assert loss.item() == pytest.approx((loss_a.item() + loss_b.item()) / 2, rel=1e-12)
    for key in ("L_AF", "L_AP"):
        assert both[key].item() == pytest.approx((first[key].item() + second[key].item()) / 2, rel=1e-12)


def test_one_image_and_one_cluster_are_finite():
    for shape in ((1, 4), (4, 1)):
        z = torch.randn(*shape, generator=torch.Generator().manual_seed(3)).requires_grad_()
        loss = drc_loss(z, torch.stack([z, z]), normalise="l2")[0]
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(z.grad).all()


def test_half_precision_and_autocast_give_the_float32_loss():
    z = torch.randn(8, 4, generator=torch.Generator().manual_seed(4)).bfloat16()
    z2 = torch.stack([z, z.flip(0)])
    expected = drc_loss(z.float(), z2.float())[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = drc_loss(z, z2)[0]
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("option", [{"normalise": "cosine"}, {"repeat_mode": "both"}])
def test_unknown_option_is_refused(option):
    z = torch.zeros(2, 2)
    with pytest.raises(UserError, match=next(iter(option))):
        drc_loss(z, z[None], **option)
