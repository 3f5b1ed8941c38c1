"""Loss of IIC: Ji, Henriques and Vedaldi, Invariant Information Clustering, ICCV 2019.

Equations 2 and 3: the mutual information of the clusters of two views of an image, from their joint distribution over
the batch, made symmetric.

Choices:

- `lamb`: weight of the two marginal entropies, 1 (paper and code's commands).
- Entries below 2.2e-16 count as 2.2e-16, as in the released code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dica.losses.common import full_precision

LEAST = torch.finfo(torch.float64).eps


@full_precision
def information_loss(p: Tensor, p2: Tensor, *, lamb: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
    """Minus the mutual information of the clusters of two views (Eq. 3).

    Parameters
    ----------
    p, p2
        (..., n, K) probabilities of the two views; leading axes (sub-heads) are problems of their own.
    lamb
        Weight of the marginal entropies; 1 gives minus the mutual information.

    Returns
    -------
    Loss of each sub-head (...), and its mutual information `MI` (detached).

    Examples
    --------
    Two views that agree on two clusters share log 2:

    >>> loss, parts = information_loss(torch.eye(2), torch.eye(2))
    >>> loss, parts["MI"]
    (tensor(-0.6931), tensor(0.6931))
    """
    joint = p.mT @ p2
    joint = (joint + joint.mT) / 2
    joint = (joint / joint.sum(dim=(-2, -1), keepdim=True)).clamp_min(LEAST)
    marginal = joint.sum(dim=-1, keepdim=True).log()
    marginals = (joint * (marginal + marginal.mT)).sum(dim=(-2, -1))
    negative_joint = (joint * joint.log()).sum(dim=(-2, -1))
    return lamb * marginals - negative_joint, {"MI": (negative_joint - marginals).detach()}
