"""Means, intervals, tests between methods, and the verdict of our runs against a published number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit, xlogy

from dica.scores.metrics import matched

LEVEL = 0.95
SEED_RESAMPLES = 9999
SIGNS = 2**16  # changes of sign that a permutation test goes through: all of them up to 16 seeds
VERDICTS = (
    *("agrees", "worse", "better", "not comparable", "not run", "failed", "no labels", "published only"),
    *("equal", "differs"),  # of numbers that rest on no run
)

RULE = (
    "Verdict: the 95 % Welch interval of (mean of our seeds − published number), widened by half a unit of the "
    "last printed digit, contains 0: agrees; else ours is worse or better (of errors and times the lower one is "
    "better). Where the paper prints no spread or no number of runs, our own spread stands in for it, with one run. A "
    "best of n is compared only with a best of as many runs, as single draws. Not comparable: fewer than 2 seeds, "
    "unlike protocols, or no published number."
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
    lower_is_better: bool = False,
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
    lower_is_better
        Whether the smaller of two numbers is the better one, as for an error.

    Returns
    -------
    Verdict
        `agrees`, `worse` or `better` (ours than the published one), `not comparable` or (without any value of ours)
        `not run`.
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
        best = min(values) if lower_is_better else max(values)
        difference, error, df = best - published, *_error_of_best(values, published_std)
    else:
        difference, error, df = mean(values) - published, *_error_of_mean(values, published_std, published_n)
    half = t_quantile(df) * error + half_unit
    low, high = difference - half, difference + half
    mark = "agrees" if low <= 0 <= high else "better" if (high < 0) == lower_is_better else "worse"
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
    """Standard error of a difference of two best runs among equally many.

    The best of n normal draws varies less than one draw does, so that this errs on the side of `agrees`.
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


