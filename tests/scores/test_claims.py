"""What decides a claim: orders, trends, stabilities, dominances over made-up seeds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import f as f_distribution
from scipy.stats import ttest_1samp, ttest_rel

from dica.scores.claims import FAILS, HOLDS, NOT_RUN, UNDECIDED, decide, said_by, seeds_needed


def values(centre: float, sd: float = 0.01, n: int = 6, seed: int = 0) -> dict[int, float]:
    return dict(enumerate(centre + sd * np.random.default_rng(seed).standard_normal(n)))


ROWS = {name: values(centre, seed=k) for k, (name, centre) in enumerate(zip("abc", (0.9, 0.7, 0.5), strict=True))}


def test_a_dominance_is_scipys_paired_t_test_of_its_weakest_pair() -> None:
    found = decide("dominance", "", 0.01, [ROWS])
    a, b = (list(ROWS[name].values()) for name in "ab")
    assert found.shown is not None
    assert (found.towards, found.shown.what, found.shown.n) == (HOLDS, "a − b", 6)
    assert found.p == pytest.approx(ttest_rel(a, b).pvalue)
    interval = ttest_rel(a, b).confidence_interval()
    assert (found.shown.low, found.shown.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(
    ("kind", "direction", "rows", "expected"),
    [
        ("order", "", "abc", HOLDS),
        ("order", "", "acb", FAILS),
        ("dominance", "", "bac", FAILS),
        ("worst", "", "cab", HOLDS),
        ("worst", "", "bac", FAILS),
        ("trend", "falling", "abc", HOLDS),
        ("trend", "rising", "abc", FAILS),
        ("trend", "rising", "cba", HOLDS),
        ("trend", "flat", "abc", FAILS),
    ],
)
def test_each_kind_is_decided_both_ways(kind: str, direction: str, rows: str, expected: str) -> None:
    found = decide(kind, direction, 0.05 if direction == "flat" else 0.01, [{name: ROWS[name] for name in rows}])
    assert found.verdict(found.p) == expected
    assert found.verdict(0.2) == UNDECIDED  # as the correction leaves it


def test_rows_that_are_alike_are_flat_and_no_dominance_of_a_point() -> None:
    rows = {name: values(0.8, 0.002, seed=k) for k, name in enumerate("ab")}
    assert decide("trend", "flat", 0.05, [rows]).verdict(0.01) == HOLDS
    found = decide("dominance", "", 0.01, [rows])
    differences = [rows["a"][seed] - rows["b"][seed] - 0.01 for seed in rows["a"]]
    assert found.towards == FAILS
    assert found.p == pytest.approx(2 * ttest_1samp(differences, 0, alternative="less").pvalue)


def test_a_claim_over_several_data_sets_holds_only_if_it_does_on_each() -> None:
    turned = {"a": ROWS["b"], "b": ROWS["a"]}
    assert decide("dominance", "", 0.01, [{"a": ROWS["a"], "b": ROWS["b"]}, turned]).towards == FAILS


def test_a_stability_is_an_f_test_of_the_variances() -> None:
    calm, wild = values(0.8, 0.005, 8), values(0.8, 0.1, 6, seed=1)
    found = decide("stability", "", 0.01, [{"calm": calm, "wild": wild}])
    ratio = np.var(list(wild.values()), ddof=1) / np.var(list(calm.values()), ddof=1)
    assert found.towards == HOLDS
    assert found.p == pytest.approx(2 * f_distribution.sf(ratio, 5, 7))
    assert found.shown is not None
    assert found.shown.low < found.shown.effect < found.shown.high
    assert decide("stability", "", 0.01, [{"wild": wild, "calm": calm}]).towards == FAILS


def test_without_runs_nothing_is_said_and_with_one_seed_nothing_is_decided() -> None:
    none = decide("dominance", "", 0.01, [{"a": ROWS["a"], "b": {}}])
    assert (none.p, none.verdict(None)) == (None, NOT_RUN)
    one = decide("dominance", "", 0.01, [{"a": ROWS["a"], "b": {0: 0.5}}])
    assert (one.p, one.verdict(None), one.reason) == (None, UNDECIDED, "fewer than two common seeds")


def test_pairs_are_of_common_seeds() -> None:
    found = decide("dominance", "", 0.01, [{"a": {0: 0.9, 1: 0.8, 5: 0.1}, "b": {0: 0.5, 1: 0.5, 7: 0.9}}])
    assert found.shown is not None
    assert (found.shown.n, found.shown.effect) == (2, pytest.approx(0.35))


@pytest.mark.parametrize("gap", [0.0, 0.001, 0.3])
@pytest.mark.parametrize("kind", ["dominance", "order", "worst", "stability", "trend flat", "trend rising"])
def test_seeds_without_scatter_decide_nothing(kind: str, gap: float) -> None:
    """Accuracies are multiples of one image: two differences may be equal by chance."""
    group = {"a": {0: 0.5 + gap, 1: 0.5 + gap}, "b": {0: 0.5, 1: 0.5}}
    found = decide(*kind.partition(" ")[::2], 0.01, [group])
    assert found.shown is not None
    assert found.verdict(found.p) == UNDECIDED
    assert found.reason == "no scatter among the seeds: more are needed"


def test_the_seeds_that_would_decide_are_those_of_the_power_of_a_t_test() -> None:
    rng = np.random.default_rng(3)
    base = 0.8 + 0.02 * rng.standard_normal(4)
    few = {"a": dict(enumerate(base + 0.02)), "b": dict(enumerate(base + 0.02 * rng.standard_normal(4)))}
    found = decide("dominance", "", 0.01, [few])
    assert found.shown is not None
    needed = seeds_needed(found, 10)
    assert needed is not None
    distance = found.shown.reach[found.towards == FAILS]
    share = {}
    for n in (needed - 1, needed):
        draws = distance + found.shown.sd * rng.standard_normal((4000, n))
        share[n] = np.mean(ttest_1samp(draws, 0, axis=1).pvalue < 0.005)
    assert share[needed - 1] < 0.82
    assert share[needed] > 0.78
    assert seeds_needed(decide("stability", "", 0.01, [few]), 10) is None


@pytest.mark.parametrize(
    ("kind", "direction", "numbers", "expected"),
    [
        ("dominance", "", [0.9, 0.8, 0.7], True),
        ("dominance", "", [0.9, 0.8, 0.95], False),
        ("order", "", [0.9, 0.8, 0.7], True),
        ("order", "", [0.9, 0.7, 0.8], False),
        ("worst", "", [0.1, 0.2, 0.3], True),
        ("worst", "", [0.2, 0.1, 0.3], False),
        ("trend", "rising", [0.1, 0.3, 0.2, 0.4], True),
        ("trend", "falling", [0.1, 0.3, 0.2, 0.4], False),
        ("trend", "flat", [0.50, 0.52, 0.51], True),
        ("trend", "flat", [0.50, 0.57, 0.51], False),
    ],
)
def test_single_numbers_say_it_or_do_not(kind: str, direction: str, numbers: list[float], expected: bool) -> None:
    values = {str(place): number for place, number in enumerate(numbers)}
    assert said_by(kind, direction, 0.05 if direction == "flat" else 0.01, values) is expected
