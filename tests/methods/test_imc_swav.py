"""IMC-SwAV as a method: crops, frozen parts, the buffer of labelled images, batch norm before prediction."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from dica import analyse, methods
from dica.data.splits import DataInfo
from dica.engine.optim import build_optimizer
from dica.files import UserError
from dica.losses.imc_swav import cosines, imc_swav_loss
from dica.methods.base import Batch
from dica.plan import parameters as config
from dica.rng import generator
from dica.train import predict
from dispatch import NoWaiting
from tiny import make_prepared, make_trainer, tiny_config

LABELLED, UNLABELLED = 8, 56


def resolved(root, dataset="digits", variant="full", **overrides):
    return config.resolve("imc-swav", variant, dataset, {"overrides": {"imc-swav": overrides}}, root)


def build(root, dataset="digits", counts=None, **overrides):
    torch.manual_seed(0)
    counts = counts or {"train": 20}
    return methods.build("imc-swav", resolved(root, dataset, **overrides), DataInfo(1, 8, counts))


def build_semi(root, **overrides):
    """A data set of STL-10's kind: few labelled images, many others."""
    counts = {"train": LABELLED, "unlabeled": UNLABELLED, "test": 4}
    given = {"train_split": "train+unlabeled", "classifier_split": "labelled", "batch_size": 4} | overrides
    return build(root, counts=counts, **given)


