"""What choosing with labels would give: stored with a run and said beside a verdict, which stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import factory
from dica.files import UserError, load_arrays, read_json, write_json, write_npz
from dica.plan.artefacts import load_artefacts
from dica.scores import oracle
from dica.scores.evaluation import recompute
from dica.tables import cells as tables
from factory import select, write_run

TRUE = np.array([0, 0, 1, 1, -1])
HEADS = np.array([[1, 1, 0, 0, 1], [0, 1, 0, 1, 1], [0, 0, 1, 0, 1]])  # right, useless, three of four


def stored(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    return {"num_clusters": np.int32(2), "train_assignment": HEADS[2], "train_heads": HEADS, **arrays}


def scored(folder: Path, **arrays: np.ndarray) -> dict:
    write_npz(folder / "predictions.npz", stored(**arrays))
    write_npz(folder / "labels.npz", {"train": TRUE, "test": TRUE[:0]})
    return recompute(folder / "predictions.npz", folder / "labels.npz", "all")


def test_a_run_stores_the_mean_over_its_heads_and_the_best_by_labels(tmp_path):
    found = scored(tmp_path)
    assert found["headline"]["acc"] == 0.75
    assert found["heads"]["count"] == 3
    assert found["heads"]["mean"]["acc"] == pytest.approx((1 + 0.5 + 0.75) / 3)
    assert found["heads"]["oracle"] == {"acc": 1.0, "nmi": 1.0, "ari": 1.0}


def test_a_run_with_one_head_says_nothing_of_heads(tmp_path):
    write_npz(tmp_path / "predictions.npz", {key: value for key, value in stored().items() if "heads" not in key})
    write_npz(tmp_path / "labels.npz", {"train": TRUE})
    assert "heads" not in recompute(tmp_path / "predictions.npz", tmp_path / "labels.npz", "all")


@pytest.mark.parametrize("bad", [HEADS[0], HEADS[:, :4], HEADS / 2, HEADS + 1, HEADS - 1, HEADS[:0]])
def test_heads_that_are_not_of_the_images_are_refused(tmp_path, bad):
    with pytest.raises(UserError, match="train_heads"):
        scored(tmp_path, train_heads=bad)


def test_the_best_epoch_is_that_of_the_labelled_images_that_are_followed():
    trace = {"epoch": np.arange(3), "train_index": np.array([4, 0, 3, 2]), "train_assignment": HEADS[:, [4, 0, 3, 2]]}
    trace["train_confidence"] = np.ones((3, 4))
    labels = {"train": TRUE, "test": TRUE[:0]}
    true, assigned = oracle.followed(trace, labels)
    assert true.tolist() == [0, 1, 1]
    assert assigned.shape == (3, 3)
    assert oracle.best_epoch(trace, labels, "acc") == 1.0
    assert oracle.best_epoch({**trace, "train_assignment": np.ones((3, 4), int)}, labels, "ari") == 0.0
    assert oracle.best_epoch(trace, {"train": np.full(5, -1)}, "acc") is None


@pytest.mark.parametrize("with_heads", [False, True])
def test_what_the_same_choice_gives_here_stands_beside_the_verdict_and_does_not_move_it(tmp_path, root, with_heads):
    factory.make_project(tmp_path, root)
    (table,) = load_artefacts(tmp_path, ["dica table-2"])
    chosen = {"selection": "the best of ten heads"}
    rows = [replace(row, protocol={**row.protocol, **chosen}) if row.method == "drc" else row for row in table.rows]
    artefacts = [replace(table, rows=rows)]
    plan = factory.make_plan(artefacts)
    entries = select(plan, "drc", "cifar10-jpeg")
    folders = [write_run(tmp_path, entry, 0.7) for entry in entries]

    def cell() -> dict:
        frame = tables.cells(plan, tmp_path, "results", artefacts)
        return frame[(frame["method"] == "drc") & (frame["metric"] == "acc")].iloc[0].to_dict()

    before = cell()
    assert "best of ten heads" in before["reason"]
    assert "ours would be" not in before["reason"]
    labels = load_arrays(tmp_path / "data/labels/cifar10-jpeg.npz")["test"]
    for folder in folders:
        last = load_arrays(folder / "predictions.npz")["test_assignment"]
        trace = {"epoch": np.array([0, 12]), "test_index": np.arange(len(labels))}
        write_npz(folder / "trace.npz", {**trace, "test_assignment": np.stack([labels, last])})
        if with_heads:
            heads = {"count": 10, "mean": dict.fromkeys(oracle.KEPT, 0.5), "oracle": dict.fromkeys(oracle.KEPT, 0.9)}
            write_json(folder / "metrics.json", {**read_json(folder / "metrics.json"), "heads": heads})
    after = cell()
    assert "ours would be 1.000 at the best epoch" in after["reason"]
    assert ("0.900 with the best of 10 heads, whose mean is 0.500" in after["reason"]) is with_heads
    assert "no verdict uses that" in after["reason"]
    del before["reason"], after["reason"]
    assert str(before) == str(after)
