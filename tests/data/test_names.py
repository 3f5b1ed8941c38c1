"""File names of a data set: kept beside the arrays, in their order, and no part of what identifies the pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import archives
from archives import encode, entry, images, project, source
from dica.data.prepare import prepare, verify
from dica.data.prepared import image_names, open_split
from dica.files import IntegrityError, UserError

FLAT = {"prepare": {"labels": "none"}}
PIXELS = {name: images(1, 6, 6, seed)[0] for seed, name in enumerate(["a", "b", "c", "d", "e"])}


def folder_project(root: Path, names: dict[str, str], splits: dict[str, int], **more) -> Path:
    """A project `mini` whose images (of `PIXELS`) lie in data/raw/x under these names."""
    for pixels, name in names.items():
        path = root / "data/raw/x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(PIXELS[pixels]))
    given = [{"format": "folder", "folder": "data/raw/x"}]
    return project(root, mini=entry("folder", given, splits, 6, num_classes=2, **more))


def test_each_stored_row_has_the_name_of_its_own_file(tmp_path):
    layout = {
        "a": "train/cat/ü 2.png",
        "b": "train/cat/1.png",
        "c": "train/dog/0.png",
        "d": "test/dog/=1+1.png",
        "e": "test/cat/1.png",
    }
    root = folder_project(tmp_path, layout, {"train": 3, "test": 2})
    manifest = prepare("mini", root)
    stored = {}
    for split in ("train", "test"):
        names = image_names(root / "data/prepared/mini", split)
        rows = open_split(root / "data/prepared/mini", split)
        assert len(names) == len(rows)
        stored |= {name: np.asarray(row) for name, row in zip(names, rows, strict=True)}
    assert set(stored) == set(layout.values())
    for pixels, name in layout.items():
        np.testing.assert_array_equal(stored[name], PIXELS[pixels])
    assert verify("mini", root) == manifest


def test_names_follow_when_only_the_first_of_each_class_are_kept(tmp_path):
    layout = {"a": "cat/1.png", "b": "cat/2.png", "c": "dog/1.png", "d": "dog/2.png"}
    root = folder_project(tmp_path, layout, {"train": 2}, prepare={"per_class": {"train": 1}})
    prepare("mini", root)
    assert image_names(root / "data/prepared/mini", "train") == ["cat/1.png", "dog/1.png"]


def test_other_names_for_the_same_pixels_give_the_same_fingerprint(tmp_path):
    first = prepare("mini", folder_project(tmp_path / "1", {"a": "1.png", "b": "2.png"}, {"train": 2}, **FLAT))
    second = prepare("mini", folder_project(tmp_path / "2", {"a": "x.png", "b": "y.png"}, {"train": 2}, **FLAT))
    assert first["fingerprint"] == second["fingerprint"]
    assert first["names"] != second["names"]


def test_changed_or_missing_names_are_noticed(tmp_path):
    root = folder_project(tmp_path, {"a": "1.png", "b": "2.png"}, {"train": 2}, **FLAT)
    prepare("mini", root)
    path = root / "data/prepared/mini/names.json"
    for damage in (lambda: path.write_text(path.read_text().replace("1", "3")), path.unlink):
        damage()
        for action in (lambda: verify("mini", root), lambda: image_names(path.parent, "train")):
            with pytest.raises(IntegrityError, match=r"names\.json: not the names of the manifest"):
                action()


def test_a_kind_without_image_files_has_no_names(tmp_path):
    data = images(5, 32, 32), np.arange(5), images(2, 32, 32, seed=1), np.arange(2)
    path = archives.cifar10_binary(tmp_path / "data/raw/cifar.tar.gz", *data)
    one = entry("cifar", [source(path, "binary")], {"train": 5, "test": 2}, 32, prepare={"labels": "label"})
    prepare("mini", project(tmp_path, mini=one))
    with pytest.raises(UserError, match="no file names are stored"):
        image_names(tmp_path / "data/prepared/mini", "train")
    with pytest.raises(UserError, match="no split 'unlabeled'"):
        image_names(tmp_path / "data/prepared/mini", "unlabeled")
