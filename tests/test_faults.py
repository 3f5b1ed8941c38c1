"""What a machine does to a run: a full disk, a read-only folder, a clock that jumps, many processes on few devices."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from dica import train
from dica.data.folder import read
from dica.engine.loop import SaveEvery, Trainer
from dica.files import UserError, atomic_write_text, sha256_file, write_json
from dica.runs import record
from dica.scores.evaluation import evaluate_files
from dica.scripting import run_script
from faults import slots_under_load
from tiny import make_prepared, tiny_config

RESULT = ("predictions.npz", "weights.safetensors", "history.csv", "config.json")


def train_in(folder: Path, settings: dict, data: Path) -> int:
    gc.collect()  # a process holds a run's lock as long as it has its objects
    write_json(folder / "config.json", settings)
    options = ("--config", folder / "config.json", "--data", data, "--out", folder / "out", "--state", folder / "state")
    return train.main([*map(str, options), "--device", "cpu", "--save-batches", "2"])


@pytest.fixture
def full_disk(monkeypatch):
    """Make the disk full for every file whose name has a given part; returns the switch."""
    fsync, part = os.fsync, []

    def refuse(descriptor: int) -> None:
        if part and part[0] in str(Path(f"/proc/self/fd/{descriptor}").readlink().name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)

    def switch(name: str | None) -> None:
        part[:] = [name] if name else []

    return switch


@pytest.mark.parametrize("name", ["checkpoint", "history.csv", "predictions.npz", "weights", "run.json"])
def test_a_full_disk_is_one_line_and_the_same_command_finishes_the_run(
    name: str, tmp_path: Path, capsys, full_disk
) -> None:
    data, settings = make_prepared(tmp_path / "data"), tiny_config("drc")
    assert train_in(tmp_path / "whole", settings, data) == 0
    full_disk(name)
    assert train_in(tmp_path / "full", settings, data) == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert "No space left on device; mend that and run the same command again" in message
    assert name in message.splitlines()[-1]
    assert not list((tmp_path / "full").rglob("*.tmp")), "nothing half written"
    assert not (tmp_path / "full/out/run.json").exists()
    full_disk(None)
    assert train_in(tmp_path / "full", settings, data) == 0
    for result in RESULT:
        assert sha256_file(tmp_path / "full/out" / result) == sha256_file(tmp_path / "whole/out" / result), result


def test_a_full_disk_leaves_the_old_table(tmp_path: Path, capsys, full_disk) -> None:
    table = tmp_path / "table-1.md"
    atomic_write_text(table, "old")
    full_disk("table-1")
    assert run_script(lambda: atomic_write_text(table, "new")) == 1
    assert capsys.readouterr().err.startswith(f"error: {table}: No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["table-1.md"]
    assert table.read_text() == "old"


def test_a_full_disk_that_cannot_even_note_the_failure_still_says_so(tmp_path: Path, capsys, full_disk) -> None:
    full_disk(".")
    assert train_in_quietly(tmp_path, full_disk) == 1
    assert "No space left on device" in capsys.readouterr().err


def train_in_quietly(tmp_path: Path, full_disk) -> int:
    full_disk(None)
    data, settings = make_prepared(tmp_path / "data"), tiny_config("kmeans")
    write_json(tmp_path / "run/config.json", settings)
    full_disk("json")
    paths = ("--config", tmp_path / "run/config.json", "--data", data, "--out", tmp_path / "run/out")
    return train.main([*map(str, paths), "--device", "cpu"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of 8 MiB that really can be full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True) if shutil.which("mount") else None
    if done is None or done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip() if done else 'no mount'}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    with open(disk / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    assert shutil.disk_usage(disk).free == 0


@pytest.mark.parametrize(
    ("owner", "name", "file"), [(Trainer, "save", "checkpoint"), (train, "predict", "config.json")]
)
def test_a_disk_that_is_really_full_is_one_line_and_the_same_command_finishes_the_run(
    owner, name: str, file: str, small_disk: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    data, settings = make_prepared(tmp_path / "data"), tiny_config("drc")
    assert train_in(tmp_path / "whole", settings, data) == 0
    original = getattr(owner, name)

    def on_a_full_disk(*arguments):
        if not (small_disk / "filler").exists():
            fill(small_disk)
        return original(*arguments)

    monkeypatch.setattr(owner, name, on_a_full_disk)
    assert train_in(small_disk / "run", settings, data) == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    last = message.splitlines()[-1]
    assert "No space left on device; mend that and run the same command again" in last
    assert file in last, "the first one that is written then"
    assert not list(small_disk.rglob("*.tmp")), "nothing half written"
    assert not (small_disk / "run/out/run.json").exists()
    monkeypatch.undo()
    (small_disk / "filler").unlink()
    assert train_in(small_disk / "run", settings, data) == 0
    for result in RESULT:
        assert sha256_file(small_disk / "run/out" / result) == sha256_file(tmp_path / "whole/out" / result), result


def test_a_disk_that_is_really_full_leaves_the_old_table(small_disk: Path, capsys) -> None:
    table = small_disk / "table-1.md"
    atomic_write_text(table, "old")
    fill(small_disk)
    assert run_script(lambda: atomic_write_text(table, "new")) == 1
    assert capsys.readouterr().err.startswith(f"error: {table}: No space left on device")
    assert sorted(path.name for path in small_disk.iterdir()) == ["filler", "table-1.md"]
    assert table.read_text() == "old"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, capsys) -> None:
    """Also for root, whom no permission stops: nobody can make a folder in /proc."""
    data = make_prepared(tmp_path / "data")
    write_json(tmp_path / "config.json", tiny_config("kmeans"))
    where = ("--config", str(tmp_path / "config.json"), "--data", str(data), "--out")
    assert train.main([*where, "/proc/dica/out", "--device", "cpu"]) == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert message.splitlines()[-1].startswith("error: /proc/dica")


def test_the_clock_may_jump(monkeypatch) -> None:
    """Checkpoints are timed by a clock that nobody sets: a wall clock set back must not put them off for hours."""
    monkeypatch.setattr(time, "time", lambda: -1e9)
    every = SaveEvery(seconds=0.05)
    assert not every.due()
    time.sleep(0.06)
    assert every.due()


def test_a_collapsed_run_is_called_that(tmp_path: Path) -> None:
    labels = np.arange(100) % 10
    np.savez(tmp_path / "labels.npz", train=labels, test=labels[:0])
    for assignment, collapsed in ((np.zeros(100, np.int16), True), (labels.astype(np.int16), False)):
        np.savez(tmp_path / "predictions.npz", train_assignment=assignment, num_clusters=np.int32(10))
        found = evaluate_files(tmp_path / "predictions.npz", tmp_path / "labels.npz", tmp_path / "m.json", "all")
        note = record.collapse_note(found["headline"])
        assert note == ("collapsed: all images in 1 of 10 clusters" if collapsed else "")


@pytest.mark.parametrize(("share", "said"), [(0.9499, ""), (0.95, "95.0 %"), (0.9999, "99.9 %"), (1.0, "all images")])
def test_from_which_share_on_a_run_counts_as_collapsed(share: float, said: str) -> None:
    note = record.collapse_note({"largest_cluster_share": share, "num_clusters": 10})
    assert note.startswith(f"collapsed: {said}") if said else not note


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        (np.zeros(9, np.int16), "has shape"),
        (np.zeros((10, 1), np.int16), "has shape"),
        (np.zeros(10, np.float32), "integer"),
        (np.full(10, np.nan), "NaN"),
        (np.full(10, -3, np.int16), "-3"),
        (np.full(10, 10, np.int16), "10"),
        (np.array(["a"] * 10), "integer"),
        (np.array([None] * 10), "npz"),
    ],
)
def test_predictions_of_another_shape_or_type_are_refused_by_name(assignment, expected: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "labels.npz", train=np.arange(10) % 10, test=np.zeros(0, np.int64))
    np.savez(tmp_path / "predictions.npz", train_assignment=assignment, num_clusters=np.int32(10))
    with pytest.raises(UserError, match=r"predictions\.npz") as error:
        evaluate_files(tmp_path / "predictions.npz", tmp_path / "labels.npz", tmp_path / "m.json", "train")
    assert expected in str(error.value)
    assert not (tmp_path / "m.json").exists()


def test_every_damaged_image_of_a_folder_is_listed_with_its_path(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "ä b"
    for name in ("cat/1.png", "cat/2.png", "dog/3 ü.png", "dog/4.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / name)
    (folder / "cat/2.png").write_bytes(b"")
    content = (folder / "dog/3 ü.png").read_bytes()
    (folder / "dog/3 ü.png").write_bytes(content[: len(content) // 2])
    found = read({"name": "pets", "image_size": 8, "prepare": {}}, "folder", {"pets": folder})
    with pytest.raises(UserError, match="2 unreadable images") as error:
        list(found.blocks)
    assert "cat/2.png (" in str(error.value)
    assert "dog/3 ü.png (" in str(error.value)


def test_fifty_processes_on_four_devices_never_meet_and_leave_nothing(tmp_path: Path) -> None:
    found = slots_under_load(tmp_path, processes=50, kills=25, seed=0)
    assert found == {"processes": 50, "killed": found["killed"], "met": 0, "leaked": 0}
    assert found["killed"] >= 3
