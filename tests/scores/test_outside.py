"""Files of assignments from elsewhere: what they claim is bounded before memory is taken."""

from __future__ import annotations

import io
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dica.data import own
from dica.files import UserError, load_arrays, require_small_arrays, safe_cell, write_npz
from dica.scores import given, outside
from dica.scores.evaluation import recompute
from dica.scores.given import read_assignments
from dica.scores.metrics import contingency, evaluate


def npz_that_claims(path: Path, shape: str, data: bytes = b"12345678") -> Path:
    """Write an npz whose array has this shape in its header and these bytes."""
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data)
    return path


def test_a_small_file_with_large_arrays_takes_no_memory(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (80 * 2**20,)})
        for _ in range(640):
            file.write(bytes(2**20))
    assert (tmp_path / "x.npz").stat().st_size < 2**20
    for read in (load_arrays, read_assignments):
        with pytest.raises(UserError, match=r"x\.npz: its arrays have \d+ bytes, at most 536870912"):
            read(tmp_path / "x.npz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(2,)", "(0,)"])
def test_a_header_that_does_not_fit_the_bytes_is_refused(tmp_path, shape):
    path = npz_that_claims(tmp_path / "x.npz", shape)
    with pytest.raises(UserError, match=r"x\.npz: a\.npy claims to have the shape"):
        load_arrays(path)


def test_arrays_of_every_kind_pass(tmp_path):
    arrays = {
        "a": np.arange(5),
        "b": np.float16(3),
        "c": np.zeros((0, 3)),
        "d": np.array(["x", "yy"]),
        "e": np.eye(3).T,
    }
    write_npz(tmp_path / "x.npz", arrays)
    require_small_arrays(tmp_path / "x.npz")
    for name, values in load_arrays(tmp_path / "x.npz").items():
        np.testing.assert_array_equal(values, arrays[name])
    with pytest.raises(UserError, match="at most 100 are read"):
        load_arrays(tmp_path / "x.npz", limit=100)


def test_a_pickled_array_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="not a readable npz file"):
        load_arrays(tmp_path / "x.npz")


def test_an_npy_that_claims_more_than_it_holds_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<i8", "fortran_order": False, "shape": (10**11,)})
    (tmp_path / "x.npy").write_bytes(buffer.getvalue() + bytes(8))
    with pytest.raises(UserError, match=r"x\.npy: not a readable npy file"):
        read_assignments(tmp_path / "x.npy")


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".csv", ".txt"])
def test_a_file_too_long_for_its_kind_is_not_opened(tmp_path, suffix, monkeypatch):
    monkeypatch.setitem(given.LIMITS, suffix, 3)
    (tmp_path / f"x{suffix}").write_text("0\n1\n")
    with pytest.raises(UserError, match="has 4 bytes, at most 3 are read"):
        read_assignments(tmp_path / f"x{suffix}")


def test_a_csv_field_beyond_all_bounds_is_one_line(tmp_path):
    (tmp_path / "x.csv").write_text("a,label\n" + "x" * 200_000 + ",1\n")
    with pytest.raises(UserError, match=r"x\.csv:2: not readable as csv"):
        read_assignments(tmp_path / "x.csv")


@pytest.mark.parametrize("number", [2**31 - 1, 10**6, 0, -1])
def test_a_number_of_clusters_beyond_one_an_image_is_refused(tmp_path, number):
    with pytest.raises(UserError, match=f"num_clusters is {number}; for 4 images at most 1000"):
        evaluate(np.array([0, 1, 0, 1]), np.array([0, 1, 0, 1]), number, 2)
    labels = np.array([0, 1, 0, 1], np.int16)
    write_npz(tmp_path / "labels.npz", {"train": labels})
    write_npz(tmp_path / "predictions.npz", {"train_assignment": labels, "num_clusters": np.int64(number)})
    with pytest.raises(UserError, match=r"predictions\.npz"):
        recompute(tmp_path / "predictions.npz", tmp_path / "labels.npz", "train")


def test_an_index_of_2_to_the_31_is_not_counted():
    for true, pred in (([0, 1], [0, 2**31]), ([0, 2**40], [0, 1])):
        with pytest.raises(UserError, match="too many to count"):
            contingency(np.array(true), np.array(pred))


