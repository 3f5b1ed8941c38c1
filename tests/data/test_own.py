"""A user's own images: what a first look says, and the data set that they become."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dica.cli.own import _link
from dica.data import catalog, own
from dica.data.archives import IMAGE_LIMIT
from dica.data.prepared import image_names, is_current, open_split
from dica.data.thumbnails import Thumbnails
from dica.files import UserError, plain_cell, read_csv, read_json
from dica.scores.assignments import COLUMNS, assignments_csv
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
    for name in ("Upper.ZIP", "upper.Tar.GZ", "UPPER.NPY"):
        assert own.default_name(Path("/x") / name) == "upper"
    with pytest.raises(UserError, match="--name: 'A b'"):
        own.check_name("A b")


def test_a_first_look(photos: Path) -> None:
    found = own.look(photos)
    assert (found.form, found.splits, found.classes, found.count) == ("folder", {"train": 12}, [], 12)
    assert (found.side, found.grey) == (45, False)
    assert own.look(photos) == found
    (photos / "image 00.png").touch()
    assert own.look(photos).listing != found.listing, "a file that was written to"


def test_grey_squares_keep_their_size(tmp_path: Path) -> None:
    for k in range(3):
        Image.fromarray(np.full((8, 8), k, np.uint8)).save(tmp_path / f"{k}.png")
    found = own.look(tmp_path)
    assert (found.side, found.grey) == (8, True)


@pytest.mark.parametrize("odd", [(9, 8), (8, 20), (3, 3), (30, 30)])
def test_one_odd_image_among_squares_is_brought_to_their_size(odd: tuple, copied_params: Path, monkeypatch) -> None:
    monkeypatch.setattr(own, "SAMPLED", 2)
    folder = copied_params / "squares"
    folder.mkdir()
    for k in range(5):
        shape = (8, 8) if k != 2 else odd
        Image.fromarray(np.full(shape, 50 * k, np.uint8)).save(folder / f"{k}.png")
    entry = own.declare(copied_params, "mine", folder, own.look(folder), 8, 2)
    assert (entry["prepare"]["size"], entry["prepare"]["mode"]) == (8, "crop")
    images = open_split(copied_params / "data/prepared/own-mine", "train")
    np.testing.assert_array_equal(images, np.repeat(np.arange(0, 250, 50), 192).reshape(5, 8, 8, 3))


@pytest.mark.parametrize(("largest", "form", "told"), [(4095, "png", 1), (1023, "tif", 1), (60_000, "png", 0)])
def test_16_bit_images_that_use_few_of_their_bits_are_told(tmp_path: Path, largest: int, form: str, told: int) -> None:
    for k in range(3):
        pixels = np.linspace(0, largest - k, 64).astype(np.uint16).reshape(8, 8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.{form}")
    assert own.look(tmp_path).remark.count(f"is {largest} of 65535") == told


def test_what_is_no_set_of_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("notes.doc", "rows.csv", "rows.NPZ"):
        (tmp_path / name).write_text("x")
    (tmp_path / "a.png").write_bytes(b"x")
    for name, expected in [
        ("none", "no such folder or archive"),
        ("empty", "no image found"),
        ("notes.doc", "neither a folder nor an archive"),
        ("rows.csv", r"save it with numpy\.save"),
        ("rows.NPZ", r"save it with numpy\.save"),
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
    (photos / "image 04.png").unlink()
    (photos / "image 04.png").symlink_to("gone")
    with open(photos / "image 05.png", "r+b") as file:
        file.truncate(IMAGE_LIMIT + 1)
    with pytest.raises(UserError, match=r"3 unreadable images; .*--skip-unreadable") as told:
        own.declare(copied_params, "mine", photos, own.look(photos), 16, 3)
    for reason in ("image 03.png (its content", "image 04.png (is not a plain file", "image 05.png (has more than"):
        assert reason in str(told.value)
    assert not (copied_params / "params/own/mine/dataset.yaml").exists(), "an entry of images that are not there"
    entry = own.declare(copied_params, "mine", photos, own.look(photos, skip=True), 16, 3)
    assert entry["splits"] == {"train": 9}
    assert "image 03.png" not in image_names(copied_params / "data/prepared/own-mine", "train")
    before = (copied_params / "params/own/mine/dataset.yaml").read_bytes()
    with pytest.raises(UserError, match="3 unreadable"):
        own.declare(copied_params, "mine", photos, own.look(photos), 16, 3)
    assert (copied_params / "params/own/mine/dataset.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("damaged", "classes"), [(["a"], ["b", "c"]), (["a", "c"], []), (["a/0.png"], ["a", "b", "c"])]
)
def test_classes_are_those_of_the_images_that_are_left(copied_params: Path, damaged: list, classes: list) -> None:
    folder = copied_params / "set"
    for k in range(9):
        path = folder / "abc"[k % 3] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 9 * k, np.uint8)).save(path)
        if any(f"{path.parent.name}/{path.name}".startswith(name) for name in damaged):
            path.write_bytes(b"no image")
    entry = own.declare(copied_params, "mine", folder, own.look(folder, skip=True), 8, 4)
    assert entry["num_classes"] == (len(classes) or 4)
    assert read_json(copied_params / "data/labels/own-mine.json")["classes"] == classes
    gone = own.left_out(copied_params, "mine")
    assert entry["splits"]["train"] == 9 - len(gone) < 9
    assert all(image["name"].startswith(tuple(damaged)) for image in gone)


def test_a_first_attempt_that_fails_leaves_nothing(photos: Path, copied_params: Path) -> None:
    (photos / "image 03.png").write_bytes(b"no image")
    before = sorted(copied_params.rglob("*"))
    with pytest.raises(UserError, match="1 unreadable"):
        own.declare(copied_params, "mine", photos, own.look(photos), 16, 3)
    made = {path.relative_to(copied_params).as_posix() for path in copied_params.rglob("*")} - {
        path.relative_to(copied_params).as_posix() for path in before
    }
    assert not made


def test_pictures_of_kinds_that_are_not_read_are_named(photos: Path, tmp_path: Path) -> None:
    for name in ("IMG_1.HEIC", "IMG_2.heic", "a.avif", "._b.heic", "notes.txt"):
        (photos / name).write_bytes(b"x")
    assert own.look(photos).count == 12
    assert "passed over (1 .avif, 2 .heic); save them as JPEG or PNG" in own.look(photos).remark
    assert "not called like images are passed over (1 .txt)" in own.look(photos).remark
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone/IMG_1.HEIC").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no image found .*; files of kinds that are not read .*\(1 \.heic\)"):
        own.look(tmp_path / "phone")


@pytest.mark.parametrize("packed", [False, True])
def test_files_of_other_suffixes_are_counted_and_all_jpegs_are_read(photos: Path, packed: bool) -> None:
    for name in ("a.jfif", "b.JPE"):
        Image.new("RGB", (40, 40)).save(photos / name, "JPEG")
    for name in ("x.czi", "y.CZI", "z.nd2", "scan", ".DS_Store", "__MACOSX"):
        (photos / name).write_bytes(b"x")
    source = photos
    if packed:
        source = photos.parent / "photos.tar"
        with tarfile.open(source, "w") as file:
            file.add(photos, "x")
    found = own.look(source)
    assert found.count == 14
    assert found.remark == "files that are not called like images are passed over (2 .czi, 1 .nd2, 1 without suffix)"


def test_linked_folders_are_read_on_demand(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all/more").symlink_to(photos)
    with pytest.raises(UserError, match=r"'more' is a link to a folder, .*--follow-links"):
        own.look(tmp_path / "all")
    found = own.look(tmp_path / "all", follow=True)
    assert (found.count, found.prepare["links"]) == (12, "follow")


def test_a_look_at_enormous_images_takes_no_memory(photos: Path, monkeypatch) -> None:
    with open(photos / "image 00.png", "r+b") as file:
        file.truncate(IMAGE_LIMIT + 1)
    Image.fromarray(np.zeros((9000, 9000), np.uint8)).save(photos / "image 01.png")
    monkeypatch.setattr(Image.Image, "convert", _refuse_large(Image.Image.convert))
    assert own.look(photos).side == 46, "the middle one of those that are looked at"


def _refuse_large(convert):
    def checked(image: Image.Image, *arguments, **options) -> Image.Image:
        assert image.width < 9000, "decoded"
        return convert(image, *arguments, **options)

    return checked


ODD = [
    "a,b.png",
    "a\nb.png",
    "ü 漢字 😀.png",
    "=cmd|x.png",
    "-1+1.png",
    "@x.png",
    "'=x.png",
    '"q".png',
    "a/b.png",
    "a__b.png",
    "%s{x}.png",
]


def test_a_table_and_links_hold_any_name(tmp_path: Path) -> None:
    photos, results = tmp_path / "photos", tmp_path / "results"
    (photos / "a").mkdir(parents=True)
    results.mkdir()
    for name in ODD:
        (photos / name).write_text(name)
    half = np.full(len(ODD), 0.5)
    text = assignments_csv(ODD, np.arange(len(ODD)) % 2, half, np.zeros(len(ODD), int), half, half * np.nan)
    (results / "assignments.csv").write_text(text, newline="")
    cells = [row["file"] for row in read_csv(results / "assignments.csv", COLUMNS)]
    assert [plain_cell(cell) for cell in cells] == ODD
    assert not any(cell.startswith(("=", "-", "@")) for cell in cells), "a spreadsheet would compute it"
    for again in range(2):
        _link(results, photos)
        for number, name in enumerate(ODD):
            assert (results / "clusters" / str(number % 2) / name).read_text() == name, again
    (results / "clusters/0/mine.txt").write_text("kept")
    _link(results, photos)
    assert (results / "clusters/0/mine.txt").read_text() == "kept"
