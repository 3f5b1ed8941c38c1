"""Loss and targets of MMDC: Shiran and Weinshall, Multi-Modal Deep Clustering, arXiv:1912.02678.

Outputs of unit length are drawn to targets that are fixed points, here the corners of the simplex: as many images go to
each as were given it at the start, and which ones is decided batch by batch (`reassigned`).
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from dica.losses.common import full_precision, share_right


@full_precision
def target_loss(z: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean squared difference of outputs and their targets.

    Parameters
    ----------
    z
        (n, K) rows of unit length.
    targets
        (n,) int64, the number of each.

    Returns
    -------
    Scalar loss, and `L_target` and `right`, the share of outputs that are nearest to their own target (detached).

    Examples
    --------
    >>> target_loss(torch.tensor([[0.6, 0.8]]), torch.tensor([1]))[0]
    tensor(0.2000)
    """
    loss = F.mse_loss(z, F.one_hot(targets, z.shape[1]).to(z.dtype))
    return loss, {"L_target": loss.detach(), "right": share_right(z, targets)}


@torch.no_grad()
def reassigned(z: Tensor, targets: Tensor) -> Tensor:
    """Return the same targets (n,), shared out so that outputs (n, K) are as near to theirs as can be.

    Examples
    --------
    >>> reassigned(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 0]))
    tensor([0, 1])
    """
    taken = linear_sum_assignment(z[:, targets].tolist(), maximize=True)[1]
    return targets[torch.from_numpy(taken).to(targets.device)]


def renamed(groups: Tensor, targets: Tensor, count: int) -> Tensor:
    """Return groups (n,) under the names of the targets (n,) that they have most of, one name each.

    Examples
    --------
    >>> renamed(torch.tensor([0, 0, 1]), torch.tensor([1, 1, 0]), 2)
    tensor([1, 1, 0])
    """
    table = torch.zeros(count, count, dtype=torch.long, device=groups.device)
    table.index_put_((groups, targets), torch.ones_like(groups), accumulate=True)
    names = linear_sum_assignment(table.cpu().numpy(), maximize=True)[1]
    return torch.from_numpy(names).to(groups.device)[groups]
