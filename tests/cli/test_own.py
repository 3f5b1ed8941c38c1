"""What `dica cluster` says before anything is trained."""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import typer

from dica.cli import __main__ as command
from dica.cli import own as cli
from dica.cli import progress
from dica.files import INTERRUPTED, UserError
from dica.plan.parameters import load_datasets
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
    assert not (project / "data/prepared/own-other").exists()
    with pytest.raises(UserError, match="6 clusters of 10 images"):
        cli._declare(project, "other", project / "pics", wanted(6))
    assert not (project / "data/prepared/own-other").exists(), "told before all is read"


@pytest.fixture
def dica(project: Path, monkeypatch, capsys):
    """Call the command in the project; returns its exit code and its error."""
    monkeypatch.chdir(project)
    load_datasets.cache_clear()

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["dica", *arguments])
        with pytest.raises(SystemExit) as end:
            command.main()
        return end.value.code or 0, " ".join(capsys.readouterr().err.split())

    yield call
    load_datasets.cache_clear()


def make_sources(folder: Path) -> None:
    """Write what `dica cluster` refuses; beside it lie sixteen pictures, six of them damaged."""
    for name, file in (("empty", ""), ("text", "a.txt"), ("foreign", "a.heic"), ("bad", "a.png")):
        (folder / name).mkdir()
        if file:
            (folder / name / file).write_text("x")
    shutil.copytree(folder / "pics", folder / "linked")
    (folder / "linked/more").symlink_to(folder / "pics")
    for name in ("pics", "bad", "text"):
        with tarfile.open(folder / f"{name}.tar", "w") as file:
            file.add(folder / name, name)
    for name in ("torn.zip", "torn.npy", "notes.csv"):
        (folder / name).write_text("x")
    np.save(folder / "nan.npy", np.full((40, 3), np.nan, np.float32))
    picture_folder(folder / "good", count=16)


@pytest.mark.parametrize("before", [False, True])
def test_a_command_that_is_refused_leaves_nothing_behind(dica, project: Path, before: bool) -> None:
    make_sources(project)
    if before:
        for name in ("results/own", "data/raw", "data/prepared", "params/own"):
            (project / name).mkdir(parents=True)
    there = sorted(project.rglob("*"))
    for told, expected in [
        (["none"], "no such folder"),
        (["empty"], "no image found"),
        (["text"], "no image found"),
        (["foreign"], "no image found"),
        (["bad"], "none of the 1 images that were tried can be read"),
        (["bad", "--skip-unreadable"], "none of the 1 images"),
        (["pics"], "6 unreadable images"),
        (["pics", "--skip-unreadable", "--k", "6"], "6 clusters of 10 images"),
        (["linked"], "is a link to a folder"),
        (["pics.tar"], "6 unreadable images"),
        (["pics.tar", "--skip-unreadable", "--k", "6"], "6 clusters of 10 images"),
        (["bad.tar"], "none of the 1 images"),
        (["text.tar"], "no image found"),
        (["torn.zip"], "damaged or not an archive"),
        (["torn.npy"], "not readable as a NumPy array"),
        (["nan.npy"], "no finite number"),
        (["notes.csv"], "save it with numpy.save"),
        (["good/000_0.png"], "one image"),
        (["good", "--k", "9"], "9 clusters of 16 images"),
        (["good", "--method", "nope"], "no recipe for 'nope'"),
        (["good", "--epochs", "0"], "--epochs"),
        (["good", "--seeds", "0"], "--seeds"),
        (["good", "--budget", "0min"], "must be a time"),
    ]:
        code, error = dica("cluster", *told, *([] if "--k" in told else ["--k", "3"]))
        assert code == 2, told
        assert expected in error, told
        assert sorted(project.rglob("*")) == there, told


def numbers_of(app: typer.Typer) -> Iterator[tuple[str, object, int | None, object]]:
    """Yield of every number that a command takes: what it is called, its type, its least value, its default."""
    for known in app.registered_commands:
        hints = get_type_hints(known.callback, include_extras=True)
        for name, parameter in inspect.signature(known.callback).parameters.items():
            kind, *told = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name], None)
            if {int, float} & {kind, *get_args(kind)}:
                yield f"{known.callback.__name__} {name}", kind, told[0].min, parameter.default
    for group in app.registered_groups:
        yield from numbers_of(group.typer_instance)


