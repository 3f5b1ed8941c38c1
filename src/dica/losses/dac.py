"""Losses of DAC: Chang, Wang, Meng, Xiang and Pan, Deep Adaptive Image Clustering, ICCV 2017.

Pairs of images that are alike or unlike beyond two thresholds (`targets`), which move towards each other
(`thresholds`), train the network that compares them (`pair_loss`). The released code adds a second loss (`aux_loss`),
which the paper does not have: each output keeps to what the network said of the image without augmentation.

Choices:

- `pair_loss` kind `bce` is the paper's. `swapped` is what the released code computes: it hands (target, prediction) to
  a function that takes them the other way round, so that a pair costs `-log(1e-7) |s - t|` and the mean is divided by
  the batch once more.
- Equal thresholds leave no pair out; the code's other scripts have one threshold.
- Probabilities are cut off at 1e-7, as in the code's library.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dica.files import UserError
from dica.losses.common import full_precision, l2_normalise

PAIR_LOSSES = ("bce", "swapped")
AUX_LOSSES = ("softmax", "unit", "mixed", "none")
_EPS = 1e-7


class Targets(NamedTuple):
    """Constants that supervise n images."""

    linked: Tensor  # (n, n) bool, pairs that should be alike
    selected: Tensor  # (n, n) bool, pairs that count
    p: Tensor  # (n, K) probabilities without augmentation


def thresholds(progress: float, *, upper: float = 0.99, lower: float = 0.8, both: bool = True) -> tuple[float, float]:
    """Return the thresholds (upper, lower) after a share of training.

    Parameters
    ----------
    progress
        0 at the beginning, 1 at the end.
    upper, lower
        Where they begin.
    both
        They meet halfway; if false there is one threshold, which falls from `upper` to `lower`.

    Examples
    --------
    >>> [round(x, 3) for progress in (0, 1) for x in thresholds(progress)]
    [0.99, 0.8, 0.895, 0.895]
    """
    if not both:
        one = upper - (upper - lower) * progress
        return one, one
    way = (upper - lower) / 2 * progress
    return upper - way, lower + way


@torch.no_grad()
@full_precision
def targets(p: Tensor, *, upper: float, lower: float) -> Targets:
    """Choose the pairs by the cosines of the probabilities (n, K) of the images without augmentation."""
    unit = l2_normalise(p)
    s = unit @ unit.T
    linked = s > (upper + lower) / 2
    return Targets(linked, torch.where(linked, s > upper, s < lower) | (upper == lower), p)


def _bce(prediction: Tensor, target: Tensor) -> Tensor:
    prediction = prediction.clamp(_EPS, 1 - _EPS)
    return -(target * prediction.log() + (1 - target) * (1 - prediction).log())


@full_precision
def pair_loss(p: Tensor, linked: Tensor, selected: Tensor, *, kind: str = "bce") -> Tensor:
    """Loss of the selected pairs.

    Parameters
    ----------
    p
        (n, K) probabilities of augmented images.
    linked, selected
        (n, n) bool, see `Targets`.
    kind
        `bce` or `swapped`, see the head of this file.

    Raises
    ------
    UserError
        If `kind` is unknown.
    """
    if kind not in PAIR_LOSSES:
        raise UserError(f"dac: pair_loss is {kind!r}; choose one of {', '.join(PAIR_LOSSES)}")
    unit = l2_normalise(p)
    s, t = unit @ unit.T, linked.to(p.dtype)
    each = _bce(s, t) if kind == "bce" else -math.log(_EPS) / len(p) * (s - t).abs()
    selected = selected.to(p.dtype)
    return (each * selected).sum() / selected.sum().clamp_min(1)


@full_precision
def aux_loss(p: Tensor, given: Tensor, *, kind: str = "softmax") -> Tensor:
    """Mean cross-entropy of each output, taken as a probability of its own, with that of the image as it was.

    Parameters
    ----------
    p, given
        (n, K) probabilities of augmented images, and of the same images without augmentation (constants).
    kind
        `softmax`: probabilities; `unit`: both brought to unit length; `mixed`: only the target (the code's other
        scripts); `none`: 0, as in the paper.

    Raises
    ------
    UserError
        If `kind` is unknown.
    """
    if kind not in AUX_LOSSES:
        raise UserError(f"dac: aux is {kind!r}; choose one of {', '.join(AUX_LOSSES)}")
    if kind == "none":
        return p.new_zeros(())
    given = given.detach() if kind == "softmax" else l2_normalise(given.detach())
    return _bce(l2_normalise(p) if kind == "unit" else p, given).mean()


@full_precision
def dac_loss(
    logits: Tensor,
    linked: Tensor,
    selected: Tensor,
    given: Tensor,
    *,
    pair_kind: str = "bce",
    aux: str = "softmax",
    aux_weight: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of the pair loss and the weighted second loss.

    Parameters
    ----------
    logits
        (n, K) outputs for augmented images, before the softmax.
    linked, selected, given
        See `Targets`.
    pair_kind, aux
        See `pair_loss` and `aux_loss`.
    aux_weight
        Of the second loss; the code's other scripts take 10.

    Returns
    -------
    Scalar loss, and `L_pair`, `L_aux` (unweighted) and the shares of `linked` and `selected` pairs (detached).

    Examples
    --------
    Three images, the first two linked and all pairs sure of it:

    >>> logits = 50 * torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> given = targets(logits.softmax(dim=1), upper=0.9, lower=0.5)
    >>> loss, parts = dac_loss(logits, *given)
    >>> loss.round(decimals=3), parts["linked"].round(decimals=3), parts["selected"]
    (tensor(0.), tensor(0.5560), tensor(1.))
    """
    p = logits.softmax(dim=1)
    pair = pair_loss(p, linked, selected, kind=pair_kind)
    second = aux_loss(p, given, kind=aux)
    shares = {"linked": linked.to(p.dtype).mean(), "selected": selected.to(p.dtype).mean()}
    return pair + aux_weight * second, {"L_pair": pair.detach(), "L_aux": second.detach(), **shares}
