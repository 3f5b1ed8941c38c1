"""What the head of a workflow says of its runs, from the logs that they leave."""

from __future__ import annotations

import os
from pathlib import Path

from dica.plan.progress import Standing, epochs, log_of

RUNS = [
    {"method": "drc", "dataset": "digits", "seed": seed, "id": f"id{seed}", "path": f"runs/s{seed}"}
    for seed in range(3)
]


def write(folder: Path, run: dict, text: str, at: float) -> None:
    log = folder / "results/logs/train" / log_of(run)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(text)
    os.utime(log, (at, at))


def test_trained_runs_are_counted_and_running_ones_told_with_the_time_to_go(tmp_path: Path) -> None:
    now = [1000.0]
    standing = Standing(RUNS, tmp_path, "results", lambda: now[0])
    write(tmp_path, RUNS[2], "epoch 9/10 step 1\n", 900.0)
    assert standing.line() == "", "the log of an earlier attempt is no news"
    write(tmp_path, RUNS[0], "train drc\n", 1001.0)
    assert standing.line() == "trained 0 of 3 runs; now drc on digits, seed 0 (begins)"
    write(tmp_path, RUNS[0], "epoch 2/10 step 20\n", 1010.0)
    now[0] = 1010.0
    assert standing.line() == "trained 0 of 3 runs; now drc on digits, seed 0 (epoch 2 of 10)"
    now[0] = 1030.0
    write(tmp_path, RUNS[0], "epoch 2/10 step 20\nepoch 6/10 step 60\n", 1030.0)
    assert standing.line() == "trained 0 of 3 runs; now drc on digits, seed 0 (epoch 6 of 10, 20 s to go)"
    (tmp_path / "runs/s0").mkdir(parents=True)
    (tmp_path / "runs/s0/run.json").touch()
    write(tmp_path, RUNS[1], "train drc\n", 1031.0)
    assert standing.line() == "trained 1 of 3 runs; now drc on digits, seed 1 (begins)"


def test_a_run_that_is_over_has_done_all_its_epochs(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("epoch 9/10 step 1\ndone drc\n")
    assert epochs(tmp_path / "log") == (1, 1)
