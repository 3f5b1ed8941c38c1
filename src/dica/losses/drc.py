"""Losses of DRC: Zhong et al., Deep Robust Clustering by Contrastive Learning (2020).

Implements the assignment feature loss (Eq. 5), the assignment probability loss (Eq. 8), the cluster
regularisation (Eq. 9) and their sum (Eq. 10). No code was published.

Deviations and readings:

- `normalise`: Eq. 4 and 7 write a raw inner product, the default `none`. `l2` gives the cosine (rows of z,
  columns of p) of PICA, which DRC builds on.
- `repeat_mode`: "each sample repeated 2 times" is ambiguous. `mean` (default) contrasts the originals with each
  augmentation apart and averages; `flat` joins the repeats into one batch as PICA does, so that a second
  augmentation of the same image counts as a negative.
- Both losses go from original to augmented only, without stop-gradient, as the equations say; the minus sign
  that Eq. 3 lacks is that of Eq. 5 and 8.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dica.files import UserError
from dica.losses.common import full_precision, l2_normalise, matching_cross_entropy


@full_precision
def assignment_feature_loss(z: Tensor, z2: Tensor, *, temperature: float = 0.5, normalise: str = "none") -> Tensor:
    """L_AF (Eq. 5): the logits of an image must pick those of its own augmentation in the batch.

    Parameters
    ----------
    z, z2
        (n, k) logits of the original views and (..., n, k) of the augmented ones; leading axes are averaged.
    temperature
        T_AF > 0.
    normalise
        `none` for inner products, `l2` for cosines of rows.

    Examples
    --------
    Equal logits tell no image from another:

    >>> assignment_feature_loss(torch.zeros(4, 2), torch.zeros(4, 2)).round(decimals=4)
    tensor(1.3863)
    """
    if _uses_cosine(normalise):
        z, z2 = l2_normalise(z), l2_normalise(z2)
    return matching_cross_entropy(z @ z2.mT / temperature)


@full_precision
def assignment_probability_loss(p: Tensor, p2: Tensor, *, temperature: float = 0.95, normalise: str = "none") -> Tensor:
    """L_AP (Eq. 8): a cluster's column of probabilities must pick the same cluster's column when augmented.

    Parameters
    ----------
    p, p2
        (n, k) probabilities of the original views and (..., n, k) of the augmented ones; leading axes are averaged.
    temperature
        T_AP > 0.
    normalise
        `none` for inner products, `l2` for cosines of columns.

    Examples
    --------
    >>> p = torch.full((4, 2), 0.5)
    >>> assignment_probability_loss(p, p)
    tensor(0.6931)
    """
    if _uses_cosine(normalise):
        p, p2 = l2_normalise(p, dim=-2), l2_normalise(p2, dim=-2)
    return matching_cross_entropy(p.mT @ p2 / temperature)


@full_precision
def cluster_regularisation(p: Tensor) -> Tensor:
    """L_CR (Eq. 9): sum over clusters of the squared total probability, over n; n/k if balanced, n if collapsed.

    Parameters
    ----------
    p
        (n, k) probabilities of the original views.

    Examples
    --------
    >>> balanced, collapsed = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> cluster_regularisation(balanced), cluster_regularisation(collapsed)
    (tensor(1.), tensor(2.))
    """
    return p.sum(0).square().sum() / len(p)


@full_precision
def drc_loss(
    z: Tensor,
    z2: Tensor,
    *,
    temperature_af: float = 0.5,
    temperature_ap: float = 0.95,
    cr_weight: float = 0.005,
    normalise: str = "none",
    repeat_mode: str = "mean",
    use_af: bool = True,
    use_ap: bool = True,
    use_cr: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss (Eq. 10) and its parts.

    Parameters
    ----------
    z, z2
        (n, k) logits of the original views and (r, n, k) of their r augmentations.
    temperature_af, temperature_ap, cr_weight
        T_AF, T_AP and lambda.
    normalise
        `none` or `l2`, for both contrasts.
    repeat_mode
        `mean`: average over the r augmentations; `flat`: one batch of r n pairs, originals tiled.
    use_af, use_ap, use_cr
        Terms that enter the sum (ablations); every part is reported in any case.

    Returns
    -------
    Scalar loss, and `L_AF`, `L_AP`, `L_CR` (detached, unweighted).

    Raises
    ------
    UserError
        If `normalise` or `repeat_mode` is unknown.

    Examples
    --------
    >>> z = torch.zeros(4, 2)
    >>> loss, parts = drc_loss(z, z[None])
    >>> loss.round(decimals=4), {name: round(value.item(), 4) for name, value in parts.items()}
    (tensor(2.0894), {'L_AF': 1.3863, 'L_AP': 0.6931, 'L_CR': 2.0})
    """
    if repeat_mode not in ("mean", "flat"):
        raise UserError(f"drc: repeat_mode is {repeat_mode!r}; choose one of mean, flat")
    p, p2 = torch.softmax(z, dim=-1), torch.softmax(z2, dim=-1)
    anchors_z, anchors_p = z, p
    if repeat_mode == "flat":
        anchors_z, anchors_p = z.repeat(len(z2), 1), p.repeat(len(z2), 1)
        z2, p2 = z2.flatten(0, 1), p2.flatten(0, 1)
    feature = assignment_feature_loss(anchors_z, z2, temperature=temperature_af, normalise=normalise)
    probability = assignment_probability_loss(anchors_p, p2, temperature=temperature_ap, normalise=normalise)
    regularisation = cluster_regularisation(p)
    loss = use_af * feature + use_ap * probability + use_cr * cr_weight * regularisation
    return loss, {"L_AF": feature.detach(), "L_AP": probability.detach(), "L_CR": regularisation.detach()}


def _uses_cosine(normalise: str) -> bool:
    if normalise not in ("none", "l2"):
        raise UserError(f"drc: normalise is {normalise!r}; choose one of none, l2")
    return normalise == "l2"