def test_no_number_of_zero_means_the_default() -> None:
    found = list(numbers_of(command.app))
    assert {"cluster epochs", "cluster seeds", "verify epochs", "estimate gpus"} <= {name for name, *_ in found}
    assert not [name for name, _, _, default in found if default == 0]
    assert not [name for name, kind, least, _ in found if int in (kind, *get_args(kind)) and least != 1]


def test_the_lock_is_one_command_s_and_stays_where_something_was_begun(tmp_path: Path) -> None:
    lock = tmp_path / "results/own/pics/.lock"
    with cli._alone(tmp_path, "pics"):
        with (
            pytest.raises(UserError, match=rf"another dica command \(process {os.getpid()}\) works on these images"),
            cli._alone(tmp_path, "pics"),
        ):
            pass
        assert lock.is_file(), "it is not the second one's to remove"
    assert not list(tmp_path.iterdir())
    with cli._alone(tmp_path, "pics"):
        lock.with_name("index.html").touch()
    with cli._alone(tmp_path, "pics"):
        pass
    assert lock.is_file()


def test_commands_that_leave_nothing_are_never_two_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []

    def work(number: int) -> int:
        held, end = 0, time.monotonic() + 1
        while time.monotonic() < end:
            try:
                with cli._alone(tmp_path, "pics"):
                    inside.append(number)
                    assert inside == [number]
                    inside.remove(number)
                    held += 1
            except UserError:
                continue
        return held

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) > 4
    assert not list(tmp_path.rglob(".lock"))


def test_what_a_killed_command_has_left_running_is_named_with_the_way_to_stop_it(tmp_path: Path) -> None:
    with cli._alone(tmp_path, "pics") as lock:
        cli._sign(lock, 2**22 + 1, 4711)  # no process has so high a number
        left = r"was killed has started still works \(`kill -INT -- -4711` stops it\) on these images"
        with pytest.raises(UserError, match=left), cli._alone(tmp_path, "pics"):
            pass


@contextlib.contextmanager
def handled(number: int, handler: signal.Handlers) -> Iterator[None]:
    before = signal.signal(number, handler)
    yield
    signal.signal(number, before)


def test_the_end_of_the_terminal_stops_the_workflow_as_ctrl_c_does(tmp_path: Path) -> None:
    sleeps = [sys.executable, "-c", "import time; time.sleep(60)"]
    with handled(signal.SIGINT, signal.SIG_IGN):  # as by a shell of what it starts in the background
        process = subprocess.Popen(sleeps, start_new_session=True, preexec_fn=progress.heed_interrupts)
    with handled(signal.SIGHUP, signal.SIG_DFL):
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGHUP)).start()
        with pytest.raises(SystemExit) as ended:
            progress.watch(process, [], tmp_path)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    assert ended.value.code == INTERRUPTED
    assert process.returncode in (-signal.SIGINT, 1)


def test_under_nohup_the_end_of_the_terminal_stops_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)"], start_new_session=True)
    with handled(signal.SIGHUP, signal.SIG_IGN):
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGHUP)).start()
        assert progress.watch(process, [], tmp_path) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "2", "--budget", "5s"], "--epochs and --budget: give one of them"),
        (["--method", "kmeans", "--epochs", "2"], "--epochs: kmeans is not trained in epochs"),
        (["--method", "kmeans", "--budget", "5s"], "--budget: kmeans is not trained in epochs"),
    ],
)
def test_a_length_that_counts_for_nothing_is_refused(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch
) -> None:
    copy_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    picture_folder(tmp_path / "pictures", 3)
    with pytest.raises(UserError, match=message):
        command.app(["cluster", "pictures", "--k", "2", *arguments], standalone_mode=False)
    assert not (tmp_path / "results/own").exists()