def bootstrap_mean(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean over at least two seeds; the same at every call.

    It can never leave the range of the values, so that with few seeds it is too short; `t_interval` is not.
    """
    from scipy.stats import bootstrap  # heavy, and only this needs it

    if len(values) < 2:
        raise ValueError("an interval needs at least two values")
    if min(values) == max(values):
        return values[0], values[0]
    rng = np.random.default_rng(0)
    options = {"n_resamples": SEED_RESAMPLES, "method": "percentile", "confidence_level": level, "rng": rng}
    low, high = bootstrap((sorted(values),), np.mean, **options).confidence_interval
    return float(low), float(high)


def bootstrap_table(
    table: np.ndarray, level: float = LEVEL, resamples: int = 1000, supervised: bool = False
) -> dict[str, tuple[float, float]]:
    """Return intervals of `acc`, `nmi` and `ari` of one partition over redrawn samples; the same at every call.

    Drawing n samples with replacement is drawing the counts of the table, so that the cost does not grow with n.
    Basic ("reverse percentile") intervals, cut at 1: a redrawn table has a little more NMI than its parent, which
    these correct.

    Parameters
    ----------
    table
        Counts (clusters, classes), as from `metrics.contingency`.
    supervised
        Clusters are classes: `acc` is the share on the diagonal.
    """
    n, rng = int(table.sum()), np.random.default_rng(0)
    found: dict[str, list[np.ndarray]] = {"acc": [], "nmi": [], "ari": []}
    chunk = max(1, min(resamples, 2_000_000 // table.size))
    for start in range(0, resamples, chunk):
        drawn = rng.multinomial(n, table.ravel() / n, size=min(chunk, resamples - start))
        for name, values in scores_of_tables(drawn.reshape(-1, *table.shape), supervised).items():
            found[name].append(values)
    point = scores_of_tables(table[None], supervised)
    intervals = {}
    for name, parts in found.items():
        ends = np.quantile(np.concatenate(parts), [0.5 + level / 2, 0.5 - level / 2])
        low, high = np.minimum(2 * point[name][0] - ends, 1.0)
        intervals[name] = (float(low), float(high))
    return intervals


def scores_of_tables(tables: np.ndarray, supervised: bool = False) -> dict[str, np.ndarray]:
    """Return `acc`, `nmi` (arithmetic) and `ari` of many contingency tables (m, clusters, classes) at once.

    The same numbers as `dica.scores.metrics` gives for one partition, where a single cluster and class do not occur.
    """
    n = tables[0].sum()
    best = np.trace(tables, axis1=1, axis2=2) if supervised else [table[matched(table)].sum() for table in tables]
    rows, columns = tables.sum(axis=2), tables.sum(axis=1)
    entropies = [-xlogy(counts / n, counts / n).reshape(len(tables), -1).sum(axis=1) for counts in (rows, columns)]
    joint = -xlogy(tables / n, tables / n).sum(axis=(1, 2))
    together, a, b = ((x * (x - 1.0)).reshape(len(tables), -1).sum(axis=1) for x in (tables, rows, columns))
    chance = a * b / (n * (n - 1.0))
    nmi = 2 * (sum(entropies) - joint) / sum(entropies)
    return {"acc": np.array(best) / n, "nmi": nmi, "ari": (together - chance) / ((a + b) / 2 - chance)}


PAIRED_RULE = (
    "Two methods on one data set are compared by seed, since seed k of both sees the images in the same order: "
    "all 2^n changes of sign of the differences (exact permutation test of the mean), and Wilcoxon's signed ranks. "
    "With n seeds no such test can give less than p = 2 / 2^n: below 6 seeds (n = 3: p ≥ 0.25) it cannot reach "
    "5 %, which is said instead of a decision. McNemar's exact test compares two trained networks image by image, "
    "each under its own best map; it says that these two networks differ, not that the methods do. "
    "Holm's correction is over all comparisons of one test and metric on one data set."
)


@dataclass(frozen=True)
class Paired:
    """A test of paired values: mean difference a - b, p, the least p that so many pairs can give, and a remark."""

    test: str
    n: int
    difference: float
    p: float | None
    least_p: float
    remark: str = ""


def paired_tests(a: Sequence[float], b: Sequence[float]) -> list[Paired]:
    """Compare two methods over the same seeds: exact permutation of signs, and Wilcoxon's signed ranks.

    Parameters
    ----------
    a, b
        One value a seed, in the same order.

    Returns
    -------
    list of Paired
        Two-sided; `p` is None where there is nothing to test (fewer than two pairs, or no difference at all).
    """
    from scipy.stats import permutation_test, wilcoxon

    if len(a) != len(b):
        raise ValueError("paired values must be of the same seeds")
    differences = [x - y for x, y in zip(a, b, strict=True)]
    n, least = len(differences), 2.0 ** (1 - len(differences))
    centre = mean(differences) if n else 0.0
    remark = f"{n} seeds cannot give p below {least:.2g}: no decision" if least > 1 - LEVEL else ""
    if n < 2 or not any(differences):
        remark = "fewer than two common seeds" if n < 2 else "no difference in any seed"
        return [Paired(test, n, centre, None, min(least, 1.0), remark) for test in ("permutation", "wilcoxon")]
    rng = np.random.default_rng(0)
    options = {"permutation_type": "samples", "n_resamples": SIGNS, "vectorized": True, "rng": rng}
    permuted = permutation_test((np.array(differences),), lambda x, axis: np.mean(x, axis=axis), **options)
    ranked = wilcoxon(differences, method="auto")
    found = (("permutation", permuted.pvalue), ("wilcoxon", ranked.pvalue))
    return [Paired(test, n, centre, min(float(p), 1.0), least, remark) for test, p in found]


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> Paired:
    """Compare two classifiers on the same samples (bool arrays: right or wrong), by the exact binomial test."""
    from scipy.stats import binomtest

    only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    difference = (only_a - only_b) / right_a.size
    if only_a + only_b == 0:
        return Paired("mcnemar", right_a.size, 0.0, None, 1.0, "right and wrong on the same samples")
    p = binomtest(only_a, only_a + only_b).pvalue
    least = 2.0 ** (1 - (only_a + only_b))
    return Paired("mcnemar", right_a.size, difference, float(p), min(least, 1.0), f"{only_a} against {only_b} samples")


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979): the chance of any false one stays below the level."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = worst
    return corrected
