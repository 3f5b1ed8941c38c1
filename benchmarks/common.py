"""What the benchmarks share: where they ran, interleaved timing, and the csv and plot they leave in results/."""

from __future__ import annotations

import csv
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests/support")]


def machine() -> dict[str, str]:
    """Return what a figure has to be read with: CPU, threads, versions, day, and how busy the machine was."""
    import torch

    from dica.runs.record import device_facts

    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "cpu": str(device_facts("cpu")["name"]),
        "cores": str(len(os.sched_getaffinity(0))),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "load": f"{load} (1, 5, 15 min)",
    }


def interleaved(tasks: dict[str, Callable[[], object]], repeats: int, warm: bool = True) -> dict[str, list[float]]:
    """Run the tasks in turns and return the seconds of each turn: what else runs disturbs all of them alike.

    Parameters
    ----------
    tasks
        What to time, by name.
    repeats
        Turns.
    warm
        Run each task once before, untimed.
    """
    if warm:
        for task in tasks.values():
            task()
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            begin = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> tuple[float, float, float]:
    """Return median, least and greatest of the ratios slow/fast, turn by turn."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def write(name: str, rows: list[dict], facts: dict[str, str], folder: Path = RESULTS, keep: bool = False) -> Path:
    """Write ``<folder>/<name>.csv``: one line a figure, each with where it was measured.

    With `keep`, lines of the file about something else stay in it.
    """
    from dica.files import atomic_write_text, read_csv

    rows = [{**row, **facts} for row in rows]
    if keep and (folder / f"{name}.csv").is_file():
        new = {row["what"]: row for row in rows}
        kept = read_csv(folder / f"{name}.csv")
        rows = [new.pop(row["what"], row) for row in kept] + list(new.values())
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = _Lines()
    writer = csv.DictWriter(lines, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path = folder / f"{name}.csv"
    atomic_write_text(path, "".join(lines))
    for row in rows:
        print({key: value for key, value in row.items() if key not in facts})
    print(f"wrote {path}")
    return path


class _Lines(list):
    """A list of lines that the csv module can write to."""

    write = list.append


def plot(name: str, draw: Callable, facts: dict[str, str], folder: Path = RESULTS) -> None:
    """Write ``<folder>/<name>.svg``: `draw` gets the axes; the machine stands below the picture."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "dica"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
    draw(axes)
    axes.spines[["top", "right"]].set_visible(False)
    note = f"{facts['cpu']}, {facts['threads']} thread(s), torch {facts['torch']}, {facts['date']}"
    figure.supxlabel(f"{note}; load {facts['load']}", fontsize=7)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)
