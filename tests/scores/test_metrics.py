"""Metrics: reference vectors, brute force, agreement with scikit-learn, controls and error messages."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, mutual_info_score, normalized_mutual_info_score

from dica.files import UserError, load_arrays, sha256_file, write_npz
from dica.scores import evaluation, metrics

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "metrics.json").read_text())
TOLERANCE = VECTORS["tolerance"]["float64"]["value"]


def top_k(y_true, scores, num_classes: int, k: int = 5) -> dict[str, float]:
    """The definition: top-1 and top-k accuracy of scores (n, clusters), under the map that the top-1 clusters give."""
    true, order = np.asarray(y_true), np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :k]
    classes = metrics.cluster_map(true, order[:, 0], num_classes, np.shape(scores)[1])[order]
    return {"acc": np.mean(classes[:, 0] == true), "acc_k": np.mean([row.any() for row in classes == true[:, None]])}


def compute(case: dict) -> dict:
    inputs, options = case["inputs"], case["options"]
    match case["equation"]:
        case "metrics.acc":
            return {"acc": metrics.accuracy(inputs["y_true"], inputs["y_pred"])}
        case "metrics.nmi":
            return {a: metrics.nmi(inputs["y_true"], inputs["y_pred"], a) for a in ("arithmetic", "geometric")}
        case "metrics.ari":
            return {"ari": metrics.ari(inputs["y_true"], inputs["y_pred"])}
        case "metrics.top_k":
            return top_k(inputs["y_true"], inputs["scores"], options["num_classes"], options["k"])
        case "metrics.bcubed":
            return metrics.bcubed(inputs["W"], inputs["y_true"])
        case "metrics.variance":
            return metrics.variance(inputs["p"], inputs["y_true"])
    raise AssertionError(f"no metric for {case['equation']}")


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_reference_vectors(case):
    """A failure means that a number in every table would follow another convention than the one we name."""
    got = compute(case)
    assert set(got) == set(case["expected"])
    for key, expected in case["expected"].items():
        assert got[key] == pytest.approx(expected, rel=TOLERANCE["rtol"], abs=TOLERANCE["atol"])


def brute_force_accuracy(true, pred, clusters, classes):
    """The largest share of matches over every one-to-one map of clusters to classes."""
    size = max(clusters, classes)
    return max(np.mean(np.array(p)[pred] == true) for p in itertools.permutations(range(size)))


@pytest.mark.parametrize(("clusters", "classes"), [(2, 2), (3, 5), (5, 3), (6, 6), (6, 2), (1, 4)])
def test_accuracy_is_the_best_over_all_permutations(clusters, classes):
    rng = np.random.default_rng(clusters * 10 + classes)
    for n in (1, 7, 60):
        true, pred = rng.integers(0, classes, n), rng.integers(0, clusters, n)
        assert metrics.accuracy(true, pred) == pytest.approx(brute_force_accuracy(true, pred, clusters, classes))


def test_nmi_and_ari_agree_with_scikit_learn_on_large_samples():
    """120,000 samples: pair counts beyond 32 bits must not overflow."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 10, 120_000).astype(np.int16)
    pred = np.where(rng.random(true.size) < 0.7, true, rng.integers(0, 10, true.size)).astype(np.int16)
    assert metrics.nmi(true, pred) == pytest.approx(normalized_mutual_info_score(true, pred))
    assert metrics.ari(true, pred) == pytest.approx(adjusted_rand_score(true.astype(int), pred.astype(int)))
    counts = metrics.contingency(true, pred).astype(object)  # exact integers, Hubert-Arabie written out
    choose = lambda x: (x * (x - 1) / 2).sum()  # noqa: E731
    rows, columns, total = choose(counts.sum(1)), choose(counts.sum(0)), true.size * (true.size - 1) / 2
    expected = rows * columns / total
    assert metrics.ari(true, pred) == pytest.approx((choose(counts) - expected) / ((rows + columns) / 2 - expected))


def test_controls():
    rng = np.random.default_rng(1)
    true = rng.integers(0, 10, 5000)
    random = rng.integers(0, 10, 5000)
    assert abs(metrics.ari(true, random)) < 0.01
    assert metrics.nmi(true, random) < 0.02
    assert metrics.accuracy(true, random) < 0.15
    assert (metrics.accuracy(true, true), metrics.nmi(true, true), metrics.ari(true, true)) == pytest.approx((1, 1, 1))
    assert metrics.accuracy(true, rng.permutation(true)) < 0.2


