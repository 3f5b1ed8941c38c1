"""Losses of semi-supervised learning with unlabelled images, beside FixMatch's (`dica.losses.fixmatch`).

- `pi`, the Pi-model (Laine and Aila, ICLR 2017) and `mean-teacher` (Tarvainen and Valpola, NeurIPS 2017): squared
  difference of the probabilities of two weak views; the constant one is the network's own or its average's.
- `pseudo-label` (Lee, 2013): cross-entropy with the network's own confident class, of the same view.
- `uda` (Xie et al., NeurIPS 2020): divergence of a strong view from the sharpened probabilities of a weak one, where
  these are confident.

Readings, as in the reference code of MixMatch and FixMatch: the squared difference is a mean over classes; a mean over
images counts those that are not confident; confidence is judged before sharpening.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dica.losses.common import finite_log, full_precision, plogp

ALIGNED = 1e-6  # keeps the ratio of two frequencies finite (code)


@full_precision
def squared_difference(given: Tensor, other: Tensor) -> Tensor:
    """Mean over images and classes of the squared difference of probabilities; `given` (n, K) logits are constants.

    Examples
    --------
    >>> squared_difference(torch.zeros(2, 2), torch.zeros(2, 2))
    tensor(0.)
    """
    return (given.detach().softmax(dim=1) - other.softmax(dim=1)).square().mean()


@full_precision
def pseudo_label_loss(logits: Tensor, *, threshold: float = 0.95) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of `logits` (n, K) with their own largest class where its probability is above `threshold`.

    Returns
    -------
    Scalar loss, a mean over all images, and the share of `confident` ones (detached).

    Examples
    --------
    No guess is above the threshold:

    >>> pseudo_label_loss(torch.zeros(2, 2))
    (tensor(0.), {'confident': tensor(0.)})
    """
    probability, guess = logits.detach().softmax(dim=1).max(dim=1)
    confident = (probability > threshold).to(logits.dtype)
    each = F.cross_entropy(logits, guess, reduction="none")
    return (each * confident).mean(), {"confident": confident.mean()}


