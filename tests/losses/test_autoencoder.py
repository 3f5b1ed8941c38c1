"""Losses of auto-encoders against worked examples printed to 6 decimals."""

from __future__ import annotations

import pytest
import torch

from dica.files import UserError
from dica.losses.autoencoder import divergence, reconstruction_loss, sparsity


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
    bernoulli, _ = reconstruction_loss(logits, IMAGES, kind="bce", scale="image")
    gaussian, _ = reconstruction_loss(logits, IMAGES, kind="mse", scale="half")
    wrong, _ = reconstruction_loss(logits, IMAGES, kind="mse", scale="element")
    assert (bernoulli + divergence(mean, log_variance)).item() == near(5.824490)
    assert (gaussian + divergence(mean, log_variance)).item() == near(1.994722)
    assert (wrong + divergence(mean, log_variance)).item() == near(1.808632)


def test_an_unknown_distance_or_scale_is_named() -> None:
    with pytest.raises(UserError, match=r"reconstruction: mae, image; allowed: mse, bce and element, image, half"):
        reconstruction_loss(LOGITS, IMAGES, kind="mae", scale="image")
