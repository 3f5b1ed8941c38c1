"""One run in two processes computes what it computes in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from dica import torchrun, train
from dica.engine import distributed, speed
from dica.engine.checkpoints import NEWEST
from dica.files import IntegrityError, UserError, read_json, sha256_file, write_json
from tiny import make_prepared, make_trainer, tiny_config
from two_processes import METHODS, settings_of

COMMAND = tiny_config("drc", epochs=1)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """Every method trained in two processes on one data set, and one run by the command."""
    folder, tests = tmp_path_factory.mktemp("two"), Path(__file__).parents[1] / "support"
    data = make_prepared(folder / "data", {"train": 51})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(tests / "two_processes.py"), str(data), str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")])}
    config = json.dumps(COMMAND)
    done = subprocess.run(command, env=environment, input=config, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (folder / "stderr.txt").write_text(done.stderr)
    return folder


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("method", list(METHODS))
def test_two_processes_train_like_one_with_the_joint_batch(method: str, two: Path, tmp_path: Path, double) -> None:
    alone = make_trainer(settings_of(method), two / "data", tmp_path / "state")
    alone.run()
    for expected, found in zip(alone.history, read_json(two / f"{method}.json")["history"], strict=True):
        assert found == pytest.approx(expected, rel=1e-8)
    expected, found = alone.method.state_dict(), torch.load(two / f"{method}.pt")
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-6, atol=1e-9), name


@pytest.mark.parametrize("method", list(METHODS))
def test_the_processes_stay_alike_and_resume_exactly(method: str, two: Path) -> None:
    assert read_json(two / f"{method}.json")["changed_by_resuming"] == []
    first, other = torch.load(two / f"{method}.pt"), torch.load(two / f"{method}-other.pt")
    assert not [name for name in first if not torch.equal(first[name], other[name])]


def test_the_command_reads_its_config_once_and_writes_one_run(two: Path) -> None:
    said = (two / "stderr.txt").read_text()
    assert said.count(f"run {COMMAND['id']} on cpu, 1 thread(s), 2 processes") == 1
    assert said.count(f"done {train.title(COMMAND)}") == 1
    record = read_json(two / "command/run.json")
    assert record["speed"]["processes"] == 2
    for name, digest in record["files"].items():
        assert sha256_file(two / "command" / name) == digest


def start_two(folder: Path, settings: dict) -> subprocess.Popen:
    write_json(folder / "config.json", settings)
    command = [sys.executable, "-m", "dica.torchrun", "--standalone", "--nproc-per-node", "2", "-m", "dica.train"]
    paths = ("--config", folder / "config.json", "--data", folder / "data", "--out", folder / "out")
    command += [*map(str, paths), "--device", "cpu", "--save-batches", "1"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_two_processes_that_are_asked_to_stop_leave_with_their_own_code(tmp_path: Path) -> None:
    make_prepared(tmp_path / "data")
    process = start_two(tmp_path, tiny_config("drc", epochs=100_000))
    while process.poll() is None and not (tmp_path / "out.state" / NEWEST).is_file():
        time.sleep(0.05)
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said.count("interrupted; run the same command")) == (train.INTERRUPTED, 2)
    assert "Traceback" not in said


def test_two_processes_with_wrong_data_leave_with_their_own_code(tmp_path: Path) -> None:
    make_prepared(tmp_path / "data")
    body = {key: value for key, value in tiny_config("drc").items() if key != "id"}
    process = start_two(tmp_path, {**body, "data_id": "other"})
    _, said = process.communicate(timeout=120)
    assert process.returncode == IntegrityError.exit_code
    assert "prepare digits again" in said


def test_a_method_without_a_residual_network_is_refused(tmp_path: Path, monkeypatch) -> None:
    method = make_trainer(tiny_config("dccm"), make_prepared(tmp_path / "data"), tmp_path / "state").method
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    with pytest.raises(UserError, match="DCCM: nothing to share out among 2 processes; use one GPU"):
        distributed.share_out(method)
    monkeypatch.setattr(speed, "processes", lambda: 2)
    with pytest.raises(UserError, match="--compile: not for a run of several processes"):
        speed.choose(True, False, "fast", torch.device("cuda"), method)


def test_fewer_images_than_processes_are_refused(tmp_path: Path, monkeypatch) -> None:
    method = make_trainer(tiny_config("drc"), make_prepared(tmp_path / "data"), tmp_path / "state").method
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    distributed.share_out(method)
    with pytest.raises(UserError, match="a batch of 1 images cannot be shared out among 2 processes"):
        method.train().backbone(torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize(("codes", "expected"), [((1, 3), 3), ((3, 1), 3), ((1, 1), 1), ((-9, 1), 1), ((-15, -15), 1)])
def test_the_code_of_several_processes_is_the_one_that_says_what_was_wrong(
    codes: tuple[int, int], expected: int, monkeypatch
) -> None:
    failures = {rank: ProcessFailure(rank, 4000 + rank, code, "none") for rank, code in enumerate(codes)}

    def fail(_: object) -> None:
        raise ChildFailedError("dica.train", failures)

    monkeypatch.setattr(torchrun.os, "environ", {})
    monkeypatch.setattr(torchrun.run, "main", fail)
    assert torchrun.main([]) == expected
