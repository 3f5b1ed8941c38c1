"""From declared archives to arrays: completeness, determinism, integrity and the command line."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import archives
from archives import change, images, source
from dica.data import catalog
from dica.data.__main__ import main
from dica.data.decoded import Block, Content, first_per_class, whole, without
from dica.data.prepare import READERS, prepare, verify
from dica.data.prepared import fingerprint, labels_digest, load_manifest, open_split
from dica.files import IntegrityError, UserError, canonical_json, read_json, sha256_bytes


def names(root: Path) -> list[str]:
    folder = root / "data/prepared/mini"
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock") if folder.is_dir() else []


COMPLETE = ["manifest.json", "test.npy", "train.npy"]


# --- what is written


def test_first_images_of_each_class_are_kept_with_their_labels(home):
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (40, 32, 32, 3), np.uint8), np.tile(np.arange(10), 4)
    archives.cifar10_binary(home / "data/raw/more.tar.gz", *data, data[0][:20], data[1][:20])
    change(home, sources=[source(home / "data/raw/more.tar.gz", "binary")], splits={"train": 20, "test": 20})
    change(home, prepare={"labels": "label", "per_class": {"train": 2}}, num_classes=10)
    manifest = prepare("mini", home)
    assert {name: split["n"] for name, split in manifest["splits"].items()} == {"train": 20, "test": 20}
    np.testing.assert_array_equal(open_split(home / "data/prepared/mini", "train"), data[0][:20])
    with np.load(home / "data/labels/mini.npz") as labels:
        np.testing.assert_array_equal(labels["train"], np.tile(np.arange(10), 2))
    assert verify("mini", home) == manifest


def test_asking_for_more_images_of_a_class_than_there_are_names_the_class(home):
    change(home, prepare={"labels": "label", "per_class": {"train": 2}}, splits={"train": 20, "test": 2})
    with pytest.raises(UserError, match=r"mini\.prepare\.per_class\.train: 2 asked for, class 5 has 0"):
        prepare("mini", home)


def test_rows_follow_whatever_order_the_reader_streams_in():
    pixels = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    blocks = [
        Block("train", np.array([5, 0, 3]), pixels[[5, 0, 3]]),
        Block("train", np.array([1, 2, 4]), pixels[[1, 2, 4]]),
    ]
    labels = np.array([0, 0, 1, 0, 1, 1], np.int16)
    content = Content(["a", "b"], (1, 1, 1), {"train": 6}, blocks, {"train": labels})
    kept = first_per_class(content, {"train": 2}, "mini")
    placed = {int(row): int(image[0, 0, 0]) for block in kept.blocks for row, image in zip(*block[1:], strict=True)}
    assert placed == {0: 0, 1: 1, 2: 2, 3: 4}
    assert kept.labels["train"].tolist() == [0, 0, 1, 1]
    assert kept.counts == {"train": 4}


def test_what_a_selection_leaves_may_be_the_test_images():
    pixels = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    blocks = [
        Block("train", np.array([5, 0, 3, 1]), pixels[[5, 0, 3, 1]]),
        Block("train", np.array([2, 4]), pixels[[2, 4]]),
    ]
    labels = np.array([0, 0, 1, 0, 1, 1], np.int16)
    names = {"train": list("abcdef")}
    content = Content(["a", "b"], (1, 1, 1), {"train": 6}, blocks, {"train": labels}, names)
    parted = first_per_class(content, {"train": 1}, "mini", others="test")
    placed = [
        (block.split, int(row), int(image[0, 0, 0]))
        for block in parted.blocks
        for row, image in zip(*block[1:], strict=True)
    ]
    assert sorted(placed) == [
        ("test", 0, 1),
        ("test", 1, 3),
        ("test", 2, 4),
        ("test", 3, 5),
        ("train", 0, 0),
        ("train", 1, 2),
    ]
    assert {split: found.tolist() for split, found in parted.labels.items()} == {"train": [0, 1], "test": [0, 0, 1, 1]}
    assert parted.names == {"train": ["a", "c"], "test": ["b", "d", "e", "f"]}
    assert parted.counts == {"train": 2, "test": 4}
    with pytest.raises(UserError, match=r"mini\.prepare\.others: test: a split that is not there yet"):
        first_per_class(replace(content, counts={"train": 6, "test": 2}), {"train": 1}, "mini", others="test")


def test_images_are_left_out_by_their_position(home):
    prepare("mini", home)
    folder = home / "data/prepared/mini"
    given = np.array(open_split(folder, "train"))
    change(home, prepare={"labels": "label", "without": {"train": [3, 1]}}, splits={"train": 3, "test": 2})
    prepare("mini", home)
    np.testing.assert_array_equal(open_split(folder, "train"), given[[0, 2, 4]])
    with np.load(home / "data/labels/mini.npz") as labels:
        assert labels["train"].tolist() == [0, 2, 4]
        assert labels["test"].tolist() == [0, 1]
    change(home, prepare={"labels": "label", "without": {"train": [5]}})
    with pytest.raises(UserError, match=r"mini\.prepare\.without\.train: 5: there are 5 images"):
        prepare("mini", home)
    streamed = Content(["a"], (1, 1, 1), {"test": 1}, [])
    with pytest.raises(UserError, match=r"mini\.prepare\.without\.test: there is no such split"):
        without(streamed, {"test": [0]}, "mini")


def test_manifest_arrays_and_labels_agree(home):
    manifest = prepare("mini", home)
    assert manifest == load_manifest(home / "data/prepared/mini") == verify("mini", home)
    assert names(home) == COMPLETE
    train = open_split(home / "data/prepared/mini", "train")
    assert isinstance(train, np.memmap)
    assert not train.flags.writeable
    assert manifest["splits"]["train"]["pixels_sha256"] == sha256_bytes(train.tobytes())
    assert manifest["splits"]["test"]["labels_sha256"] == sha256_bytes(np.arange(2, dtype="<i2").tobytes())
    assert manifest["fingerprint"] == fingerprint(manifest["splits"], manifest["classes"])
    assert str(home) not in json.dumps(manifest, ensure_ascii=False)


def test_a_second_preparation_gives_the_same_bytes(home):
    def digests() -> dict[str, str]:
        files = [*(home / "data/prepared/mini").glob("*.*"), home / "data/labels/mini.npz"]
        return {path.name: sha256_bytes(path.read_bytes()) for path in files}

    prepare("mini", home)
    first = digests()
    shutil.rmtree(home / "data/prepared")
    time.sleep(1.1)  # zip archives keep times of two seconds' grain
    prepare("mini", home)
    assert digests() == first


def test_pixels_labels_class_names_and_shape_each_change_the_fingerprint():
    record = {"shape": [2, 1, 1, 3], "pixels_sha256": "p", "labels_sha256": "l"}
    known = fingerprint({"train": record}, ["a"])
    others = [
        fingerprint({"train": record | {"shape": [1, 2, 1, 3]}}, ["a"]),
        fingerprint({"train": record | {"pixels_sha256": "q"}}, ["a"]),
        fingerprint({"train": record | {"labels_sha256": "m"}}, ["a"]),
        fingerprint({"train": record}, ["b"]),
        fingerprint({"test": record}, ["a"]),
    ]
    assert len({known, *others}) == 6
    assert fingerprint({"b": record, "a": record}, []) == fingerprint({"a": record, "b": record}, [])


def test_git_keeps_what_ties_the_labels_to_the_fingerprint(home):
    manifest = prepare("mini", home)
    anchor = read_json(home / "data/labels/mini.json")
    assert fingerprint(anchor["splits"], anchor["classes"]) == anchor["fingerprint"] == manifest["fingerprint"]
    with np.load(home / "data/labels/mini.npz") as stored:
        for split in stored.files:
            assert labels_digest(stored[split]) == anchor["splits"][split]["labels_sha256"]


# --- what is refused


def test_counts_classes_and_shape_must_be_the_declared_ones(home):
    for key, value, message in (
        ("splits", {"train": 6, "test": 2}, r"found \{test: 2, train: 5\}"),
        ("splits", {"train": 5}, "declares under `splits`"),
        ("image_size", 28, "declare"),
        ("num_classes", 11, "10 classes found"),
    ):
        before = catalog.entry(home, "mini")[key]
        change(home, **{key: value})
        with pytest.raises(UserError, match=message):
            prepare("mini", home)
        change(home, **{key: before})
    assert names(home) == []
    prepare("mini", home)


def test_a_declared_fingerprint_that_differs_is_an_integrity_error(home):
    known = prepare("mini", home)["fingerprint"]
    change(home, fingerprint="0" * 64)
    with pytest.raises(IntegrityError) as error:
        prepare("mini", home)
    assert known in str(error.value)
    assert "0" * 64 in str(error.value)
    assert names(home) == COMPLETE  # what was there stays
    with pytest.raises(IntegrityError):
        verify("mini", home)
    change(home, fingerprint=known)
    assert prepare("mini", home)["data_id"] == known


def test_a_wrong_archive_is_refused_before_it_is_read(home):
    path = home / "data/raw/cifar ü.tar.gz"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"cifar ü\.tar\.gz.*sha256"):
        prepare("mini", home)
    assert names(home) == []


def test_a_full_disk_is_said_before_anything_is_written(home, monkeypatch):
    monkeypatch.setattr("dica.data.prepare.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(UserError, match="GB are free"):
        prepare("mini", home)


# --- what a crash leaves


def test_an_error_on_the_way_leaves_nothing(home, monkeypatch):
    monkeypatch.setattr("dica.data.prepare._record", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare("mini", home)
    assert names(home) == []


def killed_in(where: str, root: Path) -> bool:
    """Prepare in a process that is killed when it comes to one of its functions."""
    code = (
        "import os, signal, sys, dica.data.prepare as p;"
        f"p.{where} = lambda *_: os.kill(os.getpid(), signal.SIGKILL);"
        "p.prepare('mini', sys.argv[1])"
    )
    return subprocess.run([sys.executable, "-c", code, str(root)], check=False).returncode == -9


def test_images_that_never_came_are_noticed(home, monkeypatch):
    def forgetful(*_) -> Content:
        pixels = images(5, 32, 32)
        labels = {"train": np.zeros(5, np.int16), "test": np.zeros(2, np.int16)}
        return Content([], (32, 32, 3), {"train": 5, "test": 2}, [whole("train", pixels)], labels)

    monkeypatch.setitem(READERS, "cifar", forgetful)
    with pytest.raises(UserError, match="2 images of test never came"):
        prepare("mini", home)
    assert names(home) == []


@pytest.mark.parametrize(("where", "complete"), [("_manifest", True), ("write_npz", False)])
def test_a_kill_while_a_prepared_set_is_replaced(home, where, complete):
    prepare("mini", home)
    assert killed_in(where, home)
    assert ("manifest.json" in names(home)) is complete
    if complete:
        verify("mini", home)


@pytest.mark.parametrize("where", ["_record", "_manifest", "write_npz", "write_json"])
def test_a_kill_leaves_no_manifest_and_the_next_run_completes(home, where):
    assert killed_in(where, home)
    assert "manifest.json" not in names(home)
    with pytest.raises(UserError, match="not prepared"):
        open_split(home / "data/prepared/mini", "train")
    prepare("mini", home)
    assert names(home) == COMPLETE
    verify("mini", home)


# --- what verification notices


@pytest.mark.parametrize("at", [20, 5000, -1])
def test_one_flipped_bit_is_noticed(home, at):
    prepare("mini", home)
    path = home / "data/prepared/mini/train.npy"
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"train\.npy"):
        verify("mini", home)


@pytest.mark.parametrize("damage", ["cut", "longer", "missing"])
def test_another_length_is_noticed_at_opening_and_by_verify(home, damage):
    prepare("mini", home)
    folder = home / "data/prepared/mini"
    data = (folder / "test.npy").read_bytes()
    (folder / "test.npy").unlink()
    if damage != "missing":
        (folder / "test.npy").write_bytes(data[:-1] if damage == "cut" else data + b"x")
    for action in (lambda: open_split(folder, "test"), lambda: verify("mini", home)):
        with pytest.raises(IntegrityError, match=r"test\.npy"):
            action()
    assert len(open_split(folder, "train")) == 5


def test_changed_labels_and_a_changed_manifest_are_noticed(home):
    prepare("mini", home)
    path = home / "data/labels/mini.npz"
    good = path.read_bytes()
    np.savez(path, train=np.arange(5, dtype=np.int16), test=np.array([1, 0], np.int16))
    with pytest.raises(IntegrityError, match="labels"):
        verify("mini", home)
    path.write_bytes(good)
    manifest = home / "data/prepared/mini/manifest.json"
    manifest.write_text(manifest.read_text().replace('"class 3"', '"class x"'))
    with pytest.raises(IntegrityError, match="its parts give"):
        verify("mini", home)


def test_a_split_that_is_not_there_is_named(home):
    prepare("mini", home)
    with pytest.raises(UserError, match="no split 'unlabeled' \\(it has test, train\\)"):
        open_split(home / "data/prepared/mini", "unlabeled")


def test_opening_prepared_arrays_needs_neither_pillow_nor_pandas_nor_torch():
    code = "import sys, dica.data.prepared; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"PIL", "pandas", "torch", "scipy", "sklearn", "yaml", "requests", "dvc"} & set(loaded)


# --- the command line


def test_command_line_exit_codes(home, capsys):
    root = ["--root", str(home)]
    assert main(["list", *root]) == 0
    assert capsys.readouterr().out.split()[:2] == ["mini", "-"]
    assert main(["fetch", "mini", *root]) == 0
    assert main(["prepare", "mini", *root]) == 0
    assert main(["verify", "mini", *root]) == 0
    assert main(["fingerprint", "mini", *root]) == 0
    assert load_manifest(home / "data/prepared/mini")["fingerprint"] in capsys.readouterr().out
    assert main(["prepare", "maxi", *root]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (home / "data/prepared/mini/train.npy").write_bytes(b"")
    assert main(["verify", "mini", *root]) == 3
    with pytest.raises(SystemExit) as error:
        main(["nonsense"])
    assert error.value.code == 2


def test_command_line_takes_a_mirror(home, tmp_path):
    shutil.move(home / "data/raw/cifar ü.tar.gz", tmp_path)
    assert main(["fetch", "mini", "--root", str(home)]) == 2
    assert main(["prepare", "mini", "--root", str(home), "--mirror", str(tmp_path)]) == 0


# --- the real thing


@pytest.mark.shared
def test_all_of_cifar10_jpeg(root, shared, tmp_path):
    archive = shared / "data" / "cifar10-jpeg.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    shutil.copytree(root / "params", tmp_path / "params")
    shutil.copytree(root / "workflow/schemas", tmp_path / "workflow/schemas")
    code = "import sys; from dica.data.prepare import prepare; prepare('cifar10-jpeg', sys.argv[1], sys.argv[2])"
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(archive.parent)], check=True)
    assert time.monotonic() - start < 120
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2 * 2**20  # KiB; the largest child so far
    manifest = load_manifest(tmp_path / "data/prepared/cifar10-jpeg")
    assert manifest["splits"]["train"]["shape"] == [50000, 32, 32, 3]
    assert manifest["classes"][0] == "airplane"
    with np.load(tmp_path / "data/labels/cifar10-jpeg.npz") as stored:
        counts = np.bincount(np.concatenate([stored["train"], stored["test"]]))
    assert counts.tolist() == [6000] * 10
    assert canonical_json(verify("cifar10-jpeg", tmp_path)) == canonical_json(manifest)
