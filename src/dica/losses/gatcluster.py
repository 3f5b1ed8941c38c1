"""Losses of GATCluster: Niu, Zhang, Wang and Liang, GATCluster: Self-Supervised Gaussian-Attention Network for Image
Clustering, ECCV 2020, after the authors' code.

A network gives each image two distributions over the clusters: of its features, and of those under a bump of attention
(`attention`). Targets come from the first one, of the images without augmentation: brought to balance (`balanced`),
sharpened (`dica.losses.dec.target`), and which images belong together. `gat_loss` adds what pulls to each of them, and
the entropy of both mean distributions.

Cross-entropies are those of DAC (`dica.losses.dac`), with probabilities cut off at 1e-7.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dica.losses.common import entropy, full_precision
from dica.losses.dac import aux_loss, pair_loss

_EPS = 1e-5  # code


@full_precision
def balanced(p: Tensor) -> Tensor:
    """Return probabilities (n, K) over the sizes of their clusters, rows brought to 1; without a gradient.

    Examples
    --------
    What all images share says nothing of any of them:

    >>> balanced(torch.tensor([[0.75, 0.25], [0.75, 0.25]])).round(decimals=3)
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    shares = p.detach() / (p.detach().sum(dim=0) + _EPS)
    return shares / (shares.sum(dim=1, keepdim=True) + _EPS)


@full_precision
def attention(theta: Tensor, side: int, *, spread: float = 0.05) -> Tensor:
    """Return a Gaussian bump on a square grid for each image, (n, 1, side, side), 1 at its centre.

    Parameters
    ----------
    theta
        (n, 3): row and column of the centre, and its width, each in 0 to 1 of the grid.
    side
        Of the grid.
    spread
        Variance of a bump of width 1.

    Examples
    --------
    >>> attention(torch.tensor([[0.0, 1.0, 0.1]]), 3).round(decimals=2)
    tensor([[[[0., 0., 1.],
              [0., 0., 0.],
              [0., 0., 0.]]]])
    """
    at = torch.linspace(0, 1, side, dtype=theta.dtype, device=theta.device)
    rows, columns = at - theta[:, :1], at - theta[:, 1:2]
    distances = rows.square()[:, :, None] + columns.square()[:, None]
    width = 2 * spread * theta[:, 2] + _EPS
    return (-distances / width[:, None, None]).exp()[:, None]


@full_precision
def gat_loss(
    p: Tensor,
    attended: Tensor,
    to_balance: Tensor,
    sharpened: Tensor,
    together: Tensor,
    *,
    similarity_weight: float = 5.0,
    entropy_weight: float = 3.0,
    relation_weight: float = 1.0,
    attention_weight: float = 5.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of the four weighted terms.

    Parameters
    ----------
    p, attended
        (n, K) probabilities of the augmented images, of all features and of those under the bump.
    to_balance, sharpened
        (n, K) targets of the two, constants.
    together
        (n, n) bool, pairs of one cluster of K-means; each pair counts once, an image with itself too.
    similarity_weight, entropy_weight, relation_weight, attention_weight
        Of the product with the first target, the entropies, the pairs and the second target.

    Returns
    -------
    Scalar loss, and the four terms as they are before their weights (detached); `H_mean` is the sum of both entropies.

    Examples
    --------
    Two images, sure of two clusters; the entropies of both means are then the largest:

    >>> p = torch.eye(2)
    >>> loss, parts = gat_loss(p, p, p, p, p.bool())
    >>> [round(float(x), 3) for x in (parts["L_similarity"], parts["H_mean"], parts["L_relation"], loss)]
    [-1.0, 1.386, 0.0, -9.159]
    """
    similarity = -(p * to_balance.detach()).sum(dim=1).mean()
    spread = entropy(p.mean(dim=0)) + entropy(attended.mean(dim=0))
    relation = pair_loss(p, together, torch.ones_like(together).tril())
    attended_loss = aux_loss(attended, sharpened)
    loss = similarity_weight * similarity - entropy_weight * spread
    loss = loss + relation_weight * relation + attention_weight * attended_loss
    parts = {"L_similarity": similarity, "H_mean": spread, "L_relation": relation, "L_attention": attended_loss}
    return loss, {name: part.detach() for name, part in parts.items()}
