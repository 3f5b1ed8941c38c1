"""Losses of CC: Li, Hu, Liu, Peng, Zhou and Peng, Contrastive Clustering, AAAI 2021.

The contrast of instances, the contrast of clusters and their sum. Both contrasts are the NT-Xent of
`dica.losses.crlc.feature_contrast`: of rows, the images, and of columns, the clusters.

Reading: an empty cluster adds nothing to the balance (in the released code it makes the loss not a number).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dica.losses.common import entropy, full_precision
from dica.losses.crlc import feature_contrast


@full_precision
def cluster_contrast(p: Tensor, p2: Tensor, *, temperature: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
    """Contrast of the columns of two views, and log K - H of each view's mean assignment.

    Parameters
    ----------
    p, p2
        (n, K) probabilities of two views.
    temperature
        tau_C.

    Returns
    -------
    Scalar loss, and `contrast` and `balance`, which is the sum over both views (detached).

    Examples
    --------
    Two sure views that agree, with clusters in balance:

    >>> loss, parts = cluster_contrast(torch.eye(2), torch.eye(2))
    >>> loss, parts["balance"].abs()
    (tensor(0.5514), tensor(0.))
    """
    contrast = feature_contrast(p.mT, p2.mT, temperature=temperature)
    means = torch.stack([p.mean(dim=0), p2.mean(dim=0)])
    balance = (math.log(p.shape[-1]) - entropy(means)).sum()
    return contrast + balance, {"contrast": contrast.detach(), "balance": balance.detach()}


@full_precision
def cc_loss(
    z: Tensor,
    z2: Tensor,
    logits: Tensor,
    logits2: Tensor,
    *,
    instance_temperature: float = 0.5,
    cluster_temperature: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of both contrasts.

    Parameters
    ----------
    z, z2
        (n, d) projections of two views, of any length.
    logits, logits2
        (n, K) outputs of the cluster head for the same views.
    instance_temperature, cluster_temperature
        tau_I and tau_C.

    Returns
    -------
    Scalar loss, and `L_ins`, `L_clu` and `balance`, which is part of L_clu (detached).

    Examples
    --------
    >>> z, logits = torch.eye(2), 100 * torch.eye(2)
    >>> loss, parts = cc_loss(z, z, logits, logits)
    >>> {name: round(value.item(), 4) for name, value in parts.items()}
    {'L_ins': 0.2395, 'L_clu': 0.5514, 'balance': 0.0}
    """
    instances = feature_contrast(z, z2, temperature=instance_temperature)
    clusters, parts = cluster_contrast(logits.softmax(-1), logits2.softmax(-1), temperature=cluster_temperature)
    named = {"L_ins": instances.detach(), "L_clu": clusters.detach(), "balance": parts["balance"]}
    return instances + clusters, named
