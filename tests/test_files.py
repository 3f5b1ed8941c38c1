"""The readers that everything shares: whatever a stranger wrote, one line of error; and cells that are no formulas."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from dica.audit.deposit import unpacked
from dica.files import UserError, load_arrays, parse_json, plain_cell, read_csv, read_json, safe_cell
from dica.tables.cells import CELL_COLUMNS, cells_text, read_cells
from dica.validation import load_yaml
from fuzz import RECORDS

FORMULAS = ["\n=1", "\uff1d1+1", "=1+1", "+SimCLR", "-x", "@SUM(A1)", "\tx", "'=1", "''-x", '=HYPERLINK("http://x")']


@pytest.mark.parametrize("what", ["nested 100,000 deep", "an integer of 5,000 digits", "no number", "not UTF-8"])
def test_json_from_a_stranger_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(RECORDS[what])
    with pytest.raises(UserError, match="not readable as JSON") as refused:
        read_json(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_the_system_refuses_is_a_users_error(tmp_path: Path) -> None:
    for reader in (read_json, read_csv):
        with pytest.raises(UserError, match="cannot be read"):
            reader(tmp_path)
        with pytest.raises(UserError, match="no such file"):
            reader(tmp_path / "nothing")


def open_deposit(path: Path) -> None:
    with unpacked(path):
        pass


@pytest.mark.parametrize("reader", [read_json, read_csv, load_yaml, load_arrays, open_deposit])
def test_a_pipe_or_a_device_is_not_read(reader: Callable, tmp_path: Path) -> None:
    """One that nobody writes to has no end, and neither has /dev/zero."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "zeros"):
        with pytest.raises(UserError, match=f"{name}: .*is no plain file"):
            reader(tmp_path / name)


def test_a_csv_file_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    for text, message in (("a,b\n1,2,3\n", "more cells"), ("a\n1\n", "lacks the column 'b'"), ('a,b\n"x', "CSV")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_csv(path, ("a", "b"))
    path.write_text("a,b\n1\n")
    assert read_csv(path) == [{"a": "1", "b": ""}], "a row that is too short"


def test_no_text_cell_is_a_formula_and_every_one_comes_back(tmp_path: Path) -> None:
    assert [safe_cell(value) for value in ("-0.5", "+3e-2", -0.5, "x=1", "", None)] == \
        ["-0.5", "+3e-2", -0.5, "x=1", "", None]  # fmt: skip
    for text in FORMULAS:
        assert safe_cell(text).startswith("'")
        assert plain_cell(safe_cell(text)) == text
    assert plain_cell("'twas") == "'twas"
    row = {**dict.fromkeys(CELL_COLUMNS, ""), "value": -0.25, "n": 1, "seeds_planned": 1}
    frame = pd.DataFrame([{**row, "label": text} for text in FORMULAS], columns=CELL_COLUMNS)
    written = cells_text(frame)
    cells = [cell for line in csv.reader(io.StringIO(written, newline="")) for cell in line]
    assert [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\r")] == ["-0.25"] * len(FORMULAS)
    (tmp_path / "cells.csv").write_bytes(written.encode())
    assert read_cells(tmp_path / "cells.csv")["label"].tolist() == FORMULAS


def test_a_name_given_twice_in_json_is_refused() -> None:
    with pytest.raises(UserError, match=r"metrics: not readable as JSON \('acc' is given twice\)"):
        parse_json('{"headline": {"acc": 0.1, "acc": 0.9}}', "metrics")
