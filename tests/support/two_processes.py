"""What test_distributed.py runs under torchrun: train in two processes, stop, resume, write what came out."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from dica import methods, train
from dica.engine import distributed
from dica.engine.checkpoints import StateFolder
from dica.engine.images import ResidentImages
from dica.engine.loop import Interrupted, SaveEvery, Trainer
from dica.files import write_json
from dica.rng import derive_seed
from tiny import tiny_config

METHODS = {
    "crlc": {"joint_views": False},
    "drc": {},
    "imc-swav": {"joint_views": False},
    "tcc": {},
}


def settings_of(name: str) -> dict:
    return tiny_config(name, epochs=1, batch_size=17, drop_last=True, **METHODS[name])  # an odd batch: parts of 9 and 8


def build(name: str, data: Path, state: Path) -> Trainer:
    settings = settings_of(name)
    images = ResidentImages(data, torch.device("cpu"))
    torch.manual_seed(derive_seed(0, "init"))
    method = methods.build(name, settings["params"], images.info).double()
    distributed.share_out(method)
    folder = StateFolder(state, settings["id"], read_only=not distributed.is_first())
    return Trainer(settings, method, images, folder, SaveEvery(seconds=0))


def interrupted_and_resumed(name: str, data: Path, state: Path) -> Trainer:
    """Train until one of the processes is asked to stop after two batches, then go on with a new trainer."""
    trainer = build(name, data, state)
    run_batch = trainer._run_batch

    def stop_after_two(*given) -> None:
        run_batch(*given)
        trainer.stop_requested = trainer.at.batch >= 1 and not distributed.is_first()

    trainer._run_batch = stop_after_two
    try:
        trainer.run()
        raise AssertionError("it was not stopped")
    except Interrupted:
        trainer.state.close()
    distributed.any_of(True)  # wait: the checkpoint is written
    again = build(name, data, state)
    again.resume()
    assert again.at.batch == 2
    again.run()
    return again


def main(data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    with distributed.group():
        given = ["--config", "-", "--data", str(data), "--out", str(out / "command"), "--device", "cpu"]
        assert train.main(given) == 0
        torch.set_default_dtype(torch.float64)
        for name in METHODS:
            whole = build(name, data, out / f"{name}-whole")
            whole.run()
            parts = interrupted_and_resumed(name, data, out / f"{name}-parts")
            expected, found = whole.method.state_dict(), parts.method.state_dict()
            different = [key for key in expected if not torch.equal(expected[key], found[key])]
            if distributed.is_first():
                write_json(out / f"{name}.json", {"history": whole.history, "changed_by_resuming": different})
                torch.save(expected, out / f"{name}.pt")
            else:
                torch.save(expected, out / f"{name}-other.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
