"""The long versions of fault and fuzz tests, with figures for docs/reliability.md: ``make faults``."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
import torch

from dica import train
from dica.engine.checkpoints import NEWEST
from dica.engine.loop import SaveEvery
from dica.files import sha256_file
from dica.runs.record import history_csv
from faults import slots_under_load
from fuzz import TEXTS, fuzz, make_project, parameter_files
from kills import command, run_with_kills, start
from tiny import all_variants, gradient_methods, make_prepared, make_trainer, tiny_config

pytestmark = pytest.mark.slow


def test_resume_after_many_kills_of_every_method_and_variant(tmp_path: Path, note_figures) -> None:
    tried = survived = 0
    for method, variant in all_variants():
        folder = tmp_path / f"{method}-{variant}"
        data, settings = make_prepared(folder / "data"), tiny_config(method, variant)
        whole = make_trainer(settings, data, folder / "whole")
        batches = count_batches(whole)
        draw = random.Random(f"{method} {variant} long")
        kills = sorted(draw.sample(range(1, 3 * batches), min(2 * batches, 6)))
        left = list(kills)
        parts = run_with_kills(settings, data, folder / "parts", left, save_batches=1)
        happened = len(kills) - len(left)
        same = history_csv(parts.history) == history_csv(whole.history) and all(
            torch.equal(value, parts.method.state_dict()[name]) for name, value in whole.method.state_dict().items()
        )
        tried, survived = tried + happened, survived + happened * same
        assert same, f"{method} {variant}: {kills}"
    note_figures("exact resume, every method and kind of variant: weights and history", "kills", tried, survived)


def count_batches(trainer) -> int:
    """Train to the end and return how many batches that took."""
    done = 0
    original = trainer._run_batch

    def counted(*arguments):
        nonlocal done
        done += 1
        return original(*arguments)

    trainer._run_batch = counted
    trainer.save_every = SaveEvery(seconds=0)
    trainer.run()
    return done


def test_kill_9_of_training_processes(tmp_path: Path, note_figures) -> None:
    tried = 0
    for method in gradient_methods():
        folder = tmp_path / method
        folder.mkdir()
        data, settings = make_prepared(folder / "data", {"train": 160}), tiny_config(method, epochs=10)
        inputs = ["--labels", str(data / "labels.npz"), *source_of(settings, folder, data)]
        finish(command(settings, folder, "whole", data, *inputs))
        arguments = command(settings, folder, "killed", data, *inputs, "--save-batches", "3")
        state = folder / "killed.state" / NEWEST
        for _ in range(3):
            process = start(arguments)
            before = state.stat().st_mtime_ns if state.is_file() else 0
            while process.poll() is None and (not state.is_file() or state.stat().st_mtime_ns == before):
                time.sleep(0.01)
            time.sleep(random.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            tried += process.returncode == -signal.SIGKILL
        finish(arguments)
        for name in ("predictions.npz", "weights.safetensors", "history.csv"):
            assert sha256_file(folder / "killed" / name) == sha256_file(folder / "whole" / name), (method, name)
    note_figures("kill -9 of training processes: predictions, weights, history", "kills", tried, tried)


def source_of(settings: dict, folder: Path, data: Path) -> list[str]:
    """Train what this run builds on, if it does, the lowest first; return the options that name the nearest."""
    source = settings["params"].get("source")
    if not source:
        return []
    below = tiny_config(source["method"], source["variant"])
    finish(command(below, folder, below["id"], data, *source_of(below, folder, data)))
    return ["--source", str(folder / below["id"])]


def finish(arguments: list[str]) -> None:
    """Run a training command to its end in this process: starting one takes longer than the training itself."""
    assert train.main(arguments[arguments.index("dica.train") + 1 :]) == 0


def test_parameter_files_spoilt_in_many_ways(tmp_path: Path, note_figures) -> None:
    project = make_project(tmp_path / "project")
    tried = 0
    for name in parameter_files():
        tried += fuzz(project, name, list(TEXTS), 100, seed=1)["tried"]
    note_figures("spoilt parameter files: one clear line or a sound plan", "inputs", tried, tried)


def test_gpu_slots_under_load(tmp_path: Path, note_figures) -> None:
    processes = killed = 0
    for seed in range(10):
        (tmp_path / str(seed)).mkdir()
        found = slots_under_load(tmp_path / str(seed), processes=50, kills=25, seed=seed)
        assert found["met"] == found["leaked"] == 0
        processes, killed = processes + found["processes"], killed + found["killed"]
    assert killed > 100
    note_figures("GPU slots, 8 on 4 pretended devices, some holders killed", "processes", processes, processes)
