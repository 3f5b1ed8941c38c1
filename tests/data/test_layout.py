"""What folders of images mean: splits, classes or nothing. What could mean two things is refused, with what to set."""

from __future__ import annotations

import os
import unicodedata
import zipfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archives
from archives import encode, entry, images, project, source
from dica.data.__main__ import main
from dica.data.catalog import load
from dica.data.layout import arrange, class_names, split_meant
from dica.data.prepare import prepare, verify
from dica.data.prepared import fingerprint, image_names, open_split
from dica.files import UserError, read_json, sha256_bytes

NFC, NFD = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")


def found(names: list[str], **declared: Any) -> dict[str, tuple[str, str | None]]:
    """Return name -> (split, class)."""
    return {name: (split, label) for split, label, name in arrange(names, "x", declared)}


def both(train: str, test: str) -> list[str]:
    return [f"{split}/{label}/1.png" for split in (train, test) for label in ("cat", "dog")]


# --- splits


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Train", "Test"),
        ("TRAINING", "testing"),
        ("train", "val"),
        ("train", "Valid"),
        ("training", "validation"),
        ("train", "dev"),
        ("train", "eval"),
        ("training_set", "test_set"),
        ("train2017", "val2017"),
        ("train", "hold-out"),
    ],
)
def test_usual_names_of_splits_are_splits_in_any_case_and_never_classes(train, test):
    names = both(train, test)
    assert found(names) == dict(
        zip(names, [("train", "cat"), ("train", "dog"), ("test", "cat"), ("test", "dog")], strict=True)
    )
    wrapped = {f"top/{name}": place for name, place in found(names).items()}
    assert found([f"top/{name}" for name in names]) == wrapped


def test_unlabelled_images_are_found_under_either_spelling():
    for name in ("unlabeled", "Unlabelled"):
        assert found(["train/c/1.png", f"{name}/2.png"])[f"{name}/2.png"] == ("unlabeled", None)


@pytest.mark.parametrize("name", ["trainer", "latest", "device", "evaluate me", "contest", "unlabeledness", "tests"])
def test_words_that_only_begin_or_end_like_a_split_are_classes(name):
    assert split_meant(name) is None
    assert found([f"{name}/1.png", "cat/1.png"])[f"{name}/1.png"] == ("train", name)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([*both("train", "test"), "val/cat/1.png"], "split_folders: {train: train, test: test}"),
        ([*both("train", "val"), "dev/cat/1.png"], "split_folders: {train: train, test: dev}"),
        (["train/1.png", "cat/1.png", "dog/1.png"], "'train' look like splits, but 'cat', 'dog' beside them do not"),
        ([*both("train", "test"), "cover.png"], "but images beside them do not"),
        (both("train", "Train"), "of more kinds than train and test"),
        (["val/cat/1.png", "val/dog/1.png"], "split_folders: {train: val"),
    ],
)
def test_layouts_that_could_mean_two_things_are_refused_with_what_to_declare(names, said):
    with pytest.raises(UserError) as error:
        found(names)
    assert said in str(error.value)
    assert "`split_folders: {}` if all are classes" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("tops", [("x_train", "x_test"), ("query", "gallery"), ("fold-a", "fold-b", "fold-c")])
def test_folders_that_all_hold_the_same_folders_are_not_taken_for_classes_in_silence(tops):
    names = [f"{top}/{inside}/1.png" for top in tops for inside in ("cat", "dog")]
    with pytest.raises(UserError, match=r"hold the same folders.*split_folders: \{\}"):
        arrange(names, "x")
    declared = arrange(names, "x", {"split_folders": {"train": tops[0], "test": tops[1]}})
    assert {(place.split, place.label) for place in declared} == set(product(("train", "test"), ("cat", "dog")))
    for said in ({"split_folders": {}}, {"classes": sorted(tops)}):
        assert {place.label for place in arrange(names, "x", said)} == set(tops)
    assert {place.label for place in arrange(names, "x", {"labels": "none"})} == {None}
    arrange([f"{name}/{number}.png" for number, name in enumerate((*names, "another/bird/2"))], "x")


