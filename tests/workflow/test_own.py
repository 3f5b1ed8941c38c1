"""`dica cluster` as a new user types it: a folder of pictures in, clusters out; again; new images."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from dica.scores.metrics import accuracy
from pictures import picture_folder
from project import Project

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def clustered(checkout: Project, tmp_path_factory) -> Project:
    """A project after one command."""
    project = checkout.copy(tmp_path_factory.mktemp("own") / "project")
    picture_folder(project.folder / "My pics")
    project.dica("cluster", "My pics", "--k", "4", "--method", "kmeans", "--seeds", "2", "--links")
    return project


def table(path: Path) -> dict[str, dict[str, str]]:
    with open(path, newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_one_command_ends_in_a_page_a_table_and_links(clustered: Project) -> None:
    folder = clustered.folder / "results/own/my-pics"
    rows = table(folder / "assignments.csv")
    by_class = {
        name: {row["cluster"] for file, row in rows.items() if file.endswith(f"_{name}.png")} for name in "0123"
    }
    assert all(len(found) == 1 for found in by_class.values()), "the bars are easy"
    assert len(set.union(*by_class.values())) == 4
    assert {row["seed_agreement"] for row in rows.values()} == {"1.000"}
    page = (folder / "index.html").read_text()
    assert page.count('class="cluster"') == 4
    assert "http" not in page.split("<body")[0]
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["agreement"] == [1.0]
    assert all(row["silhouette"] > 0 and "acc" not in row for row in scores["runs"])
    (link,) = (folder / "clusters").glob(f"{rows['000_0.png']['cluster']}/000_0.png")
    assert link.resolve() == clustered.folder / "My pics/000_0.png"
    assert clustered.run("git", "status", "--porcelain", "--", ":!My pics") == ""


def test_again_there_is_nothing_to_do_and_status_says_how_it_was_scored(clustered: Project) -> None:
    before = (clustered.folder / "results/own/my-pics/index.html").stat().st_mtime_ns
    assert "nothing to do" in clustered.dica("cluster", "My pics", "--k", "4", "--method", "kmeans", "--seeds", "2")
    assert (clustered.folder / "results/own/my-pics/index.html").stat().st_mtime_ns == before
    told = json.loads(clustered.dica("status", "--profile", "params/own/my-pics/profile.yaml", "--json"))
    assert [(row["state"], row["detail"]) for row in told] == [("done", "scored without labels")] * 2


def test_new_images_go_into_the_same_clusters(clustered: Project) -> None:
    clustered.dica("predict", "my-pics", "My pics", "--out", "new.csv")
    own, new = table(clustered.folder / "results/own/my-pics/assignments.csv"), table(clustered.folder / "new.csv")
    same = ("cluster", "confidence", "second_cluster", "second_confidence")
    assert {file: [row[key] for key in same] for file, row in new.items()} == {
        file: [row[key] for key in same] for file, row in own.items()
    }
    clustered.dica("export", "my-pics", "network.safetensors")
    assert json.loads((clustered.folder / "network.json").read_text())
    assert (clustered.folder / "network.safetensors").stat().st_size


def test_what_cannot_be_is_one_line(clustered: Project) -> None:
    for words, expected in [
        (("nowhere", "--k", "4"), "nowhere: no such folder or archive"),
        (("My pics", "--k", "40"), "--k: 40 clusters of 48 images"),
        (("My pics", "--k", "many"), "--k: 'many' must be a number"),
        (("src", "--k", "4"), "src: no image found"),
        (("My pics", "--k", "4", "--budget", "soon"), "--budget: 'soon' must be a time"),
    ]:
        output = clustered.dica("cluster", *words, code=2)
        assert expected in " ".join(output.split()), output
        assert "Traceback" not in output


@pytest.mark.slow
def test_the_digits_as_files_are_found_by_the_recipe_that_it_chooses(checkout: Project, tmp_path: Path) -> None:
    """Their classes stand in the names alone, of which `dica cluster` makes no use."""
    project = checkout.copy(tmp_path / "project")
    digits = load_digits()
    (project.folder / "digits").mkdir()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        Image.fromarray((image * 255 / 16).astype(np.uint8)).save(project.folder / f"digits/{number:04d}_{label}.png")
    project.dica("cluster", "digits", "--k", "10")
    rows = table(project.folder / "results/own/digits/assignments.csv")
    true = np.array([int(Path(file).stem[-1]) for file in rows])
    assert accuracy(true, np.array([int(row["cluster"]) for row in rows.values()])) >= 0.9
