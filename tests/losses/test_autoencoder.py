"""Losses of auto-encoders and of DEC: worked examples printed to 6 decimals, and the reference vectors."""

from __future__ import annotations

import pytest
import torch

from dica.files import UserError
from dica.losses.autoencoder import divergence, reconstruction_loss, sparsity
from dica.losses.dec import dec_loss, student_t, target
from vectors_check import cases, check


def rows(text: str) -> torch.Tensor:
    """Return "1 0; .5 2" as a float64 matrix."""
    return torch.tensor([[float(x) for x in row.split()] for row in text.split(";")], dtype=torch.float64)


def near(value: float) -> object:
    return pytest.approx(value, abs=6e-7)


IMAGES, LOGITS = rows("0 .5 1; .2 .8 .4"), rows("-1 0 2; -.5 1 0")


@pytest.mark.parametrize(
    ("kind", "scale", "expected"),
    [
        ("mse", "element", 0.022135),
        ("mse", "image", 0.066406),
        ("mse", "half", 0.033203),
        ("bce", "element", 0.485637),
        ("bce", "image", 1.456911),
    ],
)
def test_reconstruction_at_every_scale(kind: str, scale: str, expected: float) -> None:
    loss, parts = reconstruction_loss(LOGITS, IMAGES, kind=kind, scale=scale)
    assert loss.item() == near(expected)
    assert parts["L_rec"].item() == near(expected)
    assert not parts["L_rec"].requires_grad


def test_a_sparse_code_adds_its_length() -> None:
    loss, _ = reconstruction_loss(LOGITS, IMAGES, kind="mse", scale="element")
    codes = rows(".5 -1; 0 2")
    assert sparsity(codes).item() == near(1.75)
    assert (loss + 1e-3 * sparsity(codes)).item() == near(0.023885)


def test_a_variational_code_is_the_bound_of_the_likelihood() -> None:
    mean, log_variance, noise = rows(".5 -1; 0 2"), rows("0 -.5; .2 -1"), rows("1 -1; .5 0")
    codes = mean + (log_variance / 2).exp() * noise
    torch.testing.assert_close(codes, rows("1.5 -1.778801; .552585 2"), atol=6e-7, rtol=0)
    logits = codes @ rows("1 0 -1; .5 -.5 1")
    assert divergence(mean, log_variance).item() == near((0.678265 + 2.194641) / 2)
    rows_of = [slice(0, 1), slice(1, 2)]
    assert [divergence(mean[k], log_variance[k]).item() for k in rows_of] == [near(0.678265), near(2.194641)]
    each = [reconstruction_loss(logits[k], IMAGES[k], kind="bce", scale="image")[0].item() for k in rows_of]
    assert each == [near(5.149056), near(3.627018)]
    bernoulli, _ = reconstruction_loss(logits, IMAGES, kind="bce", scale="image")
    gaussian, _ = reconstruction_loss(logits, IMAGES, kind="mse", scale="half")
    wrong, _ = reconstruction_loss(logits, IMAGES, kind="mse", scale="element")
    assert (bernoulli + divergence(mean, log_variance)).item() == near(5.824490)
    assert (gaussian + divergence(mean, log_variance)).item() == near(1.994722)
    assert (wrong + divergence(mean, log_variance)).item() == near(1.808632)


def test_an_unknown_distance_or_scale_is_named() -> None:
    with pytest.raises(UserError, match=r"reconstruction: mae, image; allowed: mse, bce and element, image, half"):
        reconstruction_loss(LOGITS, IMAGES, kind="mae", scale="image")


# DEC

CODES, CENTRES = rows("0 0; 1 .5; 2 2; .5 1.5"), rows("0 .5; 2 1.5")


def test_dec_of_the_worked_example() -> None:
    q = student_t(CODES, CENTRES)
    assert q[:, 0].tolist() == [near(value) for value in (0.852941, 0.6, 0.147059, 0.590909)]
    p = target(q)
    assert p[:, 0].tolist() == [near(value) for value in (0.965251, 0.650091, 0.023958, 0.632733)]
    assert dec_loss(q, p)[0].item() == near(0.041588)
    assert dec_loss(q[:2], p[:2])[0].item() == near(0.037289)
    assert dec_loss(q[:2], target(q[:2]))[0].item() == near(0.033267), "a target of the batch is another one"


def test_dec_keeps_its_target_when_the_codes_have_moved() -> None:
    q = student_t(CODES, CENTRES)
    assert q.sum(dim=0).tolist() == [near(2.190909), near(1.809091)]
    moved = student_t(CODES + rows(".1 0"), CENTRES)
    assert dec_loss(moved, target(q))[0].item() == near(0.046995)
    assert dec_loss(moved, target(moved))[0].item() == near(0.040361)


def test_the_gradient_of_dec_reaches_codes_and_centres() -> None:
    codes, centres = CODES.clone().requires_grad_(), CENTRES.clone().requires_grad_()
    q = student_t(codes, centres)
    loss, parts = dec_loss(q, target(q))
    (len(codes) * loss).backward()
    assert codes.grad[0].tolist() == [near(0.061964), near(-0.043375)]
    assert centres.grad[0].tolist() == [near(-0.000761), near(0.103609)]
    assert not parts["L_KL"].requires_grad


EQUATIONS = {
    "baselines.dec_q": lambda x, o: {"q": (q := student_t(x["z"], x["centres"])), "p": target(q)},
    "baselines.dec_kl": lambda x, o: {"loss": dec_loss(x["q"], target(x["q"]))[0]},
}


@pytest.mark.parametrize(("case", "dtype"), cases("baselines", *EQUATIONS))
def test_reference_vectors_of_dec(case, dtype) -> None:
    check(case, EQUATIONS[case.equation], dtype)