def test_names_of_clusters_do_not_matter():
    rng = np.random.default_rng(2)
    true, pred = rng.integers(0, 6, 400), rng.integers(0, 8, 400)
    renamed = rng.permutation(8)[pred]
    for metric in (metrics.accuracy, metrics.nmi, metrics.ari):
        assert metric(true, renamed) == pytest.approx(metric(true, pred))


def test_sizes_of_clusters():
    assert metrics.cluster_entropy([0, 0, 0], 4) == 0
    assert metrics.cluster_entropy([0, 1, 2, 3], 4) == pytest.approx(np.log(4))
    assert metrics.cluster_shares([0, 0, 3, 3], 5).tolist() == [0.5, 0, 0, 0.5, 0]


@pytest.mark.parametrize(
    ("true", "pred", "message"),
    [
        ([0, 1], [0, 1, 1], "2 samples, y_pred 3"),
        ([0, 1], [0.0, 1.0], "integer type"),
        ([0, 1], [0.0, np.nan], "NaN"),
        ([0, 1], [0, -2], "y_pred: holds -2"),
        ([], [], "non-empty"),
        ([[0, 1]], [[0, 1]], "1-d"),
        ([True, False], [0, 1], "integer type"),
    ],
)
def test_bad_input_is_named(true, pred, message):
    for metric in (metrics.accuracy, metrics.nmi, metrics.ari):
        with pytest.raises(UserError, match=message):
            metric(true, pred)


def test_other_bad_input():
    with pytest.raises(UserError, match="allowed: arithmetic, geometric"):
        metrics.nmi([0, 1], [0, 1], "max")
    with pytest.raises(UserError, match="holds cluster 7"):
        metrics.cluster_shares([0, 7], 5)
    with pytest.raises(UserError, match="finite"):
        metrics.variance([[np.nan, 1]], [0])
    with pytest.raises(UserError, match="link in every row"):
        metrics.bcubed([[1, 0], [0, 0]], [0, 1])


@pytest.fixture
def stored(tmp_path):
    """A run with two splits whose test split is perfect and whose train split has one unlabelled sample."""
    write_npz(tmp_path / "labels.npz", {"train": np.int16([0, 0, 1, 1, -1]), "test": np.int16([2, 2])})
    write_npz(
        tmp_path / "predictions.npz",
        {
            "train_assignment": np.int16([1, 1, 0, 2, 3]),
            "train_confidence": np.float16([0.5] * 5),
            "test_assignment": np.int16([2, 2]),
            "test_confidence": np.float16([0.5] * 2),
            "num_clusters": np.int64(4),
        },
    )
    (tmp_path / "config.json").write_text('{"id": "abc"}')
    return tmp_path


@pytest.mark.parametrize(("split", "n", "acc"), [("all", 6, 5 / 6), ("train", 4, 0.75), ("test", 2, 1.0)])
def test_evaluate_files(stored, split, n, acc):
    result = evaluation.evaluate_files(
        stored / "predictions.npz", stored / "labels.npz", stored / "metrics.json", split
    )
    assert result == json.loads((stored / "metrics.json").read_text())
    assert result["id"] == "abc"
    assert result["evaluated_on"] == split
    assert result["headline"]["n"] == n
    assert result["headline"]["acc"] == pytest.approx(acc)
    assert result["headline"]["num_classes"] == 3
    assert result["headline"]["num_clusters"] == 4
    assert set(result["splits"]) == {"train", "test"}
    assert result["predictions_sha256"] == sha256_file(stored / "predictions.npz")


def rewrite(path, **changes):
    arrays = load_arrays(path)
    arrays.update(changes)
    write_npz(path, {name: value for name, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "split", "message"),
    [
        ({"train_assignment": np.int16([0])}, "all", r"train_assignment has shape \(1,\)"),
        ({"train_assignment": np.float32([0, 1, 2, np.nan, 1])}, "all", "NaN"),
        ({"train_assignment": np.int16([0, 1, 2, -4, 1])}, "train", "-4"),
        ({"num_clusters": np.int64(2)}, "all", "holds cluster 2"),
        ({"num_clusters": None}, "all", "lacks the number num_clusters"),
        ({"test_assignment": None}, "all", "no test_assignment"),
        ({"test_assignment": None}, "test", "no test_assignment"),
        ({}, "validation", "allowed: all, train, test"),
    ],
)
def test_wrong_predictions_are_refused(stored, changes, split, message):
    rewrite(stored / "predictions.npz", **changes)
    with pytest.raises(UserError, match=message):
        evaluation.evaluate_files(stored / "predictions.npz", stored / "labels.npz", stored / "m.json", split)
    assert not (stored / "m.json").exists()


