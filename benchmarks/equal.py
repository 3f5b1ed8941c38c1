"""Which network suits dica table 14, and how long its runs take here: ``python benchmarks/equal.py``.

The pilot of that table; no label is opened. SimCLR's recipe of the table trains each candidate for equally many seconds
of a core on data/prepared/cifar10-jpeg. Its loss is over the same batches, views and lengths of z whatever the network,
so that the lowest one at the end says which network makes the most of this machine. Then each method of the table is
timed for a while: what a whole run would take, and at which rate. Writes results/equal.csv.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from common import RESULTS, ROOT, Told

from dica import methods
from dica.engine.checkpoints import StateFolder
from dica.engine.count import Counter
from dica.engine.images import ResidentImages
from dica.engine.loop import SaveEvery, Trainer
from dica.engine.memory import keep_memory
from dica.own.measure import seconds_per_epoch
from dica.plan.parameters import load_profile, merge, resolve
from dica.rng import derive_seed

DATASET, VARIANT, SEED = "cifar10-jpeg", "equal-small", 0
METHODS = ("drc", "dccm", "crlc", "tcc", "imc-swav", "simclr")
CANDIDATES = [("pica", 8), ("pica", 16), ("pica", 32), ("cifar", 8)]
EPOCHS = 20  # of the pilot's trainings; the loss that counts is that of the last one


def config_of(method: str, params: dict) -> dict:
    """Return the config of a run that is not kept."""
    return {"id": "0" * 12, "method": method, "seed": SEED, "params": params}


def timed(method: str, params: dict, images: ResidentImages, seconds: float) -> dict[str, float]:
    """Return what a recipe takes: its arithmetic, seconds of a core for all epochs, and the rate."""
    config = config_of(method, params)
    flops = Counter(config, images.info).count().epoch * params["epochs"]
    needed = seconds_per_epoch(config, images, seconds) * params["epochs"]
    return {"tflop": flops / 1e12, "seconds": needed, "gflops": flops / needed / 1e9}


def pilot(network: dict, images: ResidentImages, seconds: float) -> dict[str, float]:
    """Train SimCLR with a network for so many seconds of a core; return steps, arithmetic and the last epoch's loss."""
    params = merge(resolve("simclr", VARIANT, DATASET, load_profile(ROOT / "params/archive.yaml", ROOT), ROOT),
                   {"backbone": network, "epochs": EPOCHS})  # fmt: skip
    needed = timed("simclr", params, images, seconds / 10)["seconds"]
    params["epoch_batches"] = max(1, round(params["epoch_batches"] * seconds / needed))
    config = config_of("simclr", params)
    flops = Counter(config, images.info).count().epoch * EPOCHS
    torch.manual_seed(derive_seed(SEED, "init"))
    method = methods.build("simclr", params, images.info).to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, method, images, StateFolder(Path(folder), config["id"]), SaveEvery(seconds=0))
        trainer.observer.epochs = []  # nothing but the loss is looked at
        trainer.run()
    return {"steps": trainer.at.step, "tflop": flops / 1e12, "seconds": seconds, "loss": trainer.history[-1]["loss"]}


def main() -> None:
    """Train, time, and write what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of a core, for each network")
    parser.add_argument("--networks", type=int, default=len(CANDIDATES), help="how many of the candidates")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS, help="to time for a third of that")
    parser.add_argument("--data", type=Path, default=ROOT / "data/prepared" / DATASET)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    images = ResidentImages(given.data, torch.device("cpu"))
    profile = load_profile(ROOT / "params/archive.yaml", ROOT)

    def row(what: str, found: dict) -> dict:
        return {"what": what, **{key: round(v, 3) if isinstance(v, float) else v for key, v in found.items()}}

    told = Told("equal", given.out)
    for stem, width in CANDIDATES[: given.networks]:
        found = pilot({"stem": stem, "width": width}, images, given.seconds)
        told.add(row(f"pilot: resnet8 of {width} channels, stem {stem}", found))
    for method in given.methods:
        params = resolve(method, VARIANT, DATASET, profile, ROOT)
        told.add(row(f"run: {method}", timed(method, params, images, given.seconds / 3)))


if __name__ == "__main__":
    main()
