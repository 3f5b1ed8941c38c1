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
from dica.runs.behaviour import TRACES, trace_digest
from dica.runs.record import processor_kind
from tiny import (
    ROOT,
    all_variants,
    families,
    fit_history,
    fitted_methods,
    fitted_variants,
    gradient_methods,
    make_prepared,
    make_trainer,
    same_history,
    tiny_config,
)

GOLDEN = Path(__file__).parents[1] / "golden"
# K-means of features in float32: where a processor rounds otherwise, it finds other clusters.
MADE_ON = "AuthenticAMD family 25 model 1, avx2"
ROUNDED = {
    *(("deepcluster", variant) for variant in ("full", "train-only")),
    ("probe", "deepcluster-conv"),
    *(("kmeans", f"on-{source}") for source in ("crlc", "dccm", "drc")),
}


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
    _hold(settings, trainer.history)


@pytest.mark.parametrize(("method", "variant"), fitted_variants())
def test_a_fit_is_that_of_this_revision(method: str, variant: str, tmp_path: Path, monkeypatch) -> None:
    """In place of first steps: what the fit says of itself, and the cluster of every image."""
    monkeypatch.chdir(ROOT)  # `pretrained` reads a file of the archive
    settings = tiny_config(method, variant)
    _hold(settings, fit_history(settings, tmp_path))


def _hold(settings: dict, history: list[dict]) -> None:
    """Compare a history with the stored one, or renew that."""
    method, variant, revision = settings["method"], settings["variant"], settings["params"]["revision"]
    path = GOLDEN / f"{method}.json"
    stored = read_json(path) if path.is_file() else {}
    if os.environ.get("DICA_UPDATE_GOLDEN"):
        entry = {"revision": revision, "history": history}
        if not _agrees(stored.get(variant), entry):  # an update renews what has changed, not the last digits
            stored[variant] = entry
            write_json(path, dict(sorted(stored.items())))
        return
    assert variant in stored, f"no golden trace of {method} {variant}: see the top of this file"
    assert stored[variant]["revision"] == revision, "revision raised: update the golden traces"
    if (method, variant) in ROUNDED and processor_kind() != MADE_ON:
        pytest.skip(f"rounded as by {MADE_ON}; this is {processor_kind()}")
    assert _agrees(stored[variant], {"revision": revision, "history": history}), "behaviour changed: see the top"


def _agrees(stored: dict | None, found: dict) -> bool:
    """Whether two traces are of one revision and have the same numbers, but for rounding."""
    if stored is None or stored["revision"] != found["revision"]:
        return False
    return same_history(stored["history"], found["history"])


@pytest.mark.parametrize("method", [*gradient_methods(), *fitted_methods()])
def test_the_package_names_the_trace_of_every_variant(method: str) -> None:
    """The installed package has no tests: it carries the digests that records name (`dica.runs.behaviour`)."""
    golden, shown = read_json(GOLDEN / f"{method}.json"), families(method)
    assert set(golden) <= set(shown), "a golden trace of a variant that is no more: delete it"
    expected = {}
    for variant, shown_by in shown.items():
        settings = tiny_config(method, shown_by)
        expected[variant] = {"of": settings["id"], "digest": trace_digest(golden[shown_by]["history"])}
    path = TRACES / f"{method}.json"
    if os.environ.get("DICA_UPDATE_GOLDEN"):
        write_json(path, expected)
    assert read_json(path) == expected, "golden traces or variants changed: see the top of this file"
