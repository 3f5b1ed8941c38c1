"""PICA, IIC, CC and DAC as methods: passes, heads, targets and what their parameters do; losses are tested apart."""

from __future__ import annotations

import pytest
import torch

from dica import methods
from dica.data.splits import DataInfo
from dica.files import UserError
from dica.losses.dac import targets
from dica.losses.iic import information_loss
from dica.losses.pica import pica_loss
from dica.methods.base import Batch
from dica.methods.dac import LAYOUTS, Network
from dica.methods.sub_heads import SubHeadChoice
from dica.plan import parameters as config
from dica.rng import generator


def build(root, name, counts=None, seed=0, dataset="digits", **overrides):
    torch.manual_seed(seed)
    params = config.resolve(name, "full", dataset, {"overrides": {name: overrides}}, root)
    return methods.build(name, params, DataInfo(1, 8, counts or {"train": 20}))


def batch(n=12, phase="main", epoch=0):
    images = torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return Batch(images, torch.arange(n), epoch, 0, phase, lambda purpose: generator(0, purpose, epoch, phase))


# PICA


def test_pica_repeats_the_originals_beside_all_perturbed_views(root):
    model, given = build(root, "pica", repeats=3).eval(), batch()
    step = model.loss(given)
    head = model.heads["main"]
    p = head(model.backbone(model.original(given.images, given.rng("original")))).softmax(1)
    views = model.augmented(given.images.repeat(3, 1, 1, 1), given.rng("augmented"))
    columns = torch.cat([head(model.backbone(view)).softmax(1) for view in views.chunk(3)])
    loss, _ = pica_loss(p.repeat(3, 1), columns, weight=model.params["weight"])
    torch.testing.assert_close(step.loss, loss)


# IIC


def test_iic_passes_follow_the_declared_order_and_never_repeat_a_name(root):
    phases = build(root, "iic", passes=["over", "main", "main"]).phases(0)
    assert [phase.name for phase in phases] == ["over", "main", "main-2"]
    assert [phase.name for phase in build(root, "iic", passes=["main", "over"]).phases(0)] == ["main", "over"]


