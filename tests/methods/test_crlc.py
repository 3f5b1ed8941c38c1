"""CRLC: its loss, what a step changes, how it chooses a sub-head, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dica.data.splits import DataInfo
from dica.engine import loop
from dica.files import UserError
from dica.losses.crlc import bank_loss, bank_update, crlc_loss, draw_negatives, feature_contrast
from dica.methods import build
from dica.methods.base import Batch, Phase, Step
from dica.plan import parameters as config
from dica.rng import generator
from tiny import make_prepared, make_trainer, tiny_config

N, CLUSTERS, HEADS = 40, 10, 10
PROFILE = {
    "name": "t",
    "results": "results",
    "artefacts": ["dica"],
    "determinism": "seeded",
    "methods": ["crlc"],
    "recorded_datasets": ["digits"],
    "overrides": {},
}


def make(root: Path, variant: str = "full", counts: dict[str, int] | None = None, **overrides):
    profile = {**PROFILE, "overrides": {"crlc": {"negatives": 8, "sub_heads": HEADS, **overrides}}}
    params = config.resolve("crlc", variant, "digits", profile, root)
    torch.manual_seed(0)
    return build("crlc", params, DataInfo(1, 8, counts or {"train": N}))


def batch_of(indices: list[int], epoch: int = 0, step: int = 0, phase: str = "main") -> Batch:
    images = torch.randint(0, 256, (N, 1, 8, 8), generator=generator(0, "images"), dtype=torch.uint8)
    index = torch.tensor(indices)
    return Batch(images[index], index, epoch, step, phase, lambda purpose: generator(0, purpose, epoch, step))


def embed(method, batch: Batch) -> torch.Tensor:
    return method._embed(batch.images, batch.rng("augmented"))


def train_step(method, batch: Batch, lr: float = 0.1) -> Step:
    step = method.loss(batch)
    method.zero_grad()
    step.loss.backward()
    with torch.no_grad():
        for p in method.parameters():
            if p.grad is not None:
                p -= lr * p.grad
    method.after_step(batch, step.carry)
    return step


@pytest.mark.parametrize("variant", ["full", "c-head-only", "lambda1-2", "critic-neg-js", "lambda2-5"])
def test_the_loss_is_equation_11_averaged_over_the_sub_heads(root: Path, variant: str) -> None:
    method, batch = make(root, variant), batch_of(list(range(16)))
    step = method.loss(batch)
    features = embed(method, batch)
    logits1, logits2 = method.c_head(features[0]), method.c_head(features[1])
    assert logits1.shape == (HEADS, 16, CLUSTERS)
    z1, z2 = (None, None) if method.rl_head is None else method.rl_head(features)
    names = ("gamma", "temperature", "lambda1", "lambda2", "critic")
    options = {name: method.params[name] for name in names}
    loss, expected = crlc_loss(z1, z2, logits1, logits2, **options)
    torch.testing.assert_close(step.loss, loss)
    assert step.parts.keys() == expected.keys() - {"heads"}
    for name, value in step.parts.items():
        torch.testing.assert_close(value, expected[name], msg=name)


def test_each_view_has_batch_norm_statistics_of_its_own_unless_joint(root: Path) -> None:
    batch = batch_of(list(range(16)))
    apart, joint = embed(make(root), batch), embed(make(root, joint_views=True), batch)
    assert apart.shape == joint.shape == (2, 16, 64)
    assert not torch.allclose(apart, joint)


def test_weight_decay_spares_biases_and_batch_norms(root: Path) -> None:
    method = make(root)
    decayed, spared = method.parameter_groups()
    assert "weight_decay" not in decayed
    assert spared["weight_decay"] == 0
    assert all(p.dim() > 1 for p in decayed["params"])
    assert all(p.dim() == 1 for p in spared["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(list(method.parameters()))


def test_prediction_uses_the_sub_head_with_the_lowest_loss_of_the_last_epoch(root: Path) -> None:
    method = make(root)
    for step in range(2):
        train_step(method, batch_of(list(range(16)), epoch=0, step=step))
    last = [batch_of(list(range(16)), epoch=1, step=2), batch_of(list(range(16, 32)), epoch=1, step=3)]
    total = sum(train_step(method, batch).carry["heads"] for batch in last)
    torch.testing.assert_close(method.head_losses, total, msg="only the last epoch counts")
    method.eval()
    images = batch_of(list(range(N))).images
    probs = method.predict(images)
    torch.testing.assert_close(probs.sum(1), torch.ones(N))
    logits = method.c_head(method.backbone(method.test_view(images)))
    torch.testing.assert_close(probs, logits[total.argmin()].softmax(1))


def test_head_losses_are_the_clustering_loss_of_each_sub_head(root: Path) -> None:
    method, batch = make(root), batch_of(list(range(16)))
    step = method.loss(batch)
    logits = method.c_head(embed(method, batch))
    for head in range(HEADS):
        alone, _ = crlc_loss(None, None, logits[head, 0], logits[head, 1], gamma=0.01, reg_weight=0.01)
        torch.testing.assert_close(step.carry["heads"][head], alone)


def test_the_memory_bank_starts_uniform_and_only_the_batchs_rows_move(root: Path) -> None:
    method, index = make(root, "momentum-0.25"), [3, 1, 20]
    assert method.prob_bank.shape == (HEADS, N, CLUSTERS)
    assert torch.all(method.prob_bank == 1 / CLUSTERS)
    torch.testing.assert_close(method.feature_bank.norm(dim=1), torch.ones(N))
    probs, features = method.prob_bank.clone(), method.feature_bank.clone()
    batch = batch_of(index)
    step = train_step(method, batch)
    expected = bank_update(probs, batch.indices, step.carry["p"], alpha=0.25)
    torch.testing.assert_close(method.prob_bank, expected)
    torch.testing.assert_close(method.feature_bank.norm(dim=1), torch.ones(N))
    others = [i for i in range(N) if i not in index]
    assert torch.equal(method.feature_bank[others], features[others])
    assert not torch.equal(method.feature_bank[index], features[index])
    assert {"prob_bank", "feature_bank", "head_losses", "head_losses_epoch"} <= method.state_dict().keys()


@pytest.mark.parametrize("use_rl_head", [True, False])
def test_the_loss_against_the_bank_is_equation_11_with_the_same_negatives(root: Path, use_rl_head: bool) -> None:
    method, batch = make(root, "memory-bank", use_rl_head=use_rl_head), batch_of(list(range(16)))
    train_step(method, batch)  # so that the bank is not uniform
    step = method.loss(batch)
    features = method.backbone(method.augmented(batch.images, batch.rng("augmented")))
    negatives = draw_negatives(batch.indices, N, method.params["negatives"], generator=batch.rng("negatives"))
    z, bank = (method.rl_head(features), method.feature_bank) if use_rl_head else (None, None)
    logits, weight = method.c_head(features), method.params["lambda2"]
    loss, expected = bank_loss(z, logits, bank, method.prob_bank, batch.indices, negatives, lambda2=weight)
    torch.testing.assert_close(step.loss, loss)
    assert step.parts.keys() == expected.keys() - {"heads"}


def test_unlabelled_images_train_the_rl_head_alone(root: Path) -> None:
    """Each step has two batches: every term is of the labelled one, L_FC of the wide one beside it too."""
    method = make(root, counts={"train": 20, "test": 10, "unlabeled": 10})
    assert method.phases(0) == [Phase("main", ("train", "test"), second=("train", "test", "unlabeled"))]
    batch, wide = batch_of(list(range(16))), batch_of(list(range(20, 36)))
    step = method.loss(replace(batch, extra={"second": wide.images}))
    own = embed(method, batch_of(list(range(16))))
    other = method._embed(wide.images, batch.rng("beside"))
    contrast = sum(feature_contrast(*method.rl_head(x), temperature=0.1) for x in (own, other)) / 2
    torch.testing.assert_close(step.parts["L_FC"], contrast)
    logits = method.c_head(own)
    alone, _ = crlc_loss(None, None, logits[:, 0], logits[:, 1], gamma=0.01, reg_weight=0.01)
    torch.testing.assert_close(step.loss, alone + method.params["lambda2"] * contrast)


@pytest.mark.parametrize("variant", ["c-head-only", "without-unlabelled", "memory-bank"])
def test_variants_without_unlabelled_images_have_one_pass(root: Path, variant: str) -> None:
    counts = {"train": 20, "test": 10, "unlabeled": 10}
    assert make(root, variant, counts).phases(0) == [Phase("main", ("train", "test"))]


def test_a_memory_bank_has_no_rows_for_unlabelled_images(root: Path) -> None:
    with pytest.raises(UserError, match="stl_unlabelled"):
        make(root, "memory-bank", {"train": 20, "unlabeled": 20}, stl_unlabelled=True)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [({"critic": "cosine"}, "log_dot"), ({"framework": "moco"}, "memory_bank"), ({"lambda3": 1.0}, "lambda3")],
)
def test_bad_values_are_refused_by_name(root: Path, overrides: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        make(root, **overrides)


@pytest.mark.parametrize("dataset", ["cifar10", "cifar20", "stl10", "imagenet10", "imagenet-dogs", "cifar10-jpeg"])
def test_every_variant_resolves_on_the_papers_data_sets(root: Path, dataset: str) -> None:
    for variant in config.load_method("crlc", root)["variants"]:
        params = config.resolve("crlc", variant, dataset, PROFILE, root)
        assert (params["normalisation"] is None) == (dataset == "stl10"), "STL-10 is not normalised"


def test_second_batches_are_shuffled_once_a_turn(tmp_path: Path, monkeypatch) -> None:
    """113,000 positions take milliseconds of the host: not at every step."""
    drawn = []

    def noted(seed, purpose, *position, **device):
        drawn.extend([purpose] if purpose == "beside" and not device else [])
        return generator(seed, purpose, *position, **device)

    monkeypatch.setattr(loop, "generator", noted)
    data = make_prepared(tmp_path / "data", {"train": 40, "unlabeled": 40})
    changes = {"stl_unlabelled": True, "batch_size": 8, "epochs": 2}
    trainer = make_trainer(tiny_config("crlc", **changes), data, tmp_path / "state")
    trainer.run()
    assert (trainer.at.step, len(drawn)) == (10, 2)