@full_precision
def divergence_loss(
    weak: Tensor, strong: Tensor, *, threshold: float = 0.95, sharpen: float = 1.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """UDA's term: KL(weak at temperature `sharpen` to strong) of the images that are confident.

    Parameters
    ----------
    weak, strong
        (n, K) logits of two views; the weak ones are constants.
    threshold
        Least probability, before sharpening, of an image that counts.
    sharpen
        Temperature of the weak view's probabilities.

    Returns
    -------
    Scalar loss, a mean over all images, and the share of `confident` ones (detached).

    Examples
    --------
    >>> divergence_loss(torch.tensor([[9.0, 0.0]]), torch.zeros(1, 2))[0].round(decimals=3)
    tensor(0.6920)
    """
    weak = weak.detach()
    confident = (weak.softmax(dim=1).amax(dim=1) >= threshold).to(strong.dtype)
    target = (weak / sharpen).softmax(dim=1)
    each = (plogp(target) - target * strong.log_softmax(dim=1)).sum(dim=1)
    return (each * confident).mean(), {"confident": confident.mean()}


@full_precision
def sharpened_mean(views: Tensor, *, temperature: float = 0.5) -> Tensor:
    """MixMatch's guess (n, K): the mean probabilities of several views (r, n, K) of logits, to the power 1 / T.

    Examples
    --------
    >>> sharpened_mean(torch.tensor([[[0.75, 0.25]], [[0.75, 0.25]]]).log())
    tensor([[0.9000, 0.1000]])
    """
    mean = views.detach().softmax(dim=-1).mean(dim=0)
    return torch.softmax(finite_log(mean) / temperature, dim=1)


@full_precision
def mixmatch_loss(
    labelled: Tensor, labelled_target: Tensor, unlabelled: Tensor, unlabelled_target: Tensor, *, weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """MixMatch's loss of mixed images: cross-entropy of the labelled part, squared difference of the other.

    Parameters
    ----------
    labelled, labelled_target
        (b, K) logits, and mixed targets (probabilities).
    unlabelled, unlabelled_target
        (n, K) the same of the unlabelled part.
    weight
        Of the squared difference, at this point of its ramp.

    Returns
    -------
    Scalar loss, and `L_s` and `L_u` (detached, unweighted).
    """
    supervised = F.cross_entropy(labelled, labelled_target)
    consistency = (unlabelled.softmax(dim=1) - unlabelled_target).square().mean()
    return supervised + weight * consistency, {"L_s": supervised.detach(), "L_u": consistency.detach()}


@full_precision
def aligned_guess(probability: Tensor, predicted: Tensor, *, temperature: float = 0.5) -> Tensor:
    """ReMixMatch's guess (n, K): probabilities aligned with equally frequent classes, to the power 1 / T.

    Parameters
    ----------
    probability
        (n, K) of weak views; constants.
    predicted
        (K,) the mean probabilities of the last batches.

    Examples
    --------
    A class that the network predicts too often is held back:

    >>> aligned_guess(torch.tensor([[0.5, 0.5]]), torch.tensor([0.8, 0.2]), temperature=1.0)
    tensor([[0.2000, 0.8000]])
    """
    ratio = (1 / len(predicted) + ALIGNED) / (predicted + ALIGNED)
    return torch.softmax(finite_log(probability.detach() * ratio) / temperature, dim=1)


@full_precision
def remixmatch_loss(
    labelled: Tensor,
    labelled_target: Tensor,
    unlabelled: Tensor,
    unlabelled_target: Tensor,
    first: Tensor,
    guess: Tensor,
    turns: Tensor,
    angles: Tensor,
    *,
    weight: float,
    first_weight: float,
    rotation_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """ReMixMatch's loss: cross-entropies of mixed images, of the first strong view and of its rotation.

    Parameters
    ----------
    labelled, labelled_target, unlabelled, unlabelled_target
        As for `mixmatch_loss`.
    first, guess
        (n, K) logits of a strong view, not mixed, and the guess that it has to repeat.
    turns, angles
        (n, 4) logits of its rotation, and by how many quarter turns it was turned (n,).
    weight, first_weight, rotation_weight
        Of the last three cross-entropies.

    Returns
    -------
    Scalar loss, and `L_s`, `L_u`, `L_first`, `L_rotation` (detached, unweighted).

    Examples
    --------
    >>> logits, target = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    >>> rotation = torch.zeros(1, 4), torch.tensor([0])
    >>> options = {"weight": 0.0, "first_weight": 0.0, "rotation_weight": 0.0}
    >>> remixmatch_loss(logits, target, logits, target, logits, target, *rotation, **options)[0]
    tensor(0.6931)
    """
    parts = {
        "L_s": F.cross_entropy(labelled, labelled_target),
        "L_u": F.cross_entropy(unlabelled, unlabelled_target),
        "L_first": F.cross_entropy(first, guess.detach()),
        "L_rotation": F.cross_entropy(turns, angles),
    }
    mixed = parts["L_s"] + weight * parts["L_u"]
    loss = mixed + first_weight * parts["L_first"] + rotation_weight * parts["L_rotation"]
    return loss, {name: value.detach() for name, value in parts.items()}


def mix(values: Tensor, partners: Tensor, share: Tensor) -> Tensor:
    """Return share * values + (1 - share) * values[partners], with one share (n,) for each row.

    Examples
    --------
    >>> mix(torch.tensor([[0.0], [8.0]]), torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))
    tensor([[2.],
            [4.]])
    """
    share = share.view(-1, *[1] * (values.dim() - 1))
    return share * values + (1 - share) * values[partners]


def certain(classes: Tensor, like: Tensor) -> Tensor:
    """Return the probabilities (n, K) of known classes (n,); nothing is asked of the device, as `one_hot` does.

    Examples
    --------
    >>> certain(torch.tensor([1]), torch.zeros(5, 3))
    tensor([[0., 1., 0.]])
    """
    return torch.eye(like.shape[1], dtype=like.dtype, device=like.device)[classes]
