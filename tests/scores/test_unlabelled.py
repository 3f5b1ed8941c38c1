"""Scores without labels, agreement between seeds, and the number of clusters."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from dica.files import UserError, load_arrays, read_json, write_json, write_npz
from dica.plan.status import states
from dica.runs.read import read_metrics
from dica.scores import evaluation, unlabelled


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The predictions of a run on images without labels."""
    write_json(tmp_path / "config.json", {"id": "abc"})
    assignment = np.array([0, 0, 0, 1, 1, 2], np.int16)
    confidence = np.array([1, 0.5, 0.5, 1, 1, 0.5], np.float16)
    arrays = {"train_assignment": assignment, "train_confidence": confidence, "num_clusters": np.int32(4)}
    write_npz(tmp_path / "predictions.npz", arrays)
    write_npz(tmp_path / "labels.npz", {"train": np.full(6, -1, np.int16)})
    return tmp_path


def evaluate(run: Path, split: str = "all") -> dict:
    return evaluation.evaluate_files(run / "predictions.npz", run / "labels.npz", run / "metrics.json", split)


def test_a_run_without_labels_is_scored_by_what_needs_none(run: Path) -> None:
    headline = evaluate(run)["headline"]
    shares = np.array([3, 2, 1]) / 6
    assert headline["cluster_entropy"] == pytest.approx(-(shares * np.log(shares)).sum())
    assert (headline["n"], headline["used_clusters"], headline["num_classes"]) == (6, 3, 0)
    assert (headline["largest_cluster_share"], headline["smallest_cluster_share"]) == (0.5, 0)
    assert headline["mean_confidence"] == pytest.approx(0.75)
    assert "acc" not in headline
    stored, findings = read_metrics(run / "metrics.json")
    assert stored is not None
    assert not findings


def test_a_damaged_prediction_is_still_an_error(run: Path) -> None:
    arrays = load_arrays(run / "predictions.npz")
    write_npz(run / "predictions.npz", {**arrays, "train_confidence": arrays["train_confidence"][:5]})
    with pytest.raises(UserError, match="train_confidence must be one number for each"):
        evaluate(run)
    write_npz(run / "predictions.npz", {**arrays, "train_assignment": arrays["train_assignment"] + np.int16(3)})
    with pytest.raises(UserError, match="holds cluster 5"):
        evaluate(run)


def test_labels_of_some_images_are_used(run: Path) -> None:
    write_npz(run / "labels.npz", {"train": np.array([0, 0, 0, 1, 1, -1], np.int16)})
    assert evaluate(run)["headline"]["acc"] == 1
    assert read_json(run / "metrics.json")["headline"]["n"] == 5


def test_status_says_scored_without_labels(run: Path) -> None:
    evaluate(run)
    write_json(run / "run.json", {"sources": {}})
    planned = {"id": "abc", "path": ".", "method": "kmeans", "variant": "full"}
    (found,) = states({"runs": [planned]}, run, "results")
    assert found.name == "done"
    assert found.detail.startswith("scored without labels")


def test_agreement_does_not_depend_on_the_numbers_of_clusters() -> None:
    one = np.array([0, 0, 1, 1, 2, 2])
    assert unlabelled.agreement([one, (one + 1) % 3, one]) == [1, 1, 1]
    np.testing.assert_array_equal(unlabelled.aligned(one, (one + 1) % 3, 3), one)
    other = np.array([1, 1, 2, 2, 0, 1])
    np.testing.assert_allclose(unlabelled.seed_agreement([one, other, one], 3), [1, 1, 1, 1, 1, 0.5])
    assert np.isnan(unlabelled.seed_agreement([one], 3)).all()


def partitions(k: np.ndarray, true: np.ndarray, noise: int) -> np.ndarray:
    """K-means-like partitions: classes are merged by rule below the true number and split at random above it."""
    draw, classes = np.random.default_rng(noise), int(true.max()) + 1
    rows = []
    for number in k:
        if number <= classes:
            merge = np.minimum(draw.permutation(classes), number - 1)
            rows.append(merge[true])
        else:
            parts = draw.integers(0, number - classes + 1, len(true))
            rows.append(np.where(parts == 0, true, classes + parts - 1))
    return np.array(rows)


def test_the_number_of_clusters_that_seeds_agree_on_is_recommended() -> None:
    k, true = np.arange(2, 13), np.arange(600) % 6
    found = [partitions(k, true, noise) for noise in range(3)]
    silhouette = [0.5 - 0.03 * np.abs(k - 6)] * 3
    counted = unlabelled.compare_counts(k, found, silhouette, low=3)
    assert counted.k.tolist() == list(range(3, 13))
    assert counted.agreement[3] == 1
    best = unlabelled.recommend(counted)
    assert best.k == 6
    assert best.low <= 6 <= best.high
    assert "K = 6" in best.reason
    assert "try further" not in best.reason
    assert counted.evenness[3] == pytest.approx(1)


def test_a_recommendation_at_the_end_of_the_range_says_so() -> None:
    k, true = np.arange(2, 5), np.arange(600) % 6
    found = [partitions(k, true, noise) for noise in range(3)]
    best = unlabelled.recommend(unlabelled.compare_counts(k, found, [np.array([0.1, 0.2, 0.3])] * 3))
    assert best.k in (2, 4)
    assert "try further" in best.reason
    compared = unlabelled.compare_counts(k, found, [np.ones(3)] * 3)
    first = dataclasses.replace(compared, agreement=np.array([1.0, 0.0, 0.0]))
    assert unlabelled.recommend(first).k == 2
    assert "try further" not in unlabelled.recommend(first).reason, "there is no K below 2"
    assert "try further" in unlabelled.recommend(dataclasses.replace(first, k=first.k + 1)).reason


