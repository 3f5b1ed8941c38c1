"""Losses of PICA: Huang, Gong and Zhu, Deep Semantic Clustering by Partition Confidence Maximisation, CVPR 2020.

The partition uncertainty index (`partition_uncertainty`) and the loss made of it (`pica_loss`): the columns of the
assignment matrix of the original views should be like those of the same clusters, and unlike those of all others, after
a perturbation.

Readings:

- The softmax over the index has no temperature (paper and code): the cross-entropy cannot fall below
  log(1 + (K - 1) / e), 1.461 for ten clusters.
- Several perturbed views of an image make longer columns; the originals are repeated, not computed again (code).
- The balance is log K - H of the originals' mean (code), so that it is never negative.
"""

from __future__ import annotations

import math

from torch import Tensor

from dica.losses.common import entropy, full_precision, l2_normalise, matching_cross_entropy


def partition_uncertainty(p: Tensor, p2: Tensor) -> Tensor:
    """Return the cosine of every column of `p` (n, K) with every column of `p2` (n, K), (K, K)."""
    return l2_normalise(p, dim=0).mT @ l2_normalise(p2, dim=0)


@full_precision
def pica_loss(p: Tensor, p2: Tensor, *, weight: float = 2.0) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the partition uncertainty index with the identity, and the balance of the clusters.

    Parameters
    ----------
    p
        (n, K) probabilities of the original views.
    p2
        (n, K) or (r, n, K) probabilities of the perturbed views.
    weight
        Of the balance (lambda).

    Returns
    -------
    Scalar loss, and `CE` and `balance` (detached, unweighted).

    Examples
    --------
    A partition that is sure, and in balance; the cross-entropy has this as its least value for two clusters:

    >>> loss, parts = pica_loss(torch.eye(2), torch.eye(2))
    >>> loss.round(decimals=4), parts["balance"].abs()
    (tensor(0.3133), tensor(0.))
    """
    repeats = p2.shape[0] if p2.dim() == 3 else 1
    similarity = partition_uncertainty(p.repeat(repeats, 1), p2.reshape(-1, p2.shape[-1]))
    confidence = matching_cross_entropy(similarity)
    balance = math.log(p.shape[-1]) - entropy(p.mean(dim=0))
    return confidence + weight * balance, {"CE": confidence.detach(), "balance": balance.detach()}
