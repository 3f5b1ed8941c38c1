"""Near copies: planted ones are found, within and across splits, and nothing else."""

from __future__ import annotations

import json
import sys
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dica.cli import __main__ as cli
from dica.data.duplicates import close_pairs, near_duplicates, thumbnails, write_sheet
from dica.files import UserError, write_json, write_npz


def write_prepared(folder: Path, splits: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    records = {}
    for name, images in splits.items():
        np.save(folder / f"{name}.npy", images)
        size = (folder / f"{name}.npy").stat().st_size
        records[name] = {"file": f"{name}.npy", "bytes": size, "shape": list(images.shape)}
    write_json(folder / "manifest.json", {"dataset": folder.name, "splits": records})
    return folder


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """60 images of noise in blocks; test 3 is train 5 a little brighter, train 8 is train 2 with one pixel changed."""
    draw = np.random.default_rng(0)
    images = np.kron(draw.integers(0, 240, (60, 8, 8, 3)), np.ones((1, 4, 4, 1))).astype(np.uint8)
    train, test = images[:40], images[40:]
    test[3] = train[5] + 6
    train[8] = train[2]
    train[8, 0, 0] ^= 15
    return write_prepared(tmp_path / "data/prepared/planted", {"test": test, "train": train})


def test_planted_copies_are_found_the_closest_first(planted: Path, tmp_path: Path) -> None:
    pairs = near_duplicates(planted, limit=7)
    assert [(pair.one, pair.other) for pair in pairs] == [(("train", 2), ("train", 8)), (("test", 3), ("train", 5))]
    assert pairs[0].distance < 1 < pairs[1].distance == pytest.approx(6, abs=0.01)
    assert len(near_duplicates(planted, limit=4)) == 1
    write_sheet(planted, pairs, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert np.asarray(sheet).std() > 20
    write_sheet(planted, [], tmp_path / "empty.png")


def test_blocks_give_what_all_pairs_give() -> None:
    draw = np.random.default_rng(1)
    points = draw.integers(0, 30, (700, 4)).astype(np.float32)
    expected = {(i, j) for i in range(700) for j in range(i + 1, 700) if ((points[i] - points[j]) ** 2).mean() <= 4}
    found = close_pairs(points, 2)
    assert {(i, j) for i, j, _ in found} == expected
    assert len(found) == len(expected) > 20


@pytest.mark.parametrize("size", [8, 12, 32])
def test_thumbnails_are_means_of_areas(size: int) -> None:
    draw = np.random.default_rng(2)
    images = draw.integers(0, 256, (3, size, size, 1), dtype=np.uint8)
    edges = [*(np.arange(8) * size // 8), size]
    cells = [(slice(*rows), slice(*columns)) for rows, columns in product(pairwise(edges), repeat=2)]
    expected = [[image[cell].mean() for cell in cells] for image in images]
    np.testing.assert_allclose(thumbnails(images), expected, rtol=1e-5)


def test_the_command_counts_them(planted: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "Snakefile").touch()
    (tmp_path / "params").mkdir()
    labels = {"train": np.arange(40) // 5, "test": np.arange(20) // 5 + 1}
    (tmp_path / "data/labels").mkdir()
    write_npz(tmp_path / "data/labels/planted.npz", {name: values.astype(np.int16) for name, values in labels.items()})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dica", "data", "duplicates", "planted", "--out", "found", "--json"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["images_with_a_near_copy"], facts["pairs"], facts["pairs_across_splits"]) == (4, 2, 1)
    assert facts["pairs_of_one_class"] == 1
    lines = (tmp_path / "found/pairs.csv").read_text().splitlines()
    assert lines[1].startswith("train,2,train,8,0.")
    assert lines[1].endswith(",no")
    assert (tmp_path / "found/pairs.png").is_file()


def test_the_command_knows_a_wrong_name(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["dica", "data", "duplicates", "digit"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "no data set 'digit'; did you mean digits" in capsys.readouterr().err.replace("\n", " ")


def test_bad_requests_are_one_clear_error(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="allowed: 0 to 64"):
        near_duplicates(planted, limit=200)
    small = write_prepared(tmp_path / "small", {"train": np.zeros((2, 4, 4, 1), np.uint8)})
    with pytest.raises(UserError, match="smaller than the thumbnails"):
        near_duplicates(small, limit=7)
    with pytest.raises(UserError, match="not prepared"):
        near_duplicates(tmp_path / "nowhere", limit=7)