# What `dica cluster digits --k 5:20 --epochs N` found on the digits as image files (three seeds, IMC-SwAV), for every
# number of clusters from 5 on: agreement between seeds, half its range, silhouette.
TRAINED = (  # N = 120
    [
        0.4941,
        0.5679,
        0.5484,
        0.6664,
        0.7459,
        0.8987,
        0.9408,
        0.8933,
        0.9214,
        0.8983,
        0.8953,
        0.8663,
        0.8469,
        0.8320,
        0.8101,
        0.8261,
    ],
    [
        0.1249,
        0.0878,
        0.1030,
        0.0787,
        0.0646,
        0.0234,
        0.0165,
        0.0199,
        0.0151,
        0.0096,
        0.0275,
        0.0247,
        0.0183,
        0.0319,
        0.0363,
        0.0299,
    ],
    [
        0.2530,
        0.2881,
        0.3205,
        0.3552,
        0.3981,
        0.4240,
        0.4346,
        0.4293,
        0.4447,
        0.4403,
        0.4365,
        0.4200,
        0.4087,
        0.4052,
        0.3873,
        0.3745,
    ],
)
HARDLY_TRAINED = (  # N = 16
    [
        0.6039,
        0.5820,
        0.5348,
        0.5190,
        0.5537,
        0.6003,
        0.6029,
        0.6155,
        0.6003,
        0.6194,
        0.5815,
        0.6088,
        0.5557,
        0.5521,
        0.5608,
        0.5148,
    ],
    [
        0.0728,
        0.0774,
        0.0817,
        0.0763,
        0.0446,
        0.0752,
        0.0820,
        0.0863,
        0.0631,
        0.0751,
        0.0418,
        0.0726,
        0.0622,
        0.0542,
        0.0566,
        0.0936,
    ],
    [
        0.3609,
        0.3801,
        0.3676,
        0.3503,
        0.3403,
        0.3406,
        0.3362,
        0.3295,
        0.3160,
        0.3083,
        0.2900,
        0.2921,
        0.2662,
        0.2630,
        0.2590,
        0.2369,
    ],
)


def measured(numbers: tuple[list[float], ...]) -> unlabelled.Counted:
    alike, spread, silhouette = map(np.array, numbers)
    return unlabelled.Counted(np.arange(5, 21), alike, spread, silhouette, np.ones(16))


def test_the_ten_digits_are_found_up_to_one() -> None:
    best = unlabelled.recommend(measured(TRAINED))
    assert abs(best.k - 10) <= 1
    assert best.low <= 10 <= best.high < 20


# DCCM's features of the 2,000 watched images of cifar10-jpeg-small, for 2 to 15 clusters; K-means with three seeds.
FIVE_CLASSES = (  # the 1,030 images of the first five
    [1, 0.516, 1, 0.9575, 0.6658, 0.9541, 0.915, 0.9971, 0.8543, 0.7462, 0.9141, 0.6955, 0.7566, 0.7031],
    [0, 0.363, 0, 0.0053, 0.2236, 0.0113, 0.0112, 0.0011, 0.0866, 0.1102, 0.0588, 0.0728, 0.0737, 0.0485],
    [0.2069, 0.1943, 0.1963, 0.2006, 0.202, 0.2105, 0.2149, 0.2218, 0.221, 0.2208, 0.2207, 0.2048, 0.2045, 0.2038],
)
TEN_CLASSES = (
    [0.9907, 0.5577, 0.9886, 0.9636, 0.8172, 0.8449, 0.9764, 0.8507, 0.973, 0.9669, 0.8431, 0.9662, 0.7372, 0.6785],
    [0.006, 0.2592, 0.0086, 0.0266, 0.1049, 0.0764, 0.0113, 0.1119, 0.0153, 0.0102, 0.1047, 0.0086, 0.076, 0.0364],
    [0.1673, 0.1764, 0.1825, 0.1855, 0.1961, 0.2048, 0.2045, 0.2102, 0.217, 0.2179, 0.2122, 0.2089, 0.2001, 0.1977],
)


@pytest.mark.parametrize(("classes", "numbers"), [(5, FIVE_CLASSES), (10, TEN_CLASSES)])
def test_features_that_hardly_know_the_classes_leave_the_number_open(classes: int, numbers) -> None:
    """ACC is .33 on five classes and .22 on ten: the range has the true number, and says that it is not known."""
    alike, spread, silhouette = map(np.array, numbers)
    best = unlabelled.recommend(unlabelled.Counted(np.arange(2, 16), alike, spread, silhouette, np.ones(14)))
    assert best.low <= classes <= best.high
    assert best.high - best.low >= 9
    assert f"K from {best.low} to {best.high} is as good as these runs can tell" in best.reason


def test_runs_that_disagree_recommend_nothing_firmly() -> None:
    best = unlabelled.recommend(measured(HARDLY_TRAINED))
    assert best.low <= 10 <= best.high
    assert best.high - best.low >= 10


def test_one_seed_tells_no_number() -> None:
    with pytest.raises(UserError, match="--seeds 2 or more"):
        unlabelled.compare_counts(np.array([2]), [np.zeros((1, 4), int)], [np.zeros(1)])


def test_every_score_says_what_it_cannot_say() -> None:
    assert set(unlabelled.MEANING) == {"entropy", "confidence", "silhouette", "agreement"}
    limits = ("cannot show", "proves nothing", ", not that", "But ")
    assert all(any(limit in text for limit in limits) for _, text in unlabelled.MEANING.values())


def test_evenness_is_1_for_equal_clusters() -> None:
    assert math.isclose(unlabelled._evenness(np.full(5, 0.2)), 1)
    assert unlabelled._evenness(np.array([1.0, 0, 0])) == 0
