"""Losses of DEC: Xie, Girshick and Farhadi, Unsupervised Deep Embedding for Clustering Analysis, ICML 2016.

Soft assignments by Student's t with one degree of freedom (Eq. 1, `student_t`), the sharpened target (Eq. 3, `target`)
and the divergence of the assignments from it (Eq. 2, `dec_loss`), the mean over images as in the published Keras code;
the paper sums, which is another learning rate. The target needs all images: that of a batch is another one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dica.losses.common import full_precision, plogp


@full_precision
def student_t(codes: Tensor, centres: Tensor) -> Tensor:
    """Return q (n, K), proportional to `1 / (1 + |z - centre|^2)`, of codes (n, d) and centres (K, d).

    Examples
    --------
    >>> student_t(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]]))
    tensor([[0.8333, 0.1667],
            [0.5000, 0.5000]])
    """
    distances = (codes[:, None] - centres).square().sum(dim=2)
    q = 1 / (1 + distances)
    return q / q.sum(dim=1, keepdim=True)


@full_precision
def target(q: Tensor) -> Tensor:
    """Return p (n, K), proportional to q^2 over the size of the cluster, without a gradient.

    Examples
    --------
    What is likely becomes more likely:

    >>> target(torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
    tensor([[0.9000, 0.1000],
            [0.1000, 0.9000]])
    """
    q = q.detach()
    p = q.square() / q.sum(dim=0).clamp_min(torch.finfo(q.dtype).tiny)
    return p / p.sum(dim=1, keepdim=True)


@full_precision
def dec_loss(q: Tensor, p: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over images of `KL(p || q)`, both (n, K).

    Returns
    -------
    Scalar loss, and `L_KL` (detached).

    Examples
    --------
    >>> q = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    >>> dec_loss(q, q)[0].abs() < 1e-6, dec_loss(q, target(q))[0]
    (tensor(True), tensor(0.0725))
    """
    floor = torch.finfo(q.dtype).tiny
    loss = (plogp(p) - p * q.clamp_min(floor).log()).sum(dim=1).mean()
    return loss, {"L_KL": loss.detach()}
