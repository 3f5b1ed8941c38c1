"""DCCS: its losses beside plain arithmetic, whose turn it is, the prior, and the residual encoder."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch

from dica import methods
from dica.data.splits import DataInfo
from dica.losses.dccs import critic_loss, encoder_loss
from dica.methods.base import Batch
from dica.methods.dccs import Block
from dica.rng import generator
from tiny import make_prepared, make_trainer, tiny_config

IMAGES = torch.randint(0, 256, (24, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def build(channels: int = 1, **overrides: object):
    torch.manual_seed(0)
    params = tiny_config("dccs", **{"critic_steps": 2, **overrides})["params"]
    return methods.build("dccs", params, DataInfo(channels, 8, {"train": len(IMAGES)})).train()


def batch() -> Batch:
    return Batch(IMAGES, torch.arange(len(IMAGES)), 0, 7, "main", lambda purpose: generator(0, purpose))


def test_the_critic_loses_by_scores_and_by_slopes_that_are_not_1_long() -> None:
    prior, made = torch.tensor([[0.5], [1.5]]), torch.tensor([[0.25], [-1.0]])
    slopes = torch.tensor([[0.6, 0.8], [0.0, 2.0]])
    loss, _ = critic_loss(prior, made, slopes, adversary_weight=0.5, penalty=4.0)
    assert float(loss) == pytest.approx(0.5 * (-0.375 - 1.0 + 4.0 * (0 + 1) / 2))


def test_the_encoder_loses_by_its_three_terms() -> None:
    made, own, others = torch.tensor([[0.2], [0.4]]), torch.tensor([[1.0], [0.0]]), torch.tensor([[-2.0], [0.5]])
    logits, other = torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([[0.5, 0.0], [1.0, 1.0]])
    loss, parts = encoder_loss(
        made, own, others, logits, other, adversary_weight=2.0, information_weight=3.0, view_weight=5.0
    )
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    cross = [-math.log(sigmoid(1.0)), -math.log(0.5), -math.log(1 - sigmoid(-2.0)), -math.log(1 - sigmoid(0.5))]
    divergence = 0.0
    for given, aug in zip(logits.tolist(), other.tolist(), strict=True):
        p, q = ([math.exp(x) / sum(map(math.exp, row)) for x in row] for row in (given, aug))
        divergence += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 2
    assert float(parts["L_MI"]) == pytest.approx(sum(cross) / 4)
    assert float(parts["L_views"]) == pytest.approx(divergence)
    assert float(loss) == pytest.approx(2 * -0.3 + 3 * sum(cross) / 4 + 5 * divergence)


def test_a_round_shares_its_images_out_among_the_turns() -> None:
    turns = list(build().split(batch()))
    assert [(turn.phase, turn.step, len(turn.images)) for turn in turns] == [
        ("main", 7, 8),
        ("main", 8, 8),
        ("encoder", 9, 8),
    ]
    assert torch.equal(torch.cat([turn.indices for turn in turns]), torch.arange(24))
    assert len({float(torch.rand((), generator=turn.rng("styles"))) for turn in turns}) == 3
    few = Batch(IMAGES[:5], torch.arange(5), 0, 0, "main", batch().rng)
    assert not list(build().split(few)), "5 images in 3 turns: one would have no batch statistics"


def test_a_turn_moves_its_own_networks_alone(tmp_path: Path) -> None:
    settings = tiny_config("dccs", epochs=1, critic_steps=1)
    trainer = make_trainer(settings, make_prepared(tmp_path / "data"), tmp_path / "state")
    method, seen, step = trainer.method, [], trainer._step

    def watched(given) -> None:
        before = copy.deepcopy(dict(method.named_parameters()))
        step(given)
        moved = {key.split(".")[0] for key, value in method.named_parameters() if not torch.equal(value, before[key])}
        seen.append((given.phase, moved))

    trainer._step = watched
    trainer.run()
    assert seen == 3 * [("main", {"critic"}), ("encoder", {"encoder", "discriminator"})]
    assert {"loss", "L_critic", "L_penalty", "encoder_loss", "encoder_L_views"} <= set(trainer.history[0])


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_slopes_are_those_of_the_critic_between_code_and_prior(double) -> None:
    model, given = build(), batch()
    _, first = model.loss(given).parts.values()
    with torch.no_grad():
        made = model.encoder(model.original(IMAGES, given.rng("original"))).joint
    drawn = model._prior(given)
    share = torch.rand((len(made), 1), generator=given.rng("between"), dtype=made.dtype)
    points, lengths = share * drawn + (1 - share) * made, []
    for point in points:  # by differences
        slope = []
        for at in range(len(point)):
            moved = torch.zeros_like(point)
            moved[at] = 1e-6
            slope.append((model.critic(point + moved) - model.critic(point - moved)).item() / 2e-6)
        lengths.append(math.hypot(*slope))
    assert float(first) == pytest.approx(sum((x - 1) ** 2 for x in lengths) / len(lengths), rel=1e-4)


def test_the_prior_is_normal_styles_and_one_category() -> None:
    model = build(style_size=400, style_deviation=0.3)
    drawn = model._prior(batch())
    style, category = drawn[:, :400], drawn[:, 400:]
    assert float(style.std()) == pytest.approx(0.3, rel=0.05)
    assert torch.equal(category.sum(dim=1), torch.ones(24))
    assert set(category.unique().tolist()) == {0.0, 1.0}
    assert len(category.argmax(dim=1).unique()) > 4


def test_what_is_near_its_own_code_has_the_last_block_s_maps() -> None:
    model = build(channels=3).eval()
    images = torch.rand(2, 3, 8, 8)
    code = model.encoder(images)
    assert code.maps.shape == (2, 64 * 2 * 2)
    assert code.joint.shape == (2, 10 + 10)
    grey = 0.299 * images[:, :1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:]
    torch.testing.assert_close(code.logits, model.encoder(grey).logits, atol=1e-3, rtol=1e-3)
    given = IMAGES.expand(-1, 3, -1, -1)
    output = model.encoder.output(model.features(given))
    torch.testing.assert_close(output[:, 10:].softmax(dim=1), model.predict(given))


@pytest.mark.parametrize(("out", "halve", "first"), [(6, True, True), (6, True, False), (4, False, False)])
def test_a_block_is_its_convolutions_beside_the_input(out: int, halve: bool, first: bool) -> None:
    torch.manual_seed(1)
    block, x = Block(4, out, halve, first).eval(), torch.randn(2, 4, 6, 6)
    y = x if first else torch.relu(x / math.sqrt(1 + 1e-5))
    weights = [part.weight for part in block.body if isinstance(part, torch.nn.Conv2d)]
    y = torch.nn.functional.conv2d(y, weights[0], padding=1)
    y = torch.nn.functional.conv2d(torch.relu(y / math.sqrt(1 + 1e-5)), weights[1], padding=1)
    beside = block.beside[0](x) if halve else x
    both = y + beside
    expected = torch.nn.functional.avg_pool2d(both, 2) if halve else both
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)
