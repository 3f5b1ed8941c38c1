"""The measurements of docs/numbers.md, on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dica.scores import meaning


def test_a_choice_is_ranked_among_what_it_could_have_been() -> None:
    found = meaning.choice([5.0, 1.0, 3.0, 4.0], [0.9, 0.4, 0.6, 0.4])
    assert (found.score, found.lowest, found.highest, found.rank) == (0.4, 0.4, 0.9, 3)
    assert found.mean == pytest.approx(0.575)
    assert found.correlation > 0, "the lower the loss, the worse"
    assert meaning.choice([1, 2, 3], [0.9, 0.5, 0.1]).correlation == pytest.approx(-1)
    assert np.isnan(meaning.choice([1, 1], [0.5, 0.6]).correlation)


def test_the_lowest_inertia_is_not_the_best_start_on_the_digits() -> None:
    digits = load_digits()
    row = meaning.restarts("digits", digits.data / 16, digits.target, 30)
    assert row["tried"] == 30
    assert row["its rank"] > 1
    assert float(row["rank correlation of loss and ACC"]) < -0.2, "though it is a rule in the right direction"
    assert float(row["lowest"]) < float(row["ACC, mean"]) < float(row["highest"])


def test_nearest_others_are_others() -> None:
    points = np.array([[0.0], [0.1], [5.0], [5.3], [9.0]], np.float32)
    row = meaning.neighbours("line", points, np.array([0, 0, 1, 0, 1]))
    assert row["nearest of the same class"] == "0.400", "the first two; 5.0 and 5.3 are of two classes, as 9.0 and 5.3"
    assert (row["nearest of most others"], row["nearest of none"]) == (2, "1")


def test_the_whole_of_it_on_few_images(monkeypatch) -> None:
    """Two classes, bright and dark: K-means is right, JPEG changes nothing, subsets are as good."""
    monkeypatch.setattr(meaning, "SIZES", (20,))
    draw, classes = np.random.default_rng(0), np.arange(60) % 2
    images = (draw.integers(0, 30, (60, 8, 8, 3)) + 200 * classes[:, None, None, None]).astype(np.uint8)
    found = meaning.of_images(images, classes, 3)
    assert found["restarts"][0]["ACC, mean"] == "1.0000"
    assert [row["ARI with the first line"] for row in found["jpeg"]][1:] == ["1.00"] * 6
    assert [row["ACC, mean of 10"] for row in found["subsets"]] == ["1.0000"] * 2
    assert float(found["subsets"][0]["random labels"]) > float(found["subsets"][1]["random labels"]) > 0.5
    assert found["neighbours"][0]["nearest of the same class"] == "1.000"


def test_copies_are_left_out_by_split_and_position() -> None:
    classes = {"train": np.array([0, 0, 1, 1]), "test": np.array([1, 0]), "unlabeled": np.zeros(0, int)}
    stored = {"train_assignment": np.array([1, 1, 0, 1]), "test_assignment": np.array([0, 0])}
    row = meaning.without_copies("x", stored, classes, {("train", 3), ("test", 1)})
    assert (row["images"], row["ACC"]) == ("6", "0.6667")
    assert (row["without near copies"], row["ACC there"]) == ("4", "1.0000"), "the two that were wrong"


def test_heads_are_scored_each_by_its_own_map() -> None:
    assignment = np.array([[1, 1, 0, 0], [0, 1, 0, 0]], np.int16)
    row = meaning.of_heads("x", {"loss": np.array([2.0, 1.0]), "assignment": assignment}, np.array([0, 0, 1, 1]))
    assert (row["of the lowest loss"], row["highest"], row["its rank"]) == ("0.7500", "1.0000", 2)
