"""Loss of JULE: Yang, Parikh and Batra, Joint Unsupervised Learning of Deep Representations and Image Clusters,
CVPR 2016.

Triplets of an image, another of its cluster and one of another cluster (`triplet_loss`). Every pair of images of one
cluster is compared with some others of its first image, drawn at random (`others`).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from dica.files import UserError
from dica.losses.common import full_precision, leading


def others(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw images of other clusters for each image of a batch, without looking at how many there are.

    Parameters
    ----------
    labels
        (n,) the clusters of the batch.
    count
        How many an image, at most n.

    Returns
    -------
    Their rows (n, count), and whether they are of another cluster indeed (n, count): a batch may have too few.

    Examples
    --------
    >>> others(torch.tensor([0, 0, 1]), 1, Generator().manual_seed(0))[0][:2]
    tensor([[2],
            [2]])
    """
    other = labels[:, None] != labels
    drawn = torch.rand(other.shape, generator=generator, device=labels.device)
    rows = leading(drawn + other, count)  # those of other clusters first
    return rows, other.gather(1, rows)


@full_precision
def triplet_loss(
    x: Tensor,
    pairs: Tensor,
    negatives: Tensor,
    counted: Tensor,
    *,
    margin: float = 0.2,
    gamma: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over triplets (i, j, l) of `max(0, gamma |x_i - x_j|^2 - |x_i - x_l|^2 + margin)`.

    Parameters
    ----------
    x
        (n, d) embeddings.
    pairs
        (n, n) bool: which j are paired with i.
    negatives, counted
        (n, m) rows of the l of each i, and which of them count.

    Returns
    -------
    Scalar loss, 0 without triplets, and the share of `active` triplets (detached).

    Examples
    --------
    A pair at the distance 1, and another image at the distance 2 from the first of it:

    >>> pairs = torch.tensor([[False, True, False], [False] * 3, [False] * 3])
    >>> counted = torch.ones(3, 1, dtype=torch.bool)
    >>> negatives = torch.tensor([[2], [2], [0]])
    >>> triplet_loss(torch.tensor([[0.0], [1.0], [2.0]]), pairs, negatives, counted, margin=4.0)[0]
    tensor(1.)
    """
    if margin < 0 or gamma <= 0:
        raise UserError(f"jule: margin {margin}, gamma {gamma}: give a margin of at least 0 and a gamma above 0")
    distances = (x[:, None] - x).square().sum(dim=2)
    each = (gamma * distances[:, :, None] - distances.gather(1, negatives)[:, None] + margin).clamp_min(0)
    weight = (pairs[:, :, None] & counted[:, None]).to(x.dtype)
    total = weight.sum().clamp_min(1)
    active = ((each.detach() > 0) * weight).sum() / total
    return (each * weight).sum() / total, {"active": active}
