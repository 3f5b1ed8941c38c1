"""The page of a user's own images where sub-folders say what is right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from dica import analyse, train
from dica.data.paths import labels_file, prepared_folder
from dica.plan.own import analysis_file, profile_path
from dica.plan.parameters import load_datasets, load_profile
from dica.report.clusters import write_clusters
from dica.scores import evaluation
from pictures import copy_params, picture_folder, planned_run, train_arguments


def test_folders_score_the_clusters_with_and_without_chance(tmp_path: Path, monkeypatch) -> None:
    root = copy_params(tmp_path / "project")
    for path in sorted(picture_folder(root / "pics").iterdir()):
        (root / "pics" / f"class {path.stem[-1]}").mkdir(exist_ok=True)
        path.rename(root / "pics" / f"class {path.stem[-1]}" / path.name)
    (root / "pics/class 0/damaged.png").write_bytes(b"no image")
    (run,) = planned_run(root, root / "pics", "kmeans", k=6, skip=True)
    monkeypatch.chdir(root)
    assert train.main(train_arguments(root, run)) == 0
    profile = load_profile(root / profile_path("pics"), root)
    folder, labels = root / run["path"], root / labels_file("own-pics")
    evaluation.evaluate_files(folder / "predictions.npz", labels, folder / "metrics.json", "all")
    models = root / run["path"].replace("/runs/", "/models/")
    trained = analyse.Trained(folder, models, root / prepared_folder("own-pics"), labels)
    out = analysis_file(profile, "outlook", run, root)
    out.parent.mkdir(parents=True)
    analyse.analyse("outlook", trained, out)
    table, scores, page = write_clusters(profile, root)
    (row,) = json.loads(scores.read_text())["runs"]
    lines = [line.split(",") for line in table.read_text().splitlines()[1:]]
    truth, found = [line[0].split("/")[0] for line in lines], np.array([int(line[1]) for line in lines])
    assert row["ami"] == pytest.approx(adjusted_mutual_info_score(truth, found))
    assert row["ami"] < row["nmi"]
    assert f"{row['ami']:.3f}" in page.read_text()
    assert "1 images that cannot be read are left out" in page.read_text()
    assert ">class 0/damaged.png</span>" in page.read_text()
    load_datasets.cache_clear()
