"""What random labels reach: against published closed forms, simulation of labels themselves, and values once seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from dica.files import UserError, write_npz
from dica.scores import chance as levels
from dica.scores import metrics
from dica.scores.chance import bootstrap, chance, equal_sizes, random_tables


@pytest.mark.parametrize(
    ("images", "classes", "acc", "spread"),
    [
        (1000, 10, 0.143, 0.005),
        (10_000, 10, 0.1135, 0.0016),
        (60_000, 10, 0.1054, 0.0006),
        (1000, 100, 0.133, 0.004),
        (10_000, 100, 0.0402, 0.0006),
    ],
)
def test_accuracy_of_random_labels(images: int, classes: int, acc: float, spread: float) -> None:
    found = chance(equal_sizes(images, classes), equal_sizes(images, classes), draws=100)["acc"]
    assert found.mean == pytest.approx(acc, abs=spread)
    assert found.sd == pytest.approx(spread, rel=0.5)
    assert found.mean > 1 / classes, "the best of all maps, not a fixed one"


@pytest.mark.parametrize(
    ("images", "classes", "clusters", "nmi"),
    [(1000, 10, 10, 0.018), (1000, 10, 100, 0.153), (1000, 100, 100, 0.512), (10_000, 100, 100, 0.123)],
)
def test_nmi_of_random_labels_is_exact(images: int, classes: int, clusters: int, nmi: float) -> None:
    sizes = equal_sizes(images, classes), equal_sizes(images, clusters)
    found = chance(*sizes, draws=20)["nmi"]
    assert found.mean == pytest.approx(nmi, abs=0.001)
    drawn = [metrics.nmi_of(table) for table in random_tables(*sizes, draws=40, seed=1)]
    assert found.mean == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(40) + 1e-4)


def test_labels_drawn_one_by_one_reach_a_little_less_than_labels_of_equal_sizes() -> None:
    """Sizes that vary by themselves: .498 and .151 instead of .512 and .153 at 1,000 images."""
    generator = np.random.default_rng(0)
    for clusters, classes, seen in ((100, 100, 0.498), (100, 10, 0.151)):
        drawn = [
            metrics.nmi(generator.integers(0, classes, 1000), generator.integers(0, clusters, 1000)) for _ in range(40)
        ]
        assert np.mean(drawn) == pytest.approx(seen, abs=0.002)
        assert np.mean(drawn) < chance(equal_sizes(1000, classes), equal_sizes(1000, clusters), draws=2)["nmi"].mean


def test_tables_are_those_of_shuffled_labels() -> None:
    """Uneven and empty classes; the margins stay, and the level is that of labels that are really shuffled."""
    classes, clusters = np.array([500, 0, 100, 30]), np.array([200, 400, 30])
    tables = random_tables(classes, clusters, draws=300)
    assert (tables.sum(axis=1) == classes).all()
    assert (tables.sum(axis=2) == clusters).all()
    true, pred, generator = (
        np.repeat(np.arange(4), classes),
        np.repeat(np.arange(3), clusters),
        np.random.default_rng(3),
    )
    shuffled = [metrics.accuracy(true, generator.permutation(pred)) for _ in range(300)]
    assert chance(classes, clusters, draws=300)["acc"].mean == pytest.approx(np.mean(shuffled), abs=0.005)


def test_expected_nmi_is_what_ami_subtracts() -> None:
    true, pred = np.repeat(np.arange(3), [40, 25, 35]), np.arange(100) % 4
    expected = chance(np.bincount(true), np.bincount(pred), draws=2)["nmi"].mean
    nmi = metrics.nmi(true, pred)
    assert (nmi - expected) / (1 - expected) == pytest.approx(adjusted_mutual_info_score(true, pred))


def test_ami_is_that_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    for clusters in (3, 40):
        true, pred = draw.integers(0, 7, 200), draw.integers(0, clusters, 200)
        pred[:60] = true[:60] % clusters
        expected = adjusted_mutual_info_score(true, pred)
        assert levels.ami_of(metrics.contingency(true, pred)) == pytest.approx(expected)
    assert levels.ami_of(np.array([[7]])) == 1
    assert levels.ami_of(np.array([[3, 4]])) == 0


def test_ari_of_random_labels_is_zero_with_the_spread_seen() -> None:
    found = chance(equal_sizes(1000, 10), equal_sizes(1000, 10))["ari"]
    assert found.mean == 0
    assert found.sd == pytest.approx(0.0014, rel=0.25)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match="10 images in classes, 9 in clusters"):
        random_tables([5, 5], [4, 5])
    with pytest.raises(UserError, match="3 images cannot make 4 clusters"):
        equal_sizes(3, 4)


def test_the_interval_of_one_run_is_that_of_a_binomial_for_accuracy() -> None:
    generator = np.random.default_rng(0)
    true = np.arange(1797) % 10
    pred = np.where(generator.random(1797) < 0.79, true, (true + 1 + generator.integers(0, 9, 1797)) % 10)
    low, high = bootstrap(true, pred, "acc")
    assert (high - low) / 2 == pytest.approx(0.019, abs=0.002)
    low, high = bootstrap(true, pred, "nmi")
    assert (low + high) / 2 == pytest.approx(metrics.nmi(true, pred), abs=0.003), "its bias is taken away"
    with pytest.raises(UserError, match="allowed: acc, nmi, ari"):
        bootstrap(true, pred, "top5")


def test_the_interval_of_a_perfect_run_does_not_pass_one() -> None:
    labels = np.arange(300) % 3
    assert bootstrap(labels, labels, "acc", draws=20) == (1.0, 1.0)
    assert bootstrap(labels, labels, "nmi", draws=20)[1] <= 1.0
    assert levels.DRAWS == 200, "as the page says"


def test_the_level_of_a_run_is_for_its_images_and_clusters(tmp_path: Path) -> None:
    path = tmp_path / "labels.npz"
    train, test = np.arange(900) % 10, np.append(np.arange(99) % 10, -1)
    write_npz(path, {"train": train.astype(np.int16), "test": test.astype(np.int16)})

    def level(evaluated_on: str, images: int, clusters: int, **more: float) -> dict:
        return levels.of_run(
            {"evaluated_on": evaluated_on, "headline": {"n": images, "num_clusters": clusters, **more}}, path
        )

    assert level("all", 999, 10) == chance(np.bincount([*train, *test[:-1]]), equal_sizes(999, 10))
    assert level("test", 99, 10)["acc"].mean > level("train", 900, 10)["acc"].mean, "fewer images, higher level"
    assert level("train", 900, 30)["nmi"].mean > level("train", 900, 10)["nmi"].mean
    assert level("train", 900, 10, error=0.1) == {}, "a supervised run has no map to choose"
    assert level("train", 800, 10) == {}, "scored on a part only"
    path.write_bytes(b"broken")
    assert level("train", 900, 10) == {}
    assert levels.of_run({"evaluated_on": "all", "headline": {"n": 1, "num_clusters": 1}}, tmp_path / "none.npz") == {}
