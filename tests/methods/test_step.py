"""What keeps a GPU busy, tested without one: a step dispatches few operations and never waits for the device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dica.engine.optim import build_optimizer
from dispatch import NoWaiting, Operations, WaitError
from tiny import all_variants, make_prepared, make_trainer, tiny_config

# Launches of one step with a GPU's optimiser, tests' networks. Lower one when a step gets cheaper.
BUDGETS = {
    ("autoencoder", "full"): 91,
    ("autoencoder", "vae"): 118,
    ("cc", "full"): 400,
    ("crlc", "full"): 581,
    ("crlc-semi", "full"): 910,
    ("crlc-two-stage", "full"): 621,
    ("dac", "full"): 208,
    ("dccm", "full"): 294,
    ("dccm", "mi-v1"): 192,
    ("dccm", "mi-v2"): 190,
    ("dccm", "mi-v3"): 198,
    ("dccm", "mi-v4"): 199,
    ("dccm", "paper"): 412,
    ("dccs", "full"): 346,
    ("dec", "full"): 72,
    ("deepcluster", "full"): 125,
    ("deepcluster-v2", "full"): 483,
    ("drc", "full"): 410,
    ("fixmatch", "full"): 388,
    ("gan", "full"): 80,
    ("gatcluster", "full"): 253,
    ("idfd", "full"): 214,
    ("iic", "full"): 362,
    ("imc-swav", "full"): 512,
    ("jule", "full"): 131,
    ("mcr2", "full"): 208,
    ("mice", "full"): 550,
    ("mmdc", "full"): 214,
    ("moco", "full"): 313,
    ("pica", "full"): 357,
    ("probe", "full"): 30,
    ("remixmatch", "full"): 1331,
    ("rotnet", "full"): 126,
    ("scan", "full"): 238,
    ("scan-neighbours", "full"): 413,
    ("semi", "full"): 393,
    ("semi", "mixmatch-4"): 590,
    ("simclr", "full"): 225,
    ("supervised", "full"): 160,
    ("swav", "full"): 488,
    ("tcc", "full"): 492,
}


def trainer_as_on_a_gpu(method: str, variant: str, tmp_path: Path, wrap):
    """Return a trainer with the optimiser of a GPU; `wrap(step, batch)` runs its steps after each phase's first."""
    short = {"inner_passes": 1} if method == "dccm" else {}
    settings = tiny_config(method, variant, epochs=1, **short)
    trainer = make_trainer(settings, make_prepared(tmp_path / "data"), tmp_path / "state")
    trainer.optimizer = build_optimizer(trainer.method, settings["params"], torch.device("cuda"))
    step, seen = trainer._step, set()

    def stepped(batch) -> None:
        wrap(step, batch) if batch.phase in seen else step(batch)
        seen.add(batch.phase)

    trainer._step = stepped
    return trainer


@pytest.mark.parametrize(("method", "variant"), list(BUDGETS))
def test_a_step_stays_within_its_budget_of_launches(method: str, variant: str, tmp_path: Path) -> None:
    found: list[int] = []

    def count(step, batch) -> None:
        with Operations() as operations:
            step(batch)
        found.append(operations.counts.total())

    trainer_as_on_a_gpu(method, variant, tmp_path, count).run()
    budget = BUDGETS[method, variant]
    assert 0.9 * budget < max(found) <= 1.1 * budget, f"{method} {variant}: {max(found)} launches a step"


# TCC's ablation vii counts the images of its two extra passes in a buffer and asks it at every batch; the host finds
# out which targets the images of MMDC exchange.
WAITING = [("tcc", "without-aug-c"), ("mmdc", "full")]


@pytest.mark.parametrize(("method", "variant"), all_variants())
def test_a_step_never_waits_for_the_device(method: str, variant: str, tmp_path: Path) -> None:
    def watch(step, batch) -> None:
        with NoWaiting():
            step(batch)

    trainer = trainer_as_on_a_gpu(method, variant, tmp_path, watch)
    if (method, variant) not in WAITING:
        trainer.run()
        return
    with pytest.raises(WaitError):
        trainer.run()


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: x.argmax().tolist(),
        lambda x: torch.nonzero(x),
        lambda x: x * torch.tensor([1.0]),
        lambda x: x.index_put_((x > 0,), torch.zeros(())),
    ],
)
def test_what_waits_is_noticed(wait) -> None:
    with pytest.raises(WaitError), NoWaiting():
        wait(torch.ones(3))