def batch(indices=range(12), step=0, epoch=0):
    indices = torch.tensor(list(indices))
    pixels = torch.randint(0, 256, (100, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return Batch(pixels[indices], indices, epoch, step, "main", lambda purpose: generator(0, purpose, epoch, step))


def classify(model, embeddings):
    """Logits of (views, n, features); in eval mode all views may go together."""
    return model.classifier(embeddings.flatten(0, 1)).unflatten(0, embeddings.shape[:2])


def gradients(module):
    return [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters()]


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("low", [0, 3])
def test_the_loss_is_that_of_the_equations_on_all_crops(root, joint, low):
    model = build(root, joint_views=joint, low_crops=low).eval()  # eval: no batch statistics
    given = batch()
    step = model.loss(given)
    crops = [*model.high(given.images.repeat(2, 1, 1, 1), given.rng("high")).chunk(2)]
    if low:
        crops += model.low(given.images.repeat(low, 1, 1, 1), given.rng("low")).chunk(low)
    e = torch.stack([model.backbone(crop) for crop in crops])
    scores = cosines(model.projection(e), model.prototypes.unit_rows())
    loss, expected = imc_swav_loss(scores, classify(model, e.detach()))
    torch.testing.assert_close(step.loss, loss)
    for name, value in expected.items():
        torch.testing.assert_close(step.parts[name], value)


def test_one_forward_pass_a_crop_has_batch_statistics_of_its_own(root):
    joint, apart = (build(root, joint_views=value).train() for value in (True, False))
    given = batch()
    assert joint.loss(given).loss.item() != pytest.approx(apart.loss(given).loss.item(), abs=1e-6)


def test_the_classifier_reads_constants(root):
    model = build(root)
    given = batch()
    others = [*model.backbone.parameters(), *model.projection.parameters(), *model.prototypes.parameters()]
    tensors = [*others, *model.classifier.parameters()]
    before = torch.autograd.grad(model.loss(given).loss, tensors)
    model.params["beta"], model.params["reg_weight"] = 40.0, 10.0  # of the classifier's terms
    after = torch.autograd.grad(model.loss(given).loss, tensors)
    torch.testing.assert_close(after[: len(others)], before[: len(others)])
    assert (after[-1] - before[-1]).abs().max() > 1e-3


def test_prototypes_stay_while_frozen_and_move_after(root):
    model = build(root, prototype_freeze_steps=2)
    for step, moves in [(0, False), (1, False), (2, True)]:
        model.zero_grad()
        given = batch(step=step)
        model.loss(given).loss.backward()
        model.after_backward(given)
        assert gradients(model.prototypes) == [moves]
        assert any(gradients(model.backbone))


def test_prototypes_have_unit_rows_in_a_step(root):
    model = build(root)
    model.loss(batch())
    rows = model.prototypes.linear.weight.norm(dim=1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


def test_unlabelled_images_never_reach_the_classifier(root):
    model = build_semi(root)
    step = model.loss(batch(range(LABELLED, LABELLED + 4)))
    assert step.parts["L_cluster"] == 0
    assert step.parts["L_swap"] > 0
    step.loss.backward()
    assert all(p.grad is None for p in model.classifier.parameters())
    assert int(model.buffered) == 0


def test_the_classifier_learns_once_a_batch_of_labelled_images_is_there(root):
    model = build_semi(root).eval()
    first, second = batch([0, 20, 30, 1, 40]), batch([50, 2, 3, 60, 4], step=1)
    assert model.loss(first).parts["L_cluster"] == 0
    assert int(model.buffered) == 2
    step = model.loss(second)
    step.loss.backward()
    assert all(gradients(model.classifier)[-2:])
    assert int(model.buffered) == 0
    seen = [model.embed(given.images, given.rng) for given in (first, second)]
    e = torch.cat([seen[0][:, [0, 3]], seen[1][:, [1, 2, 4]]], dim=1)
    z, rows = F.normalize(model.projection(e), dim=-1), model.prototypes.unit_rows()
    _, expected = imc_swav_loss(cosines(z, rows), classify(model, e))
    torch.testing.assert_close(step.parts["L_cluster"], expected["L_cluster"])
    torch.testing.assert_close(step.parts["L_reg"], expected["L_reg"])


def test_the_buffer_starts_an_epoch_empty(root):
    model = build_semi(root)
    model.loss(batch([0, 1, 20, 30]))
    assert int(model.buffered) == 2
    model.loss(batch([2, 20, 30, 40], epoch=1))
    assert int(model.buffered) == 1


def test_the_buffer_holds_all_but_one_of_a_batch_and_a_full_batch_more(root):
    model = build_semi(root)
    model.loss(batch([0, 1, 2, 20]))
    assert model.loss(batch([3, 4, 5, 6], step=1)).parts["L_cluster"] != 0


def test_a_loaded_state_is_asked_for_once_and_goes_on(root):
    """The host decides by numbers of its own; what a checkpoint holds replaces them."""
    one, other = build_semi(root), build_semi(root)
    one.loss(batch([0, 1, 20, 30]))
    other.loss(batch([0, 20, 30, 40]))
    other.load_state_dict(one.state_dict())
    other.loss(batch([2, 20, 30, 40], step=1))
    assert int(other.buffered) == 3


def test_a_step_with_a_buffer_never_waits_for_the_device(root, tmp_path):
    data = make_prepared(tmp_path / "data", {"train": 12, "test": 20, "unlabeled": 52})
    changes = {"train_split": "train+unlabeled", "classifier_split": "labelled", "batch_size": 8, "epochs": 2}
    trainer = make_trainer(tiny_config("imc-swav", **changes), data, tmp_path / "state")
    trainer.optimizer = build_optimizer(trainer.method, trainer.params, torch.device("cuda"))
    step = trainer._step

    def watched(given):
        with NoWaiting() if trainer.at.step else contextlib.nullcontext():
            step(given)

    trainer._step = watched
    trainer.run()
    assert trainer.at.step == 16


def test_with_every_image_labelled_the_buffer_changes_nothing(root):
    plain, buffered = build(root), build(root, classifier_split="labelled", batch_size=12)
    expected, found = plain.loss(batch()), buffered.loss(batch())
    torch.testing.assert_close(found.loss, expected.loss)
    for name, value in expected.parts.items():
        torch.testing.assert_close(found.parts[name], value)


def test_a_data_set_with_unlabelled_images_is_trained_and_predicted_on_the_labelled_ones(root, tmp_path):
    data = make_prepared(tmp_path / "data", {"train": 12, "test": 20, "unlabeled": 52})
    settings = tiny_config(
        "imc-swav", train_split="train+unlabeled", classifier_split="labelled", batch_size=8, epochs=1
    )
    trainer = make_trainer(settings, data, tmp_path / "state")
    updates, prototypes = [], trainer.method.prototypes.linear.weight.detach().clone()
    after = trainer.method.after_backward

    def count(batch):
        updates.append(any(gradients(trainer.method.classifier)))
        after(batch)

    trainer.method.after_backward = count
    trainer.run()
    assert len(updates) == 8  # 64 images by 8
    assert sum(updates) == 1  # twelve labelled images make one batch of eight or a little more
    assert int(trainer.method.buffered) < 8
    assert not torch.equal(prototypes, trainer.method.prototypes.linear.weight)
    arrays = predict(trainer.method, trainer.images, lambda purpose: generator(0, purpose))
    assert {name: len(a) for name, a in arrays.items() if name.endswith("_assignment")} == {
        "train_assignment": 12,
        "test_assignment": 20,
    }


@pytest.mark.parametrize(("source", "seen"), [("test", "test"), ("train", "train"), ("off", None)])
def test_batch_norm_is_renewed_on_the_split_that_is_asked_for(root, source, seen):
    model = build(root, bn_refresh=source, batch_size=8)
    pixels = {"train": torch.zeros(16, 1, 8, 8, dtype=torch.uint8), "test": torch.full_like(batch().images, 255)}
    stem = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    model.before_predict(pixels, lambda purpose: generator(0, purpose))
    expected = torch.zeros_like(stem.running_mean)
    if seen:
        fresh = build(root, bn_refresh="off").train()
        for part in pixels[seen].split(8):
            if len(part) == 8:
                fresh.backbone(fresh.test_view(part))
        expected = next(m for m in fresh.modules() if isinstance(m, torch.nn.BatchNorm2d)).running_mean
    torch.testing.assert_close(stem.running_mean, expected)


def test_a_split_smaller_than_a_batch_still_renews_batch_norm(root):
    model = build(root, batch_size=64)
    before = [m.running_mean.clone() for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    model.before_predict({"train": batch().images}, lambda purpose: generator(0, purpose))
    after = [m.running_mean for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not any(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_predictions_are_probabilities(root):
    model = build(root).eval()
    probs = model.predict(batch().images)
    assert probs.shape == (12, 10)
    torch.testing.assert_close(probs.sum(1), torch.ones(12))


@pytest.mark.parametrize("dataset", ["cifar10", "cifar20", "cifar100", "stl10", "tiny-imagenet"])
def test_crops_have_the_sizes_of_table_1(root, dataset):
    params = resolved(root, dataset)
    size = {"stl10": (96, 76, 52), "tiny-imagenet": (64, 56, 36)}.get(dataset, (32, 28, 18))
    params |= {"backbone": {"name": "resnet8", "stem": "imc", "width": 4, "init": "kaiming"}, "batch_size": 2}
    model = methods.build("imc-swav", params, DataInfo(3, size[0], {"train": 4}))
    images = torch.randint(0, 256, (2, 3, size[0], size[0]), dtype=torch.uint8)
    assert model.high(images, generator(0, "high")).shape == (2, 3, size[1], size[1])
    assert model.low(images, generator(0, "low")).shape == (2, 3, size[2], size[2])
    assert model.num_views == 6


def test_every_combination_of_crop_sizes_of_figure_4c_is_a_variant(root):
    grid = {(h, low) for h in range(20, 33, 2) for low in range(12, 23, 2) if 4 <= h - low <= 14}
    for high, low in grid - {(28, 18)}:
        views = resolved(root, "cifar10", f"crops-2x{high}-4x{low}")["views"]
        assert [step["size"] for name in ("high", "low") for step in views[name] if "size" in step] == [high, low]


@pytest.mark.parametrize(
    "bad",
    [{"high_crops": 1}, {"low_crops": -1}, {"classifier_split": "train"}, {"bn_refresh": False}, {"epsilon": 0},
     {"num_prototypes": 1}, {"warmup": 500}],
)  # fmt: skip
def test_a_wrong_value_or_key_is_refused_by_name(root, bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        resolved(root, **bad)


def test_the_divergence_of_two_views_is_that_of_the_scores_that_the_loss_sees(tmp_path):
    trainer = make_trainer(tiny_config("imc-swav"), make_prepared(tmp_path / "data"), tmp_path / "state")
    method = trainer.method.eval()
    found = analyse.jsd(SimpleNamespace(method=method, images=trainer.images, config={"seed": 0, "method": "imc-swav"}))
    images = trainer.images.take(("train",), torch.from_numpy(found["index"]).long())
    codes = []
    with torch.no_grad():
        for number in range(2):
            z = method.projection(method.backbone(method.high(images, generator(0, "jsd", number))))
            cosine = F.normalize(z, dim=-1) @ F.normalize(method.prototypes.linear.weight, dim=-1).T
            codes.append((cosine / method.params["temperature"]).softmax(dim=-1))
    one, other = codes[0][3], codes[1][5]
    middle = (one + other) / 2
    expected = sum((u * (u / middle).log()).sum() for u in (one, other)) / 2
    assert found["jsd"][3, 5] == pytest.approx(float(expected), abs=1e-5)


def test_a_method_without_scores_of_prototypes_is_refused_by_name():
    run = SimpleNamespace(method=object(), images=SimpleNamespace(device="cpu"), config={"method": "mice"})
    with pytest.raises(UserError, match="jsd: mice has no scores of prototypes"):
        analyse.jsd(run)
