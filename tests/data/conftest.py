"""A project with one tiny data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import archives
from archives import entry, images, project, source


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A project with one tiny CIFAR-10 in its binary archive."""
    root = tmp_path / "Projekt ä 1"
    data = images(5, 32, 32), np.arange(5), images(2, 32, 32, seed=1), np.arange(2)
    path = archives.cifar10_binary(root / "data/raw/cifar ü.tar.gz", *data)
    one = entry("cifar", [source(path, "binary")], {"train": 5, "test": 2}, 32, prepare={"labels": "label"})
    return project(root, mini=one)
