"""Fixtures that several test files share."""

from __future__ import annotations

import csv
import os
import shutil
import time
from pathlib import Path

import pytest

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


@pytest.fixture
def note_figures(request):
    """A function that adds a line (what was checked, times tried, times survived) to the csv in DICA_FAULTS."""
    begin = time.monotonic()

    def note(check: str, unit: str, tried: int, survived: int) -> None:
        if name := os.environ.get("DICA_FAULTS"):
            with open(name, "a", encoding="utf-8", newline="") as file:
                seconds = round(time.monotonic() - begin)
                csv.writer(file, lineterminator="\n").writerow([check, unit, tried, survived, seconds])

    return note


@pytest.fixture
def copied_params(root: Path, tmp_path: Path) -> Path:
    """A copy of the parameters and schemas to spoil."""
    for folder in ("params", "workflow/schemas"):
        shutil.copytree(root / folder, tmp_path / folder)
    (tmp_path / "Snakefile").touch()
    return tmp_path
