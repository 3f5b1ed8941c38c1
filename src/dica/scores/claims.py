"""Tests of what a paper claims: an order, a trend, a stability, a dominance; see `RULE`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from scipy.special import fdtr, fdtrc, fdtri, nctdtr, stdtr

from dica.scores.stats import LEVEL, mean, spread, t_quantile

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "fails", "undecided", "not run"
VERDICTS = (HOLDS, FAILS, UNDECIDED, NOT_RUN)
LEAST_SEEDS = 2
POWER, MOST_SEEDS = 0.8, 200

RULE = (
    "A claim is cut into comparisons of two rows (a trend: of the gain along its rows), each paired by seed, since "
    "seed k of both sees the images in the same order, and tested by Student's t over the seeds' differences; a "
    "stability by the F test of two variances. A claim holds if all its comparisons do; it fails if for one of them "
    "the data exclude even the least difference that it speaks of (its margin: 0.01 unless it says otherwise), "
    "corrected for the number of its comparisons. Flat means that all rows differ by less than the margin (0.05). Both "
    "directions together are tested at 5 %, with Holm's correction over the claims of one paper at one rung; what is "
    "left is undecided, as is every claim with fewer than 2 seeds of a row. Effect and 95 % interval are those of the "
    "comparison that decides or is weakest; they are not corrected. Where the rows are trained for unlike numbers of "
    "epochs, by each recipe, these are told. Seeds were added in a few rounds where claims were undecided, up to a "
    "number declared before they ran: several looks make the 5 % a little optimistic."
)
MEANING = {
    "paper": "Measured on the paper's data with its budget: it speaks of the claim itself.",
    "scaled": (
        "Measured on real images with a smaller budget. A claim that fails here may hold with the paper's budget."
    ),
    "digits": (
        "Measured on 1,797 digits of 8 by 8 pixels with a small network and short runs. A claim that fails here is not "
        "refuted: it does not carry over to other data and a small budget. One that holds here is no proof for the "
        "paper's own setting either."
    ),
}

Values = Mapping[int, float]  # by seed; the larger one is the better one


@dataclass(frozen=True)
class Tested:
    """One comparison of a claim; a small `p_holds` speaks for it, a small `p_fails` against it.

    `sd` is the deviation of one seed's difference, `reach` how far the mean lies on the side of holds and of fails.
    """

    what: str
    n: int
    effect: float
    low: float
    high: float
    p_holds: float
    p_fails: float
    sd: float = 0.0
    reach: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Decision:
    """What the comparisons of a claim say together, before and (`verdict`) after the correction."""

    shown: Tested | None
    p: float | None
    towards: str
    reason: str = ""

    def verdict(self, corrected: float | None) -> str:
        """Return the verdict by a corrected p value."""
        if self.p is None:
            return NOT_RUN if self.reason == "" else UNDECIDED
        return self.towards if corrected is not None and corrected <= 1 - LEVEL else UNDECIDED


def decide(kind: str, direction: str, margin: float, groups: Sequence[Mapping[str, Values]]) -> Decision:
    """Test one claim.

    Parameters
    ----------
    kind, direction, margin
        As declared (`dica.plan.claims`).
    groups
        For each set of images the values of the rows, by name, in the order of the claim.
    """
    if any(not values for group in groups for values in group.values()):
        return Decision(None, None, UNDECIDED)
    tested: list[Tested] = []
    for group in groups:
        found = _of_group(kind, direction, margin, group)
        if found is None:
            return Decision(None, None, UNDECIDED, "fewer than two common seeds")
        tested += found
    holds, fails = max(t.p_holds for t in tested), min(1.0, len(tested) * min(t.p_fails for t in tested))
    if min(holds, fails) == 1.0:
        return Decision(tested[0], 1.0, UNDECIDED, "no scatter among the seeds: more are needed")
    if holds <= fails:
        return Decision(max(tested, key=lambda t: (t.p_holds, t.what)), min(1.0, 2 * holds), HOLDS)
    return Decision(min(tested, key=lambda t: (t.p_fails, t.what)), min(1.0, 2 * fails), FAILS)


def said_by(kind: str, direction: str, margin: float, values: Mapping[str, float]) -> bool:
    """Return whether single numbers, such as a paper's printed ones, say what a claim says; nothing is tested.

    A stability is of deviations, of which the least is the worst: kind ``worst``.
    """
    tested = _of_group(
        kind, direction, margin, {name: dict.fromkeys((0, 1), number) for name, number in values.items()}
    )
    return tested is not None and all(one.reach[0] > 0 for one in tested)


def _of_group(kind: str, direction: str, margin: float, group: Mapping[str, Values]) -> list[Tested] | None:
    """Return the comparisons on one set of images; None if one has too few seeds."""
    names = list(group)
    if kind == "trend" and direction != "flat":
        return _alone([_gain(names, group, -1 if direction == "falling" else 1, margin)])
    if kind == "stability":
        return _alone([_steadier(names[0], name, group) for name in names[1:]])
    if kind == "order":
        chosen = list(pairwise(names))
    elif kind == "trend":
        chosen = list(combinations(names, 2))
    else:
        chosen = [(name, names[0]) if kind == "worst" else (names[0], name) for name in names[1:]]
    return _alone([_difference(*pair, group, margin, direction == "flat") for pair in chosen])


def _alone(found: list[Tested | None]) -> list[Tested] | None:
    return None if None in found else [tested for tested in found if tested is not None]


def _seeds(names: Sequence[str], group: Mapping[str, Values]) -> list[int]:
    return sorted(set.intersection(*(set(group[name]) for name in names)))


def _difference(one: str, other: str, group: Mapping[str, Values], margin: float, alike: bool) -> Tested | None:
    seeds = _seeds((one, other), group)
    differences = [group[one][seed] - group[other][seed] for seed in seeds]
    return _of_mean(f"{one} − {other}", differences, margin, alike)


def _gain(names: Sequence[str], group: Mapping[str, Values], sign: int, margin: float) -> Tested | None:
    """Return the test of the gain from the first row to the last one, by the least-squares line over their ranks."""
    centre = (len(names) - 1) / 2
    norm = sum((rank - centre) ** 2 for rank in range(len(names)))
    weights = [sign * (rank - centre) * (len(names) - 1) / norm for rank in range(len(names))]
    gains = [
        math.fsum(weight * group[name][seed] for weight, name in zip(weights, names, strict=True))
        for seed in _seeds(names, group)
    ]
    return _of_mean(f"{'gain' if sign > 0 else 'loss'} from {names[0]} to {names[-1]}", gains, margin, False)


def _of_mean(what: str, values: list[float], margin: float, alike: bool) -> Tested | None:
    """Return the t test of one number a seed: above 0, or (`alike`) within the margin on both sides."""
    if len(values) < LEAST_SEEDS:
        return None
    centre, sd, n = mean(values), spread(values), len(values)
    error = sd / math.sqrt(n)
    half = t_quantile(n - 1) * error
    reach = (margin - abs(centre), abs(centre) - margin) if alike else (centre, margin - centre)
    holds, fails = (_above(distance, error, n) for distance in reach)
    fails = min(1.0, 2 * fails) if alike else fails  # beyond the margin on either side
    return Tested(what, n, centre, centre - half, centre + half, holds, fails, sd, reach)


def _above(distance: float, error: float, n: int) -> float:
    """Return the one-sided p value of a mean that lies `distance` above what it is tested against.

    Seeds without scatter decide nothing: metrics are multiples of one image, and two may agree by chance.
    """
    if error == 0:
        return 1.0
    return float(stdtr(n - 1, -distance / error))


def _steadier(one: str, other: str, group: Mapping[str, Values]) -> Tested | None:
    """Return the F test that `one` varies less; its effect is the binary logarithm of the ratio of the deviations."""
    values = [list(group[name].values()) for name in (one, other)]
    counts = [len(found) for found in values]
    if min(counts) < LEAST_SEEDS:
        return None
    mine, theirs = (spread(found) for found in values)
    df = counts[1] - 1, counts[0] - 1
    floor = 1e-9  # equal runs: any deviation is larger
    ratio = (max(theirs, floor) / max(mine, floor)) ** 2
    ends = [ratio / float(fdtri(*df, 0.5 + LEVEL / 2)), ratio / float(fdtri(*df, 0.5 - LEVEL / 2))]
    low, high = (0.5 * math.log2(end) for end in ends)
    what = f"log2 of the deviation of {other} by that of {one}"
    known = min(mine, theirs) > floor  # as in `_above`
    p = (float(fdtrc(*df, ratio)), float(fdtr(*df, ratio))) if known else (1.0, 1.0)
    return Tested(what, min(counts), 0.5 * math.log2(ratio), low, high, *p)


def seeds_needed(decision: Decision, claims: int) -> int | None:
    """Return how many seeds would decide a claim, if effect and scatter stayed: in four of five cases, corrected.

    Parameters
    ----------
    claims
        Over how many claims is corrected.

    Returns
    -------
    int or None
        None where no number up to `MOST_SEEDS` would, or that is not a matter of means.
    """
    shown = decision.shown
    if shown is None or not shown.sd:
        return None
    distance = shown.reach[decision.towards == FAILS]
    if distance <= 0:
        return None
    level = 1 - (1 - LEVEL) / max(claims, 1)
    for n in range(LEAST_SEEDS, MOST_SEEDS + 1):
        shift = distance / shown.sd * math.sqrt(n)
        if 1 - float(nctdtr(n - 1, shift, t_quantile(n - 1, level))) >= POWER:
            return n
    return None