def test_iic_over_clustering_alone_sees_unlabelled_images(root):
    model = build(root, "iic", {"train": 5, "test": 8, "unlabeled": 9}, over_split="all+unlabeled", eval_split="all")
    over, main = model.phases(0)
    assert (over.splits, main.splits) == (("train", "unlabeled", "test"), ("train", "test"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [({"over_clusters": 0}, "passes name the head 'over'"), ({"passes": ["over"]}, "none is of the head main")],
)
def test_iic_refuses_passes_that_no_head_can_take(root, overrides, said):
    with pytest.raises(UserError, match=said):
        build(root, "iic", **overrides)


def test_iic_pairs_each_original_with_all_its_views(root):
    model, given = build(root, "iic", repeats=3, lamb=1.0).eval(), batch()
    step = model.loss(given)
    original = model.backbone(model.original(given.images, given.rng("original")))
    views = model.backbone(model.augmented(given.images.repeat(3, 1, 1, 1), given.rng("augmented")))
    each = [
        information_loss(head(original).softmax(1).repeat(3, 1), head(views).softmax(1))[0]
        for head in model.heads["main"].heads
    ]
    torch.testing.assert_close(step.loss, torch.stack(each).mean())


def test_iic_predicts_by_the_sub_head_with_the_lowest_loss_of_the_newest_epoch(root):
    model = build(root, "iic").eval()
    model.choice.add(torch.tensor([0.0, -9.0, 0.0, 0.0, 0.0]), 0)
    model.choice.add(torch.tensor([0.0, 0.0, 0.0, -1.0, 0.0]), 1)
    images = batch().images
    expected = model.heads["main"].heads[3](model.backbone(model.test_view(images))).softmax(1)
    torch.testing.assert_close(model.predict(images), expected)


def test_losses_of_an_epoch_add_up():
    choice = SubHeadChoice(2)
    for losses in ([1.0, 0.0], [1.0, 3.0]):
        choice.add(torch.tensor(losses), 4)
    assert choice.losses.tolist() == [2.0, 3.0]
    assert choice.best() == 0


def test_iic_over_clustering_passes_do_not_choose(root):
    model = build(root, "iic")
    given = batch(phase="over")
    model.after_step(given, model.loss(given).carry)
    assert not model.choice.losses.any()


def test_iic_without_running_statistics_renews_them_before_prediction(root):
    images = {"train": batch(20).images}
    for mode, changed in (("running", False), ("batch", True)):
        model = build(root, "iic", bn_eval=mode)
        before = {name: value.clone() for name, value in model.backbone.named_buffers()}
        model.before_predict(images, lambda purpose: generator(0, purpose))
        now = dict(model.backbone.named_buffers())
        assert any(not torch.equal(now[name], before[name]) for name in before) == changed


# CC


def test_cc_begins_an_epoch_with_the_unlabelled_images(root):
    counts = {"train": 5, "test": 8, "unlabeled": 30}
    phases = build(root, "cc", counts).phases(0)
    assert [(phase.name, phase.splits) for phase in phases] == [
        ("instances", ("unlabeled",)),
        ("main", ("train", "test")),
    ]
    assert [phase.name for phase in build(root, "cc", counts, unlabelled_pass=False).phases(0)] == ["main"]
    assert [phase.name for phase in build(root, "cc").phases(0)] == ["main"]


def test_cc_unlabelled_images_do_not_reach_the_cluster_head(root):
    model = build(root, "cc")
    model.loss(batch(phase="instances")).loss.backward()
    assert all(p.grad is None for p in model.clusters.parameters())
    assert all(p.grad is not None for p in model.instances.parameters())


# DAC


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_dac_networks_end_in_one_number_a_cluster(layout):
    size = LAYOUTS[layout].image_size
    assert Network(layout, 3, 7, final_relu=True)(torch.rand(2, 3, size, size)).shape == (2, 7)


def test_dac_on_the_network_of_dccm(root):
    model = build(root, "dac", shared_network=True).eval()
    images = batch().images
    assert model.network.layout == "conv-8"
    expected = model.network(model.test_view(images)).softmax(1)
    torch.testing.assert_close(model.predict(images), expected)
    assert model.features(images, "conv").shape == (12, 512)
    assert build(root, "dac").eval().features(images, "conv").shape == (12, 512)


def test_dac_networks_start_as_the_identity_of_the_pooled_maps(root):
    network = Network("dac-8", 1, 10, final_relu=False)
    for layer in (network.hidden[0], network.output[0]):
        assert torch.equal(layer.weight, torch.eye(10))


def test_dac_refuses_images_of_another_size():
    with pytest.raises(UserError, match="network dac-32 takes images of 32x32, the views give 8x8"):
        Network("dac-32", 1, 10, final_relu=False)(torch.rand(2, 1, 8, 8))


def test_dac_thresholds_move_with_the_epochs(root):
    model = build(root, "dac", epochs=10).eval()
    for epoch, upper, lower in ((0, 0.99, 0.8), (5, 0.9425, 0.8475)):
        given = batch(epoch=epoch)
        probs = model.network(model.original(given.images, given.rng("targets"))).softmax(1)
        expected = targets(probs, upper=upper, lower=lower)
        for found, wanted in zip(model.targets(given), expected, strict=True):
            assert torch.equal(found, wanted)


def test_dac_inner_batches_keep_the_targets_of_their_images(root):
    model = build(root, "dac", inner_batch=5, inner_passes=1, augmentations_per_batch=1).eval()
    outer = batch(10)
    whole = model.targets(outer)
    parts = list(model.split(outer))
    assert len(parts) == 2
    for part in parts:
        rows = part.indices
        assert torch.equal(part.extra["linked"], whole.linked[rows][:, rows])
        assert torch.equal(part.extra["p"], whole.p[rows])
