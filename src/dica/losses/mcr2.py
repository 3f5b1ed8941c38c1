"""Loss of MCR2: Yu, Chan, You, Song and Ma, Learning Diverse and Discriminative Representations via the Principle of
Maximal Coding Rate Reduction, NeurIPS 2020, as its authors train it without labels.

The coding rate of points is how many bits they take up to an error: large where they spread in many directions. The
views of each image shall have a small one, all together a large one, with weights of their own (gamma 1 and gamma 2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from dica.losses.common import full_precision


@full_precision
def coding_rate(z: Tensor, *, error: float = 0.5, scale: float = 1.0) -> Tensor:
    """Return half the logarithm of det(I + scale d / (m error) Z^T Z), (...), of points z (..., m, d).

    Parameters
    ----------
    error
        Its square, epsilon squared of the paper.

    Examples
    --------
    Two points of one direction take fewer bits than two of two:

    >>> points = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> coding_rate(points)
    tensor([0.8047, 1.0986])
    """
    count, size = z.shape[-2:]
    product = z.mT @ z if size <= count else z @ z.mT  # both have the same determinant
    eye = torch.eye(product.shape[-1], dtype=z.dtype, device=z.device)
    root = torch.linalg.cholesky_ex(eye + scale * size / (count * error) * product).L
    return root.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)


@full_precision
def mcr2_loss(
    z: Tensor, *, error: float = 0.5, scale: float = 20.0, weight: float = 0.05
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean coding rate of the views of an image, less that of all views.

    Parameters
    ----------
    z
        (n, v, d) unit features of v views of n images.
    error
        See `coding_rate`.
    scale, weight
        Of the rate of all: gamma 1 and gamma 2.

    Returns
    -------
    Scalar loss, and `R_all` and `R_image` without the weight (detached).

    Examples
    --------
    >>> loss, parts = mcr2_loss(torch.eye(2)[:, None].repeat(1, 3, 1), scale=1.0, weight=1.0)
    >>> loss, parts["R_all"], parts["R_image"]
    (tensor(-0.2939), tensor(1.0986), tensor(0.8047))
    """
    every = coding_rate(z.flatten(0, 1), error=error, scale=scale)
    image = coding_rate(z, error=error).mean()
    return image - weight * every, {"R_all": every.detach(), "R_image": image.detach()}
