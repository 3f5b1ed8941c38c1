"""Losses of the baselines against the reference vectors, and against worked examples printed to 6 decimals."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from dica.files import UserError
from dica.losses import dac, idfd, mice, semi
from dica.losses.cc import cc_loss, cluster_contrast
from dica.losses.crlc import bank_update, feature_contrast
from dica.losses.fixmatch import fixmatch_loss
from dica.losses.iic import information_loss
from dica.losses.pica import pica_loss
from dica.losses.scan import scan_loss, self_label_loss
from vectors_check import cases, check


def named(result, **extra):
    loss, parts = result
    return {"loss": loss, **parts, **extra}


EQUATIONS = {
    "baselines.pica": lambda x, o: named(pica_loss(x["p"], x["p2"], weight=o["lambda"])),
    "baselines.iic": lambda x, o: named(information_loss(x["p"], x["p2"])),
    "baselines.cc_instance": lambda x, o: {"loss": feature_contrast(x["z1"], x["z2"], temperature=o["tau"])},
    "baselines.cc_cluster": lambda x, o: named(cluster_contrast(x["p1"], x["p2"], temperature=o["tau"])),
    "baselines.scan": lambda x, o: named(scan_loss(x["anchors"], x["neighbours"], weight=o["weight"])),
}


@pytest.mark.parametrize(("case", "dtype"), cases("baselines", *EQUATIONS))
def test_reference_vectors(case, dtype):
    check(case, EQUATIONS[case.equation], dtype)


def rows(text: str) -> torch.Tensor:
    """Return "1 0; .5 2" as a float64 matrix."""
    return torch.tensor([[float(x) for x in row.split()] for row in text.split(";")], dtype=torch.float64)


def near(value: float) -> object:
    return pytest.approx(value, abs=6e-7)


# DAC

BEFORE = rows(".9 .05 .05; .6 .3 .1; .1 .8 .1; .4 .35 .25")
AFTER = rows(".8 .1 .1; .5 .4 .1; .2 .7 .1; .3 .4 .3")


def dac_example(upper: float, lower: float, **options):
    given = dac.targets(BEFORE, upper=upper, lower=lower)
    return dac.dac_loss(AFTER.log(), *given, **options), given


def test_dac_with_two_thresholds():
    (loss, parts), given = dac_example(0.92, 0.60)
    assert (int(given.selected.sum()), int((given.selected & given.linked).sum())) == (10, 6)
    assert parts["L_pair"].item() == near(0.465736)
    assert parts["L_aux"].item() == near(0.464395)
    assert loss.item() == near(0.930130)


def test_dac_as_its_code_computes_it():
    (loss, parts), _ = dac_example(0.92, 0.60, pair_kind="swapped")
    assert parts["L_pair"].item() == near(1.064764)
    assert loss.item() == near(1.529158)


@pytest.mark.parametrize(("aux", "second", "total"), [("unit", 0.421342, 5.127378), ("mixed", 0.503067, 5.944623)])
def test_dac_with_one_threshold_leaves_no_pair_out(aux, second, total):
    (loss, parts), given = dac_example(0.92, 0.92, aux=aux, aux_weight=10.0)
    assert given.selected.all()
    assert parts["L_pair"].item() == near(0.913955)
    assert parts["L_aux"].item() == near(second)
    assert loss.item() == pytest.approx(total, abs=2e-6)


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, (0.99, 0.80)), (1, (0.9881, 0.8019)), (25, (0.9425, 0.8475)), (50, (0.895, 0.895))]
)
def test_dac_thresholds_meet_halfway(epoch, expected):
    assert dac.thresholds(epoch / 50) == pytest.approx(expected)


def test_dac_one_threshold_falls():
    assert dac.thresholds(0.5, upper=0.99, lower=0.75, both=False) == pytest.approx((0.87, 0.87))


def test_dac_refuses_unknown_kinds():
    with pytest.raises(UserError, match="pair_loss is 'mse'; choose one of bce, swapped"):
        dac_example(0.9, 0.8, pair_kind="mse")
    with pytest.raises(UserError, match="aux is 'ce'; choose one of"):
        dac_example(0.9, 0.8, aux="ce")


def test_dac_without_a_selected_pair_is_zero_and_finite():
    p = torch.full((3, 4), 0.25)
    nothing = torch.zeros(3, 3, dtype=torch.bool)
    assert dac.pair_loss(p, nothing, nothing).item() == 0


# IIC, PICA, CC


def test_iic_of_two_heads():
    p = torch.stack([rows(".9 .1; .2 .8; .6 .4"), rows(".9 .1; .1 .9; .8 .2")])
    p2 = torch.stack([rows(".8 .2; .3 .7; .5 .5"), rows(".7 .3; .1 .9; .9 .1")])
    each, parts = information_loss(p, p2)
    assert each.tolist() == [near(-0.027166), near(-0.111113)]
    assert each.mean().item() == near(-0.069140)
    assert parts["MI"].argmax() == 1, "what is chosen without labels: the second head"
    torch.testing.assert_close(parts["MI"], -each)
    doubled, parts = information_loss(p, p2, lamb=2.0)
    assert doubled[0].item() == near(-1.403444)
    torch.testing.assert_close(parts["MI"], -each)


PICA_P, PICA_2 = rows(".7 .2 .1; .1 .8 .1; .2 .3 .5"), rows(".6 .3 .1; .2 .7 .1; .1 .3 .6")


def test_pica_and_its_repeats():
    loss, parts = pica_loss(PICA_P, PICA_2)
    assert (parts["CE"].item(), parts["balance"].item()) == (near(0.807120), near(0.030467))
    assert loss.item() == near(0.868054)
    second = rows(".8 .1 .1; .1 .6 .3; .3 .3 .4")
    loss, parts = pica_loss(PICA_P, torch.stack([PICA_2, second]))
    assert (parts["CE"].item(), loss.item()) == (near(0.825580), near(0.886514))


def test_cc():
    z, z2 = rows("1 0; 0 1; 1 1"), rows("1 .2; .1 1; 1 .5")
    p, p2 = rows(".8 .2; .3 .7; .6 .4"), rows(".7 .3; .2 .8; .5 .5")
    loss, parts = cc_loss(z, z2, p.log(), p2.log())
    assert parts["L_ins"].item() == near(1.082561)
    assert (parts["L_clu"] - parts["balance"]).item() == near(0.913908)
    assert parts["balance"].item() == near(0.011139)
    assert loss.item() == near(2.007608)


def test_cc_with_an_empty_cluster_is_finite():
    p = rows("1 0 0; 1 0 0; 0 1 0").requires_grad_()
    loss, _ = cluster_contrast(p, p.detach())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(p.grad).all()


# IDFD


def test_idfd():
    f, bank = F.normalize(rows("1 .5; -.5 1; 1 -1")), F.normalize(rows("1 0; 0 1; 1 1; 1 -.5"))
    loss, parts = idfd.idfd_loss(f, bank, torch.tensor([0, 1, 3]))
    assert (parts["L_id"].item(), parts["L_fd"].item()) == (near(0.930614), near(0.414370))
    assert loss.item() == near(1.344984)
    after = bank_update(bank, torch.tensor([0, 1, 3]), f, alpha=0.5, kind="feature")
    expected = [(0.973249, 0.229753), (-0.229753, 0.973249), tuple(bank[2].tolist()), (0.811242, -0.584710)]
    assert [tuple(row) for row in after.tolist()] == [tuple(near(x) for x in row) for row in expected]


# SCAN

ANCHORS, NEIGHBOURS = rows("2 0 -1; 0 1.5 0; -.5 0 1"), rows("1.5 .2 0; .5 1 -.5; 0 .5 .5")


def test_scan_trains_and_selects_with_different_weights():
    loss, parts = scan_loss(ANCHORS, NEIGHBOURS)
    assert (parts["consistency"].item(), parts["H"].item()) == (near(0.781196), near(1.089895))
    assert loss.item() == near(-4.668279)
    assert scan_loss(ANCHORS, NEIGHBOURS, weight=1.0)[0].item() == near(-0.308699)


WEAK, STRONG = rows("6 0 0; 7 0 0; 0 8 0; 1 0 0"), rows("2 .5 0; 1 1 0; 0 3 1; 0 0 1")


def test_self_labels_are_weighed_by_class():
    loss, parts = self_label_loss(WEAK, STRONG)
    assert parts["confident"].item() == 0.75
    assert loss.item() == near(0.377011)
    assert self_label_loss(WEAK, STRONG, balanced=False)[0].item() == near(0.446066)


def test_self_labelling_without_a_confident_image_is_zero():
    strong = STRONG.clone().requires_grad_()
    loss, _ = self_label_loss(WEAK / 100, strong)
    loss.backward()
    assert loss.item() == 0
    assert not strong.grad.any()


# MiCE


def test_mice_is_the_likelihood_of_the_mixture():
    f = F.normalize(torch.stack([rows("1 .2; .3 1"), rows(".5 1; -1 .4")]), dim=-1)
    v = F.normalize(torch.stack([rows("1 0; 0 1"), rows(".4 1; -1 0")]), dim=-1)
    g, prototypes = F.normalize(rows("1 .5; -.3 1")), F.normalize(rows("1 1; -1 1"))
    queue = F.normalize(torch.stack([rows("0 1; 1 0"), rows("-1 .5; .5 -1")]), dim=-1).transpose(0, 1)
    log_gate = mice.gate(g, rows("1 0; -1 0"))
    assert log_gate.exp()[:, 0].tolist() == [near(0.856787), near(0.360154)]
    log_expert = mice.expert_scores(f, v, prototypes, queue)
    assert log_expert.flatten().tolist() == [near(x) for x in (-0.417120, -0.148177, -0.608529, -0.071106)]
    loss, _ = mice.mice_loss(log_gate, log_expert)
    assert (log_gate + log_expert).softmax(1)[:, 0].tolist() == [near(0.820525), near(0.247476)]
    assert loss.item() == near(0.303594)


# Semi-supervised

WEAK_VIEWS, STRONG_VIEWS = rows("4 0 0; 1 .5 0; 0 3.8 .2"), rows("2 .5 0; 0 1 .5; .5 2 0")


@pytest.mark.parametrize(("threshold", "sharpen", "expected"), [(0.95, 1.0, 0.119354), (0.8, 0.4, 0.203404)])
def test_uda(threshold, sharpen, expected):
    loss, parts = semi.divergence_loss(WEAK_VIEWS, STRONG_VIEWS, threshold=threshold, sharpen=sharpen)
    assert loss.item() == near(expected)
    assert parts["confident"].item() == pytest.approx(2 / 3)


def test_pi_model_and_pseudo_label():
    assert semi.squared_difference(WEAK_VIEWS, STRONG_VIEWS).item() == near(0.034444)
    summed = (WEAK_VIEWS.softmax(1) - STRONG_VIEWS.softmax(1)).square().sum(dim=1).mean()  # the reduction not in use
    assert summed.item() == near(0.103331)
    assert semi.pseudo_label_loss(WEAK_VIEWS)[0].item() == near(0.028158)


@pytest.mark.parametrize(("average", "expected"), [("all", 0.204237), ("confident", 0.306356)])
def test_fixmatch_means(average, expected):
    labelled, classes = rows("1 0 0"), torch.tensor([0])
    _, parts = fixmatch_loss(labelled, classes, WEAK_VIEWS, STRONG_VIEWS, average=average)
    assert parts["L_u"].item() == near(expected)


def test_mixmatch():
    views = torch.stack([rows("2 0 0; 0 1 .5"), rows("1 .5 0; .5 1 0")])
    mean = views.softmax(dim=-1).mean(dim=0).flatten().tolist()
    assert mean == [near(x) for x in (0.646733, 0.206851, 0.146415, 0.246760, 0.506480, 0.246760)]
    guess = semi.sharpened_mean(views)
    assert guess.flatten().tolist() == [near(x) for x in (0.866888, 0.088681, 0.044431, 0.160957, 0.678087, 0.160957)]
    images = torch.tensor([0.0, 1, 2, 4, 3, 5], dtype=torch.float64)
    targets = torch.cat([torch.eye(3, dtype=torch.float64)[:2], guess, guess])
    share = torch.tensor([0.3, 0.9, 0.6, 0.2, 0.5, 0.75], dtype=torch.float64)
    share, partners = torch.maximum(share, 1 - share), torch.tensor([2, 0, 5, 1, 3, 4])
    mixed, target = semi.mix(images, partners, share), semi.mix(targets, partners, share)
    assert mixed.tolist() == pytest.approx([0.6, 0.9, 3.2, 3.4, 3.5, 4.5])
    assert target[0].tolist() == [near(x) for x in (0.960066, 0.026604, 0.013329)]
    assert target[4].tolist() == [near(x) for x in (0.513922, 0.383384, 0.102694)]
    logits = torch.stack([0.5 * mixed, 1 - 0.2 * mixed, 0.1 * mixed], dim=1)
    loss, parts = semi.mixmatch_loss(logits[:2], target[:2], logits[2:], target[2:], weight=75.0)
    assert (parts["L_s"].item(), parts["L_u"].item()) == (near(1.037013), near(0.093215))
    assert loss.item() == pytest.approx(8.028174, abs=5e-5)
