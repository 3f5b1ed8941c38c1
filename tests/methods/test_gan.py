"""DCGAN: the two networks learn by turns, each from its own loss; features are the discriminator's maps."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from dica.losses.gan import discriminator_loss, generator_loss
from tiny import make_prepared, make_trainer, tiny_config


def test_losses_are_cross_entropies() -> None:
    real, made = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [0.0]])
    loss, parts = discriminator_loss(real, made)
    sigmoid = torch.sigmoid
    torch.testing.assert_close(parts["L_real"], -sigmoid(real).log().mean())
    torch.testing.assert_close(parts["L_made"], -(1 - sigmoid(made)).log().mean())
    torch.testing.assert_close(loss, parts["L_real"] + parts["L_made"])
    torch.testing.assert_close(generator_loss(made)[0], -sigmoid(made).log().mean())


def test_a_step_moves_only_the_network_whose_turn_it_is(tmp_path: Path) -> None:
    trainer = make_trainer(tiny_config("gan", epochs=1), make_prepared(tmp_path / "data"), tmp_path / "state")
    method, seen = trainer.method, []
    step = trainer._step

    def watched(batch) -> None:
        before = copy.deepcopy({name: value for name, value in method.named_parameters()})
        step(batch)
        moved = {
            name.split(".")[0] for name, value in method.named_parameters() if not torch.equal(value, before[name])
        }
        seen.append((batch.phase, moved))

    trainer._step = watched
    trainer.run()
    assert seen == 3 * [("main", {"discriminator"}), ("generator", {"generator"})]
    assert {"loss", "L_real", "L_made", "generator_loss"} <= set(trainer.history[0])


def test_one_adam_by_turns_is_two_of_them(tmp_path: Path) -> None:
    """Moments and step counts are those of each parameter: a turn leaves the other network's as they are."""
    trainer = make_trainer(tiny_config("gan", epochs=1), make_prepared(tmp_path / "data"), tmp_path / "state")
    method, steps = trainer.method, 0
    names = ("discriminator", "generator")
    twins = {name: copy.deepcopy(getattr(method, name)) for name in names}
    others = {
        name: torch.optim.Adam(twin.parameters(), lr=trainer.params["lr"], betas=(0.5, 0.999))
        for name, twin in twins.items()
    }
    step = trainer._step

    def both(batch) -> None:
        nonlocal steps
        name = "generator" if batch.phase == "generator" else "discriminator"
        step(batch)
        for twin, real in zip(twins[name].parameters(), getattr(method, name).parameters(), strict=True):
            twin.grad = real.grad.clone()
        others[name].step()
        steps += 1

    trainer._step = both
    trainer.run()
    assert steps == 6
    for name in names:
        for twin, real in zip(twins[name].parameters(), getattr(method, name).parameters(), strict=True):
            torch.testing.assert_close(twin, real)


@pytest.mark.parametrize(("features", "length"), [("last", 64), ("maps", 32 * 16 + 64 * 4)])
def test_features_are_maps_of_the_discriminator(features: str, length: int, tmp_path: Path) -> None:
    settings = tiny_config("gan", features=features, widths=[32, 64])
    trainer = make_trainer(settings, make_prepared(tmp_path / "data"), tmp_path / "state")
    method = trainer.method.eval()
    images = trainer.images.all_of("train")
    found = method.features(images)
    assert found.shape == (48, length)
    if features == "last":
        whole = method.discriminator.body(2 * method.test_view(images) - 1)
        torch.testing.assert_close(found, whole.mean(dim=(2, 3)))
