"""Where people run it: a notebook, a terminal that knows ASCII alone, Windows' line endings, odd folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dica.files import sha256_bytes

NO_UTF8 = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def python(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=os.environ | environment, cwd=cwd, capture_output=True, check=False)


@pytest.mark.parametrize("module", ["dica.figures", "dica.audit.figures", "dica.figures.pictures"])
def test_the_backend_that_a_notebook_names_does_not_stop_the_figures(module):
    code = f"import {module}, matplotlib; print(matplotlib.get_backend())"
    ran = python("-c", code, MPLBACKEND="module://matplotlib_inline.backend_inline")
    assert (ran.returncode, ran.stdout.strip().lower()) == (0, b"agg"), ran.stderr


@pytest.mark.parametrize("settings", [{"PYTHONIOENCODING": "ascii"}, NO_UTF8])
def test_output_that_knows_ascii_alone_is_escaped_and_not_an_error(root, settings):
    for command in (["dica.cli", "status"], ["dica.cli", "show", "drc", "table-1"], ["dica.data", "list"]):
        ran = python("-m", *command, cwd=root, **settings)
        assert b"UnicodeEncodeError" not in ran.stderr
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.isascii()


def test_no_line_ending_is_converted_by_git(root, tmp_path):
    """A clone with Windows' setting has the bytes that were committed, which all recorded hashes are over."""
    contents = {"params/a.yaml": b"a: 1\nb: 2\n", "results/x.csv": b"a,b\r\n1,2\r\n", "mixed": b"a\r\nb\n"}
    origin = tmp_path / "origin"
    for name, data in contents.items():
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        (origin / name).write_bytes(data)
    shutil.copy(root / ".gitattributes", origin)

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "core.autocrlf=true", "-c", "core.safecrlf=false"]
        subprocess.run(["git", *who, *arguments], cwd=origin, check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    git("clone", "-q", str(origin), str(tmp_path / "clone"), "-c", "core.autocrlf=true")
    for name, data in contents.items():
        assert sha256_bytes((tmp_path / "clone" / name).read_bytes()) == sha256_bytes(data), name


def test_braces_in_the_path_are_refused_in_one_line(root, tmp_path):
    folder: Path = tmp_path / "a{b} c"
    shutil.copytree(root / "workflow", folder / "workflow")
    shutil.copy(root / "Snakefile", folder)
    ran = python("-m", "snakemake", "-n", cwd=folder)
    said = ran.stdout + ran.stderr
    assert ran.returncode == 1
    assert b"Snakemake takes what stands in braces for a name to fill in; rename or move the folder" in said
    assert b"Traceback" not in said


def test_dvc_does_not_take_images_of_one_s_own_for_a_part_of_the_archive(root):
    paths = [
        "params/own/photos/profile.yaml",
        "data/labels/own-photos.npz",
        "params/drc.yaml",
        "data/labels/digits.npz",
    ]
    ran = python("-m", "dvc", "check-ignore", *paths, cwd=root)
    assert ran.stdout.decode().split() == paths[:2], ran.stderr
