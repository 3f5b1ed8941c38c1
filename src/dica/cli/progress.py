"""How far a long command is, runs in training above all: bars in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from dica.files import INTERRUPTED
from dica.plan.progress import epochs, log_of

Item = TypeVar("Item")
PAUSE, QUIET = 0.5, 30.0  # seconds between looks, and between lines where there is no terminal


def told(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield `items`, and say on stderr how many are done: a bar in a terminal, a line now and then elsewhere."""
    screen, next_line = Console(stderr=True), time.monotonic() + QUIET
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(what, total=len(items))
        for count, item in enumerate(items):
            if bar.disable and time.monotonic() >= next_line:
                print(f"{count} of {len(items)} {what}", file=sys.stderr, flush=True)
                next_line = time.monotonic() + QUIET
            yield item
            bar.advance(task)


def heed_interrupts() -> None:
    """Let a new process stop by SIGINT, also where this command was started in the background, which has it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def watch(process: subprocess.Popen, runs: list[dict[str, Any]], logs: Path) -> int:
    """Wait for the workflow, show how far its runs are, and return its exit code.

    The process has a group of its own: Ctrl-C, SIGTERM and SIGHUP, a closed terminal, are passed on to it, so that runs
    save their state.
    """
    ends = [signal.SIGTERM, *([signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else [])]  # nohup
    before = {number: signal.signal(number, signal.default_int_handler) for number in ends}
    try:
        return _show(process, runs, logs)
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
        with contextlib.suppress(OSError):  # the terminal may be gone
            print("interrupted; the same command goes on from here", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(process: subprocess.Popen, runs: list[dict[str, Any]], logs: Path) -> int:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn())
    told, next_line = "", time.monotonic() + QUIET
    with Progress(*columns, disable=not sys.stdout.isatty()) as progress:
        tasks = [progress.add_task(f"seed {run['seed']}", total=1.0, state="waits") for run in runs]
        while process.poll() is None:
            time.sleep(PAUSE)
            states = [_state(run, logs) for run in runs]
            for task, (part, state) in zip(tasks, states, strict=True):
                progress.update(task, completed=part, state=state)
            line = ", ".join(f"seed {run['seed']}: {state}" for run, (_, state) in zip(runs, states, strict=True))
            if progress.disable and line != told and time.monotonic() >= next_line:
                print(line, flush=True)
                told, next_line = line, time.monotonic() + QUIET
        for task in tasks if not process.returncode else ():
            progress.update(task, completed=1.0, state="done")
    return process.returncode


def _state(run: dict[str, Any], logs: Path) -> tuple[float, str]:
    """Return how much of a run is trained, and in words; its log has a line for it every ten seconds."""
    log = logs / log_of(run)
    if not log.is_file():
        return 0.0, "waits"
    found = epochs(log)
    if found is None:
        return 0.0, "begins"
    done, total = found
    return (1.0, "trained, being looked at") if total == 1 == done else (done / total, f"epoch {done} of {total}")
