"""Intervals and verdicts: hand-computed cases and properties."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from scipy import stats as reference

from dica.scores import metrics, stats

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
    assert judge(OURS, outside).mark == "better"
    assert judge(OURS, outside, published_n=5).mark == "better", "a count without a spread changes nothing"


def test_rounding_allows_half_a_unit():
    same = [0.5, 0.5, 0.5]
    assert judge(same, 0.5004, decimals=3).mark == "agrees"
    assert judge(same, 0.5006, decimals=3).mark == "worse"
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
    assert judge([value - 1 for value in OURS], published, **options).mark == "worse"
    assert judge([value + 1 for value in OURS], published, **options).mark == "better"


def test_verdict_is_symmetric_and_monotone():
    marks = [judge([value + shift for value in OURS], 0.71).mark for shift in np.linspace(-0.2, 0.2, 81)]
    changes = [mark for k, mark in enumerate(marks) if k == 0 or mark != marks[k - 1]]
    assert changes == ["worse", "agrees", "better"]


def test_of_an_error_the_lower_one_is_better():
    for shift, mark, sign in ((-0.3, "better", "-"), (0.3, "worse", "+")):
        result = judge([value + shift for value in OURS], 0.71, lower_is_better=True)
        assert result.mark == mark
        assert result.reason.startswith(f"difference {sign}0."), "the difference keeps its sign"
    best = judge(OURS, 0.7, statistic="best", published_n=5, lower_is_better=True)
    assert best.reason.startswith("difference +0.0000"), "the best of errors is the least"


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
    of_runs = {"agrees", "worse", "better", "not comparable", "not run", "failed", "published only", "no labels"}
    assert of_runs | {"equal", "differs"} == set(stats.VERDICTS)
    assert "95 %" in stats.RULE


def test_intervals_over_seeds() -> None:
    low, high = stats.bootstrap_mean(OURS)
    assert min(OURS) <= low < stats.mean(OURS) < high <= max(OURS)
    assert stats.bootstrap_mean(OURS[::-1]) == (low, high), "neither chance nor order changes an interval"
    assert stats.bootstrap_mean([0.5, 0.5]) == (0.5, 0.5)
    with pytest.raises(ValueError, match="two"):
        stats.bootstrap_mean([0.5])


def test_scores_of_tables_are_those_of_the_metrics() -> None:
    rng = np.random.default_rng(1)
    for classes, clusters in ((3, 3), (4, 9), (10, 10)):
        true, pred = rng.integers(0, classes, 200), rng.integers(0, clusters, 200)
        pred[:120] = true[:120]
        found = stats.scores_of_tables(metrics.contingency(true, pred)[None])
        expected = metrics.accuracy(true, pred), metrics.nmi(true, pred), metrics.ari(true, pred)
        assert [found[name][0] for name in ("acc", "nmi", "ari")] == pytest.approx(expected)
        plain = stats.scores_of_tables(metrics.contingency(true, pred)[None], supervised=True)["acc"][0]
        assert plain == pytest.approx((true == pred).mean())


def test_intervals_over_samples_cover_the_truth() -> None:
    """The population's own ACC, NMI and ARI are inside in about 95 of 100 samples of it."""
    population = np.array([[80, 5, 5], [10, 60, 30], [10, 35, 65]]) * 10_000
    truth = stats.scores_of_tables(population[None])
    rng = np.random.default_rng(0)
    hits = dict.fromkeys(truth, 0)
    for _ in range(200):
        table = rng.multinomial(600, population.ravel() / population.sum()).reshape(3, 3)
        for name, (low, high) in stats.bootstrap_table(table, resamples=300).items():
            hits[name] += low <= truth[name][0] <= high
    assert all(0.89 <= count / 200 <= 0.99 for count in hits.values()), hits
    assert stats.bootstrap_table(table) == stats.bootstrap_table(table)


def test_redrawing_counts_does_not_depend_on_the_number_of_samples() -> None:
    table = np.full((10, 10), 60) + np.eye(10, dtype=int) * 5400
    begin = time.process_time()
    low, high = stats.bootstrap_table(table)["acc"]
    assert time.process_time() - begin < 2
    error = np.sqrt(0.91 * 0.09 / 60_000)
    assert (low, high) == pytest.approx((0.91 - 1.96 * error, 0.91 + 1.96 * error), abs=error / 3)


def test_paired_tests_say_when_they_can_decide_nothing() -> None:
    for test in stats.paired_tests([0.9, 0.8, 0.7], [0.1, 0.2, 0.3]):
        assert (test.p, test.least_p) == (0.25, 0.25)
        assert "no decision" in test.remark
    better = [0.9 + 0.01 * k for k in range(7)]
    for test in stats.paired_tests(better, [0.8] * 7):
        assert test.p == test.least_p == 2 / 2**7
        assert not test.remark
    assert [test.p for test in stats.paired_tests([0.5, 0.6], [0.5, 0.6])] == [None, None]
    assert [test.p for test in stats.paired_tests([0.5], [0.6])] == [None, None]
    with pytest.raises(ValueError, match="same seeds"):
        stats.paired_tests([0.5], [])


def test_permutation_is_exact() -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        differences = rng.normal(0.3, 1, 8)
        signs = np.array(list(itertools.product((1, -1), repeat=8)))
        means = (signs * differences).mean(axis=1)
        expected = (np.abs(means) >= abs(differences.mean()) - 1e-12).mean()
        found = stats.paired_tests(differences, np.zeros(8))[0]
        assert found.p == pytest.approx(expected)


def test_fifteen_seeds_are_still_tested_exactly() -> None:
    """As many runs as IMC-SwAV has: without chance, and a clear difference reaches the least p there is."""
    test = stats.paired_tests(np.linspace(0.80, 0.94, 15), np.full(15, 0.5))[0]
    assert test.p == test.least_p == 2.0**-14


def test_mcnemar() -> None:
    right_a, right_b = np.repeat([True, True, False], [50, 10, 40]), np.repeat([True, False, True], [50, 10, 40])
    found = stats.mcnemar(right_a, right_b)
    assert found.p == pytest.approx(reference.binomtest(10, 50).pvalue)
    assert (found.difference, found.n) == (-0.3, 100)
    assert stats.mcnemar(right_a, right_a).p is None


def test_holm() -> None:
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([]) == []
