"""Loss of FixMatch: Sohn et al., FixMatch, NeurIPS 2020.

Deviation, a key: `average` over all unlabelled images (`all`, the paper and its code) or over the confident ones alone
(`confident`, the code that CRLC ran for its Tables 3 and 8).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from dica.files import UserError
from dica.losses.common import full_precision

AVERAGES = ("all", "confident")


@full_precision
def fixmatch_loss(
    labelled: Tensor,
    classes: Tensor,
    weak: Tensor,
    strong: Tensor,
    *,
    threshold: float = 0.95,
    weight: float = 1.0,
    average: str = "all",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the labelled images, and of strong views with the confident guesses of their weak views.

    Parameters
    ----------
    labelled, classes
        (b, K) logits of the labelled images and (b,) their classes.
    weak, strong
        (n, K) logits of two views of the unlabelled images; no gradient reaches the weak ones.
    threshold
        Probability above which a guess counts.
    weight
        Of the second term.
    average
        See above.

    Returns
    -------
    Scalar loss, and `L_s`, `L_u` (detached, unweighted) and the share of `confident` images.

    Raises
    ------
    UserError
        If `average` is unknown.

    Examples
    --------
    The weak view of the first image is sure of class 0, that of the second is not; the strong views know nothing:

    >>> labelled, classes = torch.zeros(1, 2), torch.tensor([1])
    >>> weak, strong = torch.tensor([[9.0, 0.0], [0.0, 0.0]]), torch.zeros(2, 2)
    >>> loss, parts = fixmatch_loss(labelled, classes, weak, strong)
    >>> parts["L_s"], parts["L_u"], parts["confident"]
    (tensor(0.6931), tensor(0.3466), tensor(0.5000))
    """
    if average not in AVERAGES:
        raise UserError(f"fixmatch: average is {average!r}; choose one of {', '.join(AVERAGES)}")
    probability, guess = weak.detach().softmax(dim=1).max(dim=1)
    confident = (probability > threshold).to(strong.dtype)
    each = F.cross_entropy(strong, guess, reduction="none") * confident
    count = confident.sum().clamp_min(1) if average == "confident" else len(strong)
    supervised, unsupervised = F.cross_entropy(labelled, classes), each.sum() / count
    parts = {"L_s": supervised.detach(), "L_u": unsupervised.detach(), "confident": confident.mean()}
    return supervised + weight * unsupervised, parts
