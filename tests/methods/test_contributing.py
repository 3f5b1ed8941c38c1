"""The method that CONTRIBUTING shows is built from its text, planned and trained."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from dica import methods, train
from dica.data.prepared import open_split
from dica.files import read_json, write_json
from dica.plan.parameters import load_profile
from dica.plan.plan import make_plan
from dica.runs.ids import IDENTITY_KEYS
from editable import edit
from tiny import make_prepared

BLOCK = re.compile(r"^```\w+\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def project(root: Path, copied_params: Path, monkeypatch) -> Path:
    """A copy of the parameters with the files that the page shows; their code is found where methods are."""
    for name, text in BLOCK.findall((root / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        path = copied_params / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(copied_params / "src/dica/methods")])
    yield copied_params
    sys.modules.pop("dica.methods.rotations", None)


def test_the_example_of_a_new_method_is_planned_and_trains(project: Path, tmp_path: Path) -> None:
    def mine(body: dict) -> None:
        body.update(artefacts=["mine"], methods="all", overrides={"rotations": {"epochs": 4, "batch_size": 16}})

    edit(project, "demo", mine)
    runs = make_plan(load_profile(project / "params/demo.yaml", project), project)["runs"]
    assert [(run["method"], run["dataset"], run["seed"]) for run in runs] == [
        ("rotations", "digits", s) for s in range(3)
    ]
    config = {key: runs[0][key] for key in IDENTITY_KEYS} | {"data_id": "tiny"}
    write_json(tmp_path / "config.json", config)
    data = make_prepared(tmp_path / "data")
    files = {"config": tmp_path / "config.json", "data": data, "out": tmp_path / "run"}
    assert train.main([*(f"--{name}={path}" for name, path in files.items()), "--device=cpu"]) == 0
    assert read_json(tmp_path / "run/config.json")["method"] == "rotations"
    losses = np.genfromtxt(tmp_path / "run/history.csv", delimiter=",", names=True)["loss"]
    assert losses[-1] < losses[0]
    found = np.load(tmp_path / "run/predictions.npz")
    assert found["train_assignment"].shape == (len(open_split(data, "train")),)
    assert found["num_clusters"] == 10
