"""Losses of TCC.

Shen, Shen, Wang and Qin, "You Never Cluster Alone", NeurIPS 2021 (twin-contrast clustering).

Equations: 3 (`assignments`), 4 (`cluster_representations`), 5 (`cluster_contrast`), §3.2
(`gumbel_softmax`), 7 (`embed`), 8 (`instance_contrast`), 9 (`tcc_loss`), Algorithm 1 (`enqueue`), §5.2
(`momentum_update`).

Deviations and choices are keys; the default is the paper:

- `normalise_logits`: False (paper: plain products); True takes cosines, as the authors' earlier code does.
- `agg`, the weights of Eq. 4: `pi` (paper), `hard` (one-hot, ablation vi) or `gumbel` (the first Gumbel sample,
  as the authors' earlier code).
- `entropy`: `sample` (paper: entropy of each image's assignment) or `marginal` (of the batch mean).
- `use_queue_p`: True (paper); False contrasts with the other clusters of the batch (ablation iv).
- Number of Gumbel samples = first axis of the noise: 1 (paper) or more (ablation iii, mean over the samples).
- KL = log K - H, never negative; the signs of log K that the paper prints disagree with one another.

Everything with a `hat` comes from the momentum twin and, like both queues, is a constant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dica.files import UserError
from dica.losses.common import finite_log, full_precision, l2_normalise, plogp

AGGREGATIONS = ("pi", "hard", "gumbel")
ENTROPIES = ("sample", "marginal")


class Branch(NamedTuple):
    """Outputs and parameters of the network or of its momentum twin."""

    f: Tensor  # (B, d) features
    mu: Tensor  # (K, d) prototypes
    nn_w: Tensor  # (d, K) weight of the fully connected layer
    nn_b: Tensor  # (d,) its bias
    noise: Tensor  # (S, B, K) standard Gumbel noise


def _check(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"tcc: {key} is {value!r}; choose one of {', '.join(allowed)}")


def _nll(positive: Tensor, negatives: Tensor) -> Tensor:
    """-log of the positive's share, for scores (...) and (..., L)."""
    return torch.logaddexp(positive, negatives.logsumexp(dim=-1)) - positive


@full_precision
def assignments(f: Tensor, prototypes: Tensor, *, normalise_logits: bool = False) -> Tensor:
    """Cluster probabilities pi (Eq. 3).

    Parameters
    ----------
    f
        (B, d) features.
    prototypes
        (K, d) rows mu.
    normalise_logits
        Take cosines instead of plain products.

    Returns
    -------
    (B, K) probabilities.
    """
    if normalise_logits:
        f, prototypes = l2_normalise(f), l2_normalise(prototypes)
    return (f @ prototypes.mT).softmax(dim=-1)


@full_precision
def cluster_representations(f: Tensor, weights: Tensor, *, agg: str = "pi") -> Tensor:
    """Cluster representations r (Eq. 4): unit vectors along the weighted sums of the features.

    Parameters
    ----------
    f
        (B, d) features.
    weights
        (B, K) assignments, or Gumbel samples with `agg` = `gumbel`.
    agg
        `hard` turns each row into one-hot (the gradient reaches only `f`); `pi` and `gumbel` take it as it is.

    Returns
    -------
    (K, d); a cluster without images gives zeros.

    Raises
    ------
    UserError
        If `agg` is unknown.
    """
    _check("agg", agg, AGGREGATIONS)
    if agg == "hard":
        weights = torch.zeros_like(weights).scatter(-1, weights.argmax(dim=-1, keepdim=True), 1.0)
    return l2_normalise(weights.mT @ f)


@full_precision
def cluster_contrast(
    r: Tensor, r_hat: Tensor, queue: Tensor | None, *, temperature: float = 1.0, use_queue_p: bool = True
) -> Tensor:
    """L1 (Eq. 5): contrast of the cluster representations.

    Parameters
    ----------
    r, r_hat
        (K, d) representations; `r_hat` is a constant.
    queue
        (L, d) past `r_hat`, slot l holds cluster l mod K (so L is a multiple of K); a constant. Slots of a
        cluster are no negatives of that cluster. Not read without `use_queue_p`.
    temperature
        Tau.
    use_queue_p
        False takes the other rows of `r_hat` as negatives.
    """
    num_clusters = r.shape[0]
    given: Any = queue if use_queue_p else r_hat
    negatives = given.detach()
    slots = torch.arange(negatives.shape[0], device=r.device) % num_clusters
    own = slots == torch.arange(num_clusters, device=r.device).unsqueeze(1)
    scores = (r @ negatives.mT / temperature).masked_fill(own, -math.inf)
    return _nll((r * r_hat.detach()).sum(dim=-1) / temperature, scores).mean()


