"""The counted arithmetic of runs: right where it can be checked by hand, and stored as it is counted today."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from torch.utils.flop_counter import FlopCounterMode

from dica.data.splits import DataInfo
from dica.engine.count import Counter
from dica.files import read_json
from dica.plan.artefacts import load_artefacts
from dica.plan.counted import COUNTS, TOLERANCE, counted_work, shape_key
from dica.plan.parameters import load_datasets
from tiny import ROOT, make_prepared, make_trainer, tiny_config

INFO = DataInfo(1, 8, {"train": 48})
# One of each kind of count: many crops, inner batches, a source, labels, turns, K-means on features, a plain fit.
AGAIN = [("dccm", "digits"), ("probe", "cifar10"), ("semi", "digits"), ("gan", "digits"), ("sc", "stl10")]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("counts", ROOT / "workflow/scripts/counts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def planned(script) -> tuple[dict, dict]:
    return script.shapes(ROOT)


def test_every_planned_run_is_answered_for(planned) -> None:
    datasets = load_datasets(ROOT)
    lacking = [run["path"] for run in planned[1].values() if counted_work(run, datasets[run["dataset"]]) is None]
    assert not lacking, "python workflow/scripts/counts.py"


def test_runs_of_equal_arithmetic_have_the_count_that_their_table_states(planned) -> None:
    datasets, seen = load_datasets(ROOT), []
    for artefact in load_artefacts(ROOT, ["dica"]):
        mine = [run for run in planned[1].values() if artefact.address in run["needed_by"]]
        for run in mine if artefact.tflop else []:
            work = counted_work(run, datasets[run["dataset"]])
            if "epochs" not in run["params"]:
                assert run["method"] == "untrained", "a control that trains nothing spends no budget"
                continue
            assert work.exact, "python workflow/scripts/counts.py"
            assert work.flops / 1e12 == pytest.approx(artefact.tflop, rel=TOLERANCE), (artefact.address, run["path"])
            seen.append((artefact.name, run["method"]))
    assert len(set(seen)) == 4 * 6, "six methods that train, in three tables and a figure"


@pytest.mark.parametrize(("method", "dataset"), AGAIN)
def test_the_stored_counts_are_those_of_today(script, planned, method: str, dataset: str) -> None:
    wanted, runs = planned
    key, run = next((k, run) for k, run in wanted.items() if (run["method"], run["dataset"]) == (method, dataset))
    told = "python workflow/scripts/counts.py, --all if the arithmetic of a method has changed"
    assert script.entry(run, ROOT, runs) == read_json(COUNTS).get(key), told


@pytest.mark.parametrize(("method", "change"), [("drc", {}), ("dccm", {}), ("crlc", {}), ("drc", {"epoch_batches": 2})])
def test_an_epoch_without_content_is_counted_like_one_that_is_trained(method, change, tmp_path: Path) -> None:
    own = {"inner_batch": 8} if method == "dccm" else {}
    settings = tiny_config(method, batch_size=16, drop_last=True, **own, **change)
    trainer = make_trainer(settings, make_prepared(tmp_path / "data"), tmp_path / "state")
    trainer.observer.epochs = []
    with FlopCounterMode(display=False) as counter:
        trainer._run_epoch()
    assert Counter(settings, INFO).count().epoch == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_the_network_of_a_paper_has_the_operations_that_one_counts_by_hand() -> None:
    """ResNet-18 at 32 pixels: 1.11 GFLOP forward, and backward twice that but for the gradient of the images."""
    backbone = {"name": "resnet18", "stem": "cifar", "width": 64, "init": "kaiming"}
    views = {"original": [], "augmented": [], "test": []}
    settings = tiny_config("pica", batch_size=16, drop_last=True)
    settings["params"] |= {
        "backbone": backbone,
        "views": views,
        "normalisation": None,
        "repeats": 1,
        "over_clusters": 0,
    }
    count = Counter(settings, DataInfo(3, 32, {"train": 48})).count()
    assert count.epoch / (48 * 2) == pytest.approx(3.33e9, rel=0.01)  # an original and a view of each image
    assert count.once / (48 * 21) == pytest.approx(1.11e9, rel=0.01)  # a prediction and 20 looks


def test_rates_and_seeds_have_no_shape_and_widths_have() -> None:
    entry = load_datasets(ROOT)["digits"]
    run = tiny_config("tcc")
    key = shape_key(run, entry)
    assert shape_key(tiny_config("tcc", seed=3, lr=0.5, temperature=0.125, epochs=9), entry) == key
    assert shape_key(tiny_config("tcc", backbone={"width": 32}), entry) != key
    assert shape_key(run, {**entry, "image_size": 16}) != key
