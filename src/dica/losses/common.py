"""What several losses need: precision, normalisation and information measures on probabilities."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dica.files import UserError

LOG_FLOOR = 1e-17  # p log p counts as zero below this probability, and its gradient stays finite


def full_precision(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Run a loss outside autocast and with half-precision tensors raised to float32.

    Products of logits and sums of exponentials lose all meaning in bfloat16, and autocast would lower even
    float32 arguments for the matrix products inside. float64 stays float64.

    The wrapped loss refuses what its arithmetic turns into no number, or into one that means nothing: temperatures and
    the like that are not above 0 (`_must_be_positive`), and a batch without an image, which has no mean.
    """

    @functools.wraps(loss)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        for name, value in kwargs.items():
            if _must_be_positive(name) and not 0 < value < math.inf:
                raise UserError(f"{loss.__name__}: {name} is {value}; choose a finite number above 0")
        raised = [at_least_float32(value) for value in args]
        named = {name: at_least_float32(value) for name, value in kwargs.items()}
        first = next(value for value in (*raised, *named.values()) if torch.is_tensor(value))
        if not first.numel():
            raise UserError(
                f"{loss.__name__}: the batch is empty (shape {tuple(first.shape)}); give at least one image"
            )
        with torch.autocast(first.device.type, enabled=False):
            return loss(*raised, **named)

    return wrapper


def _must_be_positive(setting: str) -> bool:
    """Whether a loss divides by this setting, or makes so many rounds."""
    return "temperature" in setting or setting in ("epsilon", "sharpen", "iterations", "sinkhorn_iters")


def at_least_float32(value: Any) -> Any:
    """Return a half-precision tensor as float32 and anything else as it is."""
    if torch.is_tensor(value) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value


def share_right(scores: Tensor, wanted: Tensor) -> Tensor:
    """Return the share of rows (n, k) whose largest score is the wanted one (n,), without a gradient.

    Examples
    --------
    >>> share_right(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), torch.tensor([0, 1]))
    tensor(0.5000)
    """
    return (scores.detach().argmax(dim=1) == wanted).to(scores.dtype).mean()


def l2_normalise(x: Tensor, dim: int = -1) -> Tensor:
    """Divide `x` by its 2-norm along `dim`; a zero vector stays zero.

    Examples
    --------
    >>> l2_normalise(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return F.normalize(x, dim=dim)


def matching_cross_entropy(similarity: Tensor) -> Tensor:
    """Return the mean of -log softmax(similarity)[i, i] over all rows.

    Parameters
    ----------
    similarity
        (..., m, m): row i holds the similarities of item i with every candidate; its partner is candidate i.

    Examples
    --------
    Without any information each of two candidates has probability 1/2, and the loss is log 2:

    >>> matching_cross_entropy(torch.zeros(2, 2))
    tensor(0.6931)
    """
    partner = similarity.diagonal(dim1=-2, dim2=-1)
    return (similarity.logsumexp(dim=-1) - partner).mean()


def finite_log(x: Tensor, least: float | None = None) -> Tensor:
    """Return the logarithm of `x`, from below at `least`: it stays finite at 0, and so does its gradient.

    Parameters
    ----------
    least
        By default the smallest normal number of the tensor's type.

    Examples
    --------
    >>> finite_log(torch.tensor([0.0, 1.0]), 1e-12)
    tensor([-27.6310,   0.0000])
    """
    return x.clamp_min(torch.finfo(x.dtype).tiny if least is None else least).log()


def plogp(p: Tensor) -> Tensor:
    """Return p log p elementwise, with 0 log 0 = 0 and a finite gradient there.

    Examples
    --------
    >>> plogp(torch.tensor([0.0, 0.5, 1.0])).abs()
    tensor([0.0000, 0.3466, 0.0000])
    """
    return p * p.clamp_min(LOG_FLOOR).log()


def entropy(p: Tensor, dim: int = -1) -> Tensor:
    """Return the entropy -sum p log p (natural logarithm) along `dim`.

    Examples
    --------
    >>> entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]])).abs()
    tensor([0.6931, 0.0000])
    """
    return -plogp(p).sum(dim)


def leading(values: Tensor, count: int) -> Tensor:
    """Return the columns of the `count` largest values of each row, the largest first; of equal ones the lowest column.

    (`topk` alone leaves the order of equal values to the device.)

    Parameters
    ----------
    values
        (n, m) floats without NaN; half precision and float32 are exact, others are sorted.

    Examples
    --------
    >>> leading(torch.tensor([[1.0, 3.0, 3.0, 2.0]]), 3).tolist()
    [[1, 2, 3]]
    """
    if values.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return values.sort(dim=1, descending=True, stable=True).indices[:, :count]
    bits = (values.float() + 0.0).view(torch.int32).long()  # + 0.0: the negative zero is not smaller
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # integers in the order of the floats
    columns = torch.arange(values.shape[1], device=values.device)
    return ((rising << 32) - columns).topk(count, dim=1).indices
