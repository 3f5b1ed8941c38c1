"""GPU slots: never two holders of one, none leaked when a holder is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from dica import train
from dica.engine.slots import _take, gpu_slot, twelfths
from dica.files import UserError

HOLDER = """
import sys, time
from pathlib import Path
from dica.engine.slots import gpu_slot
with gpu_slot(sys.argv[2].split(","), int(sys.argv[3]), Path(sys.argv[1]), poll_s=0.02) as index:
    print(index, flush=True)
    time.sleep(60)
"""


def holder(folder: Path, devices: str = "a,b", share: int = 1) -> subprocess.Popen:
    arguments = [sys.executable, "-c", HOLDER, str(folder), devices, str(share)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as two users")
def test_two_users_share_a_folder_of_mode_1777(tmp_path: Path) -> None:
    """The first one's lock files are made under a strict umask; the second one waits for them and takes them."""
    shared = Path(tempfile.mkdtemp(prefix="slots-"))  # pytest's own folders are root's alone
    shared.chmod(0o1777)

    def take(user: int) -> int:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.umask(0o077)
                os.setuid(user)
                with gpu_slot(["a", "b"], 1, shared), gpu_slot(["a", "b"], 1, shared):
                    code = 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    try:
        assert [take(user) for user in (12345, 23456, 12345)] == [0, 0, 0]
    finally:
        shutil.rmtree(shared)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
def test_a_folder_that_another_user_may_not_write_is_one_line(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from dica.engine.slots import gpu_slot; os.setuid(12345)\n"
        "from dica.files import UserError\n"
        "try:\n  with gpu_slot(['a'], 1, Path(sys.argv[1])): pass\n"
        "except UserError as error: print(error)"
    )
    shared = Path(tempfile.mkdtemp(prefix="slots-"))
    shared.chmod(0o755)
    try:
        ran = subprocess.run([sys.executable, "-c", code, str(shared)], capture_output=True, text=True, check=True)
    finally:
        shutil.rmtree(shared)
    assert "choosing.lock: may not be opened" in ran.stdout
    assert "mode 1777" in ran.stdout


def test_each_device_is_given_once_and_freed_by_a_kill(tmp_path: Path) -> None:
    first, second = holder(tmp_path), holder(tmp_path)
    try:
        given = {process: int(process.stdout.readline()) for process in (first, second)}
        assert sorted(given.values()) == [0, 1]
        third = holder(tmp_path)
        time.sleep(0.5)
        assert third.poll() is None
        first.send_signal(signal.SIGKILL)
        assert int(third.stdout.readline()) == given[first], "the slot of the killed process, and no other"
        third.kill()
    finally:
        for process in (first, second):
            process.kill()
            process.wait()


def test_shares_are_spread_over_devices_before_doubling_up(tmp_path: Path) -> None:
    with (
        gpu_slot(["a", "b"], 2, tmp_path) as one,
        gpu_slot(["a", "b"], 2, tmp_path) as two,
        gpu_slot(["a", "b"], 2, tmp_path) as three,
    ):
        assert (one, two, three) == (0, 1, 0)


def test_a_whole_device_is_never_one_that_others_share(tmp_path: Path) -> None:
    with gpu_slot(["a", "b"], 4, tmp_path) as small:
        with gpu_slot(["a", "b"], 1, tmp_path) as whole, gpu_slot(["a", "b"], 2, tmp_path) as half:
            assert whole != small == half
        third = holder(tmp_path, share=1)
        assert int(third.stdout.readline()) != small
        fourth = holder(tmp_path, share=1)
        time.sleep(0.3)
        assert fourth.poll() is None, "it waits: three quarters of a device are not a device"
        for process in (third, fourth):
            process.kill()
            process.wait()


def test_a_share_divides_a_device_evenly() -> None:
    assert [twelfths(share) for share in (1, 2, 3, 4, 6, 12)] == [12, 6, 4, 3, 2, 1]
    for share in (0, 5, -1):
        with pytest.raises(UserError, match=f"gpu_share is {share}; .* 1, 2, 3, 4, 6, 12$"):
            twelfths(share)


def test_a_slot_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), gpu_slot(["a"], 1, tmp_path):
        raise ZeroDivisionError
    with gpu_slot(["a"], 1, tmp_path, poll_s=0.01) as index:
        assert index == 0


def test_runs_in_a_job_of_one_gpu_share_it_by_slots_too(tmp_path: Path, monkeypatch) -> None:
    """`snakemake --cores all` inside an allocation starts as many runs as it has cores; one device takes one."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("DICA_SLOTS", str(tmp_path))
    monkeypatch.setattr(train, "visible_devices", lambda: ["a"])
    monkeypatch.setattr(train.torch.cuda, "set_device", lambda index: None)
    with train._device(SimpleNamespace(threads=1, device="auto", gpu_share=1)) as device:
        assert (device.type, device.index) == ("cuda", 0)
        assert _take(tmp_path, ["a"], 1) is None, "not even a share of it is left for another run"
    assert _take(tmp_path, ["a"], 12)
