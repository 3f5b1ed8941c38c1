"""Losses of a generative adversarial network: Goodfellow et al., NIPS 2014, Eq. 1, the generator's in its usual form.

The discriminator tells real images from made ones; the generator maximises log D of what it makes, which has gradients
where log(1 - D) has none.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from dica.losses.common import full_precision


@full_precision
def discriminator_loss(real: Tensor, made: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the logits (n, 1) of real images with 1, and of made ones with 0.

    Returns
    -------
    Scalar loss, and `L_real` and `L_made` (detached).

    Examples
    --------
    A discriminator that knows nothing loses 2 log 2:

    >>> discriminator_loss(torch.zeros(3, 1), torch.zeros(3, 1))[0]
    tensor(1.3863)
    """
    parts = {"L_real": F.softplus(-real).mean(), "L_made": F.softplus(made).mean()}
    return parts["L_real"] + parts["L_made"], {name: value.detach() for name, value in parts.items()}


@full_precision
def generator_loss(made: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the logits (n, 1) of made images with 1.

    Returns
    -------
    Scalar loss, and no parts.

    Examples
    --------
    >>> generator_loss(torch.zeros(3, 1))
    (tensor(0.6931), {})
    """
    return F.softplus(-made).mean(), {}