def test_splits_under_other_names_are_noticed_though_one_of_them_lacks_a_class():
    names = [f"images_{place}/1.png" for place in ("train/cat", "train/dog", "train/emu", "test/cat", "test/dog")]
    with pytest.raises(UserError, match=r"'images_test', 'images_train' hold the same folders.*split_folders: \{\}"):
        found(names)
    assert set(found([*names, "images_more/fox/1.png"]).values()) > {("train", "images_test")}, "no folder has all"
    assert len(set(found(["cat/black/1.png", "cat/white/1.png", "dog/black/1.png", "dog/brown/1.png"]).values())) == 2


@pytest.mark.parametrize("other", ["cat", "Cat ", "Ca\u200bt", "\uff23at"])
def test_classes_that_look_the_same_are_refused_until_they_are_declared(other):
    names = ["Cat/1.png", f"{other}/2.png", "dog/3.png"]
    with pytest.raises(UserError, match=r"look the same.*`prepare\.classes`"):
        found(names)
    assert len(set(found(names, classes=["Cat", other, "dog"]).values())) == 3


def test_declared_folders_are_the_splits_and_others_are_not_read():
    names = [*both("train", "val"), *both("test", "extra")]
    declared = found(names, split_folders={"train": ["train", "extra"], "test": "val"})
    assert {place[0] for name, place in declared.items() if name.startswith(("train", "extra"))} == {"train"}
    assert declared["val/dog/1.png"] == ("test", "dog")
    assert not any(name.startswith("test/") for name in declared)
    with pytest.raises(UserError, match=r"split_folders\.test: no folder 'valid'; did you mean val"):
        found(names, split_folders={"train": "train", "test": "valid"})
    with pytest.raises(UserError, match="'train' is there twice"):
        found(names, split_folders={"train": "train", "test": "train"})


def test_declared_classes_may_have_the_name_of_a_split():
    assert found(["train/1.png", "bus/1.png"], split_folders={})["train/1.png"] == ("train", "train")


def test_splits_with_other_classes_are_refused_until_all_classes_are_declared():
    names = [*both("train", "test"), "train/bird/1.png"]
    with pytest.raises(UserError, match=r"split test has no class 'bird'.*`prepare\.classes`"):
        found(names)
    assert found(names, classes=["dog", "cat", "bird"])["train/bird/1.png"] == ("train", "bird")
    assert class_names(
        arrange(names, "x", {"classes": ["dog", "cat", "bird"]}), {"classes": ["dog", "cat", "bird"]}
    ) == [
        "dog",
        "cat",
        "bird",
    ]
    with pytest.raises(UserError, match="class 'bird' is found, but not declared"):
        found(names, classes=["dog", "cat"])
    with pytest.raises(UserError, match="class 'emu' is not found"):
        found(names, classes=["dog", "cat", "bird", "emu"])


# --- one folder alone


def test_a_lone_folder_of_images_is_a_class_and_one_of_folders_is_a_wrapper():
    assert found(["cat/1.png", "cat/2.png"])["cat/1.png"] == ("train", "cat")
    assert found(["photos/cat/1.png", "photos/dog/2.png"])["photos/cat/1.png"] == ("train", "cat")
    assert found(["a/b/cat/1.png"])["a/b/cat/1.png"] == ("train", "cat")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["d/logo.png", *(f"d/{name}" for name in both("train", "test"))], "but images beside them do not"),
        (["a/d/logo.png", "a/d/train/cat/1.png", "a/d/train/dog/1.png"], "but images beside them do not"),
        (["d/logo.png", "d/cat/1.png", "d/dog/1.png"], r"inside class folders and outside \('d/logo.png'\)"),
        (["cat/1.png", "cat/more/2.png"], r"inside class folders and outside \('cat/1.png'\)"),
        (
            ["train/d/logo.png", "train/d/cat/1.png", "train/d/dog/1.png"],
            r"all images of train lie in 'd', which holds folders",
        ),
        (["train/a/cat/1.png", "train/a/dog/2.png", "test/a/cat/1.png"], r"train lie in 'a'.*classes: \[a\]"),
        (["logo/a.png", *(f"set/{name}" for name in both("Train", "val"))], r"'set' holds 'Train', 'val'.*top: set"),
        (["cat/train/1.png", "dog/2.png"], r"'cat' holds 'train'.*split_folders: \{\}"),
    ],
)
def test_images_beside_folders_that_mean_something_make_no_class_of_what_is_around_them(names, said):
    with pytest.raises(UserError, match=said):
        found(names)


