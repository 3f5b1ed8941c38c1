"""The heads of two-stage CRLC and of SCAN on features that another program has computed."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dica import methods, train
from dica.cli.apply import find_run
from dica.data.splits import DataInfo
from dica.files import UserError, load_arrays
from dica.own import apply
from dica.plan import recipes
from dica.plan.parameters import load_datasets
from dica.scores.metrics import accuracy
from pictures import copy_params, planned_run, train_arguments

COUNT = 400  # digits, whose pixels stand for features


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = copy_params(tmp_path_factory.mktemp("given") / "project")
    np.save(root / "rows.npy", load_digits().data[:COUNT].astype(np.float32))
    yield root
    load_datasets.cache_clear()


@pytest.mark.parametrize("method", recipes.HEADS)
def test_a_head_learns_from_given_features_and_sorts_new_rows(method: str, project: Path, monkeypatch) -> None:
    (run,) = planned_run(project, project / "rows.npy", method, "rows", 10, epochs=20)
    assert train.main(train_arguments(project, run)) == 0
    stored = load_arrays(project / run["path"] / "predictions.npz")
    assert accuracy(load_digits().target[:COUNT], stored["train_assignment"]) > 0.6
    assert stored["train_heads"].shape == (recipes.SUB_HEADS, COUNT)
    monkeypatch.chdir(project)
    load_datasets.cache_clear()
    applied = apply.Applied(*find_run(project, run["path"]), project)
    apply.predict(applied, project / "rows.npy", project / "new.csv")
    with open(project / "new.csv", newline="") as file:
        assert [int(row["cluster"]) for row in csv.DictReader(file)] == stored["train_assignment"].tolist()
    with pytest.raises(UserError, match="features that were given"):
        apply.export(applied, project / "model.pt2")


@pytest.mark.parametrize("half", [{"source": None}, {"backbone": None}, {"inputs": {"map": "features"}}])
def test_features_take_the_place_of_source_and_backbone(half: dict, project: Path) -> None:
    (run,) = planned_run(project, project / "rows.npy", "scan-neighbours", "rows", 10)
    whole = {"source": {"method": "simclr", "variant": "full"}, "backbone": {"name": "resnet8"}}
    params = {**{key: value for key, value in run["params"].items() if key != "inputs"}, **whole, **half}
    with pytest.raises(UserError, match="inputs: features that are given take the place of source and backbone"):
        methods.build("scan-neighbours", params, DataInfo(64, 1, {"train": COUNT}))
