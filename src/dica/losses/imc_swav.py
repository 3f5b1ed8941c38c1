"""Losses of IMC-SwAV: Ntelemis et al., Information Maximization Clustering via Multi-View Self-Labelling (2021).

Implements the swapped prediction (Eq. 1), the codes (Eq. 2), the Sinkhorn-Knopp assignment (Eq. 3-4) and the
mutual information of the classifier (Eq. 6), each over all pairs of views at once.

Deviations and readings:

- Eq. 1 is taken in the order of the official code: the assignment q of one view is predicted by the code u of
  another (the paper's superscripts are swapped), generalised to multi-crop.
- `logit_regulariser` is absent from the paper and present in the code; weight 0 removes it.
- Sinkhorn works on logarithms and is therefore finite for any epsilon; the values are those of Eq. 3-4.
- The prototypes are taken as they are: `heads.Prototypes.unit_rows` renews their length outside the graph.
- Scores and assignments are constants in L_cluster, assignments in L_swap. That the classifier reads a detached
  embedding is decided by the caller, who computes the logits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dica.files import UserError
from dica.losses.common import entropy, full_precision, l2_normalise, plogp


@full_precision
def cosines(z: Tensor, prototypes: Tensor) -> Tensor:
    """Return the scores (..., n, k') whose softmax is the code u (Eq. 2).

    Parameters
    ----------
    z
        (..., n, d) projections, of any length.
    prototypes
        (k', d), unit rows.

    Examples
    --------
    >>> cosines(torch.tensor([[0.0, 2.0]]), torch.eye(2))
    tensor([[0., 1.]])
    """
    return l2_normalise(z) @ prototypes.T


@full_precision
@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Balanced assignments q (Eq. 3-4) of each batch of scores, without gradient.

    Parameters
    ----------
    scores
        (..., n, k'); leading axes are separate problems, solved together.
    epsilon
        Entropy weight > 0: smaller is sharper.
    iterations
        Alternations of "every prototype gets 1/k'" and "every sample gets 1/n".

    Returns
    -------
    Tensor
        (..., n, k') with rows that sum to 1.

    Examples
    --------
    Scores that prefer the first prototype for both images end in balance:

    >>> sinkhorn(torch.tensor([[0.1, 0.0], [0.1, 0.0]]))
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    log_q = scores / epsilon
    for _ in range(iterations):
        log_q = log_q - log_q.logsumexp(dim=-2, keepdim=True)
        log_q = log_q - log_q.logsumexp(dim=-1, keepdim=True)
    return log_q.exp()


@full_precision
def swap_loss(
    scores: Tensor,
    *,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    assign_views: int = 2,
    queued: Tensor | None = None,
) -> Tensor:
    """L_swap (Eq. 1): mean over pairs (a, b), a among the first `assign_views` and b != a, of CE(q_a, u_b).

    Parameters
    ----------
    scores
        (v, n, k') cosines of v >= 2 views of the same n images, the high-resolution views first.
    queued
        (assign_views, m, k') cosines of earlier images, which are balanced together with these: SwAV's queue.

    Examples
    --------
    >>> swap_loss(torch.zeros(2, 4, 3)).round(decimals=4)
    tensor(1.0986)
    """
    views, samples, _ = scores.shape
    if views < 2 or not 1 <= assign_views <= views:
        raise UserError(
            f"imc-swav: {views} views, {assign_views} of them assigned; it takes 2 or more, 1 or more assigned"
        )
    balanced = scores[:assign_views] if queued is None else torch.cat([queued, scores[:assign_views]], dim=1)
    q = sinkhorn(balanced, epsilon=epsilon, iterations=iterations)[:, -samples:]
    log_u = torch.log_softmax(scores / temperature, dim=-1)
    pairs = q.flatten(1) @ log_u.flatten(1).T  # (a, v): the sum over samples and prototypes of q log u
    return (pairs.diagonal().sum() - pairs.sum()) / (assign_views * (views - 1) * samples)


@full_precision
def cluster_loss(logits: Tensor, scores: Tensor, *, temperature: float = 0.1, beta: float = 4.0) -> Tensor:
    """L_cluster (Eq. 6): mean over all pairs of views, i = j included, of H(y | u) - beta H(y).

    With P the joint distribution of cluster y (view j) and prototype u (view i), the first term of Eq. 6 is
    sum P log(p_u / P). The marginals are the batch means, so only the joint needs the pairs.

    Parameters
    ----------
    logits
        (v, n, k) classifier outputs of v views.
    scores
        (v, n, k') cosines of the same views; constants.
    """
    views, samples, clusters = logits.shape
    y = torch.softmax(logits, dim=-1)
    u = torch.softmax(scores.detach() / temperature, dim=-1)
    flat_y = y.transpose(1, 2).reshape(views * clusters, samples)
    flat_u = u.transpose(0, 1).reshape(samples, -1)
    joint = flat_y @ flat_u / samples  # all (j, y, i, u) in one product
    joint_entropy = -plogp(joint).sum() / views**2
    prototype_entropy = entropy(u.mean(1)).mean()
    cluster_entropy = entropy(y.mean(1)).mean()
    return joint_entropy - prototype_entropy - beta * cluster_entropy


@full_precision
def logit_regulariser(logits: Tensor, *, weight: float = 0.01, bound: float = 5.0) -> Tensor:
    """L_reg: weight times the mean over views and samples of `sum_k relu(|logit_k| - bound)`.

    Parameters
    ----------
    logits
        (v, n, k) classifier outputs.

    Examples
    --------
    >>> logit_regulariser(torch.tensor([[[7.0, -6.0]]]))
    tensor(0.0300)
    """
    return weight * torch.relu(logits.abs() - bound).sum(-1).mean()


@full_precision
def imc_swav_loss(
    scores: Tensor,
    logits: Tensor | None,
    *,
    classifier_scores: Tensor | None = None,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    sinkhorn_iters: int = 3,
    assign_views: int = 2,
    beta: float = 4.0,
    reg_weight: float = 0.01,
    reg_bound: float = 5.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss (Eq. 1 + Eq. 6 + regulariser) and its parts.

    Parameters
    ----------
    scores
        (v, n, k') cosines of v views, the `assign_views` high-resolution ones first; see `cosines`.
    logits
        (v, m, k) classifier outputs; None where the classifier has no step: its terms are 0.
    classifier_scores
        (v, m, k') cosines of the images that the classifier saw; by default `scores`.
    temperature, epsilon, sinkhorn_iters, assign_views
        See `swap_loss`.
    beta
        See `cluster_loss`.
    reg_weight, reg_bound
        See `logit_regulariser`.

    Returns
    -------
    Scalar loss, and `L_swap`, `L_cluster`, `L_reg` (detached; L_reg with its weight).

    Examples
    --------
    Where the classifier has no step its terms are 0:

    >>> loss, parts = imc_swav_loss(torch.zeros(2, 4, 2), None)
    >>> parts
    {'L_swap': tensor(0.6931), 'L_cluster': tensor(0.), 'L_reg': tensor(0.)}
    """
    swap = swap_loss(
        scores, temperature=temperature, epsilon=epsilon, iterations=sinkhorn_iters, assign_views=assign_views
    )
    cluster = regulariser = scores.new_zeros(())
    if logits is not None:
        read = scores if classifier_scores is None else classifier_scores
        cluster = cluster_loss(logits, read, temperature=temperature, beta=beta)
        regulariser = logit_regulariser(logits, weight=reg_weight, bound=reg_bound)
    parts = {"L_swap": swap.detach(), "L_cluster": cluster.detach(), "L_reg": regulariser.detach()}
    return swap + cluster + regulariser, parts


@full_precision
def jensen_shannon(u1: Tensor, u2: Tensor) -> Tensor:
    """Jensen-Shannon divergence of every pair of rows (Fig. 2), between 0 and log 2.

    Parameters
    ----------
    u1, u2
        (n, k') and (m, k') probabilities.

    Returns
    -------
    Tensor
        (n, m).

    Examples
    --------
    >>> jensen_shannon(torch.eye(2), torch.eye(2)).abs()
    tensor([[0.0000, 0.6931],
            [0.6931, 0.0000]])
    """
    middle = (u1[:, None] + u2[None]) / 2
    return entropy(middle) - (entropy(u1)[:, None] + entropy(u2)[None]) / 2
