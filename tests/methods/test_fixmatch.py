"""FixMatch: its loss, what the gradient may reach, the moving average, and the wide network."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dica import methods
from dica.data.splits import DataInfo
from dica.engine import distributed
from dica.engine.optim import learning_rate
from dica.files import UserError
from dica.losses.fixmatch import fixmatch_loss
from dica.methods.base import Batch
from dica.networks.backbones import build_backbone
from dica.plan import parameters as config
from dica.rng import generator
from tiny import archive_profile

N = 60
IMAGES = torch.randint(0, 256, (N, 1, 8, 8), generator=generator(0, "images"), dtype=torch.uint8)


def make(root: Path, name: str = "fixmatch", **overrides):
    params = config.resolve(name, "full", "digits", {**archive_profile(), "overrides": {name: overrides}}, root)
    torch.manual_seed(0)
    method = methods.build(name, params, DataInfo(1, 8, {"train": N}))
    method.give_labels(torch.arange(N) % 10)
    return method


def batch() -> Batch:
    rows = torch.arange(24)
    return Batch(IMAGES[rows], rows, 0, 0, "main", lambda p: generator(0, p), take=lambda index: IMAGES[index])


@pytest.mark.parametrize("average", ["all", "confident"])
def test_the_loss_equals_a_loop_over_images(average: str) -> None:
    logits = torch.randn(3, 7, 4, generator=generator(0, "z"), dtype=torch.float64) * 3
    labelled, weak, strong = (part.requires_grad_() for part in logits.unbind())
    classes = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    terms = []
    for w, s in zip(weak.softmax(1).tolist(), strong.log_softmax(1).tolist(), strict=True):
        if max(w) > 0.8:
            terms.append(-s[w.index(max(w))])
    assert 0 < len(terms) < 7
    supervised = -sum(labelled.log_softmax(1)[i, c].item() for i, c in enumerate(classes)) / 7
    expected = supervised + 2 * sum(terms) / (len(terms) if average == "confident" else 7)
    loss, parts = fixmatch_loss(labelled, classes, weak, strong, threshold=0.8, weight=2.0, average=average)
    assert loss.item() == pytest.approx(expected)
    assert parts["confident"].item() == pytest.approx(len(terms) / 7)
    gradients = torch.autograd.grad(loss, (labelled, weak, strong), allow_unused=True)
    assert gradients[1] is None, "guesses are constants"
    assert gradients[2].abs().sum() > 0


def test_without_a_confident_guess_the_labelled_images_are_left() -> None:
    flat = torch.zeros(5, 4)
    loss, parts = fixmatch_loss(flat, torch.tensor([0, 1, 2, 3, 0]), flat, flat, average="confident")
    assert loss.item() == pytest.approx(math.log(4))
    assert parts["L_u"] == 0
    with pytest.raises(UserError, match=r"average is 'some'.*all, confident"):
        fixmatch_loss(flat, torch.zeros(5, dtype=torch.long), flat, flat, average="some")


def test_the_moving_average_follows_and_predicts(root: Path) -> None:
    method = make(root)
    method.loss(batch()).loss.backward()
    before = [p.clone() for p in method.average.parameters()]
    with torch.no_grad():
        for p in method.own.parameters():
            p -= 0.1 * p.grad
    method.after_step(batch(), {})
    for old, new, own in zip(before, method.average.parameters(), method.own.parameters(), strict=True):
        torch.testing.assert_close(new, 0.99 * old + 0.01 * own)
    for mine, theirs in zip(method.average.buffers(), method.own.buffers(), strict=True):
        assert torch.equal(mine, theirs)
    method.eval()
    expected = method.average(method.test_view(IMAGES)).softmax(1)
    torch.testing.assert_close(method.predict(IMAGES), expected)
    trained = {id(p) for group in method.parameter_groups() for p in group["params"]}
    assert trained == {id(p) for p in method.own.parameters()}


def test_weak_and_strong_views_are_of_the_same_images(root: Path) -> None:
    method, seen = make(root), {}
    for name in ("weak", "strong"):
        pipeline = getattr(method, name)
        setattr(method, name, lambda x, g, name=name, p=pipeline: seen.setdefault(name, []).append(x) or p(x, g))
    taken = []
    method.loss(replace(batch(), take=lambda index: taken.append(index) or IMAGES[index]))
    few, weak = seen["weak"]
    assert torch.equal(weak, seen["strong"][0])
    assert torch.equal(few, IMAGES[taken[0]])
    assert set(taken[0].tolist()) <= set(method.record()["labelled"])


def test_the_same_seed_has_the_same_labelled_images_as_crlc_semi(root: Path) -> None:
    assert make(root).record() == make(root, "crlc-semi").record()


def test_wide_network_is_wrn_28_2() -> None:
    network = build_backbone("wrn28", "cifar", width=32)
    count = sum(p.numel() for p in network.parameters()) + 128 * 10 + 10
    assert count == 1_467_610, "as published for WRN-28-2 with ten classes"
    assert network.feature_map(torch.zeros(2, 3, 32, 32)).shape == (2, 128, 8, 8)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 128)
    assert network.norm.momentum == 0.001
    with pytest.raises(UserError, match="wrn28 has the stem cifar"):
        build_backbone("wrn28", "std")


def test_the_wide_network_can_be_compiled_and_shared_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = make(root, backbone={"name": "wrn10", "stem": "cifar", "width": 8, "init": "kaiming"})
    assert method.networks() == [method.own[0], method.average[0]]
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    distributed.share_out(method)
    assert not [part for part in method.modules() if type(part) is torch.nn.BatchNorm2d]
    assert list(method.average.state_dict()) == list(method.own.state_dict())


def test_the_rate_falls_as_in_fixmatch() -> None:
    rates = [learning_rate({"kind": "cosine_7_16"}, 0.03, 0, epoch, 100) for epoch in (0, 50, 100)]
    assert rates == pytest.approx([0.03, 0.03 * math.cos(7 * math.pi / 32), 0.03 * math.cos(7 * math.pi / 16)])