def test_what_is_declared_decides_about_images_beside_folders():
    names = ["d/logo.png", *(f"d/{name}" for name in both("train", "test"))]
    assert "d/logo.png" not in found(names, split_folders={"train": "train", "test": "test"})
    assert set(found(names, split_folders={}, labels="none").values()) == {("train", None)}
    assert set(found(["cat/1.png", "cat/more/2.png"], top="").values()) == {("train", "cat")}
    assert len(set(found(["cat/train/1.png", "dog/2.png"], split_folders={}).values())) == 2
    assert set(found(["train/a/cat/1.png", "train/a/2.png"], classes=["a"]).values()) == {("train", "a")}


def test_a_declared_top_wins_over_what_a_lone_folder_looks_like():
    assert found(["cat/old/1.png", "cat/new/2.png"], top="")["cat/old/1.png"] == ("train", "cat")
    assert found(["a/cat/1.png", "b/2.png"], top="a") == {"a/cat/1.png": ("train", "cat")}
    with pytest.raises(UserError, match="no image below 'c'"):
        found(["a/1.png"], top="c")


def test_without_labels_folders_mean_nothing_but_splits():
    names = ["2019/1.png", "2020/06/2.png", "3.png"]
    assert set(found(names, labels="none").values()) == {("train", None)}
    assert found(both("train", "test"), labels="none")["test/cat/1.png"] == ("test", None)


# --- Unicode


def test_composed_and_decomposed_class_names_give_the_same_order_labels_and_classes():
    names = ["{}/1.png", "cafz/2.png", "cafd/3.png"]
    composed = arrange([name.format(NFC) for name in names], "x")
    decomposed = arrange([name.format(NFD) for name in names], "x")
    assert [place.label for place in composed] == [place.label for place in decomposed] == ["cafd", "cafz", NFC]
    assert class_names(composed, {}) == class_names(decomposed, {})


def test_file_names_are_ordered_by_their_composed_form_too():
    ordered = [
        [unicodedata.normalize("NFC", place.name) for place in arrange([f"c/{e}.png", "c/cafz.png"], "x")]
        for e in (NFC, NFD)
    ]
    assert ordered[0] == ordered[1]


@pytest.mark.parametrize("name", ["{}/1.png", "c/{}.png", "train/{}/1.png"])
def test_two_names_that_are_one_elsewhere_are_refused(name):
    with pytest.raises(UserError, match="are one name, written with other Unicode characters"):
        found([name.format(NFC), name.format(NFD)])


# --- through prepare


def files_of(names: list[str]) -> dict[str, bytes]:
    return {name: encode(images(1, 6, 6, seed)[0]) for seed, name in enumerate(names)}


