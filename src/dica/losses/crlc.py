"""Losses of CRLC.

Do, Tran and Venkatesh, "Clustering by Maximizing Mutual Information Across Views", ICCV 2021.

Equations: 4-6 (`feature_contrast`, `bank_feature_contrast`), 7-9 and 13-16 (`critic_scores`,
`probability_contrast`, `bank_probability_contrast`), 8 (`marginal_entropy`, `cluster_loss`), 10 (`bank_update`),
11 (`crlc_loss`, `bank_loss`), 12 (`semi_loss`), §3.1 (`smooth`), appendix A.5 (`logit_regulariser`).

Deviations and choices are keys; the default is the paper:

- `critic`: `log_dot` (paper), or `dot`, `neg_l2`, `neg_js` (the comparison of Figure 3).
- `lambda1`: 1 (paper); the released code uses 2.
- `gamma`: 0.01 (paper and the code's scripts; the code's argument default is 0.1).
- `bound`, `reg_weight`: 25 and 0.01 come from the released code; the paper names the regulariser only.

Probabilities and logits may carry a leading axis of H sub-heads; losses are means over it. The parts of a whole loss
then hold `heads` beside the scalars: what each sub-head contributes, (H,), by which one is chosen for prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from dica.files import UserError
from dica.losses.common import entropy, finite_log, full_precision, l2_normalise

CRITICS = ("log_dot", "dot", "neg_l2", "neg_js")
BANK_KINDS = ("prob", "feature")


def smooth(p: Tensor, *, gamma: float = 0.01) -> Tensor:
    """Mix probabilities (..., K) with the uniform distribution: (1 - gamma) p + gamma / K (§3.1)."""
    return (1 - gamma) * p + gamma / p.shape[-1]


@full_precision
def critic_scores(p: Tensor, q: Tensor, *, critic: str = "log_dot") -> Tensor:
    """Score every row of `p` against every row of `q` (Eq. 9, 13-16), without smoothing.

    Parameters
    ----------
    p
        (..., m, K) probabilities.
    q
        (..., n, K) probabilities.
    critic
        `log_dot` log Σ pq, `dot` Σ pq, `neg_l2` -Σ (p - q)², `neg_js` minus the Jensen-Shannon divergence
        (this one needs memory for m·n·K values).

    Returns
    -------
    (..., m, n) scores.

    Raises
    ------
    UserError
        If `critic` is unknown.
    """
    if critic == "log_dot":
        return finite_log(p @ q.mT)
    if critic == "dot":
        return p @ q.mT
    if critic == "neg_l2":
        return 2 * (p @ q.mT) - p.square().sum(-1).unsqueeze(-1) - q.square().sum(-1).unsqueeze(-2)
    if critic == "neg_js":
        mixture = (p.unsqueeze(-2) + q.unsqueeze(-3)) / 2
        return (entropy(p).unsqueeze(-1) + entropy(q).unsqueeze(-2)) / 2 - entropy(mixture)
    raise UserError(f"crlc: critic is {critic!r}; choose one of {', '.join(CRITICS)}")


def _two_view_nll(scores: Tensor) -> Tensor:
    """InfoNCE over stacked views: row i's positive is its other view, the other 2B - 2 rows are negatives."""
    n = scores.shape[-1]
    own = torch.eye(n, dtype=torch.bool, device=scores.device)
    positive = torch.cat([scores.diagonal(n // 2, -2, -1), scores.diagonal(-(n // 2), -2, -1)], dim=-1)
    return (scores.masked_fill(own, -math.inf).logsumexp(dim=-1) - positive).mean()


@full_precision
def probability_contrast(p1: Tensor, p2: Tensor, *, critic: str = "log_dot", gamma: float = 0.01) -> Tensor:
    """L_PC (Eq. 7-9): contrast of the cluster probabilities of two views.

    Parameters
    ----------
    p1, p2
        (..., B, K) probabilities of the two views; row i of one is the positive of row i of the other.
    critic
        See `critic_scores`.
    gamma
        Smoothing of both arguments, see `smooth`.

    Examples
    --------
    Equal probabilities tell no pair from another: of three candidates each has 1/3, and the loss is log 3:

    >>> p = torch.full((2, 4), 0.25)
    >>> probability_contrast(p, p)
    tensor(1.0986)
    """
    p = smooth(torch.cat([p1, p2], dim=-2), gamma=gamma)
    return _two_view_nll(critic_scores(p, p, critic=critic))


@full_precision
def feature_contrast(z1: Tensor, z2: Tensor, *, temperature: float = 0.1) -> Tensor:
    """L_FC (Eq. 4-6): contrast of the features (B, d) of two views, normalised to unit length here.

    Examples
    --------
    >>> z = torch.ones(2, 3)
    >>> feature_contrast(z, z), feature_contrast(torch.eye(2), torch.eye(2)).round(decimals=3)
    (tensor(1.0986), tensor(0.))
    """
    z = l2_normalise(torch.cat([z1, z2], dim=-2))
    return _two_view_nll(z @ z.mT / temperature)


@full_precision
def marginal_entropy(*views: Tensor) -> Tensor:
    """H (Eq. 8): entropy of the batch-mean assignment, averaged over the views (..., B, K); not smoothed.

    Examples
    --------
    Two sure images in two clusters are in balance, in one they are not:

    >>> one, two = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
    >>> marginal_entropy(two), marginal_entropy(one).abs()
    (tensor(0.6931), tensor(0.))
    """
    return torch.stack([entropy(p.mean(dim=-2)) for p in views]).mean()


@full_precision
def logit_regulariser(*views: Tensor, bound: float = 25.0, weight: float = 0.01) -> Tensor:
    """L_reg (A.5): pull logits (..., B, K) back into [-bound, bound]; the excess is a constant coefficient.

    Examples
    --------
    >>> logit_regulariser(torch.tensor([[27.0, 0.0]]), bound=25.0, weight=0.01)
    tensor(0.5400)
    """
    logits = torch.stack(views)
    excess = (logits - logits.clamp(-bound, bound)).detach()
    return weight * (logits * excess).sum(dim=-1).mean()


def _over_heads(
    loss: Callable[..., tuple[Tensor, dict[str, Tensor]]], *tensors: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean over sub-heads of a loss of tensors (n, K) with its parts, and `heads`; see the top."""
    given = [x if x.dim() == 3 else x.unsqueeze(0) for x in tensors]
    each, parts = torch.vmap(loss)(*given)
    return each.mean(), {**{name: part.mean() for name, part in parts.items()}, "heads": each.detach()}


@full_precision
def cluster_loss(
    logits1: Tensor,
    logits2: Tensor,
    *,
    gamma: float = 0.01,
    lambda1: float = 1.0,
    critic: str = "log_dot",
    bound: float = 25.0,
    reg_weight: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_cluster (Eq. 8), the loss of the two-stage variant: L_PC - lambda1 H + L_reg.

    Parameters
    ----------
    logits1, logits2
        (H, B, K) or (B, K) logits of two views, or of anchors and their neighbours.
    gamma, critic
        See `probability_contrast`.
    lambda1
        Weight of the entropy.
    bound, reg_weight
        See `logit_regulariser`.

    Returns
    -------
    Scalar loss, and `L_PC`, `H`, `L_reg` (detached; L_reg with its weight) and `heads`.

    Examples
    --------
    >>> logits = 20 * torch.eye(2)
    >>> loss, parts = cluster_loss(logits, logits, gamma=0.0)
    >>> loss, parts["L_PC"], parts["H"]
    (tensor(-0.6931), tensor(0.), tensor(0.6931))
    """

    def of_head(logits1: Tensor, logits2: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        p1, p2 = logits1.softmax(dim=-1), logits2.softmax(dim=-1)
        contrast = probability_contrast(p1, p2, critic=critic, gamma=gamma)
        balance = marginal_entropy(p1, p2)
        regulariser = logit_regulariser(logits1, logits2, bound=bound, weight=reg_weight)
        parts = {"L_PC": contrast.detach(), "H": balance.detach(), "L_reg": regulariser.detach()}
        return contrast - lambda1 * balance + regulariser, parts

    return _over_heads(of_head, logits1, logits2)


@full_precision
def crlc_loss(
    z1: Tensor | None,
    z2: Tensor | None,
    logits1: Tensor,
    logits2: Tensor,
    *,
    wide: tuple[Tensor, Tensor] | None = None,
    gamma: float = 0.01,
    temperature: float = 0.1,
    lambda1: float = 1.0,
    lambda2: float = 10.0,
    critic: str = "log_dot",
    bound: float = 25.0,
    reg_weight: float = 0.01,
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_CRLC (Eq. 11): L_PC - lambda1 H + lambda2 L_FC + L_reg.

    Parameters
    ----------
    z1, z2
        (B, d) features of two views. None for the variant without RL-head (C-head only): L_FC is left out.
    logits1, logits2
        (H, B, K) or (B, K) logits of the two views.
    wide
        (B', d) features of two views of a second batch, with unlabelled images: L_FC is then the mean of both batches'.
    temperature
        Of L_FC.
    lambda2
        Weight of L_FC.
    gamma, lambda1, critic, bound, reg_weight
        See `cluster_loss`.

    Returns
    -------
    Scalar loss, and `L_PC`, `H`, `L_FC`, `L_reg` (detached, unweighted but for L_reg) and `heads` (of L_cluster).

    Examples
    --------
    Without a representation head there is no L_FC:

    >>> logits = 20 * torch.eye(2)
    >>> loss, parts = crlc_loss(None, None, logits, logits)
    >>> sorted(parts)
    ['H', 'L_PC', 'L_reg', 'heads']
    """
    loss, parts = cluster_loss(
        logits1,
        logits2,
        gamma=gamma,
        lambda1=lambda1,
        critic=critic,
        bound=bound,
        reg_weight=reg_weight,
    )
    if z1 is None or z2 is None:
        return loss, parts
    contrast = feature_contrast(z1, z2, temperature=temperature)
    if wide is not None:
        contrast = (contrast + feature_contrast(*wide, temperature=temperature)) / 2
    return loss + lambda2 * contrast, {**parts, "L_FC": contrast.detach()}


@full_precision
def semi_loss(
    z1: Tensor | None,
    z2: Tensor | None,
    logits1: Tensor,
    logits2: Tensor,
    logits_labelled: Tensor,
    labels: Tensor,
    *,
    lambda3: float = 1.0,
    **options: float | str,
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_CRLC-semi (Eq. 12): L_CRLC + lambda3 times the cross-entropy of the labelled images.

    Parameters
    ----------
    logits_labelled
        (H, b, K) or (b, K) logits of the labelled images.
    labels
        (b,) class indices.
    lambda3
        Weight of the cross-entropy, a mean over sub-heads and images.
    options
        The other arguments of `crlc_loss`.

    Returns
    -------
    Scalar loss, and the parts of `crlc_loss` with `L_CE` (detached), which also counts in `heads`.
    """
    loss, parts = crlc_loss(z1, z2, logits1, logits2, **options)
    given = logits_labelled if logits_labelled.dim() == 3 else logits_labelled.unsqueeze(0)
    # As rows: a CUDA kernel for logits with further axes is not deterministic.
    each = F.cross_entropy(given.flatten(0, 1), labels.long().repeat(len(given)), reduction="none")
    per_head = each.view(len(given), -1).mean(1)
    supervised, heads = per_head.mean(), parts["heads"] + lambda3 * per_head.detach()
    return loss + lambda3 * supervised, {**parts, "L_CE": supervised.detach(), "heads": heads}


def draw_negatives(index: Tensor, bank_size: int, count: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw (B, count) rows of a bank uniformly, with replacement, never the row in `index` (B,) itself."""
    if bank_size < 2:
        raise UserError(f"crlc: the memory bank has {bank_size} row, and an image needs another one; give more images")
    rows = torch.randint(bank_size - 1, (index.shape[0], count), generator=generator, device=index.device)
    return rows + (rows >= index.unsqueeze(1)).long()


@torch.no_grad()
def bank_update(bank: Tensor, index: Tensor, new: Tensor, *, alpha: float = 0.5, kind: str = "prob") -> Tensor:
    """Moving average of the memory bank (Eq. 10): row ← alpha row + (1 - alpha) new.

    Parameters
    ----------
    bank
        (..., N, K) probabilities or (N, d) features; not changed.
    index
        (B,) rows to update, without repetition.
    new
        (..., B, K) or (B, d) values of this step.
    alpha
        Share of the old row.
    kind
        `prob`, or `feature` for rows that are brought back to unit length.

    Returns
    -------
    The updated bank.

    Raises
    ------
    UserError
        If `kind` is unknown.
    """
    if kind not in BANK_KINDS:
        raise UserError(f"crlc: kind is {kind!r}; choose one of {', '.join(BANK_KINDS)}")
    rows = alpha * bank.index_select(-2, index) + (1 - alpha) * new.to(bank.dtype)
    if kind == "feature":
        rows = l2_normalise(rows)
    return bank.index_copy(-2, index, rows)


def _candidates(bank: Tensor, index: Tensor, negatives: Tensor) -> Tensor:
    """(..., B, M, K) constants: each image's own bank row first, then its negatives."""
    return bank.detach()[..., torch.cat([index.unsqueeze(1), negatives], dim=1), :]


def _bank_nll(scores: Tensor) -> Tensor:
    return (scores.logsumexp(dim=-1) - scores[..., 0]).mean()


@full_precision
def bank_probability_contrast(
    p: Tensor,
    bank: Tensor,
    index: Tensor,
    negatives: Tensor,
    *,
    critic: str = "log_dot",
    gamma: float = 0.01,
) -> Tensor:
    """L_PC (Eq. 7-9) against a memory bank; the bank is a constant.

    Parameters
    ----------
    p
        (..., B, K) probabilities of the one view.
    bank
        (..., N, K) stored probabilities.
    index
        (B,) own rows, the positives.
    negatives
        (B, M - 1) rows of the negatives.
    critic, gamma
        See `probability_contrast`.
    """
    rows = smooth(_candidates(bank, index, negatives), gamma=gamma)
    own = smooth(p, gamma=gamma).unsqueeze(-2)
    return _bank_nll(critic_scores(own, rows, critic=critic).squeeze(-2))


@full_precision
def bank_feature_contrast(
    z: Tensor, bank: Tensor, index: Tensor, negatives: Tensor, *, temperature: float = 0.1
) -> Tensor:
    """L_FC (Eq. 4-6) of features (B, d), normalised here, against a bank (N, d) of unit rows, a constant."""
    rows = _candidates(bank, index, negatives)
    return _bank_nll((rows @ l2_normalise(z).unsqueeze(-1)).squeeze(-1) / temperature)


@full_precision
def bank_loss(
    z: Tensor | None,
    logits: Tensor,
    feature_bank: Tensor | None,
    prob_bank: Tensor,
    index: Tensor,
    negatives: Tensor,
    *,
    gamma: float = 0.01,
    temperature: float = 0.1,
    lambda1: float = 1.0,
    lambda2: float = 10.0,
    critic: str = "log_dot",
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_CRLC (Eq. 11) of the MemoryBank variant: one view a step, no logit regulariser.

    Parameters
    ----------
    z
        (B, d) features; None (with `feature_bank`) leaves L_FC out.
    logits
        (H, B, K) or (B, K) logits.
    feature_bank, prob_bank
        (N, d) and (H, N, K) or (N, K), constants.
    index, negatives
        (B,) and (B, M - 1) rows, see `bank_probability_contrast`.
    gamma, temperature, lambda1, lambda2, critic
        See `crlc_loss`.

    Returns
    -------
    Scalar loss, and `L_PC`, `H`, `L_FC` (detached) and `heads` (without L_FC).
    """

    def of_head(logits: Tensor, bank: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        p = logits.softmax(dim=-1)
        contrast = bank_probability_contrast(p, bank, index, negatives, critic=critic, gamma=gamma)
        balance = marginal_entropy(p)
        return contrast - lambda1 * balance, {"L_PC": contrast.detach(), "H": balance.detach()}

    loss, parts = _over_heads(of_head, logits, prob_bank)
    if z is None or feature_bank is None:
        return loss, parts
    features = bank_feature_contrast(z, feature_bank, index, negatives, temperature=temperature)
    return loss + lambda2 * features, {**parts, "L_FC": features.detach()}
