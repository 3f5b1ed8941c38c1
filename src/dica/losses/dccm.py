"""Losses of DCCM.

Wu, Long, Wang, Qian, Li, Lin and Zha, "Deep Comprehensive Correlation Mining for Image Clustering", ICCV 2019.

Equations: 2, 7 and 8 (`targets`), 3 (`pseudo_graph_loss`), 9 (`pseudo_label_loss`), 14
(`mutual_information_loss`), 12 and 15 (`dccm_loss`), supplement 6.6 (`select_pairs`).

Deviations and choices are keys; the default is the paper:

- `label_loss`: `ce` (paper) or `bce` (released code: binary cross-entropy averaged over the K outputs).
- `train_views`: `both` (paper: originals and transformed images) or `transformed` (released code: originals
  give the targets only).
- `pair_mode`: `paper` or `code` (the released sampler, which differs from the text; see `select_pairs`).
- The paper writes sums. Here: the mean over all n² pairs, the n samples (V = 0 counts in n) and the pairs of
  each set, as in the released code. That code also divides the similarities by their largest value; not done.
- Logarithms are cut off at 1e-12, as in the released code, so that saturated outputs stay finite.

Cosines close to 1 need full float32 products: the losses leave autocast, the caller keeps TF32 off.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dica.files import UserError
from dica.losses.common import finite_log, full_precision, l2_normalise

LABEL_LOSSES = ("ce", "bce")
TRAIN_VIEWS = ("both", "transformed")
VARIANTS = ("M1", "M2", "M3", "M4")
PAIR_VARIANTS = ("V1", "V2", "V3", "V4")
PAIR_MODES = ("paper", "code")

_EPS = 1e-12


class Targets(NamedTuple):
    """Constants that supervise a batch of n images (Eq. 2, 7, 8)."""

    s: Tensor  # (n, n) cosine similarities
    W: Tensor  # (n, n) bool, pseudo-graph
    y: Tensor  # (n,) int64, pseudo-labels
    p: Tensor  # (n,) probability of the pseudo-label
    V: Tensor  # (n,) bool, confident samples


class Pairs(NamedTuple):
    """Index pairs (deep feature, shallow feature) for L_MI beside the n self pairs (i, i).

    Shapes are fixed, so that selecting pairs never waits for the device; the masks tell which entries count.
    """

    positive_anchor: Tensor  # (n,)
    positive: Tensor  # (n,) partner of each positive anchor
    positive_keep: Tensor  # (n,) bool
    negative: Tensor  # (n, r) partners of anchor i
    negative_keep: Tensor  # (n, r) bool; a row without any W = 0 has no negative


def _check(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"dccm: {key} is {value!r}; choose one of {', '.join(allowed)}")


def _cosine(z: Tensor) -> Tensor:
    unit = l2_normalise(z)
    return unit @ unit.T


@torch.no_grad()
@full_precision
def targets(z: Tensor, *, thres1: float = 0.95, thres2: float = 0.9) -> Targets:
    """Pseudo-graph and pseudo-labels of the original images (Eq. 2, 7, 8); no gradient passes.

    Parameters
    ----------
    z
        (n, K) softmax outputs.
    thres1
        Images i and j are linked when their cosine is at least this.
    thres2
        A pseudo-label counts when its probability is at least this.
    """
    s = _cosine(z)
    p, y = z.max(dim=1)
    return Targets(s=s, W=s >= thres1, y=y, p=p, V=p >= thres2)


@full_precision
def pseudo_graph_loss(z: Tensor, W: Tensor) -> Tensor:
    """L_PG (Eq. 3): binary cross-entropy between cosine similarities and the pseudo-graph.

    Parameters
    ----------
    z
        (n, K) softmax outputs.
    W
        (n, n) pseudo-graph, 0/1 or bool, a constant.

    Returns
    -------
    Scalar, the mean over all n² entries, diagonal included.

    Examples
    --------
    Images of one cluster each that are linked with themselves alone:

    >>> pseudo_graph_loss(torch.eye(3), torch.eye(3)).abs() < 1e-6
    tensor(True)
    """
    s, W = _cosine(z), W.detach().to(z.dtype)
    return -(W * finite_log(s, _EPS) + (1 - W) * finite_log(1 - s, _EPS)).mean()


@full_precision
def pseudo_label_loss(z: Tensor, y: Tensor, V: Tensor, *, label_loss: str = "ce") -> Tensor:
    """L_PL (Eq. 9): pseudo-label loss of the confident samples.

    Parameters
    ----------
    z
        (n, K) softmax outputs.
    y
        (n,) pseudo-labels.
    V
        (n,) 0/1 or bool, confident samples; a constant.
    label_loss
        `ce` (cross-entropy) or `bce` (binary cross-entropy, mean over K).

    Returns
    -------
    Scalar, the mean over all n samples.

    Raises
    ------
    UserError
        If `label_loss` is unknown.

    Examples
    --------
    The second image is not confident: it counts in the mean, as 0.

    >>> z = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    >>> pseudo_label_loss(z, torch.tensor([0, 0]), torch.tensor([1, 0]))
    tensor(0.3466)
    """
    _check("label_loss", label_loss, LABEL_LOSSES)
    y = y.long().unsqueeze(1)
    if label_loss == "ce":
        each = -finite_log(z.gather(1, y), _EPS).squeeze(1)
    else:
        t = torch.zeros_like(z).scatter(1, y, 1.0)
        each = -(t * finite_log(z, _EPS) + (1 - t) * finite_log(1 - z, _EPS)).mean(dim=1)
    return (V.detach().to(z.dtype) * each).mean()


def _masked_mean(x: Tensor, keep: Tensor | None) -> Tensor:
    if keep is None:
        return x.mean()
    x = x.flatten(keep.dim()).mean(dim=-1) if x.dim() > keep.dim() else x
    keep = keep.to(x.dtype)
    return (x * keep).sum() / keep.sum().clamp_min(1)


@full_precision
def mutual_information_loss(
    t_pos: Tensor, t_neg: Tensor, *, keep_pos: Tensor | None = None, keep_neg: Tensor | None = None
) -> Tensor:
    """L_MI (Eq. 14): Jensen-Shannon estimate from discriminator scores.

    Parameters
    ----------
    t_pos, t_neg
        Scores of positive and negative pairs, any shape; each set is averaged on its own.
    keep_pos, keep_neg
        Masks over the leading axes of the scores; dropped pairs count neither in the sum nor
        in the mean, and a set without any pair counts as zero.

    Returns
    -------
    Scalar, at least 0.

    Examples
    --------
    A discriminator that knows nothing scores 0 and loses 2 log 2:

    >>> mutual_information_loss(torch.zeros(4), torch.zeros(4))
    tensor(1.3863)
    """
    return _masked_mean(F.softplus(-t_pos), keep_pos) + _masked_mean(F.softplus(t_neg), keep_neg)


@full_precision
def dccm_loss(
    logits: Tensor,
    logits_t: Tensor | None = None,
    t_pos: Tensor | None = None,
    t_neg: Tensor | None = None,
    *,
    thres1: float = 0.95,
    thres2: float = 0.9,
    alpha: float = 5.0,
    beta: float = 0.1,
    label_loss: str = "ce",
    train_views: str = "both",
    variant: str = "M4",
    keep_pos: Tensor | None = None,
    keep_neg: Tensor | None = None,
    given: Targets | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss (Eq. 12, 15) and its unweighted parts.

    Parameters
    ----------
    logits, logits_t
        (n, K) outputs for original and transformed images, before the softmax.
    t_pos, t_neg
        Discriminator scores, see `mutual_information_loss` (with `keep_pos`, `keep_neg`).
    thres1, thres2
        See `targets`.
    alpha, beta
        Weights of L_PL and L_MI.
    label_loss
        `ce` or `bce`, see `pseudo_label_loss`.
    train_views
        `both`, or `transformed` for no loss on the originals.
    variant
        Ablation (Table 3): M1 = L_PG on originals, M2 adds L'_PG, M3 adds L_PL + L'_PL, M4 adds L_MI.
    given
        Targets computed earlier; by default those of `logits`.

    Returns
    -------
    Scalar loss, and `L_PG`, `L_PG_t`, `L_PL`, `L_PL_t`, `L_MI` (detached; those whose inputs were given).

    Raises
    ------
    UserError
        If an option is unknown, or an input that the variant needs is missing.

    Examples
    --------
    >>> loss, parts = dccm_loss(100 * torch.eye(3), variant="M1")
    >>> sorted(parts), bool(loss.abs() < 1e-5)
    (['L_PG', 'L_PL'], True)
    """
    _check("label_loss", label_loss, LABEL_LOSSES)
    _check_views(train_views, variant, logits_t, t_pos, t_neg)
    z = logits.softmax(dim=1)
    given = targets(z, thres1=thres1, thres2=thres2) if given is None else given

    parts = {"L_PG": pseudo_graph_loss(z, given.W)}
    parts["L_PL"] = pseudo_label_loss(z, given.y, given.V, label_loss=label_loss)
    if logits_t is not None:
        z_t = logits_t.softmax(dim=1)
        parts["L_PG_t"] = pseudo_graph_loss(z_t, given.W)
        parts["L_PL_t"] = pseudo_label_loss(z_t, given.y, given.V, label_loss=label_loss)
    if t_pos is not None and t_neg is not None:
        parts["L_MI"] = mutual_information_loss(t_pos, t_neg, keep_pos=keep_pos, keep_neg=keep_neg)

    weights = _weights(alpha, beta, train_views, variant)
    loss = torch.stack([weight * parts[name] for name, weight in weights.items()]).sum()
    return loss, {name: part.detach() for name, part in parts.items()}