def write(top: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    return top


def declared(root: Path, path: Path, splits: dict[str, int], **more: Any) -> Path:
    given = {"format": "folder", "folder": str(path)} if path.is_dir() else source(path, "archive")
    return project(root, mini=entry("folder", [given], splits, 6, **{"num_classes": 2, **more}))


def labels(root: Path) -> list[int]:
    with np.load(root / "data/labels/mini.npz") as stored:
        return stored["train"].tolist()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_backslashes_in_an_archive_separate_folders(tmp_path, kind):
    files = files_of(["cat/1.png", "cat/2.png", "dog/3.png"])
    windows = {f"pets\\{name}".replace("/", "\\"): data for name, data in files.items()}
    raw = tmp_path / "data/raw"
    if kind == "zip":
        raw.mkdir(parents=True)
        with zipfile.ZipFile(raw / "x.zip", "w") as file:
            file.writestr("pets\\cat\\", b"")
            for name, data in windows.items():
                file.writestr(name, data)
        path = raw / "x.zip"
    else:
        path = archives.write_tar(raw / "x.tar.gz", windows)
    manifest = prepare("mini", declared(tmp_path, path, {"train": 3}))
    plain = prepare("mini", declared(tmp_path / "2", write(tmp_path / "pets", files), {"train": 3}))
    assert manifest["classes"] == ["cat", "dog"]
    assert labels(tmp_path) == [0, 0, 1]
    assert manifest["fingerprint"] == plain["fingerprint"]


def test_a_file_on_disk_with_a_backslash_in_its_name_is_refused(tmp_path):
    root = declared(tmp_path, write(tmp_path / "x", files_of(["cat\\1.png", "dog\\2.png"])), {"train": 2})
    with pytest.raises(UserError, match=r"has a backslash.*archives made on Windows"):
        prepare("mini", root)


@pytest.mark.parametrize("names", [["1.png", "2.png"], ["cat/1.png", "cat/2.png"], ["train/1.png", "train/2.png"]])
def test_declared_classes_that_are_not_found_are_an_error_unless_there_are_no_labels(tmp_path, names):
    folder = write(tmp_path / "x", files_of(names))
    with pytest.raises(UserError, match=r"(no class|1 classes) found, `num_classes`.*labels: none"):
        prepare("mini", declared(tmp_path, folder, {"train": 2}))
    prepare("mini", declared(tmp_path, folder, {"train": 2}, prepare={"labels": "none"}))
    assert labels(tmp_path) == [-1, -1]


def test_a_linked_class_folder_is_refused_or_followed_as_declared(tmp_path):
    folder = write(tmp_path / "x", files_of(["cat/1.png", "dog/2.png"]))
    elsewhere = tmp_path / "elsewhere"
    (folder / "dog").rename(elsewhere)
    (folder / "dog").symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"'dog' is a link to a folder.*links: follow"):
        prepare("mini", declared(tmp_path, folder, {"train": 2}))
    prepare("mini", declared(tmp_path, folder, {"train": 2}, prepare={"links": "follow"}))
    assert image_names(tmp_path / "data/prepared/mini", "train") == ["cat/1.png", "dog/2.png"]


def test_a_link_to_the_folder_it_lies_in_ends_in_an_error(tmp_path):
    folder = write(tmp_path / "x", files_of(["cat/1.png", "dog/2.png"]))
    (folder / "dog/again").symlink_to(folder)
    with pytest.raises(UserError, match=r"'dog/again' is a link to a folder that it lies in"):
        prepare("mini", declared(tmp_path, folder, {"train": 2}, prepare={"links": "follow"}))


def test_a_folder_that_may_not_be_listed_is_an_error(tmp_path, monkeypatch):
    folder = write(tmp_path / "x", files_of(["cat/1.png", "dog/2.png"]))
    scandir = os.scandir

    def refused(path: str) -> Any:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)  # by mode it would not hold for root
    with pytest.raises(PermissionError):
        prepare("mini", declared(tmp_path, folder, {"train": 2}))


