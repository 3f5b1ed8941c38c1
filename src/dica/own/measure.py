"""Measure what a run would take here: ``python -m dica.own.measure --config CONFIG.json --data FOLDER``.

Trains the run for some seconds, throws the result away, and prints as JSON: `seconds_per_epoch`, `peak_memory_mb` and
the `device`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

from dica import methods
from dica.engine.checkpoints import StateFolder
from dica.engine.images import ResidentImages
from dica.engine.loop import SaveEvery, Trainer
from dica.engine.speed import choose
from dica.files import read_json
from dica.runs import record
from dica.scripting import run_script

SECONDS = 6.0


def measure(
    config: dict, data: Path, device: torch.device, seconds: float, speed: tuple[bool, bool] = (False, False)
) -> dict[str, float | str]:
    """Train a run for `seconds` and return what was measured; `speed` wants compiled networks, recorded steps."""
    per_epoch = seconds_per_epoch(config, ResidentImages(data, device), seconds, speed)
    facts = record.device_facts(device.type)
    memory = record.peak_memory_mb(device.type)
    return {"seconds_per_epoch": round(per_epoch, 4), "peak_memory_mb": memory, "device": str(facts["name"])}


def seconds_per_epoch(
    config: dict, images: ResidentImages, seconds: float, speed: tuple[bool, bool] = (False, False)
) -> float:
    """Return what an epoch takes (on a CPU: of processor time), by training for `seconds` what is then thrown away."""
    method = methods.build(config["method"], config["params"], images.info).to(images.device)
    method.to(memory_format=torch.channels_last)
    chosen = choose(*speed, config.get("determinism", "seeded"), images.device, method)
    with tempfile.TemporaryDirectory() as folder:
        state = StateFolder(Path(folder), config["id"])
        return Trainer(config, method, images, state, SaveEvery(float("inf"), 0), chosen).trial(seconds)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m dica.own.measure", description="What a run would take here.")
    parser.add_argument("--config", type=Path, required=True, help="config.json of the run")
    parser.add_argument("--data", type=Path, required=True, help="folder of the prepared data set")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long to train")
    parser.add_argument("--compile", action="store_true", help="with compiled networks")
    parser.add_argument("--cuda-graph", action="store_true", help="with recorded steps")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def run() -> None:
        speed = given.compile, given.cuda_graph
        print(json.dumps(measure(read_json(given.config), given.data, device, given.seconds, speed)))

    return run_script(run)


if __name__ == "__main__":
    sys.exit(main())
