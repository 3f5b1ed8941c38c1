"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
import time
from datetime import date
from pathlib import Path

import pytest

from dica.files import read_csv, write_csv

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the workflow, whose files take longest: two workers then end together."""
    items.sort(key=lambda item: "tests/workflow/" not in item.path.as_posix())


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout under test."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data kept beside the project; tests that need it skip without it."""
    folder = Path(os.environ.get("DICA_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder} (set DICA_SHARED)")
    return folder


@pytest.fixture(scope="session")
def faults() -> Path | None:
    """The csv that measured checks go into, if DICA_FAULTS names one (from the root of the project)."""
    return ROOT / name if (name := os.environ.get("DICA_FAULTS")) else None


@pytest.fixture
def note_figures(faults):
    """A function that writes a check (what, times tried, times survived) over its line of `faults`."""
    begin = time.monotonic()

    def note(check: str, unit: str, tried: int, survived: int) -> None:
        if faults:
            seconds = round(time.monotonic() - begin)
            rows = read_csv(faults) if faults.is_file() else []
            new = dict(check=check, unit=unit, tried=tried, survived=survived, seconds=seconds, day=date.today())
            place = next((k for k, row in enumerate(rows) if row["check"] == check), len(rows))
            rows[place : place + 1] = [new]
            write_csv(rows, list(new), faults)

    return note


@pytest.fixture
def copied_params(root: Path, tmp_path: Path) -> Path:
    """A copy of the parameters and schemas to spoil."""
    for folder in ("params", "workflow/schemas"):
        shutil.copytree(root / folder, tmp_path / folder)
    (tmp_path / "Snakefile").touch()
    return tmp_path