def test_a_score_comes_with_what_random_labels_reach(root, tmp_path, monkeypatch):
    true = load_arrays(root / "data/labels/digits.npz")["train"]
    np.save(tmp_path / "a.npy", np.random.default_rng(0).permutation(true).astype(np.int64))
    found = outside.score(tmp_path / "a.npy", "digits", root)
    assert abs(found["ami"]) < 0.01 < found["nmi"] + 0.01
    assert found["acc"] == pytest.approx(found["chance"]["acc"], abs=0.02)
    monkeypatch.setattr(outside, "MOST_COUNTS", 99)
    assert "chance" not in outside.score(tmp_path / "a.npy", "digits", root), "draws would take minutes"


@pytest.fixture
def named(copied_params: Path) -> Path:
    """A project with four labelled images in each of two splits, `own-pics`."""
    root = copied_params
    for k in range(8):
        path = root / "pics" / ("train", "test")[k // 4] / ("a", "b")[k % 2] / f"={k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 20 * k, np.uint8)).save(path)
    own.declare(root, "pics", root / "pics", own.look(root / "pics"), 8, 2)
    return root


def table(root: Path, split: str) -> tuple[list[str], Path]:
    """The rows of a csv with the right cluster of each image, and where to write it."""
    names = [f"{split}/{'ab'[k % 2]}/={k}.png" for k in range(4 * (split == "test"), 4 + 4 * (split == "test"))]
    return [f"{safe_cell(name)},{k % 2}" for k, name in enumerate(names)], root / "a.csv"


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [0, 2, 1, 3]])
def test_rows_are_matched_by_name_in_any_order(named: Path, split: str, order: list[int]) -> None:
    rows, path = table(named, split)
    path.write_text("\n".join(["file,cluster", *(rows[k] for k in order)]))
    found = outside.score(path, "own-pics", named)
    assert (found["acc"], found["split"], found["n"]) == (1, split, 4)
    with pytest.raises(UserError, match="is no image of"):
        outside.score(path, "own-pics", named, "test" if split == "train" else "train")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: [*rows[:3], rows[0]], r"names 'train/a/=0\.png' more than once"),
        (lambda rows: rows[:3], r"lacks 'train/b/=3\.png'; 1 of the images of train are not named"),
        (lambda rows: [*rows[:3], "x.png,1"], r"names 'x\.png', which is no image of all.*; 1 of 4 names"),
        (lambda rows: [f"other/{row}" for row in rows], r"4 of 4 names are unknown"),
    ],
)
def test_names_that_are_not_each_image_once_are_refused(named: Path, change, expected: str) -> None:
    rows, path = table(named, "train")
    path.write_text("\n".join(["file,cluster", *change(rows)]))
    with pytest.raises(UserError, match=expected):
        outside.score(path, "own-pics", named)


def test_a_column_of_names_that_cannot_be_compared_is_refused(root: Path, tmp_path: Path) -> None:
    true = load_arrays(root / "data/labels/digits.npz")["train"]
    (tmp_path / "a.csv").write_text("file,cluster\n" + "".join(f"{k}.png,{k % 10}\n" for k in range(len(true))))
    with pytest.raises(UserError, match="its column 'file' cannot be compared with the names of digits"):
        outside.score(tmp_path / "a.csv", "digits", root)


def test_images_without_labels_are_refused_with_their_data_set(named: Path) -> None:
    rows, path = table(named, "train")
    path.write_text("\n".join(["file,cluster", *rows]))
    own.declare(named, "bare", named / "pics", own.look(named / "pics", labels=False), 8, 2)
    (named / "b.csv").write_text("cluster\n" + "0\n1\n" * 4)
    with pytest.raises(UserError, match=r"own-bare: no image of train has a label.*b\.csv.*one folder a class"):
        outside.score(named / "b.csv", "own-bare", named)
    labels = load_arrays(named / "data/labels/own-pics.npz")
    write_npz(named / "data/labels/own-pics.npz", {**labels, "train": np.full(4, -1)})
    with pytest.raises(UserError, match="own-pics: no image of train has a label"):
        outside.score(path, "own-pics", named)
