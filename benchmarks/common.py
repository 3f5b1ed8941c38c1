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
        "cpu": "{name} ({processor_kind})".format(**device_facts("cpu")),
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


def multiplies_bfloat16() -> bool:
    """Return whether this processor has bfloat16; elsewhere float32 stands in, and the time it takes says nothing."""
    import torch

    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


class Told:
    """``<folder>/<name>.csv``, one line a figure, each with where it was measured.

    Written after each line: a benchmark that is stopped leaves what it has measured. With `keep`, lines of the file
    about something else (another `what`) stay in it.
    """

    def __init__(self, name: str, folder: Path = RESULTS, keep: bool = False) -> None:
        from dica.files import read_csv

        self.path, self.rows = folder / f"{name}.csv", []
        self.old = read_csv(self.path) if keep and self.path.is_file() else []

    def add(self, *rows: dict, **facts: str) -> None:
        """Add lines of this moment."""
        from dica.files import atomic_write_text

        for row in rows:
            print(row, flush=True)
        where = {**machine(), **facts}
        self.rows += [{**row, **where} for row in rows]
        told = self.rows
        if self.old:
            named = {row["what"]: row for row in self.rows}
            told = [named.pop(row["what"], row) for row in self.old] + list(named.values())
        lines = _Lines()
        writer = csv.DictWriter(lines, list(dict.fromkeys(key for row in told for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(told)
        atomic_write_text(self.path, "".join(lines))


class _Lines(list):
    """A list of lines that the csv module can write to."""

    write = list.append


def plot(told: Told, draw: Callable) -> None:
    """Write a picture beside the csv of `told`: `draw` gets axes and lines; the machine stands below the picture."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "dica"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
    draw(axes, told.rows)
    axes.spines[["top", "right"]].set_visible(False)
    facts = told.rows[-1]
    note = f"{facts['cpu']}, {facts['threads']} thread(s), torch {facts['torch']}, {facts['date']}"
    figure.supxlabel(f"{note}; load {facts['load']}", fontsize=7)
    figure.savefig(told.path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)
