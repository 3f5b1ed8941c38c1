"""Golden traces: the loss parts of each variant's first steps, seeded, on the CPU, in float64.

A difference means that the method's behaviour has changed, so that stored runs no longer stand for its code.
If that is meant: raise `revision` in params/<method>.yaml, then run
DICA_UPDATE_GOLDEN=1 python -m pytest tests/methods/test_golden.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dica.files import read_json, write_json
from tiny import all_variants, make_prepared, make_trainer, tiny_config

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("method", "variant"), all_variants())
def test_first_steps_are_those_of_this_revision(method: str, variant: str, tmp_path: Path, double) -> None:
    settings = tiny_config(method, variant)
    trainer = make_trainer(settings, make_prepared(tmp_path / "data"), tmp_path / "state")
    trainer.run()
    path = GOLDEN / f"{method}.json"
    stored = read_json(path) if path.is_file() else {}
    if os.environ.get("DICA_UPDATE_GOLDEN"):
        stored[variant] = {"revision": settings["params"]["revision"], "history": trainer.history}
        write_json(path, dict(sorted(stored.items())))
        return
    assert variant in stored, f"no golden trace of {method} {variant}: see the top of this file"
    assert stored[variant]["revision"] == settings["params"]["revision"], "revision raised: update the golden traces"
    assert len(stored[variant]["history"]) == len(trainer.history)
    for expected, found in zip(stored[variant]["history"], trainer.history, strict=True):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-7), "behaviour changed: see the top of this file"
