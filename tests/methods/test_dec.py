"""DEC: the target of all images, at its interval and after a restart; the rule that stops; the source's encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from dica.data.splits import DataInfo
from dica.files import UserError
from dica.losses.dec import student_t, target
from dica.methods import build
from kills import run_with_kills
from tiny import _TRAINED, make_prepared, make_trainer, tiny_config, trained


def trainer_of(tmp_path: Path, **overrides: object):
    settings = tiny_config("dec", **{"epochs": 3, "tolerance": 0.0, **overrides})
    return make_trainer(settings, make_prepared(tmp_path / "data"), tmp_path / "state"), settings


def test_the_encoder_and_the_centres_are_those_of_the_source(tmp_path: Path) -> None:
    trainer, _ = trainer_of(tmp_path)
    below = trained(tiny_config("autoencoder"), trainer.images.info, tmp_path / "data")
    method, images = trainer.method, trainer.images.all_of("train")
    torch.testing.assert_close(method.features(images), below.features(images))
    nearest = torch.cdist(method.features(images), method.centres).argmin(dim=1)
    means = torch.stack([method.features(images)[nearest == k].mean(dim=0) for k in nearest.unique()])
    torch.testing.assert_close(method.centres[nearest.unique()], means, atol=1e-4, rtol=1e-3)


def test_training_again_gives_the_same_bits_whatever_was_drawn_before(tmp_path: Path) -> None:
    found = []
    for name, threads in (("once", 1), ("again", 2)):
        _TRAINED.clear()  # the source is trained again, too
        torch.rand(7 * threads)
        np.random.seed(threads)  # noqa: NPY002
        with threadpool_limits(threads, user_api="openmp"):
            trainer, _ = trainer_of(tmp_path / name)
            trainer.run()
        found.append((trainer.history, trainer.method.state_dict()))
    (history, state), (history_again, state_again) = found
    assert history == history_again
    assert all(torch.equal(value, state_again[name]) for name, value in state.items())


def test_the_target_is_of_all_images_and_waits_for_its_turn(tmp_path: Path) -> None:
    trainer, _ = trainer_of(tmp_path, refresh=2)
    method, images = trainer.method, {"train": trainer.images.all_of("train")}
    with torch.no_grad():
        expected = target(student_t(method.features(images["train"]), method.centres))
    method.before_epoch(0, images, None)
    torch.testing.assert_close(method.target, expected)
    with torch.no_grad():
        method.centres.add_(0.1)
    method.before_epoch(1, images, None)
    torch.testing.assert_close(method.target, expected, msg="an epoch between two targets keeps the first")
    method.before_epoch(2, images, None)
    assert not torch.allclose(method.target, expected)


@pytest.mark.parametrize(("tolerance", "epochs"), [(1.0, 1), (0.0, 3)])
def test_training_stops_when_next_to_nothing_changes(tolerance: float, epochs: int, tmp_path: Path) -> None:
    trainer, _ = trainer_of(tmp_path, tolerance=tolerance)
    trainer.run()
    assert trainer.at.epoch == len(trainer.history) == epochs
    assert trainer.method.finished() == (tolerance == 1.0)


def test_a_run_that_stopped_by_itself_is_resumed_as_such(tmp_path: Path) -> None:
    data, settings = make_prepared(tmp_path / "data"), tiny_config("dec", epochs=4, tolerance=1.0)
    whole = make_trainer(settings, data, tmp_path / "whole")
    whole.run()
    parts = run_with_kills(settings, data, tmp_path / "parts", [2], save_batches=1)
    assert (parts.at.epoch, parts.at.step) == (whole.at.epoch, whole.at.step)
    assert torch.equal(parts.method.target, whole.method.target)


def test_batch_norms_keep_the_statistics_of_the_source() -> None:
    settings = tiny_config("dec", encoder="convolutions", widths=[4, 8])
    method = build("dec", settings["params"], DataInfo(1, 8, {"train": 12})).train()
    norms = [part for part in method.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)


def test_another_network_than_the_source_s_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dec: encoder is not the one of the source run: "):
        trainer_of(tmp_path, widths=[7, 9])
    with pytest.raises(UserError, match=r"dec: source: name the auto-encoder and its variant"):
        build("dec", {**tiny_config("dec")["params"], "source": None}, DataInfo(1, 8, {"train": 12}))