def _check_views(
    train_views: str, variant: str, logits_t: Tensor | None, t_pos: Tensor | None, t_neg: Tensor | None
) -> None:
    _check("train_views", train_views, TRAIN_VIEWS)
    _check("variant", variant, VARIANTS)
    if variant == "M1" and train_views == "transformed":
        raise UserError("dccm: variant M1 trains on originals only; set train_views to both")
    if variant != "M1" and logits_t is None:
        raise UserError(f"dccm: variant {variant} needs logits_t, the outputs for the transformed images")
    if variant == "M4" and (t_pos is None or t_neg is None):
        raise UserError("dccm: variant M4 needs the discriminator scores t_pos and t_neg")


def _weights(alpha: float, beta: float, train_views: str, variant: str) -> dict[str, float]:
    level, originals = VARIANTS.index(variant) + 1, train_views == "both"
    weights = {"L_PG": 1.0} if originals else {}
    if level >= 2:
        weights["L_PG_t"] = 1.0
    if level >= 3:
        weights |= ({"L_PL": alpha} if originals else {}) | {"L_PL_t": alpha}
    if level >= 4:
        weights["L_MI"] = beta
    return weights


@torch.no_grad()
def select_pairs(
    s: Tensor,
    W: Tensor,
    *,
    variant: str = "V1",
    pair_mode: str = "paper",
    num_negatives: int = 2,
    generator: torch.Generator | None = None,
) -> Pairs:
    """Positive and negative partners for L_MI (supplement 6.6, Table 6).

    Paper mode, partners of anchor i among j ≠ i:

    - V1: positive = the most similar, negatives = random with W = 0.
    - V2: positive = the most similar, negative = the least similar with W = 0.
    - V3: positive = random with W = 1 (i itself if there is none), negatives = random with W = 0.
    - V4: positives = the n most similar pairs i < j of the batch with W = 1, negatives as V1.

    Ties go to the lowest index. Code mode is the released sampler (V1 only): positive = the first W = 1 of the
    row with entry i removed, by its position in the shortened row (0 if there is none); negatives = the first
    two W = 0 (that code stops with an error where a row lacks them; here they are dropped).

    Parameters
    ----------
    s
        (n, n) cosine similarities.
    W
        (n, n) pseudo-graph, 0/1 or bool.
    variant
        V1 to V4.
    pair_mode
        `paper` or `code`.
    num_negatives
        Random negatives for each anchor, drawn with replacement.
    generator
        Source of the random picks, on the device of `s`.

    Raises
    ------
    UserError
        If an option is unknown, or code mode is asked for another variant than V1.
    """
    _check("pairs", variant, PAIR_VARIANTS)
    _check("pair_mode", pair_mode, PAIR_MODES)
    W = W > 0
    if pair_mode == "code":
        if variant != "V1":
            raise UserError(f"dccm: pair_mode code exists for variant V1 only, not {variant}")
        return _code_pairs(W)

    n = s.shape[0]
    anchors = torch.arange(n, device=s.device)
    self_pair = anchors.unsqueeze(1) == anchors
    keep = torch.ones_like(anchors, dtype=torch.bool)
    if variant == "V4":
        anchors, positive, keep = _top_pairs(s, W)
    elif variant == "V3":
        friends = W & ~self_pair
        positive = torch.where(friends.any(dim=1), _draw(friends, 1, generator).squeeze(1), anchors)
    else:
        positive = s.masked_fill(self_pair, -torch.inf).argmax(dim=1)

    strangers = ~W & ~self_pair
    if variant == "V2":
        negative = s.masked_fill(~strangers, torch.inf).argmin(dim=1, keepdim=True)
    else:
        negative = _draw(strangers, num_negatives, generator)
    return Pairs(anchors, positive, keep, negative, strangers.any(dim=1, keepdim=True).expand_as(negative))


def _draw(allowed: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """(n, count) uniform picks from each row's allowed columns; arbitrary where a row allows none."""
    noise = torch.rand((count, *allowed.shape), generator=generator, device=allowed.device)
    return noise.masked_fill(~allowed, -1.0).argmax(dim=2).T


def _top_pairs(s: Tensor, W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    n = s.shape[0]
    upper = torch.ones_like(W).triu(diagonal=1)
    ranked = s.masked_fill(~(W & upper), -torch.inf).flatten().sort(descending=True, stable=True)
    best = ranked.indices[:n]
    return best // n, best % n, ranked.values[:n] > -torch.inf


def _code_pairs(W: Tensor) -> Pairs:
    anchors = torch.arange(W.shape[0], device=W.device)
    others = W & (anchors.unsqueeze(1) != anchors)
    first = others.to(torch.uint8).argmax(dim=1)
    positive = first - (first > anchors).long()
    linked, order = W.to(torch.uint8).sort(dim=1, stable=True)
    keep = torch.ones_like(anchors, dtype=torch.bool)
    return Pairs(anchors, positive, keep, order[:, :2], linked[:, :2] == 0)
