"""What a CPU cannot show: every method on a CUDA device. ``python -m pytest -m gpu`` runs these tests alone.

Without a device they are skipped; a few run on the CPU as well, so that the tests themselves are known to work.
Beside torch and torchvision they need PyYAML and jsonschema, for the parameter files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

import dica.engine.loop
from dica import train
from dica.engine.loop import SaveEvery
from dica.engine.speed import Speed
from dica.files import read_json, write_json
from dica.rng import generator
from tiny import REPLAYED, all_variants, gradient_methods, make_prepared, make_trainer, tiny_config

# GATCluster's K-means of an outer batch is the host's, and so is the exchange of targets of MMDC.
WAITING = ("gatcluster", "mmdc")
IN_BFLOAT16 = [name for name in gradient_methods() if name != "dccm"]  # which takes float32 alone
CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def on_gpu(*cases, also: tuple = ()) -> list:
    """The cases on a CUDA device, and those of `also` on the CPU."""
    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    extra = [case if isinstance(case, tuple) else (case,) for case in also]
    return [pytest.param(*case, "cuda", marks=CUDA) for case in values] + [(*case, "cpu") for case in extra]


@pytest.fixture
def numerics():
    """How exact a run is, as `dica.train` sets it; put back afterwards."""
    yield train._set_numerics
    train._set_numerics("seeded", "float32")


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class HostDraws(TorchFunctionMode):
    """Let the CPU draw what a generator of the CPU is asked for, wherever the numbers are wanted."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        source = kwargs.get("generator")
        if source is None or source.device.type != "cpu":
            return function(*args, **kwargs)
        if function is torch.Tensor.exponential_:
            return args[0].copy_(torch.empty(args[0].shape, dtype=args[0].dtype).exponential_(generator=source))
        if function is torch._standard_gamma:
            return function(args[0].cpu(), generator=source).to(args[0].device)
        assert function in (torch.rand, torch.randn, torch.randint, torch.randperm), function
        return function(*args, **{**kwargs, "device": "cpu"}).to(kwargs.get("device", "cpu"))


def short(method: str) -> dict:
    return {"epochs": 1, "inner_passes": 1, "inner_batch": 8} if method == "dccm" else {}


@pytest.mark.parametrize(("method", "device"), on_gpu(*gradient_methods(), also=("tcc",)))
def test_the_losses_are_those_of_a_cpu(method: str, device: str, tmp_path: Path, double, monkeypatch) -> None:
    data, settings = make_prepared(tmp_path / "data"), tiny_config(method, **short(method))
    expected = make_trainer(settings, data, tmp_path / "cpu")
    expected.run()
    monkeypatch.setattr(dica.engine.loop, "generator", lambda *address, device="cpu": generator(*address))
    found = make_trainer(settings, data, tmp_path / "found", device=device)
    with HostDraws():
        found.run()
    for one, other in zip(expected.history, found.history, strict=True):
        assert other == pytest.approx(one, rel=1e-6, abs=1e-9)


class Killed(BaseException):
    """Stands in for a kill."""


@pytest.mark.parametrize(("method", "variant", "device"), on_gpu(*all_variants(), also=(("drc", "full"),)))
def test_a_strict_run_resumes_bit_for_bit(method: str, variant: str, device: str, tmp_path: Path, numerics) -> None:
    numerics("strict", "float32")
    data, settings = make_prepared(tmp_path / "data"), tiny_config(method, variant, **short(method))
    whole = make_trainer(settings, data, tmp_path / "whole", device=device)
    whole.run()
    parts = make_trainer(settings, data, tmp_path / "parts", SaveEvery(seconds=0, batches=1), device=device)
    run_batch, done = parts._run_batch, []

    def die(*arguments) -> None:
        if len(done) == 2:
            raise Killed
        done.append(run_batch(*arguments))

    parts._run_batch = die
    with pytest.raises(Killed):
        parts.run()
    parts.state._lock.close()
    parts = make_trainer(settings, data, tmp_path / "parts", device=device)
    parts.resume()
    assert parts.at.step > 0
    parts.run()
    assert parts.history == whole.history
    expected, found = whole.method.state_dict(), parts.method.state_dict()
    assert not [name for name in expected if not torch.equal(expected[name], found[name])]


@pytest.mark.parametrize(("method", "device"), on_gpu("drc", "crlc", "dccm"))  # each with another optimiser
def test_a_checkpoint_of_a_cpu_goes_on_on_a_gpu(method: str, device: str, tmp_path: Path) -> None:
    data, settings = make_prepared(tmp_path / "data"), tiny_config(method, **short(method))
    first = make_trainer(settings, data, tmp_path / "state")
    first._run_epoch()
    first._close_epoch()
    first.save()
    first.state._lock.close()
    settings["params"]["epochs"] += 1
    second = make_trainer(settings, data, tmp_path / "state", device=device)
    second.resume()
    second.run()
    assert len(second.history) == settings["params"]["epochs"]