@full_precision
def gumbel_softmax(pi: Tensor, noise: Tensor, *, gumbel_temperature: float = 0.8) -> Tensor:
    """Relaxed one-hot samples c (§3.2): softmax((log pi + noise) / lambda).

    Parameters
    ----------
    pi
        (B, K) assignments.
    noise
        (B, K) or (S, B, K) standard Gumbel noise.
    gumbel_temperature
        Lambda.

    Returns
    -------
    Samples in the shape of `noise`.
    """
    return ((finite_log(pi) + noise) / gumbel_temperature).softmax(dim=-1)


def draw_gumbel(
    shape: tuple[int, ...],
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw standard Gumbel noise (§3.2) in float32."""
    return -torch.empty(shape, device=device).exponential_(generator=generator).log()


@full_precision
def embed(f: Tensor, c: Tensor, nn_w: Tensor, nn_b: Tensor) -> Tensor:
    """Unit vectors e = l2(f + NN(c)) (Eq. 7) of shape (..., B, d), from `c` (..., B, K), `nn_w` (d, K), `nn_b` (d,)."""
    return l2_normalise(f + F.linear(c, nn_w, nn_b))


@full_precision
def uniformity(pi: Tensor, *, entropy: str = "sample") -> Tensor:
    """KL to the uniform distribution (Eq. 8), log K - H(pi) >= 0: mean over images, or of the batch mean.

    Raises
    ------
    UserError
        If `entropy` is not `sample` or `marginal`.

    Examples
    --------
    Two sure images in two clusters: each is far from uniform, their mean is uniform.

    >>> pi = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> uniformity(pi), uniformity(pi, entropy="marginal")
    (tensor(0.6931), tensor(0.))
    """
    _check("entropy", entropy, ENTROPIES)
    if entropy == "marginal":
        pi = pi.mean(dim=-2)
    return math.log(pi.shape[-1]) + plogp(pi).sum(dim=-1).mean()


@full_precision
def instance_contrast(e: Tensor, e_hat: Tensor, queue: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Mean of -log p(i | x, c) (Eq. 7): sample s of image i against `e_hat` of the same s and i.

    Parameters
    ----------
    e, e_hat
        (..., B, d) unit vectors; `e_hat` is a constant.
    queue
        (J, d) past `e_hat`, a constant.
    """
    positive = (e * e_hat.detach()).sum(dim=-1) / temperature
    return _nll(positive, e @ queue.detach().mT / temperature).mean()


@full_precision
def instance_loss(
    own: Branch,
    e_hat: Tensor,
    queue: Tensor,
    *,
    temperature: float = 1.0,
    gumbel_temperature: float = 0.8,
    entropy: str = "sample",
    normalise_logits: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """L2 (Eq. 8): instance contrast plus KL, means over images and Gumbel samples.

    Parameters
    ----------
    own
        Outputs and parameters of the trained network.
    e_hat
        (S, B, d) vectors of the twin, a constant.
    queue
        (J, d) past `e_hat`, a constant.
    temperature, gumbel_temperature
        Tau and lambda.
    entropy
        See `uniformity`.
    normalise_logits
        See `assignments`.

    Returns
    -------
    Scalar loss, and `nll`, `KL` (detached).
    """
    pi = assignments(own.f, own.mu, normalise_logits=normalise_logits)
    c = gumbel_softmax(pi, own.noise, gumbel_temperature=gumbel_temperature)
    e = embed(own.f, c, own.nn_w, own.nn_b)
    nll = instance_contrast(e, e_hat, queue, temperature=temperature)
    kl = uniformity(pi, entropy=entropy)
    return nll + kl, {"nll": nll.detach(), "KL": kl.detach()}


def _representations(
    branch: Branch,
    *,
    agg: str = "pi",
    gumbel_temperature: float = 0.8,
    normalise_logits: bool = False,
) -> Tensor:
    """Cluster representations (K, d) of a branch (Eq. 3, 4), weighted as `agg` says."""
    weights = assignments(branch.f, branch.mu, normalise_logits=normalise_logits)
    if agg == "gumbel":
        weights = gumbel_softmax(weights, branch.noise[0], gumbel_temperature=gumbel_temperature)
    return cluster_representations(branch.f, weights, agg=agg)


@torch.no_grad()
def _embeddings(twin: Branch, *, gumbel_temperature: float = 0.8, normalise_logits: bool = False) -> Tensor:
    """Vectors e_hat (S, B, d) of the momentum twin (Eq. 7), without gradient."""
    pi = assignments(twin.f, twin.mu, normalise_logits=normalise_logits)
    c = gumbel_softmax(pi, twin.noise, gumbel_temperature=gumbel_temperature)
    return embed(twin.f, c, twin.nn_w, twin.nn_b)


@full_precision
def tcc_loss(
    own: Branch,
    twin: Branch,
    queue_p: Tensor | None,
    queue_q: Tensor,
    *,
    alpha: float = 0.5,
    temperature: float = 1.0,
    gumbel_temperature: float = 0.8,
    agg: str = "pi",
    use_queue_p: bool = True,
    entropy: str = "sample",
    normalise_logits: bool = False,
    plain_f: Tensor | None = None,
    plain_f_hat: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss (Eq. 9), alpha L1 + (1 - alpha) L2, with what the queues take after the step.

    Parameters
    ----------
    own, twin
        The trained network on view a, its momentum twin on view b (a constant).
    queue_p, queue_q
        (L, d) and (J, d), see `cluster_contrast` and `instance_contrast`.
    alpha
        Weight of L1.
    temperature, gumbel_temperature
        Tau and lambda.
    agg, use_queue_p, entropy, normalise_logits
        See the head of this file.
    plain_f, plain_f_hat
        (B, d) features of the images without augmentation, for L1 alone (ablation v).

    Returns
    -------
    Scalar loss, and detached `L1`, `L2`, `nll`, `KL`, `r` (K, d), `r_hat` (K, d: next rows of P),
    `enqueue_Q` (B, d: next rows of Q, the mean over the samples brought back to unit length).
    """
    gumbel: dict[str, Any] = {"gumbel_temperature": gumbel_temperature, "normalise_logits": normalise_logits}
    e_hat = _embeddings(twin, **gumbel)
    l2, parts = instance_loss(own, e_hat, queue_q, temperature=temperature, entropy=entropy, **gumbel)

    r = _representations(own if plain_f is None else own._replace(f=plain_f), agg=agg, **gumbel)
    with torch.no_grad():
        twin = twin if plain_f_hat is None else twin._replace(f=plain_f_hat)
        r_hat = _representations(twin, agg=agg, **gumbel)
    l1 = cluster_contrast(r, r_hat, queue_p, temperature=temperature, use_queue_p=use_queue_p)

    parts |= {"L1": l1.detach(), "L2": l2.detach(), "r": r.detach(), "r_hat": r_hat}
    parts["enqueue_Q"] = l2_normalise(e_hat.mean(dim=0))
    return alpha * l1 + (1 - alpha) * l2, parts


@torch.no_grad()
def enqueue(queue: Tensor, rows: Tensor, pointer: int | Tensor) -> tuple[Tensor, int | Tensor]:
    """Write rows into a circular queue (Algorithm 1).

    Parameters
    ----------
    queue
        (L, d); not changed.
    rows
        (B, d); of more than L rows the last L remain.
    pointer
        Slot of the first row, an int or a 0-d tensor (which stays on its device).

    Returns
    -------
    The new queue, and the next pointer in the type of `pointer`.
    """
    size, count = queue.shape[0], rows.shape[0]
    kept = rows[-size:]
    start = pointer + count - kept.shape[0]
    slots = (torch.arange(kept.shape[0], device=queue.device) + start) % size
    return queue.index_copy(0, slots, kept.to(queue.dtype)), (pointer + count) % size


@torch.no_grad()
def momentum_update(theta_hat: Sequence[Tensor], theta: Sequence[Tensor], *, momentum: float = 0.999) -> None:
    """Move the twin (§5.2), in place: theta_hat ← momentum theta_hat + (1 - momentum) theta."""
    torch._foreach_lerp_(list(theta_hat), list(theta), 1 - momentum)
