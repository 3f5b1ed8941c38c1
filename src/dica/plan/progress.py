"""How far the runs of a workflow are, told from their logs while it works: the head says it now and then.

Snakemake itself says which jobs it starts; a training is one job, of minutes or days, and says nothing meanwhile.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dica.runs.files import RECORD

TAIL = 4096  # bytes of a log that its last line is looked for in
FIRST, LONGEST = 15.0, 600.0  # seconds until the head says something, and between two lines on the third day
SHARE = 20  # the longer a workflow works, the less often it is told: every twentieth of the time


def epochs(log: Path) -> tuple[int, int] | None:
    """Return how many epochs of how many a run's log has reached, or None before the first one.

    All of one are done where the log says that training is over.
    """
    with open(log, "rb") as file:
        file.seek(max(log.stat().st_size - TAIL, 0))
        text = file.read().decode(errors="replace")
    found = re.findall(r"^(?:epoch (\d+)/(\d+)|done )", text, re.MULTILINE)
    if not found:
        return None
    done, total = found[-1]
    return (int(done), int(total)) if total else (1, 1)


def log_of(run: dict[str, Any]) -> str:
    """Return the name of the log of a run's training, see the rule `train`."""
    return f"{run['method']}-{run['dataset']}-s{run['seed']}-{run['id']}.log"


def span(seconds: float) -> str:
    """Return a time to wait as a person says it.

    Examples
    --------
    >>> span(40), span(400), span(40_000)
    ('40 s', '7 min', '11 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


class Standing:
    """What there is to say of a workflow's runs.

    Parameters
    ----------
    runs
        Those of the plan.
    root, results
        Project root and results root relative to it.
    clock
        Seconds since 1970; logs older than the first look are those of earlier attempts.
    """

    def __init__(
        self, runs: list[dict[str, Any]], root: Path, results: str, clock: Callable[[], float] = time.time
    ) -> None:
        self.root, self.logs, self.clock = root, root / results / "logs" / "train", clock
        self.waiting = [run for run in runs if not self._is_trained(run)]
        self.total, self.begun = len(self.waiting), clock()
        self.seen: dict[str, tuple[float, int]] = {}  # when a run's log was first looked at, and its epoch then

    def _is_trained(self, run: dict[str, Any]) -> bool:
        return (self.root / run["path"] / RECORD).is_file()

    def line(self) -> str:
        """Return how many runs are trained and how far those are that are being trained; nothing while none is."""
        self.waiting = [run for run in self.waiting if not self._is_trained(run)]
        told = [said for run in self.waiting if (said := self._of_run(run))]
        if not told:
            return ""
        return f"trained {self.total - len(self.waiting)} of {self.total} runs; now {', '.join(told)}"

    def _of_run(self, run: dict[str, Any]) -> str:
        log, now = self.logs / log_of(run), self.clock()
        if not log.is_file() or log.stat().st_mtime < self.begun:
            return ""
        name, found = f"{run['method']} on {run['dataset']}, seed {run['seed']}", epochs(log)
        if found is None:
            return f"{name} (begins)"
        done, total = found
        since, first = self.seen.setdefault(run["id"], (now, done))
        left = f", {span((now - since) * (total - done) / (done - first))} to go" if done > first else ""
        return f"{name} (epoch {done} of {total}{left})"


def tell(runs: list[dict[str, Any]], root: Path, results: str) -> None:
    """Let a thread of this process say on standard error, until it ends, how far the runs are."""
    standing = Standing(runs, root, results)

    def speak() -> None:
        told = ""
        while True:
            time.sleep(min(max(FIRST, (time.time() - standing.begun) / SHARE), LONGEST))
            try:
                line = standing.line()
            except OSError:  # a log or a folder that goes away meanwhile: the next look says more
                continue
            if line and line != told:
                print(line, file=sys.stderr, flush=True)
                told = line

    threading.Thread(target=speak, name="progress", daemon=True).start()