@pytest.mark.parametrize(
    ("start", "kind"), [(b"\x28\xb5\x2f\xfd\x04", "zstd"), (b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07", "rar")]
)
def test_a_container_of_another_kind_is_called_by_its_name(tmp_path, start, kind):
    (tmp_path / "data/raw").mkdir(parents=True)
    path = tmp_path / "data/raw/x.tar.zst"
    path.write_bytes(start + bytes(100))
    with pytest.raises(UserError, match=rf"x\.tar\.zst: is a {kind} archive, which is not read; unpack it or pack it"):
        prepare("mini", declared(tmp_path, path, {"train": 2}))


# --- damaged images


def with_one_damaged(tmp_path: Path, prepare_: dict[str, Any], count: int, damage: bytes = b"\x89PNG") -> Path:
    files = files_of([f"cat/{number}.png" for number in range(5)] + ["dog/0.png"])
    files["cat/2.png"] = damage
    return declared(tmp_path, write(tmp_path / "x", files), {"train": count}, prepare=prepare_)


def test_a_damaged_image_is_named_and_the_key_that_leaves_it_out_is_offered(tmp_path):
    with pytest.raises(UserError, match=r"1 unreadable images;.*skip_unreadable: true") as error:
        prepare("mini", with_one_damaged(tmp_path, {}, 6))
    assert "cat/2.png (" in str(error.value)


def test_damaged_images_are_left_out_listed_and_part_of_the_fingerprint(tmp_path):
    root = with_one_damaged(tmp_path, {"skip_unreadable": True}, 5)
    manifest = prepare("mini", root)
    record = manifest["splits"]["train"]
    assert [image["name"] for image in record["left_out"]] == ["cat/2.png"]
    assert record["left_out"][0]["sha256"] == sha256_bytes(b"\x89PNG")
    assert image_names(root / "data/prepared/mini", "train") == [*(f"cat/{n}.png" for n in (0, 1, 3, 4)), "dog/0.png"]
    assert open_split(root / "data/prepared/mini", "train").shape == (5, 6, 6, 3)
    assert labels(root) == [0, 0, 0, 0, 1]
    assert verify("mini", root) == manifest
    anchor = read_json(root / "data/labels/mini.json")
    assert fingerprint(anchor["splits"], anchor["classes"]) == manifest["fingerprint"]
    without = {"train": {key: value for key, value in record.items() if key != "left_out"}}
    assert fingerprint(without, manifest["classes"]) != manifest["fingerprint"]
    other = prepare("mini", with_one_damaged(tmp_path, {"skip_unreadable": True}, 5, b"\x89PNx"))
    assert other["fingerprint"] != manifest["fingerprint"]


def test_skipping_changes_nothing_where_every_image_can_be_read(tmp_path):
    folder = write(tmp_path / "x", files_of(["cat/1.png", "dog/2.png"]))
    plain = prepare("mini", declared(tmp_path, folder, {"train": 2}))
    skipping = prepare("mini", declared(tmp_path, folder, {"train": 2}, prepare={"skip_unreadable": True}))
    assert skipping["fingerprint"] == plain["fingerprint"]


# --- the schema


@pytest.mark.parametrize(
    ("kind", "prepare_", "message"),
    [
        ("tiny-imagenet", {"skip_unreadable": True}, "skip_unreadable does not apply to this kind"),
        ("digits", {"labels": "none"}, "labels does not apply to this kind"),
        ("folder", {"labels": "fine"}, r"prepare\.labels: 'none' was expected"),
        ("cifar", {"labels": "none"}, "'none' is not one of: label, fine, coarse"),
        ("folder", {"split_folders": {"val": "val"}}, "unknown key 'val'; allowed: test, train, unlabeled"),
    ],
)
def test_keys_of_one_kind_are_refused_for_another(tmp_path, kind, prepare_, message):
    project(tmp_path, mini=entry(kind, [{"format": "embedded"}], {"train": 1}, 6, prepare=prepare_))
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_the_command_line_says_it_in_one_line(tmp_path, capsys):
    root = declared(tmp_path, write(tmp_path / "x", files_of(["train/1.png", "cat/2.png"])), {"train": 2})
    assert main(["prepare", "mini", "--root", str(root)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