def test_a_data_set_without_test_split(stored):
    rewrite(stored / "labels.npz", test=np.int16([]))
    rewrite(stored / "predictions.npz", test_assignment=None)
    result = evaluation.evaluate_files(stored / "predictions.npz", stored / "labels.npz", stored / "m.json", "all")
    assert result["headline"]["n"] == 4
    assert set(result["splits"]) == {"train"}


def test_damaged_and_missing_files(stored):
    (stored / "predictions.npz").write_bytes(b"PK broken")
    for name in ("predictions.npz", "absent.npz"):
        with pytest.raises(UserError, match=name):
            evaluation.evaluate_files(stored / name, stored / "labels.npz", stored / "m.json", "all")


def test_labels_are_all_missing(stored):
    """Such a run is scored by what needs none, and a part of it that cannot be is named."""
    rewrite(stored / "labels.npz", train=np.int16([-1] * 5), test=np.int16([-1, -1]))
    files = (stored / "predictions.npz", stored / "labels.npz", stored / "m.json", "all")
    headline = evaluation.evaluate_files(*files)["headline"]
    assert "acc" not in headline
    assert headline["used_clusters"] == 4
    rewrite(stored / "predictions.npz", test_confidence=np.float16([0.5]))
    with pytest.raises(UserError, match="test_confidence must be one number for each test_assignment"):
        evaluation.evaluate_files(*files)


def test_confusion_counts_what_is_scored() -> None:
    """Four clusters for two classes; an image without a label and one that is not judged count nowhere."""
    labels = {"train": np.array([0, 0, 0, 1, 1, 1, 1, -1, 0]), "test": np.array([1])}
    stored = {"train_assignment": np.array([3, 3, 0, 1, 1, 1, 3, 2, 2]), "test_assignment": np.array([1])}
    stored["train_judged"] = np.arange(9) < 8
    scored = evaluation.scored_partition(stored, labels, "train")
    found = metrics.confusion(*scored, 2, 4)
    assert found.counts.tolist() == [[1, 0], [0, 3], [0, 0], [2, 1]]
    assert (found.mapping.tolist(), found.order) == ([-1, 1, -1, 0], [3, 1, 0, 2])
    assert found.right.tolist() == [2, 3]
    score = metrics.evaluate(*scored, 4, 2)
    assert found.right.sum() / found.counts.sum() == pytest.approx(score["acc"])
    named = metrics.confusion(*scored, 2, 4, supervised=True)
    assert (named.mapping.tolist(), named.right.tolist()) == ([0, 1, -1, -1], [1, 3])
    both = metrics.confusion(*evaluation.scored_partition(stored, labels, "all"), 2, 4)
    assert both.counts.sum() == found.counts.sum() + 1


def test_a_partition_of_other_images_is_refused() -> None:
    labels = {"train": np.array([0, 1]), "test": np.array([1])}
    with pytest.raises(UserError, match="lacks test_assignment"):
        evaluation.scored_partition({"train_assignment": np.array([0, 1])}, labels, "all")
    with pytest.raises(UserError, match="train_assignment: 3 assignments, 2 labels"):
        evaluation.scored_partition({"train_assignment": np.array([0, 1, 1])}, labels, "train")
    with pytest.raises(UserError, match="same images"):
        metrics.confusion([0, 1], [0])


def test_a_supervised_run_names_classes(tmp_path: Path) -> None:
    true, named = np.array([0, 1, 2, 0, -1]), np.array([1, 2, 0, 0, 1])
    write_npz(tmp_path / "labels.npz", {"train": true})
    write_npz(tmp_path / "p.npz", {"num_clusters": np.int32(3), "train_assignment": named})
    plain = evaluation.recompute(tmp_path / "p.npz", tmp_path / "labels.npz", "train")["headline"]
    assert plain["acc"] == 0.75, "as clusters, 1 2 0 are 0 1 2"
    assert "error" not in plain
    found = evaluation.recompute(tmp_path / "p.npz", tmp_path / "labels.npz", "train", supervised=True)["headline"]
    assert (found["acc"], found["error"]) == (0.25, 0.75)
    assert found["ari"] == plain["ari"]


