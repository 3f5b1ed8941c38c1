"""Images on the device or in the main memory: the same batches either way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dica import train
from dica.engine.images import ResidentImages
from dica.files import read_json, sha256_file, write_json
from tiny import make_prepared, make_trainer, tiny_config

CPU = torch.device("cpu")


def test_batches_are_the_same_prefetched_or_not(tmp_path: Path) -> None:
    folder = make_prepared(tmp_path, {"train": 20, "test": 12})
    on_device, on_host = (ResidentImages(folder, CPU, place) for place in ("device", "host"))
    for indices in torch.randperm(32, generator=torch.Generator().manual_seed(0)).split(8):
        expected = on_device.take(("train", "test"), indices)
        on_host.prefetch(("train", "test"), indices)
        assert torch.equal(on_host.take(("train", "test"), indices), expected)
        assert torch.equal(on_host.take(("train", "test"), indices), expected)
        assert expected.stride() == on_host.take(("train", "test"), indices).stride()


def test_another_batch_than_the_prefetched_one_is_fetched(tmp_path: Path) -> None:
    images = ResidentImages(make_prepared(tmp_path), CPU, "host")
    first, second = torch.arange(4), torch.arange(4, 8)
    images.prefetch(("train",), first)
    assert torch.equal(images.take(("train",), second), images.all_of("train")[4:8])


def test_the_loop_fetches_every_batch_but_the_first_ahead(tmp_path: Path, monkeypatch) -> None:
    trainer = make_trainer(tiny_config("drc"), make_prepared(tmp_path / "data"), tmp_path / "state")
    trainer.images.place = "host"
    trainer.method.watched = False  # what looks at the run between epochs takes images as well
    sent: list[int] = []
    send = trainer.images._send
    monkeypatch.setattr(trainer.images, "_send", lambda *given: sent.append(trainer.at.batch) or send(*given))
    trainer.run()
    assert sent == [0, 1, 2] * 2 * trainer.params["epochs"], "three batches, two heads, each once"


@pytest.mark.parametrize("method", ["dccm", "imc-swav", "kmeans"])
def test_a_run_from_the_main_memory_is_the_same_run(method: str, tmp_path: Path) -> None:
    data = make_prepared(tmp_path / "data", {"train": 40, "test": 24})
    write_json(tmp_path / "config.json", tiny_config(method, epochs=1) if method != "kmeans" else tiny_config(method))
    given = ["--config", str(tmp_path / "config.json"), "--data", str(data), "--device", "cpu"]
    for place in ("device", "host"):
        assert train.main([*given, "--out", str(tmp_path / place), "--images", place]) == 0
        assert read_json(tmp_path / place / "run.json")["speed"]["images"] == place
    for name in ("weights.safetensors", "predictions.npz"):
        assert sha256_file(tmp_path / "device" / name) == sha256_file(tmp_path / "host" / name)


def test_the_rule_is_half_of_the_free_memory_divided_by_the_runs_that_share_it(tmp_path: Path, monkeypatch) -> None:
    from dica.engine import images as resident

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2400, 9000))
    cuda = torch.device("cuda")
    assert resident._place(1200, cuda, 1) == "device"
    assert resident._place(1201, cuda, 1) == "host"
    assert resident._place(301, cuda, 4) == "host"
    assert resident._place(10**12, CPU, 1) == "device"
