"""Losses of SCAN: Van Gansbeke, Vandenhende, Georgoulis, Proesmans and Van Gool, ECCV 2020.

Equation 2 (`scan_loss`: an image and its neighbour in one cluster, clusters in balance) and Section 2.3
(`self_label_loss`: cross-entropy of strong views with confident labels of the weak ones).

Readings, as in the released code: H is that of the anchors' mean alone; training weighs it by 5, the choice of a state
by 1; a class is weighed by the confident images of the batch over those of the class. A batch without a confident image
has loss 0 here (in the code it is an error).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dica.losses.common import entropy, full_precision


@full_precision
def scan_loss(anchors: Tensor, neighbours: Tensor, *, weight: float = 5.0) -> tuple[Tensor, dict[str, Tensor]]:
    """Consistency of an image with its neighbour, and balance of the clusters (Eq. 2).

    Parameters
    ----------
    anchors, neighbours
        (..., n, K) logits of images and of one neighbour of each; leading axes (sub-heads) are problems of their own.
    weight
        Of the entropy.

    Returns
    -------
    Loss of each sub-head (...), and its `consistency` and `H` (detached).

    Examples
    --------
    >>> logits = 50 * torch.eye(2)
    >>> loss, parts = scan_loss(logits, logits)
    >>> parts["consistency"].abs(), parts["H"]
    (tensor(0.), tensor(0.6931))
    """
    log_p, log_q = anchors.log_softmax(dim=-1), neighbours.log_softmax(dim=-1)
    consistency = -(log_p + log_q).logsumexp(dim=-1).mean(dim=-1)  # -log of the inner product of probabilities
    balance = entropy(log_p.exp().mean(dim=-2))
    return consistency - weight * balance, {"consistency": consistency.detach(), "H": balance.detach()}


@full_precision
def self_label_loss(
    weak: Tensor, strong: Tensor, *, threshold: float = 0.99, balanced: bool = True
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of strong views with the confident labels of their weak views.

    Parameters
    ----------
    weak, strong
        (n, K) logits of two views; no gradient reaches the weak ones.
    threshold
        Probability above which a label counts.
    balanced
        Weigh each class by (confident images) / (those of the class), so that all classes count alike.

    Returns
    -------
    Scalar loss, and the share of `confident` images (detached).

    Examples
    --------
    >>> weak, strong = torch.tensor([[9.0, 0.0], [0.0, 0.0]]), torch.zeros(2, 2)
    >>> self_label_loss(weak, strong)
    (tensor(0.6931), {'confident': tensor(0.5000)})
    """
    probability, label = weak.detach().softmax(dim=1).max(dim=1)
    confident = (probability > threshold).to(strong.dtype)
    weight = confident
    if balanced:
        sizes = torch.zeros_like(strong[0]).index_add_(0, label, confident)
        weight = confident * confident.sum() / sizes[label].clamp_min(1)
    each = F.cross_entropy(strong, label, reduction="none")
    loss = (weight * each).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
    return loss, {"confident": confident.mean()}
