"""What `dica cluster` says before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from dica.cli import own as cli
from dica.files import UserError
from pictures import copy_params, picture_folder


def wanted(k: int) -> dict:
    return {"method": "kmeans", "epochs": 0, "seconds": 0.0, "k": k, "seeds": 1, "labels": True, "skip": True} | {
        "follow": False
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with sixteen pictures, six of them damaged."""
    root = copy_params(tmp_path / "project")
    for path in sorted(picture_folder(root / "pics", count=16).iterdir())[:6]:
        path.write_bytes(b"no image")
    return root


def test_images_that_are_left_out_are_told_and_not_counted(project: Path, capsys) -> None:
    for _ in range(2):  # the second time all is there
        cli._declare(project, "pics", project / "pics", wanted(4))
        told = " ".join(capsys.readouterr().out.split())
        assert "6 images that cannot be read are left out: 000_0.png, 001_1.png" in told
    with pytest.raises(UserError, match="6 clusters of 10 images"):
        cli._declare(project, "pics", project / "pics", wanted(6))
