"""Loss of MiCE: Tsai, Li and Zhu, Mixture of Contrastive Experts for Unsupervised Image Clustering, ICLR 2021.

A gate (`gate`), experts (`expert_scores`) and their mixture (`mice_loss`). With the exact posterior the evidence lower
bound of the paper is tight, so that the loss is -log of the mixture: each image by the experts' probabilities of
finding its own embedding among those of the queue, weighed by the gate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dica.losses.common import entropy, full_precision


@full_precision
def gate(g: Tensor, centres: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return log pi (n, K), the gate's log-probabilities, from unit g (n, d) and unit centres (K, d).

    Examples
    --------
    >>> gate(torch.eye(2), torch.zeros(2, 2)).exp()
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    return (g @ centres.mT / temperature).log_softmax(dim=-1)


@full_precision
def expert_scores(f: Tensor, v: Tensor, prototypes: Tensor, queue: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return log Phi (n, K): each expert's log-probability of an image's own embedding.

    Parameters
    ----------
    f, v
        (n, K, d) unit embeddings of the trained experts and of the teacher's, which are constants.
    prototypes
        (K, d) unit expert prototypes.
    queue
        (K, J, d) the teacher's past embeddings, constants.
    temperature
        tau.
    """
    student = f + prototypes
    positive = (v.detach() * student).sum(dim=-1, keepdim=True) / temperature
    negative = torch.einsum("nkd,kjd->nkj", student, queue.detach().to(f.dtype)) / temperature
    return positive[..., 0] - torch.cat([positive, negative], dim=-1).logsumexp(dim=-1)


@full_precision
def mice_loss(log_gate: Tensor, log_expert: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Minus the mean log-likelihood of the mixture.

    Parameters
    ----------
    log_gate, log_expert
        (n, K), see `gate` and `expert_scores`.

    Returns
    -------
    Scalar loss, and `H_gate` and `H_posterior`, the mean entropies of gate and posterior (detached).

    Examples
    --------
    >>> log_gate = torch.full((3, 2), 0.5).log()
    >>> loss, parts = mice_loss(log_gate, torch.zeros(3, 2))
    >>> loss.abs() < 1e-6, parts["H_gate"], parts["H_posterior"]
    (tensor(True), tensor(0.6931), tensor(0.6931))
    """
    joint = log_gate + log_expert
    loss = -joint.logsumexp(dim=-1).mean()
    parts = {"H_gate": entropy(log_gate.detach().exp()).mean()}
    return loss, parts | {"H_posterior": entropy(joint.detach().softmax(dim=-1)).mean()}
