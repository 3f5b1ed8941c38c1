"""What may depend on how many images go through a network together and on how many threads: last bits, and no more.

A prediction is made in batches of `PREDICTION_BATCH`, an analysis in smaller ones; the rule `train` has one thread, so
that a run is the same bits whatever `--cores` says, and `analyse` has up to two.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from dica.engine.images import ResidentImages
from dica.train import predict
from tiny import make_prepared, make_trainer, tiny_config

LAST_BITS = 1e-5


@pytest.fixture(scope="module", params=["drc", "crlc", "imc-swav", "dccm"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    data = make_prepared(folder / "data", {"train": 96})
    trainer = make_trainer(tiny_config(request.param, epochs=1), data, folder / "state")
    trainer.run()
    return trainer.method, ResidentImages(data, torch.device("cpu"))


def probabilities(method, images: torch.Tensor, batch: int) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([method.predict(part) for part in images.split(batch)])


def test_an_image_alone_is_predicted_as_in_a_batch(trained) -> None:
    method, resident = trained
    images = resident.all_of("train")
    method.before_predict({"train": images}, lambda purpose: torch.Generator().manual_seed(0))
    method.eval()
    whole = probabilities(method, images, 1000)
    for batch in (1, 7, 100):
        parts = probabilities(method, images, batch)
        torch.testing.assert_close(parts, whole, rtol=0, atol=LAST_BITS)
        best = whole.topk(2, dim=1).values
        clear = best[:, 0] - best[:, 1] > 2 * LAST_BITS
        assert torch.equal(parts.argmax(1)[clear], whole.argmax(1)[clear])
    assert torch.equal(probabilities(method, images, 1000), whole), "the same batches give the same bits"


def test_threads_move_last_bits_of_a_prediction_and_nothing_else(trained) -> None:
    method, resident = trained
    found = []
    for threads in (1, 2, 1):
        torch.set_num_threads(threads)
        copied = copy.deepcopy(method)  # preparing a prediction may renew batch norm
        found.append(predict(copied, resident, lambda purpose: torch.Generator().manual_seed(0)))
    torch.set_num_threads(1)
    one, two, again = found
    for name, values in one.items():
        assert np.array_equal(values, again[name]), "the same number of threads gives the same bits"
    np.testing.assert_allclose(one["train_confidence"], two["train_confidence"], atol=1e-3)  # stored as float16
    assert (one["train_assignment"] != two["train_assignment"]).mean() < 0.02


def test_a_run_is_trained_by_one_thread_whatever_the_cores(root: Path) -> None:
    rule = (root / "workflow/rules/train.smk").read_text().split("rule train:")[1]
    assert re.search(r"threads: 1\n", rule)
    assert "--threads {threads}" in rule
