"""Means, intervals and the verdict of our runs against a published number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtr, stdtrit

LEVEL = 0.95
VERDICTS = (
    *("agrees", "below", "above", "not comparable", "not run", "failed", "published only"),
    *("equal", "differs"),  # of numbers that rest on no run
)

RULE = (
    "Verdict: the 95 % Welch interval of (mean of our seeds − published number), widened by half a unit of the "
    "last printed digit, contains 0: agrees; else below or above. Where the paper prints no spread or no number "
    "of runs, our own spread stands in for it, with one run. A best of n is compared only with a best of as many "
    "runs, as single draws. Not comparable: fewer than 2 seeds, unlike protocols, or no published number."
)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean, exactly rounded, so that the order of seeds cannot change a table."""
    return math.fsum(values) / len(values)


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation (ddof = 1) of at least two values."""
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Return the two ends of the t interval of the mean over at least two seeds."""
    if len(values) < 2:
        raise ValueError("an interval needs at least two values")
    half = t_quantile(len(values) - 1, level) * spread(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def t_quantile(df: float, level: float = LEVEL) -> float:
    """Two-sided quantile of Student's t distribution."""
    return float(stdtrit(df, 0.5 + level / 2))


@dataclass(frozen=True)
class Verdict:
    """What the comparison says (`mark`, one of `VERDICTS`), why, and the interval of ours - published."""

    mark: str
    reason: str
    low: float | None = None
    high: float | None = None


def verdict(
    ours: Sequence[float],
    published: float | None,
    published_std: float | None,
    published_n: int | None,
    statistic: str,
    scale: str,
    decimals: int,
    comparable: bool,
    reason: str,
) -> Verdict:
    """Judge our seeds against one published number by the rule in `RULE`.

    Parameters
    ----------
    ours
        One value a seed, fractions in [0, 1].
    published, published_std
        As printed: fractions or percent, see `scale`.
    published_n
        Number of runs behind the published number, if the paper says so.
    statistic
        `mean`, `best` or `single`: what the published number is.
    scale
        `fraction` or `percent`: how the paper prints; ours are brought to it.
    decimals
        Digits after the point of the printed number.
    comparable, reason
        False with the reason where the protocols differ.

    Returns
    -------
    Verdict
        `agrees`, `below`, `above`, `not comparable` or (without any value of ours) `not run`.
    """
    factor = {"fraction": 1.0, "percent": 100.0}[scale]
    values = [factor * value for value in ours]
    if not values:
        return Verdict("not run", "")
    refusal = _refusal(len(values), published, published_n, statistic, comparable, reason)
    if refusal or published is None:
        return Verdict("not comparable", refusal)
    half_unit = 0.5 * 10.0**-decimals
    if statistic == "best":
        difference, error, df = max(values) - published, *_error_of_best(values, published_std)
    else:
        difference, error, df = mean(values) - published, *_error_of_mean(values, published_std, published_n)
    half = t_quantile(df) * error + half_unit
    low, high = difference - half, difference + half
    mark = "agrees" if low <= 0 <= high else "below" if high < 0 else "above"
    digits = decimals + 1
    text = f"difference {difference:+.{digits}f}, interval {low:+.{digits}f} to {high:+.{digits}f}"
    return Verdict(mark, text, low, high)


def _refusal(
    n: int, published: float | None, published_n: int | None, statistic: str, comparable: bool, reason: str
) -> str:
    """Return why there is no verdict, or an empty text."""
    if published is None:
        return reason or "no published number"
    if not comparable:
        return reason or "the protocols differ"
    if n < 2:
        return "only one seed: no spread, so no interval"
    if statistic == "best" and n != published_n:
        return f"best of {n} runs here, best of {published_n or 'an unstated number of'} runs in the paper"
    return ""


def _error_of_mean(values: list[float], std: float | None, n: int | None) -> tuple[float, float]:
    """Welch's standard error and degrees of freedom of a difference of means."""
    own = spread(values) ** 2 / len(values)
    if std is None or n is None or n < 2:  # nothing printed to judge its scatter by: one run that scatters as ours
        return math.sqrt(own + spread(values) ** 2), len(values) - 1
    theirs = std**2 / n
    if own + theirs == 0:
        return 0.0, len(values) - 1
    df = (own + theirs) ** 2 / (own**2 / (len(values) - 1) + theirs**2 / (n - 1))
    return math.sqrt(own + theirs), df


def _error_of_best(values: list[float], std: float | None) -> tuple[float, float]:
    """Standard error of a difference of two maxima of equally many runs.

    The largest of n normal draws varies less than one draw does, so that this errs on the side of `agrees`.
    """
    own = spread(values)
    return math.hypot(own, own if std is None else std), len(values) - 1


def significance(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the one-sided p value of a paired t test between two methods over the same data sets.

    The procedure behind TCC's Table 6, found by reproducing its entries from the ACC columns of its Table 2. The
    smaller tail is taken, so that the order of the two does not matter.

    Parameters
    ----------
    ours, theirs
        One number a data set, at least two.

    Returns
    -------
    float
        In [0, 0.5]; 0 if the differences are all equal and not zero, 0.5 if they are all zero.
    """
    if len(ours) != len(theirs) or len(ours) < 2:
        raise ValueError("a paired test needs two equally long lists of at least two numbers")
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    error = spread(differences) / math.sqrt(len(differences))
    if error == 0:
        return 0.5 if differences[0] == 0 else 0.0
    return float(stdtr(len(differences) - 1, -abs(mean(differences)) / error))
