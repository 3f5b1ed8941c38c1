"""Intervals, tests and stability tables from stored runs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import factory
from dica.files import UserError, load_arrays, write_npz
from dica.plan.artefacts import load_artefacts
from dica.scores import significance as inference


@pytest.fixture(scope="module")
def project(tmp_path_factory, root: Path) -> tuple[Path, dict]:
    """Two methods with three seeds on digits; K-means has the same partition thrice, under other numbers."""
    folder = factory.make_project(tmp_path_factory.mktemp("inference"), root)
    plan = factory.make_plan(load_artefacts(folder, ["dica table-1"]))
    for method, correct in (("kmeans", 0.6), ("drc", 0.8)):
        for run in factory.select(plan, method, "digits"):
            factory.write_run(folder, run, correct)
    first, *others = factory.select(plan, "kmeans", "digits")
    arrays = load_arrays(folder / first["path"] / "predictions.npz")
    for k, run in enumerate(others, start=1):
        moved = {**arrays, "train_assignment": (arrays["train_assignment"] + k) % 10}
        write_npz(folder / run["path"] / "predictions.npz", moved)
    return folder, plan


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_tables(project, tmp_path: Path) -> None:
    root, plan = project
    paths = inference.write_statistics(plan, root, "results", tmp_path / "a")
    again = inference.write_statistics(plan, root, "results", tmp_path / "b")
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    intervals, pairs, stability = map(read, paths)

    assert {row["method"]: row["ari_mean"] for row in stability}["kmeans"] == "1"
    assert 0.2 < float({row["method"]: row["ari_mean"] for row in stability}["drc"]) < 0.9
    of_samples = [row for row in intervals if row["over"] == "samples"]
    assert len(of_samples) == 2 * 3 * 3
    assert all(float(row["low"]) < float(row["value"]) < float(row["high"]) for row in of_samples)
    assert {row["n"] for row in of_samples} == {str(factory.TRAIN)}
    assert len([row for row in intervals if row["over"] == "seeds"]) == 2 * 3 * 2

    assert {(row["method_a"], row["method_b"]) for row in pairs} == {("drc", "kmeans")}
    assert {row["least_p"] for row in pairs if row["test"] == "permutation"} == {"0.25"}
    networks = [row for row in pairs if row["test"] == "mcnemar"]
    assert [row["seed"] for row in networks] == ["0", "1", "2"]
    assert all(float(row["p"]) <= float(row["p_holm"]) < 1e-6 for row in networks)


def test_variants_are_compared_with_the_full_method_only() -> None:
    full, other = ("digits", "drc", "full"), ("digits", "tcc", "full")
    small, large = ("digits", "drc", "small"), ("digits", "drc", "large")
    worth = inference._worth_comparing
    assert worth(full, other)
    assert worth(full, small)
    assert not worth(small, large)
    assert not worth(small, other)


def test_two_names_for_equal_parameters_are_one_method(project) -> None:
    root, plan = project
    runs = [{**run, "variant": "sweep", "variants": ["sweep", "full"]} for run in plan["runs"]]
    groups = inference.Partitions({**plan, "runs": runs}, root, "results").groups
    assert set(groups) == {("digits", "drc", "full"), ("digits", "kmeans", "full")}


def test_images_that_are_not_judged_do_not_count(project, tmp_path: Path) -> None:
    root, plan = project
    run = factory.select(plan, "drc", "digits")[0]
    path = root / run["path"] / "predictions.npz"
    before, judged = path.read_bytes(), np.arange(factory.TRAIN) % 3 == 0
    write_npz(path, {**load_arrays(path), "train_judged": judged})
    intervals, pairs, _ = map(read, inference.write_statistics(plan, root, "results", tmp_path))
    path.write_bytes(before)
    known = {"method": "drc", "over": "samples", "seed": str(run["seed"])}
    assert {row["n"] for row in intervals if known.items() <= row.items()} == {str(judged.sum())}
    sizes = {row["seed"]: row["n"] for row in pairs if row["test"] == "mcnemar"}
    assert sizes == {str(seed): str(judged.sum() if seed == run["seed"] else factory.TRAIN) for seed in range(3)}


def test_predictions_of_other_images_are_refused(project, tmp_path: Path) -> None:
    root, plan = project
    run = factory.select(plan, "drc", "digits")[0]
    path = root / run["path"] / "predictions.npz"
    before = path.read_bytes()
    write_npz(path, {"num_clusters": np.int64(10), "train_assignment": np.zeros(7, np.int16)})
    with pytest.raises(UserError, match="7 assignments, 900 labels"):
        inference.write_statistics(plan, root, "results", tmp_path)
    path.write_bytes(before)
