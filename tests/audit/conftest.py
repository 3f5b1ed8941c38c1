"""A small committed archive, and copies of it to spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from committed import make_archive


@pytest.fixture(scope="session")
def committed(tmp_path_factory, root: Path) -> Path:
    return make_archive(tmp_path_factory.mktemp("audit") / "project", root)


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """Where every test finds its copy: params/ are then read and checked once."""
    return tmp_path_factory.mktemp("copy") / "project"


@pytest.fixture
def project(committed: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(committed, place))


@pytest.fixture
def bare(project: Path) -> Path:
    """Without Git, so that the other checks stand alone."""
    shutil.rmtree(project / ".git")
    return project


@pytest.fixture
def editable(committed: Path, tmp_path: Path) -> Path:
    """A copy in a place of its own, whose params/ may be edited."""
    return Path(shutil.copytree(committed, tmp_path / "project"))
