"""Looks at a run while it trains: what they note, how small it stays, and that training does not feel them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dica import train
from dica.engine import observer as observe
from dica.engine.observer import Observer, choose_subset, look_epochs, stage_epochs
from dica.files import read_json, sha256_file, write_json, write_npz
from kills import run_with_kills
from tiny import gradient_methods, make_prepared, make_trainer, tiny_config


@pytest.mark.parametrize("epochs", [1, 2, 7, 19, 20, 21, 500])
def test_looks_are_few_and_reach_from_before_training_to_the_end(epochs: int) -> None:
    looks = look_epochs(epochs)
    assert looks[0] == 0
    assert looks[-1] == epochs
    assert len(looks) == min(epochs + 1, observe.LOOKS)
    gaps = np.diff(looks)
    assert gaps.max() - gaps.min() <= 1
    stages = stage_epochs(epochs)
    assert {0, epochs} <= set(stages) <= set(looks)
    assert len(stages) == min(3, len(looks))


def test_the_subset_is_fixed_and_spread_over_the_splits() -> None:
    subset = choose_subset({"train": 50000, "test": 10000, "unlabeled": 9}, ("train", "test"))
    assert sum(map(len, subset.values())) == observe.IMAGES
    assert len(subset["test"]) == pytest.approx(observe.IMAGES / 6, rel=0.2)
    for split, size in (("train", 50000), ("test", 10000)):
        assert (np.diff(subset[split]) > 0).all()
        assert subset[split].max() < size
    again = choose_subset({"train": 50000, "test": 10000}, ("train", "test"))
    assert all((subset[split] == again[split]).all() for split in again)
    small = choose_subset({"train": 30, "test": 7}, ("test",))
    assert {split: index.tolist() for split, index in small.items()} == {"test": list(range(7))}


def test_features_that_float16_cannot_hold_are_kept_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tiny_config("crlc"), make_prepared(tmp_path / "data"), tmp_path / "state")
    plain, factors = type(trainer.method).features, iter([1.0, 1.0, 1e6, 1.0])
    monkeypatch.setattr(type(trainer.method), "features", lambda self, images: plain(self, images) * next(factors, 1e6))
    trainer.run()
    features = trainer.observer.stage_arrays()["train_features"]
    assert np.isfinite(features).all()
    assert features.max() > np.finfo(np.float16).max
    assert features.dtype == np.float32


@pytest.mark.parametrize("method", gradient_methods())
def test_training_does_not_feel_the_looks(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, settings = make_prepared(tmp_path / "data", {"train": 40, "test": 24}), tiny_config(method)
    watched = make_trainer(settings, data, tmp_path / "watched")
    watched.run()
    monkeypatch.setattr(Observer, "look", lambda *_: None)
    alone = make_trainer(settings, data, tmp_path / "alone")
    alone.run()
    expected, found = alone.method.state_dict(), watched.method.state_dict()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert alone.history == watched.history


@pytest.mark.parametrize("method", ["crlc", "dccm"])
def test_a_killed_run_notes_what_an_undisturbed_one_does(method: str, tmp_path: Path) -> None:
    data, settings = make_prepared(tmp_path / "data"), tiny_config(method, epochs=4)
    whole = make_trainer(settings, data, tmp_path / "whole")
    whole.run()
    parts = run_with_kills(settings, data, tmp_path / "parts", [3, 7, 11], save_batches=2)
    assert parts.at.resumed
    for kind in ("trace", "stage_arrays"):
        expected, found = getattr(whole.observer, kind)(), getattr(parts.observer, kind)()
        assert expected.keys() == found.keys()
        assert [name for name in expected if not (expected[name] == found[name]).all()] == []
    assert (np.diff(parts.observer.look_seconds()) > 0).all()


def test_the_last_look_is_the_prediction(tmp_path: Path) -> None:
    make_prepared(tmp_path / "data", {"train": 48})
    settings = tiny_config("drc")
    write_json(tmp_path / "config.json", settings)
    where = {name: str(tmp_path / name) for name in ("data", "out", "models", "state")}
    options = [part for name, folder in where.items() for part in (f"--{name}", folder)]
    assert train.main(["--config", str(tmp_path / "config.json"), *options, "--device", "cpu"]) == 0
    with np.load(tmp_path / "out/predictions.npz") as done, np.load(tmp_path / "out/trace.npz") as trace:
        assert trace["epoch"].tolist() == [0, 1, 2]
        assert "seconds" not in trace, "a time would change the digest from one training to the next"
        assert (trace["train_assignment"][-1] == done["train_assignment"][trace["train_index"]]).all()
        assert np.allclose(trace["train_confidence"][-1], done["train_confidence"], atol=1e-3)
    with np.load(tmp_path / "models/stages.npz") as stages:
        assert stages["epoch"].tolist() == [0, 1, 2]
        assert stages["train_probability"].shape == (3, 48, settings["params"]["num_clusters"])
        assert np.allclose(stages["train_probability"].sum(axis=2), 1, atol=0.01)
        assert stages["train_features"].shape[:2] == (3, 48)
    record = read_json(tmp_path / "out/run.json")
    files, times = record["files"], record["look_seconds"]
    assert (len(times), times[0], times == sorted(times)) == (3, 0, True)
    assert files["trace.npz"] == sha256_file(tmp_path / "out/trace.npz")
    assert files["stages.npz"] == sha256_file(tmp_path / "models/stages.npz")


def test_the_largest_trace_stays_small(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    observer = object.__new__(Observer)
    observer.subset = choose_subset({"train": 1_000_000}, ("train",))
    size = (observe.LOOKS, observe.IMAGES)
    assignment = torch.from_numpy(draw.integers(0, 200, size).astype(np.int16))
    confidence = torch.from_numpy(draw.random(size)).half()
    observer.looks = [
        {"epoch": k, "seconds": k / 3, "train": {"assignment": assignment[k], "confidence": confidence[k]}}
        for k in range(observe.LOOKS)
    ]
    write_npz(tmp_path / "trace.npz", observer.trace())
    assert (tmp_path / "trace.npz").stat().st_size < 150_000


def test_a_method_too_costly_to_watch_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dica.methods.drc.DRC.watched", False)
    make_prepared(tmp_path / "data", {"train": 48})
    write_json(tmp_path / "config.json", tiny_config("drc"))
    where = {name: str(tmp_path / name) for name in ("data", "out", "models", "state")}
    options = [part for name, folder in where.items() for part in (f"--{name}", folder)]
    assert train.main(["--config", str(tmp_path / "config.json"), *options, "--device", "cpu"]) == 0
    assert "trace.npz" not in read_json(tmp_path / "out/run.json")["files"]
    assert not (tmp_path / "out/trace.npz").exists()
