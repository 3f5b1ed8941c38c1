"""Training that is killed: in this process before given batches, or as a command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dica.engine.loop import SaveEvery
from dica.files import write_json
from tiny import make_trainer


class Killed(BaseException):
    """Stands in for a kill: nothing in the program catches it."""


def run_with_kills(settings: dict, data: Path, state: Path, kills: list[int], save_batches: int):
    """Train, dying before the given batches (counted over all attempts), each time starting a new trainer."""
    done = 0

    def die_or_go_on(original):
        def run_batch(*arguments):
            nonlocal done
            done += 1
            if kills and done == kills[0]:
                kills.pop(0)
                raise Killed
            return original(*arguments)

        return run_batch

    while True:
        trainer = make_trainer(settings, data, state, SaveEvery(seconds=0, batches=save_batches))
        trainer.resume()
        trainer._run_batch = die_or_go_on(trainer._run_batch)
        try:
            trainer.run()
            return trainer
        except Killed:
            trainer.state._lock.close()  # what the kernel does when a process dies


def command(settings: dict, tmp_path: Path, name: str, data: Path, *options: str) -> list[str]:
    write_json(tmp_path / "config.json", settings)
    return [
        *(sys.executable, "-m", "dica.train", "--config", str(tmp_path / "config.json"), "--data", str(data)),
        *("--out", str(tmp_path / name), "--state", str(tmp_path / f"{name}.state"), "--device", "cpu", *options),
    ]


def start(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
