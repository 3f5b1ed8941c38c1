"""Features from elsewhere: a table of numbers is a data set, and only a table of numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dica.data import catalog, own
from dica.data.prepare import verify
from dica.data.prepared import image_names, is_current, open_split
from dica.data.thumbnails import Thumbnails
from dica.files import UserError
from dica.plan import recipes


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Forty rows of five numbers in four groups, named after images that are beside them."""
    rows = np.random.default_rng(0).normal(0, 0.1, (40, 5)) + np.arange(40)[:, None] % 4
    np.save(tmp_path / "clip.npy", rows)
    (tmp_path / "clip.txt").write_text("".join(f"pics/{k}.png\n" for k in range(40)))
    (tmp_path / "pics").mkdir()
    Image.fromarray(np.full((30, 20, 3), (200, 0, 0), np.uint8)).save(tmp_path / "pics/0.png")
    return tmp_path / "clip.npy"


def test_a_table_becomes_a_data_set(table: Path, copied_params: Path) -> None:
    found = own.look(table)
    assert (found.count, found.features, found.classes) == (40, 5, [])
    assert own.default_name(table) == "clip"
    entry = own.declare(copied_params, "clip", table, found, 1, 4)
    known = catalog.load(copied_params)["own-clip"]
    assert is_current(copied_params, known)
    assert verify("own-clip", copied_params)["fingerprint"] == entry["fingerprint"]
    prepared = copied_params / "data/prepared/own-clip"
    stored = open_split(prepared, "train")
    assert (stored.dtype, stored.shape) == (np.float32, (40, 1, 1, 5))
    np.testing.assert_array_equal(stored[:, 0, 0], np.load(table).astype(np.float32))
    names = image_names(prepared, "train")
    assert names[3] == "pics/3.png"
    shown = Thumbnails(prepared, entry, copied_params, ["train"], names).of([0, 1], 8)
    assert [shown[row].getpixel((4, 4)) for row in (0, 1)] == [(200, 0, 0), (221, 221, 221)]


def test_other_numbers_or_names_are_another_listing(table: Path) -> None:
    before = own.look(table).listing
    table.with_suffix(".txt").unlink()
    assert own.look(table).listing != before


def test_what_is_no_table_is_refused(tmp_path: Path, copied_params: Path) -> None:
    path = tmp_path / "x.npy"
    for rows, expected in [
        (np.zeros(3), r"float64 \(3,\)"),
        (np.zeros((2, 0)), r"float64 \(2, 0\)"),
        (np.array([["a", "b"]]), "<U1"),
        (np.zeros((1, 70_000), np.int8), "70000 numbers a row"),
    ]:
        np.save(path, rows)
        with pytest.raises(UserError, match=f"x.npy: .*{expected}"):
            own.look(path)
    np.save(path, np.array([[{}]]), allow_pickle=True)
    with pytest.raises(UserError, match=r"not readable as a NumPy array"):
        own.look(path)
    path.write_bytes(b"no array")
    with pytest.raises(UserError, match=r"numpy\.save"):
        own.look(path)
    for bad in (np.nan, 1e300):
        np.save(path, np.array([[0.0], [bad]]))
        with pytest.raises(UserError, match=r"row 1 \(counted from 0\) .* no finite number .*; replace") as raised:
            own.declare(copied_params, "x", path, own.look(path), 1, 2)
        assert str(raised.value).startswith(f"{path}: ")
    assert not (copied_params / "params/own/x").exists()


def test_names_that_are_not_one_a_row_are_refused(table: Path) -> None:
    listing = table.with_suffix(".txt")
    for text in ("a\nb\n", "a\n" * 40, "\n" * 40):
        listing.write_text(text)
        with pytest.raises(UserError, match=r"clip\.txt: .* lines, .* for 40 rows of clip\.npy"):
            own.look(table)
    listing.write_bytes(b"\xff" * 40)
    with pytest.raises(UserError, match=r"clip\.txt: not UTF-8"):
        own.look(table)


def test_names_that_lead_elsewhere_show_no_picture(table: Path, copied_params: Path) -> None:
    outside = table.parent / "pics/0.png"
    odd = [str(outside), "../x.png", "notes", *map(str, range(37))]
    table.with_suffix(".txt").write_text("\n".join(odd))
    entry = own.declare(copied_params, "clip", table, own.look(table), 1, 4)
    shown = Thumbnails(copied_params / "data/prepared/own-clip", entry, copied_params, ["train"], odd).of([0, 1, 2], 8)
    assert {image.getpixel((0, 0)) for image in shown.values()} == {(221, 221, 221)}


def test_only_methods_without_networks_have_a_recipe(table: Path, root: Path) -> None:
    look = own.look(table)
    recipe = recipes.draft("sc", look, 4, False, root)
    assert recipe.overrides["inputs"] == {"map": "features"}
    with pytest.raises(UserError, match=r"no recipe for 'imc-swav' on features.*kmeans"):
        recipes.draft("imc-swav", look, 4, False, root)
    with pytest.raises(UserError, match=r"no recipe for 'sc'; "):
        recipes.check_method("sc")
