"""DRC as a method: phases, heads, views and what its parameters do. The losses have tests of their own."""

from __future__ import annotations

import pytest
import torch

from dica import methods
from dica.data.splits import DataInfo
from dica.files import UserError
from dica.losses.drc import drc_loss
from dica.methods.base import Batch
from dica.plan import parameters as config
from dica.rng import generator


def resolved(root, dataset="digits", variant="full", **overrides):
    return config.resolve("drc", variant, dataset, {"overrides": {"drc": overrides}}, root)


def build(root, seed=0, counts=None, **overrides):
    torch.manual_seed(seed)
    params = resolved(root, **overrides)
    return methods.build("drc", params, DataInfo(1, 8, counts or {"train": 20}))


def batch(n=12, phase="main"):
    images = torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return Batch(images, torch.arange(n), 0, 0, phase, lambda purpose: generator(0, purpose, 0, phase))


def test_an_epoch_is_a_pass_of_the_over_clustering_head_and_one_of_the_main_head(root):
    model = build(root, over_clusters=7)
    assert [phase.name for phase in model.phases(0)] == ["over", "main"]
    assert model.heads["over"].num_clusters == 7
    assert model.heads["main"].num_clusters == 10


def test_without_over_clusters_there_is_one_head_and_one_pass(root):
    model = build(root, over_clusters=0)
    assert [phase.name for phase in model.phases(0)] == ["main"]
    assert list(model.heads) == ["main"]


def test_on_stl10_only_the_over_clustering_head_sees_unlabelled_images(root):
    params = resolved(root, "stl10")
    splits = DataInfo(3, 96, {"train": 5, "test": 8, "unlabeled": 100})
    params["backbone"] = {"name": "resnet8", "stem": "cifar", "width": 4, "sobel": True, "init": "pica"}
    over, main = methods.build("drc", params, splits).phases(0)
    assert over.splits == ("train", "unlabeled", "test")
    assert main.splits == ("train", "test")


@pytest.mark.parametrize("phase", ["over", "main"])
def test_a_step_trains_the_backbone_and_the_head_of_its_pass_alone(root, phase):
    model = build(root)
    model.loss(batch(phase=phase)).loss.backward()
    other = {"over": "main", "main": "over"}[phase]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.heads[phase].parameters())
    assert all(p.grad is not None for p in model.backbone.parameters())
    assert all(p.grad is None for p in model.heads[other].parameters())


@pytest.mark.parametrize("mode", ["mean", "flat"])
@pytest.mark.parametrize("similarity", ["none", "l2"])
def test_the_loss_is_that_of_the_equations_on_the_two_views(root, mode, similarity):
    model = build(root, repeat_mode=mode, normalise=similarity, repeats=3).eval()  # eval: no batch statistics
    given = batch()
    step = model.loss(given)
    head = model.heads["main"]
    z = head(model.backbone(model.original(given.images, given.rng("original"))))
    views = model.augmented(given.images.repeat(3, 1, 1, 1), given.rng("augmented"))
    z2 = torch.stack([head(model.backbone(view)) for view in views.chunk(3)])
    weight = model.params["cr_weight"]
    loss, expected = drc_loss(z, z2, normalise=similarity, repeat_mode=mode, cr_weight=weight)
    torch.testing.assert_close(step.loss, loss)
    for name, value in expected.items():
        torch.testing.assert_close(step.parts[name], value)


def test_the_augmentations_of_an_image_differ(root):
    model, given = build(root), batch()
    first, second = model.augmented(given.images.repeat(2, 1, 1, 1), given.rng("augmented")).chunk(2)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("variant", "kept"),
    [("full", ("L_AF", "L_AP", "L_CR")), ("without-af", ("L_AP", "L_CR")), ("without-ap", ("L_AF", "L_CR")),
     ("without-cr", ("L_AF", "L_AP"))],
)  # fmt: skip
def test_ablations_leave_one_term_out_of_the_sum(root, variant, kept):
    step = build(root, variant=variant).eval().loss(batch())
    weights = {"L_AF": 1.0, "L_AP": 1.0, "L_CR": 0.005}
    torch.testing.assert_close(step.loss, sum(weights[name] * step.parts[name] for name in kept))


def test_predictions_are_probabilities_of_the_main_head(root):
    model = build(root).eval()
    given = batch()
    probs = model.predict(given.images)
    assert probs.shape == (12, 10)
    torch.testing.assert_close(probs.sum(1), torch.ones(12))
    assert torch.equal(probs, model.predict(given.images))


def test_imagenet_images_are_stored_larger_than_they_are_fed(root):
    params = resolved(root, "imagenet10")
    params["backbone"] = {"name": "resnet8", "stem": "cifar", "width": 4, "sobel": True, "init": "pica"}
    model = methods.build("drc", params, DataInfo(3, 384, {"train": 4}, whole=True))
    images = torch.randint(1, 256, (2, 3, 385, 384), dtype=torch.uint8)
    for name in ("original", "augmented", "test"):
        assert model.pipeline(name)(images, generator(0, name)).shape == (2, 3, 96, 96)
    assert [params[key] for key in ("train_split", "over_split", "eval_split")] == ["train"] * 3


@pytest.mark.parametrize(
    "bad",
    [{"normalise": "cosine"}, {"repeat_mode": "sum"}, {"repeats": 0}, {"temperature_af": 0}, {"over_clusters": -1},
     {"use_af": "yes"}, {"lamda": 1}],
)  # fmt: skip
def test_a_wrong_value_or_key_is_refused_by_name(root, bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        resolved(root, **bad)
