"""Intervals and verdicts: hand-computed cases and properties."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference

from dica import stats

OURS = [0.70, 0.71, 0.72, 0.71, 0.70]


def judge(ours, published, **changes):
    options = {
        "published_std": None,
        "published_n": None,
        "statistic": "mean",
        "scale": "fraction",
        "decimals": 3,
        "comparable": True,
        "reason": "",
    }
    return stats.verdict(ours, published, **{**options, **changes})


def test_mean_spread_and_interval_agree_with_scipy():
    rng = np.random.default_rng(0)
    for n in (2, 3, 15):
        values = rng.normal(size=n).tolist()
        assert stats.mean(values) == pytest.approx(np.mean(values))
        assert stats.spread(values) == pytest.approx(np.std(values, ddof=1))
        expected = reference.t.interval(0.95, n - 1, np.mean(values), reference.sem(values))
        assert stats.t_interval(values) == pytest.approx(expected)
    with pytest.raises(ValueError, match="two"):
        stats.t_interval([1.0])


def test_order_of_seeds_cannot_change_a_table():
    values = [0.1, 0.7, 0.3, 1e-9, 0.123456789]
    assert len({stats.mean(list(np.roll(values, k))) for k in range(5)}) == 1


@pytest.mark.parametrize("mu", [0.7, 0.72, 0.75])
def test_published_mean_and_spread_give_welch_s_test(mu):
    """Against scipy: with no rounding allowance the verdict is the two-sided test at 5 %."""
    result = judge(OURS, mu, published_std=0.01, published_n=15, decimals=12)
    p = reference.ttest_ind_from_stats(np.mean(OURS), np.std(OURS, ddof=1), 5, mu, 0.01, 15, equal_var=False).pvalue
    assert (result.mark == "agrees") == (p >= 0.05)


def test_without_a_published_spread_ours_stands_in_for_one_run():
    s, half = stats.spread(OURS), stats.t_quantile(4)
    reach = half * s * np.sqrt(1 + 1 / 5) + 0.0005
    inside, outside = stats.mean(OURS) - reach + 1e-6, stats.mean(OURS) - reach - 1e-6
    assert judge(OURS, inside).mark == "agrees"
    assert judge(OURS, outside).mark == "above"
    assert judge(OURS, outside, published_n=5).mark == "above", "a count without a spread changes nothing"


def test_rounding_allows_half_a_unit():
    same = [0.5, 0.5, 0.5]
    assert judge(same, 0.5004, decimals=3).mark == "agrees"
    assert judge(same, 0.5006, decimals=3).mark == "below"
    assert judge(same, 0.54, decimals=1).mark == "agrees"
    assert judge(same, 0.5, published_std=0.0, published_n=5).mark == "agrees"


@pytest.mark.parametrize("statistic", ["mean", "single", "best"])
@pytest.mark.parametrize("scale", ["fraction", "percent"])
def test_shifting_ours_flips_the_verdict(statistic, scale):
    published = 71.0 if scale == "percent" else 0.71
    options = {
        "statistic": statistic,
        "scale": scale,
        "published_n": 5,
        "decimals": 1 if scale == "percent" else 3,
    }
    assert judge(OURS, published, **options).mark == "agrees"
    assert judge([value - 1 for value in OURS], published, **options).mark == "below"
    assert judge([value + 1 for value in OURS], published, **options).mark == "above"


def test_verdict_is_symmetric_and_monotone():
    marks = [judge([value + shift for value in OURS], 0.71).mark for shift in np.linspace(-0.2, 0.2, 81)]
    changes = [mark for k, mark in enumerate(marks) if k == 0 or mark != marks[k - 1]]
    assert changes == ["below", "agrees", "above"]


@pytest.mark.parametrize(
    ("ours", "published", "changes", "words"),
    [
        ([0.7], 0.7, {}, "only one seed"),
        (OURS, None, {"reason": "no published number for this data set"}, "this data set"),
        (OURS, None, {}, "no published number"),
        (OURS, 0.7, {"comparable": False, "reason": "evaluated on test here"}, "evaluated on test"),
        (OURS, 0.7, {"statistic": "best", "published_n": 15}, "best of 5 runs here, best of 15 runs"),
        (OURS, 0.7, {"statistic": "best"}, "unstated"),
    ],
)
def test_what_cannot_be_compared_says_why(ours, published, changes, words):
    result = judge(ours, published, **changes)
    assert result.mark == "not comparable"
    assert words in result.reason


def test_no_runs():
    assert judge([], 0.7).mark == "not run"


def test_every_mark_is_listed():
    of_runs = {"agrees", "below", "above", "not comparable", "not run", "failed", "published only"}
    assert of_runs | {"equal", "differs"} == set(stats.VERDICTS)
    assert "95 %" in stats.RULE