def test_top5_accuracy_is_under_the_map_of_the_first_cluster(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    true, scores = draw.integers(0, 7, 200), draw.random((200, 8))
    top5 = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    arrays = {"num_clusters": np.int32(8), "train_assignment": top5[:120, 0], "test_assignment": top5[120:, 0]}
    stored = {**arrays, "train_top5": top5[:120], "test_top5": top5[120:]}
    write_npz(tmp_path / "labels.npz", {"train": true[:120], "test": true[120:]})
    write_npz(tmp_path / "p.npz", stored)
    found = evaluation.recompute(tmp_path / "p.npz", tmp_path / "labels.npz", "all")
    assert found["headline"]["acc_top5"] == top_k(true, scores, 7)["acc_k"]
    assert found["splits"]["test"]["acc_top5"] == top_k(true[120:], scores[120:], 7)["acc_k"]
    for spoilt, message in [
        ({**arrays, "train_top5": top5[:120]}, "stored for one split"),
        ({**stored, "test_top5": top5[120:, :4]}, r"test_top5 is int64 \(80, 4\); needs integers \(80, 5\)"),
        ({**stored, "test_top5": top5[120:] + 8}, "outside 0 to 7"),
    ]:
        write_npz(tmp_path / "p.npz", spoilt)
        with pytest.raises(UserError, match=message):
            evaluation.recompute(tmp_path / "p.npz", tmp_path / "labels.npz", "all")


@pytest.mark.parametrize("images", [10, 1797, 60_000])
@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_nmi_of_a_perfect_partition_is_one_and_not_more(images: int, average: str) -> None:
    labels = np.arange(images) % 10
    assert metrics.nmi(labels, (labels + 3) % 10, average) == pytest.approx(1.0)
    assert metrics.nmi(labels, (labels + 3) % 10, average) <= 1.0


def test_of_several_best_maps_one_is_taken_by_rule() -> None:
    """Empty clusters and equal counts leave the map open, and with it all that reads more than its total."""
    assert metrics.cluster_map([0, 1, 2, 3], [3, 3, 3, 3], 4, 4).tolist() == [0, 1, 2, 3]
    assert metrics.cluster_map([2, 2, 0], [1, 1, 1], 4, 4).tolist() == [0, 2, 1, 3]
    assert metrics.cluster_map([0, 1, 0, 1], [0, 0, 1, 1]).tolist() == [0, 1]
    true, pred = [0, 1, 0, 1, 2], [0, 0, 1, 1, 3]
    order = [4, 2, 0, 3, 1]
    shuffled = [[values[place] for place in order] for values in (true, pred)]
    assert metrics.cluster_map(*shuffled).tolist() == metrics.cluster_map(true, pred).tolist()


@pytest.mark.parametrize("sparse", [0.1, 0.6, 1.0])
def test_the_mutual_information_is_that_of_scikit_learn_to_the_last_digit(sparse):
    """Stored scores were computed by it, and must be found again."""
    rng, margins = np.random.default_rng(3), np.zeros((4, 5), dtype=np.int64)
    margins[2] = [3, 1, 0, 2, 2]  # one cluster alone has images
    tables = [rng.integers(1, 300, rng.integers(1, 25, 2)) for _ in range(100)]
    tables = [table * (rng.random(table.shape) < sparse) for table in tables]
    for table in [*(table for table in tables if table.any()), margins, np.diag([5, 2, 9])]:
        assert metrics._mutual_information(table) == mutual_info_score(None, None, contingency=table)


def test_the_solver_is_scipys_also_where_its_file_is_not_found(monkeypatch) -> None:
    tables = np.random.default_rng(0).integers(0, 4, (50, 7, 9))  # small counts: many of the best maps are equally good
    loaded = metrics._solver.__wrapped__()
    monkeypatch.setattr(metrics, "EXTENSION_SUFFIXES", [])
    assert metrics._solver.__wrapped__() is linear_sum_assignment
    for table in tables:
        np.testing.assert_array_equal(loaded(table, maximize=True), linear_sum_assignment(table, maximize=True))


def test_scores_do_not_wait_for_all_of_scipy() -> None:
    code = "import sys; from dica.scores import chance; chance.chance([3, 3], [3, 3]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"scipy.optimize", "scipy.stats", "sklearn", "pandas"} & set(done.stdout.split())
