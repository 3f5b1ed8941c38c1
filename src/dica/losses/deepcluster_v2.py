"""Loss and groups of DeepCluster-v2: Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster
Assignments, NeurIPS 2020 (appendix), after the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dica.losses.common import full_precision, l2_normalise, share_right

PART = 10_000  # points at a time: their cosines with all centroids need room


@full_precision
def group_loss(scores: Tensor, groups: Tensor, *, temperature: float = 0.1) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of every crop with the group of its image, the mean over heads, crops and images.

    Parameters
    ----------
    scores
        (h, v, n, k') cosines of v crops of n images and the centroids of h heads.
    groups
        (h, n) int64, the group of each image by each head.

    Returns
    -------
    Scalar loss, and `L_group` and `right`, the share of crops that are nearest to the group's centroid (detached).

    Examples
    --------
    >>> group_loss(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[0]]), temperature=1.0)[0]
    tensor(0.3133)
    """
    heads, views, samples, count = scores.shape
    wanted = groups[:, None].expand(heads, views, samples).flatten()
    flat = scores.reshape(-1, count)
    loss = F.cross_entropy(flat / temperature, wanted)
    return loss, {"L_group": loss.detach(), "right": share_right(flat, wanted)}


@full_precision
@torch.no_grad()
def spherical_kmeans(points: Tensor, start: Tensor, *, iterations: int = 10) -> tuple[Tensor, Tensor]:
    """K-means by cosines; a group without points keeps its centroid.

    Parameters
    ----------
    points
        (n, d) unit rows.
    start
        (k', d) unit rows to begin with.

    Returns
    -------
    Unit centroids (k', d), and the nearest one of each point (n,).

    Examples
    --------
    >>> points = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, -1.0]])
    >>> spherical_kmeans(points, points[[0, 2]])
    (tensor([[ 0.9487,  0.3162],
            [ 0.0000, -1.0000]]), tensor([0, 0, 1]))
    """
    centroids = start
    for _ in range(iterations):
        nearest = _nearest(points, centroids)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, points)
        filled = torch.bincount(nearest, minlength=len(centroids))[:, None] > 0
        centroids = torch.where(filled, l2_normalise(sums), centroids)
    return centroids, _nearest(points, centroids)


def _nearest(points: Tensor, centroids: Tensor) -> Tensor:
    return torch.cat([(part @ centroids.T).argmax(dim=1) for part in points.split(PART)])
