"""Losses of DCCS: Zhao, Lu, Ma, Zhang and Zheng, Deep Image Clustering with Category-Style Representation, ECCV 2020,
after the authors' code.

An image's code is its style, numbers, beside its category, probabilities. A critic (`critic_loss`, that of Wasserstein
GANs with a gradient penalty) tells codes from draws of the prior; the encoder (`encoder_loss`) makes codes that it does
not tell, that can be told from those of other images, and whose categories an augmented view shares.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from dica.losses.common import full_precision

_EPS = 1e-12  # code: under the root


@full_precision
def critic_loss(
    prior: Tensor, made: Tensor, slopes: Tensor, *, adversary_weight: float = 1.0, penalty: float = 10.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what a critic minimises.

    Parameters
    ----------
    prior, made
        (n, 1) its scores of draws from the prior, and of codes.
    slopes
        (n, d) the gradient of its score at points between both.
    adversary_weight
        Of the whole, as in the encoder's loss.
    penalty
        Of the slopes, whose lengths shall be 1.

    Returns
    -------
    Scalar loss, and `L_critic` and `L_penalty` without their weights (detached).

    Examples
    --------
    >>> loss, parts = critic_loss(torch.ones(2, 1), torch.zeros(2, 1), torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    >>> loss, parts["L_critic"], parts["L_penalty"]
    (tensor(19.), tensor(-1.), tensor(2.))
    """
    parts = {"L_critic": made.mean() - prior.mean()}
    parts["L_penalty"] = ((slopes.square().sum(dim=1) + _EPS).sqrt() - 1).square().mean()
    loss = adversary_weight * (parts["L_critic"] + penalty * parts["L_penalty"])
    return loss, {name: part.detach() for name, part in parts.items()}


@full_precision
def encoder_loss(
    made: Tensor,
    own: Tensor,
    others: Tensor,
    logits: Tensor,
    logits_aug: Tensor,
    *,
    adversary_weight: float = 1.0,
    information_weight: float = 0.5,
    view_weight: float = 4.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what the encoder and the discriminator of pairs minimise.

    Parameters
    ----------
    made
        (n, 1) the critic's scores of codes.
    own, others
        (n, 1) logits of the discriminator: of images with their own codes, and with those of others.
    logits, logits_aug
        (n, K) categories of images and of their augmented views, before the softmax; both have gradients (code).
    adversary_weight, information_weight, view_weight
        Of the three terms; beta_adv, beta_MI and beta_aug of the paper.

    Returns
    -------
    Scalar loss, and `L_adversary`, `L_MI` and `L_views` without their weights (detached).

    Examples
    --------
    A discriminator that knows nothing loses log 2, equal views nothing:

    >>> x = torch.zeros(3, 1)
    >>> loss, parts = encoder_loss(x, x, x, torch.zeros(3, 2), torch.zeros(3, 2))
    >>> loss, parts["L_MI"], parts["L_views"]
    (tensor(0.3466), tensor(0.6931), tensor(0.))
    """
    log_p = logits.log_softmax(dim=1)
    parts = {
        "L_adversary": -made.mean(),
        "L_MI": (F.softplus(-own).mean() + F.softplus(others).mean()) / 2,
        "L_views": (log_p.exp() * (log_p - logits_aug.log_softmax(dim=1))).sum(dim=1).mean(),
    }
    loss = adversary_weight * parts["L_adversary"] + information_weight * parts["L_MI"]
    return loss + view_weight * parts["L_views"], {name: part.detach() for name, part in parts.items()}
