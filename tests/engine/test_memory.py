"""A training on a CPU keeps its memory instead of asking the kernel for it at every step."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dica import train
from dica.engine import memory
from dica.files import write_json
from tiny import make_prepared, tiny_config

# What the process still holds, in MiB, of a tensor too large for the C library's own reserve (32 MiB). Page faults
# would tell as well, but not every kernel counts them.
HELD = """
import sys, torch
from dica.engine.memory import keep_memory
kept = sys.argv[1] == "kept" and keep_memory()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) // 256
before = resident()
torch.ones(64 * 2**18)
print(kept, resident() - before)
"""


def held(how: str) -> tuple[bool, int]:
    done = subprocess.run([sys.executable, "-c", HELD, how], capture_output=True, text=True, check=True)
    kept, size = done.stdout.split()
    return kept == "True", int(size)


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="this system does not say what a process holds")
def test_memory_that_was_freed_is_kept() -> None:
    kept, size = held("kept")
    if not kept:
        pytest.skip("this C library has no mallopt")
    assert size > 60
    assert held("left")[1] < 30


def test_a_library_without_mallopt_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.keep_memory() is False


@pytest.mark.parametrize(("method", "kept"), [("kmeans", []), ("mcr2", [True])])
def test_a_training_by_steps_on_a_cpu_keeps_its_memory(method: str, kept: list, tmp_path: Path, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(train, "keep_memory", lambda: asked.append(True))
    write_json(tmp_path / "config.json", tiny_config(method))
    data = make_prepared(tmp_path / "data")
    where = ("--config", tmp_path / "config.json", "--data", data, "--out", tmp_path / "out")
    assert train.main([*map(str, where), "--device", "cpu"]) == 0
    assert asked == kept
