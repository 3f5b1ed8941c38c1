"""Losses of IDFD: Tao, Takagi and Nakata, Clustering-friendly Representation Learning via Instance Discrimination and
Feature Decorrelation, ICLR 2021.

Instance discrimination over all images, not a sample of them (`instance_discrimination`), decorrelation of the
features, whose columns are divided by their length but not centred (`feature_decorrelation`), and their sum
(`idfd_loss`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dica.losses.common import full_precision, l2_normalise, matching_cross_entropy


@full_precision
def instance_discrimination(f: Tensor, bank: Tensor, index: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Mean of -log softmax(bank f / tau)[index].

    Parameters
    ----------
    f
        (n, d) unit features.
    bank
        (N, d) stored features of all images, constants.
    index
        (n,) own rows.
    temperature
        tau.

    Examples
    --------
    >>> instance_discrimination(torch.eye(3), torch.zeros(3, 3), torch.arange(3)).round(decimals=4)
    tensor(1.0986)
    """
    return F.cross_entropy(f @ bank.detach().to(f.dtype).mT / temperature, index)


@full_precision
def feature_decorrelation(f: Tensor, *, temperature: float = 2.0) -> Tensor:
    """Mean over the d columns of `f` (n, d) of -log softmax of their cosines at tau2.

    Examples
    --------
    Columns that are all alike tell no feature from another:

    >>> feature_decorrelation(torch.ones(4, 2))
    tensor(0.6931)
    """
    columns = l2_normalise(f, dim=0)
    return matching_cross_entropy(columns.mT @ columns / temperature)


@full_precision
def idfd_loss(
    f: Tensor,
    bank: Tensor,
    index: Tensor,
    *,
    temperature: float = 1.0,
    temperature_fd: float = 2.0,
    weight: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of both losses.

    Parameters
    ----------
    f, bank, index
        See `instance_discrimination`.
    temperature, temperature_fd
        tau and tau2.
    weight
        Of the decorrelation; 0 leaves instance discrimination alone.

    Returns
    -------
    Scalar loss, and `L_id` and `L_fd` (detached, unweighted).

    Examples
    --------
    >>> f = torch.eye(2)
    >>> loss, parts = idfd_loss(f, f, torch.arange(2), weight=0.0)
    >>> bool(loss == parts["L_id"]), sorted(parts)
    (True, ['L_fd', 'L_id'])
    """
    discrimination = instance_discrimination(f, bank, index, temperature=temperature)
    decorrelation = feature_decorrelation(f, temperature=temperature_fd)
    parts = {"L_id": discrimination.detach(), "L_fd": decorrelation.detach()}
    return torch.add(discrimination, decorrelation, alpha=weight), parts
