"""A user's own images: what a first look says, and the data set that they become."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dica.data import catalog, own
from dica.data.prepared import image_names, is_current, open_split
from dica.data.thumbnails import Thumbnails
from dica.files import UserError
from dica.validation import load_yaml


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve colour images of several sizes, two of them in a sub-folder that is the only one."""
    folder = tmp_path / "My Photos.2024"
    draw = np.random.default_rng(0)
    for k in range(12):
        folder.mkdir(exist_ok=True)
        pixels = draw.integers(0, 256, (40 + k, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"image {k:02d}.png")
    return folder


def test_names_come_from_the_folder() -> None:
    assert own.default_name(Path("/x/My Photos.2024")) == "my-photos-2024"
    assert own.default_name(Path("/x/holiday.tar.gz")) == "holiday"
    assert own.default_name(Path("/x/…")) == "images"
    with pytest.raises(UserError, match="--name: 'A b'"):
        own.check_name("A b")


def test_a_first_look(photos: Path) -> None:
    found = own.look(photos)
    assert (found.form, found.splits, found.classes, found.count) == ("folder", {"train": 12}, [], 12)
    assert (found.side, found.square, found.grey) == (45, False, False)
    assert own.look(photos) == found
    (photos / "image 00.png").touch()
    assert own.look(photos).listing != found.listing, "a file that was written to"


def test_grey_squares_keep_their_size(tmp_path: Path) -> None:
    for k in range(3):
        Image.fromarray(np.full((8, 8), k, np.uint8)).save(tmp_path / f"{k}.png")
    found = own.look(tmp_path)
    assert (found.side, found.square, found.grey) == (8, True, True)


def test_what_is_no_set_of_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "a.png").write_bytes(b"x")
    for name, expected in [
        ("none", "no such folder or archive"),
        ("empty", "no image found"),
        ("notes.txt", "neither a folder nor an archive"),
        ("a.png", "one image"),
    ]:
        with pytest.raises(UserError, match=expected):
            own.look(tmp_path / name)


def test_images_become_a_data_set(photos: Path, copied_params: Path) -> None:
    before = (copied_params / "params/datasets.yaml").read_bytes()
    entry = own.declare(copied_params, "mine", photos, own.look(photos), 16, 3)
    assert (copied_params / "params/datasets.yaml").read_bytes() == before
    known = catalog.load(copied_params)["own-mine"]
    assert is_current(copied_params, known)
    assert known["fingerprint"] == entry["fingerprint"]
    assert (known["num_classes"], known["splits"], known["prepare"]["size"]) == (3, {"train": 12}, 16)
    images = open_split(copied_params / "data/prepared/own-mine", "train")
    np.testing.assert_allclose(known["normalisation"]["mean"], images.mean(axis=(0, 1, 2)) / 255, atol=1e-4)
    assert image_names(copied_params / "data/prepared/own-mine", "train")[3] == "image 03.png"


def test_an_archive_gives_the_same_data_set_as_its_folder(photos: Path, copied_params: Path) -> None:
    archive = photos.parent / "photos.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(photos, "x")
    one = own.declare(copied_params, "one", photos, own.look(photos), 16, 3)
    other = own.declare(copied_params, "other", archive, own.look(archive), 16, 3)
    assert one["fingerprint"] == other["fingerprint"]
    assert is_current(copied_params, catalog.load(copied_params)["own-other"])


def test_a_file_that_declares_another_name_is_refused(photos: Path, copied_params: Path) -> None:
    own.declare(copied_params, "mine", photos, own.look(photos), 16, 3)
    path = copied_params / "params/own/mine/dataset.yaml"
    path.write_text(path.read_text().replace("own-mine:", "digits:"))
    with pytest.raises(UserError, match=r"own/mine/dataset\.yaml: must declare the one data set 'own-mine'"):
        catalog.load(copied_params)
    assert list(load_yaml(path)) == ["digits"]


def test_thumbnails_are_of_the_files_and_fall_back_to_the_arrays(photos: Path, copied_params: Path) -> None:
    entry = own.declare(copied_params, "mine", photos, own.look(photos), 16, 3)
    prepared = copied_params / "data/prepared/own-mine"
    names = image_names(prepared, "train")
    made = Thumbnails(prepared, entry, copied_params, ["train"], names)
    assert {image.size for image in made.of([0, 11], 32).values()} == {(32, 32)}
    (photos / names[0]).unlink()
    assert [made.of([row], 32)[row].size for row in (0, 11)] == [(16, 16), (32, 32)]
    assert made.of([5], 8)[5].size == (8, 8)


def test_folders_are_labels_where_they_can_only_be_classes(photos: Path) -> None:
    for k in range(12):
        place = photos / ("cat" if k % 2 else "dog")
        place.mkdir(exist_ok=True)
        (photos / f"image {k:02d}.png").rename(place / f"{k}.png")
    assert own.look(photos).classes == ["cat", "dog"]
    told_not = own.look(photos, labels=False)
    assert (told_not.classes, told_not.splits, told_not.remark) == ([], {"train": 12}, "")
    (photos / "cat/1.png").rename(photos / "1.png")
    loose = own.look(photos)
    assert (loose.classes, loose.splits) == ([], {"train": 12})
    assert "not taken as labels" in loose.remark
    (photos / "1.png").rename(photos / "dog/1.png")
    (photos / "cat").rename(photos / "test")
    assert own.look(photos).splits == {"train": 12}, "a folder that only looks like a split"


def test_damaged_images_are_left_out_on_demand(photos: Path, copied_params: Path) -> None:
    (photos / "image 03.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"image 03\.png"):
        own.declare(copied_params, "mine", photos, own.look(photos), 16, 3)
    entry = own.declare(copied_params, "mine", photos, own.look(photos, skip=True), 16, 3)
    assert entry["splits"] == {"train": 11}
    assert "image 03.png" not in image_names(copied_params / "data/prepared/own-mine", "train")
