"""Losses of auto-encoders: reconstruction at a named scale, and what is added for sparse and for variational codes.

Three scales of the reconstruction are in use, and a weight beside it means nothing without its name: `element`, the
mean over all numbers; `image`, the sum over an image, then the mean over images; `half`, half of that (Caffe). With the
mean over elements the divergence of a variational code is as many times too strong as an image has numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dica.files import UserError
from dica.losses.common import full_precision

KINDS, SCALES = ("mse", "bce"), ("element", "image", "half")


@full_precision
def reconstruction_loss(
    logits: Tensor, images: Tensor, *, kind: str = "mse", scale: str = "element"
) -> tuple[Tensor, dict[str, Tensor]]:
    """Distance of sigmoid(logits) from the images.

    Parameters
    ----------
    logits, images
        (n, ...) of one shape; images in [0, 1].
    kind
        `mse`, or `bce`: the cross-entropy of each number as a probability.
    scale
        A name in `SCALES`.

    Returns
    -------
    Scalar loss, and `L_rec` (detached).

    Examples
    --------
    Logits of 0 are grey, 1/2 away from black and from white:

    >>> reconstruction_loss(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))[0]
    tensor(0.2500)
    """
    if kind not in KINDS or scale not in SCALES:
        raise UserError(f"reconstruction: {kind}, {scale}; allowed: {', '.join(KINDS)} and {', '.join(SCALES)}")
    if kind == "mse":
        each = (torch.sigmoid(logits) - images).square()
    else:
        each = F.binary_cross_entropy_with_logits(logits, images, reduction="none")
    loss = each.mean() if scale == "element" else each.flatten(1).sum(dim=1).mean()
    loss = loss / 2 if scale == "half" else loss
    return loss, {"L_rec": loss.detach()}


@full_precision
def sparsity(codes: Tensor) -> Tensor:
    """Return the mean over images of the 1-norm of their codes (n, d).

    Examples
    --------
    >>> sparsity(torch.tensor([[1.0, -2.0], [0.0, 1.0]]))
    tensor(2.)
    """
    return codes.abs().sum(dim=1).mean()


@full_precision
def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the mean over images of KL(N(mean, e^log_variance) || N(0, 1)), both (n, d); VAE, Eq. 10.

    Examples
    --------
    A normal distribution is at no distance from itself:

    >>> divergence(torch.zeros(2, 3), torch.zeros(2, 3)), divergence(torch.ones(2, 3), torch.zeros(2, 3))
    (tensor(0.), tensor(1.5000))
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean() / 2