@pytest.mark.parametrize(("method", "device"), on_gpu(*gradient_methods()))
def test_no_step_waits_for_the_device(method: str, device: str, tmp_path: Path) -> None:
    counts = {"train": 20, "test": 15, "unlabeled": 30} if method == "crlc" else None
    settings = tiny_config(method, **{**short(method), "epochs": 2})
    trainer = make_trainer(settings, make_prepared(tmp_path / "data", counts), tmp_path / "state", device=device)
    run_batch = trainer._run_batch

    def watched(*arguments) -> None:
        torch.cuda.set_sync_debug_mode("error" if trainer.at.epoch else "default")
        try:
            run_batch(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    trainer._run_batch = watched
    if method not in WAITING:
        trainer.run()
        return
    with pytest.raises(RuntimeError, match="synchronizing"):
        trainer.run()


@pytest.mark.parametrize(("method", "variant", "device"), on_gpu(*REPLAYED))
def test_a_cuda_graph_trains_like_eager_steps(method: str, variant: str, device: str, tmp_path: Path, numerics) -> None:
    numerics("strict", "float32")
    data = make_prepared(tmp_path / "data", {"train": 84})  # the short last batch is a kind of step of its own
    schedule = {"kind": "steps", "milestones": [2], "factor": 0.1, "warmup_steps": 0}
    options = {"batch_size": 20, "drop_last": False, "schedule": schedule, **short(method), "epochs": 4}
    options |= {"prototype_freeze_steps": 6} if method == "imc-swav" else {}
    settings = tiny_config(method, variant, **options)
    eager = make_trainer(settings, data, tmp_path / "eager", device=device)
    graph = make_trainer(settings, data, tmp_path / "graph", speed=Speed(cuda_graph=True), device=device)
    eager.run()
    graph.run()
    assert any(kind.recording for kind in graph.update.kinds.values())
    for one, other in zip(eager.history, graph.history, strict=True):
        assert other == pytest.approx(one, rel=1e-5)


@pytest.mark.parametrize("device", on_gpu(()))
def test_an_eager_checkpoint_goes_on_in_a_graph(device: str, tmp_path: Path) -> None:
    data, settings = make_prepared(tmp_path / "data"), tiny_config("dccm", **short("dccm"))
    eager = make_trainer(settings, data, tmp_path / "state", SaveEvery(seconds=0, batches=1), device=device)
    eager.run()
    eager.state._lock.close()
    settings["params"]["epochs"] += 2
    graph = make_trainer(settings, data, tmp_path / "state", speed=Speed(cuda_graph=True), device=device)
    graph.resume()
    graph.run()
    assert any(kind.recording for kind in graph.update.kinds.values())


@pytest.mark.parametrize(
    ("method", "recorded", "device"), on_gpu(("dccm", False), ("dccm", True), ("imc-swav", False), ("imc-swav", True))
)
def test_compiled_networks_train_alike(method: str, recorded: bool, device: str, tmp_path: Path) -> None:
    data = make_prepared(tmp_path / "data", {"train": 32})
    settings = tiny_config(method, **{"batch_size": 8, **short(method), "epochs": 2})
    eager = make_trainer(settings, data, tmp_path / "eager", device=device)
    eager.run()
    speed = Speed(compile="inductor", cuda_graph=recorded)
    compiled = make_trainer(settings, data, tmp_path / "compiled", speed=speed, device=device)
    try:
        compiled.run()
    finally:
        torch.compiler.set_stance("default")
        torch._dynamo.reset()
    for one, other in zip(eager.history, compiled.history, strict=True):
        assert other == pytest.approx(one, rel=1e-3)


@pytest.mark.parametrize(("method", "device"), on_gpu(*IN_BFLOAT16, also=("imc-swav",)))
def test_bfloat16_gives_losses_in_float32_and_predictions(method: str, device: str, tmp_path: Path, numerics) -> None:
    numerics("fast", "bfloat16")
    data, settings = make_prepared(tmp_path / "data"), tiny_config(method, precision="bfloat16")
    trainer = make_trainer(settings, data, tmp_path / "state", device=device)
    loss, dtypes = trainer.method.loss, set()

    def noted(batch):
        step = loss(batch)
        dtypes.add(step.loss.dtype)
        return step

    trainer.method.loss = noted
    trainer.run()
    assert dtypes == {torch.float32}
    assert all(np.isfinite(value) for row in trainer.history for value in row.values())
    found = train.predict(trainer.method, trainer.images, lambda purpose: generator(0, purpose, device=device))
    assert len(found["train_assignment"]) == 48


@pytest.mark.parametrize("device", on_gpu(()))
def test_whole_runs_with_the_images_here_and_there(device: str, tmp_path: Path, monkeypatch, numerics) -> None:
    monkeypatch.setenv("DICA_SLOTS", str(tmp_path / "slots"))
    data = make_prepared(tmp_path / "data", {"train": 30, "test": 15})
    settings = {key: value for key, value in tiny_config("drc").items() if key != "id"}
    write_json(tmp_path / "config.json", {**settings, "determinism": "strict"})
    given = ["--config", str(tmp_path / "config.json"), "--data", str(data), "--device", device]
    for place in ("device", "host"):
        assert train.main([*given, "--out", str(tmp_path / place), "--images", place, "--gpu-share", "4"]) == 0
        record = read_json(tmp_path / place / "run.json")
        assert (record["device"]["type"], record["speed"]["images"]) == ("cuda", place)
        assert record["peak_memory_mb"] > 0
    for name in ("history.csv", "weights.safetensors"):
        assert (tmp_path / "device" / name).read_bytes() == (tmp_path / "host" / name).read_bytes()
