"""Compiled networks and replayed steps do what eager ones do; what cannot be had is said."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from dica import train
from dica.engine.loop import Trainer
from dica.engine.optim import build_optimizer
from dica.engine.speed import ReplayedUpdate, Speed, choose
from dica.files import UserError, read_json, write_json
from dispatch import TapeRecording
from tiny import REPLAYED, gradient_methods, make_prepared, make_trainer, tiny_config

CPU = torch.device("cpu")


def as_on_a_gpu(trainer: Trainer) -> Trainer:
    trainer.optimizer = build_optimizer(trainer.method, trainer.params, torch.device("cuda"))
    return trainer


def replaying(trainer: Trainer) -> Trainer:
    trainer.update = ReplayedUpdate(trainer._update, trainer.optimizer, trainer.method.regime, TapeRecording)
    return trainer


@pytest.mark.parametrize(("method", "variant"), REPLAYED)
def test_replaying_a_recorded_step_is_training(method: str, variant: str, tmp_path: Path) -> None:
    data = make_prepared(tmp_path / "data", {"train": 84})  # the short last batch is a kind of step of its own
    short = {"epochs": 1, "inner_passes": 1, "inner_batch": 8} if method == "dccm" else {}
    short |= {"prototype_freeze_steps": 6, "epochs": 3, "schedule": {"warmup_steps": 0}} if method == "imc-swav" else {}
    settings = tiny_config(method, variant, **{"batch_size": 20, "drop_last": False, **short})
    eager = as_on_a_gpu(make_trainer(settings, data, tmp_path / "eager"))
    replayed = replaying(as_on_a_gpu(make_trainer(settings, data, tmp_path / "replayed")))
    eager.run()
    replayed.run()
    assert any(kind.recording for kind in replayed.update.kinds.values())
    assert replayed.history == eager.history
    expected, found = eager.method.state_dict(), replayed.method.state_dict()
    assert not [name for name in expected if not torch.equal(expected[name], found[name])]


def test_a_new_learning_rate_is_a_new_recording(tmp_path: Path) -> None:
    data = make_prepared(tmp_path / "data")
    schedule = {"kind": "steps", "milestones": [2], "factor": 0.1}
    settings = tiny_config("dccm", epochs=3, inner_passes=1, inner_batch=8, schedule=schedule)
    eager = make_trainer(settings, data, tmp_path / "eager")
    replayed = replaying(make_trainer(settings, data, tmp_path / "replayed"))
    eager.run()
    replayed.run()
    assert {kind.within for kind in replayed.update.kinds.values()} == {(settings["params"]["lr"] * 0.1,)}
    assert replayed.history == eager.history


def test_a_step_that_depends_on_more_than_its_batch_would_be_noticed(tmp_path: Path) -> None:
    data, settings = make_prepared(tmp_path / "data"), tiny_config("dccm", epochs=1, inner_batch=8)
    eager = make_trainer(settings, data, tmp_path / "eager")
    replayed = make_trainer(settings, data, tmp_path / "replayed")
    for trainer in (eager, replayed):
        loss = trainer.method.loss

        def scaled(batch, loss=loss):
            step = loss(batch)
            return dataclasses.replace(step, loss=step.loss * (1 + batch.step))

        trainer.method.loss = scaled
    replaying(replayed)
    eager.run()
    replayed.run()
    assert replayed.history != eager.history


@pytest.mark.parametrize("method", gradient_methods())
def test_the_networks_hold_nearly_all_of_the_weights(method: str, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config(method), make_prepared(tmp_path / "data"), tmp_path / "state")
    networks = trainer.method.networks()
    held = {id(p) for network in networks for p in network.parameters()}
    convolutions = [p for p in trainer.method.parameters() if p.dim() == 4 and p.requires_grad]
    assert convolutions or method in ("probe", "dec"), "dense networks have none"
    assert all(id(p) in held for p in convolutions)


@pytest.fixture
def compiling():
    yield
    torch.compiler.set_stance("default")
    torch._dynamo.reset()


def test_compiled_networks_train_alike(tmp_path: Path, compiling) -> None:
    data = make_prepared(tmp_path / "data", {"train": 32})
    settings = tiny_config("dccm", inner_passes=1, inner_batch=16)
    eager = make_trainer(settings, data, tmp_path / "eager")
    eager.run()
    compiled = make_trainer(settings, data, tmp_path / "compiled", speed=Speed(compile="aot_eager"))
    names = list(compiled.method.state_dict())
    torch._dynamo.utils.counters.clear()
    compiled.run()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2, "network and views"
    assert names == list(eager.method.state_dict()) == list(compiled.method.state_dict())
    for expected, found in zip(eager.history, compiled.history, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


def test_what_is_asked_for_and_cannot_be_had(tmp_path: Path, capsys) -> None:
    dccm, iic = (
        make_trainer(tiny_config(name), make_prepared(tmp_path / "data"), tmp_path / name).method
        for name in ("dccm", "iic")
    )
    with pytest.raises(UserError, match="--compile: only for runs with determinism: fast, this one has seeded"):
        choose(True, False, "seeded", CPU, dccm)
    with pytest.raises(UserError, match="--cuda-graph: a step of IIC depends on more than its batch"):
        choose(False, True, "fast", CPU, iic)
    assert choose(True, True, "fast", torch.device("cuda"), dccm) == Speed("inductor", True)
    assert choose(False, False, "strict", CPU, iic) == Speed()


def test_the_record_says_how_the_steps_were_executed(tmp_path: Path, capsys) -> None:
    settings = {key: value for key, value in tiny_config("dccm", epochs=1).items() if key != "id"}
    write_json(tmp_path / "config.json", {**settings, "determinism": "fast"})
    data = make_prepared(tmp_path / "data")
    given = ["--config", str(tmp_path / "config.json"), "--data", str(data), "--out", str(tmp_path / "out")]
    assert train.main([*given, "--device", "cpu", "--cuda-graph"]) == 0
    note = "--cuda-graph: not used, there is no GPU"
    assert f"warning: {note}" in capsys.readouterr().err
    speed = read_json(tmp_path / "out/run.json")["speed"]
    assert speed == {"compile": None, "cuda_graph": False, "notes": [note], "images": "device", "processes": 1}


def test_what_decides_by_more_than_its_batch_is_not_replayed(tmp_path: Path) -> None:
    """Of methods whose steps are: the variants that look at other images, or count those that they have seen."""
    counts = {"train": 60, "test": 15, "unlabeled": 30}
    for method, variant, wanted, changes in (
        ("tcc", "without-aug-c", False, {}),
        ("imc-swav", "full", False, {"classifier_split": "labelled"}),
        ("imc-swav", "full", True, {}),
        ("crlc-semi", "full", False, {}),
        ("crlc-two-stage", "full", False, {}),
        ("crlc", "full", True, {"stl_unlabelled": True}),
    ):
        place = tmp_path / f"{method}-{variant}-{wanted}"
        trainer = make_trainer(tiny_config(method, variant, **changes), make_prepared(place / "data", counts), place)
        assert trainer.method.replayable is wanted, (method, variant, changes)
