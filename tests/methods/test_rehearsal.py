"""A rehearsal for a GPU without one: steps and predictions on a device that is not the host.

Its tensors have no content, so that it is cheap. What mixes devices fails here; whether a step waits for its device and
how many kernels it starts, is in `test_step.py`.
"""

from __future__ import annotations

import pytest
import torch

from dica.data.splits import DataInfo
from dica.engine.count import META, Counter
from dica.plan import parameters as config
from dispatch import OneDevice
from tiny import ROOT, all_variants, archive_profile, tiny_config

INFO = DataInfo(1, 8, {"train": 48})
# The kinds of run that the digits do not have: crops apart, a buffer of labelled images, a second batch beside each.
LARGE = [("imc-swav", "cifar10"), ("imc-swav", "stl10"), ("crlc", "stl10"), ("dccm", "tiny-imagenet")]


def rehearse(settings: dict, info: DataInfo) -> None:
    """Do a step of each kind with its backward pass, and a prediction; a tensor made on no device is the host's."""
    source = settings["params"].get("source")
    counter = Counter(settings, info, tiny_config(source["method"], source["variant"]) if source else None)
    with counter.pretending():
        with META:
            counter.build()
        with OneDevice():
            counter.work()
    assert counter.epoch > 0
    assert {value.device for value in counter.method.state_dict().values()} == {META}


@pytest.mark.parametrize(("method", "variant"), all_variants())
def test_steps_and_predictions_keep_to_one_device(method: str, variant: str) -> None:
    rehearse(tiny_config(method, variant), INFO)


@pytest.mark.parametrize(("method", "dataset"), LARGE)
def test_so_do_those_of_large_data(method: str, dataset: str) -> None:
    entry = config.load_datasets(ROOT)[dataset]
    params = config.resolve(method, "full", dataset, archive_profile(), ROOT)
    params |= {"backbone": {**params["backbone"], "name": "resnet8"}} if "backbone" in params else {}
    settings = {**tiny_config(method), "dataset": dataset, "params": params}
    rehearse(settings, DataInfo(entry["channels"], entry["image_size"], entry["splits"]))


@pytest.mark.parametrize("mixed", [lambda x, y: x + y, lambda x, y: x @ y, lambda x, y: x[y.long()]])
def test_devices_that_are_mixed_are_noticed(mixed) -> None:
    with pytest.raises(AssertionError, match="of tensors on cpu and meta"), OneDevice():
        mixed(torch.zeros(2, 2), torch.zeros(2, 2, device=META))
