"""DCCM's method: its networks, batches, pairs and prediction. The losses are tested in test_losses_dccm.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from dica.data.splits import DataInfo
from dica.files import UserError
from dica.losses import dccm as losses
from dica.methods.base import Batch
from dica.methods.dccm import DCCM, Discriminator
from dica.networks.dccm import LAYOUTS, Network
from dica.plan import parameters as config
from dica.rng import generator

OUTER, INNER = 80, 32
DECLARED = config.load_method("dccm", Path(__file__).resolve().parents[2])["variants"]
VARIANTS = [name for name, changes in DECLARED.items() if "source" not in (changes or {})]  # golden traces have those


def make(root: Path, variant: str = "full", dataset: str = "digits", channels: int = 1, **overrides: object) -> DCCM:
    settings = {"inner_batch": INNER, "inner_passes": 2, "discriminator_width": 8, "batch_size": OUTER, **overrides}
    params = config.resolve("dccm", variant, dataset, {"overrides": {"dccm": settings}}, root)
    torch.manual_seed(0)
    size = LAYOUTS[params["network"]].image_size if params["network"] in LAYOUTS else 8
    return DCCM(params, DataInfo(channels, size, {"train": OUTER})).train()


def outer_batch(count: int = OUTER, size: int = 8, seed: int = 0) -> Batch:
    images = torch.randint(0, 256, (count, 1, size, size), generator=generator(seed, "images"), dtype=torch.uint8)
    return Batch(images, torch.arange(count), 0, 100, "main", lambda purpose: generator(seed, purpose))


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("mi_layers", ["paper", "code"])
def test_networks_have_the_sizes_of_table_4(name: str, mi_layers: str) -> None:
    network = Network(name, 3, 10, final_bn=True, mi_layers=mi_layers)
    found = network(torch.rand(2, 3, network.image_size, network.image_size))
    shallow = {
        "paper": {"conv-8": (32, 4, 4), "conv-32": (64, 28, 28), "conv-64": (128, 12, 12), "conv-96": (128, 20, 20)},
        "code": {"conv-8": (32, 4, 4), "conv-32": (64, 14, 14), "conv-64": (64, 14, 14), "conv-96": (64, 22, 22)},
    }
    deep = {"conv-8": 64, "conv-32": 64, "conv-64": 256, "conv-96": 64}
    assert found.logits.shape == (2, 10)
    assert found.shallow.shape == (2, *shallow[mi_layers][name])
    assert found.deep.shape == (2, deep[name] if mi_layers == "paper" else 10)
    assert (network.shallow_size, network.deep_size) == (found.shallow.shape[1], found.deep.shape[1])


@pytest.mark.parametrize(("mi_layers", "deep"), [("paper", 32), ("code", 10)])
def test_a_residual_network_has_the_same_layers_behind_it(root: Path, mi_layers: str, deep: int) -> None:
    model = make(root, "equal-small", mi_layers=mi_layers)
    found = model.network(torch.rand(4, 1, 8, 8))
    assert found.shallow.shape == (4, 8, 5, 5), "the map of the first stage, behind the stem's pooling"
    assert (found.deep.shape, found.logits.shape) == ((4, deep), (4, 10))
    spread = (2 / (9 * 8)) ** 0.5  # over fan-out, as every backbone here; Table 4's convolutions are over fan-in
    assert model.network.stages[2][0].conv1.weight.std().item() == pytest.approx(spread / 2**0.5, rel=0.1)
    assert torch.equal(model.network.output.weight, torch.eye(10, 32)), "no cluster starts at random"


@pytest.mark.parametrize(
    ("variant", "change", "message"),
    [
        ("full", {"network": "residual"}, "network residual is the one that backbone describes"),
        ("equal-small", {"network": "conv-8"}, "no other network takes one"),
        ("equal-small", {"backbone": {"name": "wrn10", "stem": "cifar"}}, "take a resnet"),
    ],
)
def test_a_backbone_belongs_to_the_residual_network(root: Path, variant: str, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(root, variant, **change)


def test_linear_layers_start_as_the_identity_and_convolutions_without_bias() -> None:
    network = Network("conv-32", 3, 10, final_bn=True, mi_layers="paper")
    assert torch.equal(network.hidden.weight, torch.eye(64, 256))
    assert torch.equal(network.output.weight, torch.eye(10, 64))
    biases = [value for name, value in network.named_parameters() if name.endswith("bias")]
    assert all(not bias.any() for bias in biases)
    last = network.stages[5][0].weight  # 3x3, 128 to 256 channels
    assert float(last.detach().std()) == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(("init", "largest", "std"), [("torch", 1.0, 3**-0.5), ("kaiming", 6.0, 2**0.5)])
def test_the_discriminator_starts_as_its_key_says(root: Path, init: str, largest: float, std: float) -> None:
    method = make(root, discriminator_width=64, **({} if init == "torch" else {"discriminator_init": init}))
    for layer in (method.discriminator.first, method.discriminator.second):
        scaled = layer.weight.detach() * layer.in_channels**0.5
        assert float(scaled.std()) == pytest.approx(std, rel=0.05)
        assert float(scaled.abs().max()) <= largest


def test_final_bn_is_a_key() -> None:
    images = torch.rand(64, 1, 8, 8, generator=generator(0, "x"))
    torch.manual_seed(0)
    with_bn = Network("conv-8", 1, 10, final_bn=True, mi_layers="paper")(images).logits
    torch.manual_seed(0)
    without = Network("conv-8", 1, 10, final_bn=False, mi_layers="paper")(images).logits
    torch.testing.assert_close(with_bn, F.batch_norm(without, None, None, training=True))


def test_discriminator_equals_convolutions_over_repeated_features() -> None:
    torch.manual_seed(0)
    deep, shallow = torch.randn(6, 5), torch.randn(6, 4, 3, 3)
    network = Discriminator(5, 4, 7, "torch")
    pairs = losses.select_pairs(
        torch.rand(6, 6), torch.eye(6, dtype=torch.bool), generator=generator(0, "pairs"), num_negatives=3
    )
    t_pos, t_neg = network(deep, shallow, pairs)
    assert (t_pos.shape, t_neg.shape) == ((12, 3, 3), (6, 3, 3, 3))

    def score(i: int, j: int) -> torch.Tensor:
        x = torch.cat([deep[i, :, None, None].expand(-1, 3, 3), shallow[j]])[None]
        return network.third(network.second(network.first(x).relu()).relu())[0, 0]

    for i in range(6):
        torch.testing.assert_close(t_pos[i], score(i, i))
        torch.testing.assert_close(t_pos[6 + i], score(pairs.positive_anchor[i], pairs.positive[i]))
        for k in range(3):
            torch.testing.assert_close(t_neg[i, k], score(i, pairs.negative[i, k]))


def test_split_makes_two_steps_for_every_full_inner_batch_of_every_pass(root: Path) -> None:
    method, outer = make(root), outer_batch()
    batches = list(method.split(outer))
    assert len(batches) == 2 * (OUTER // INNER) * 2  # passes, full inner batches, augmentations
    assert [batch.step for batch in batches] == list(range(100, 100 + len(batches)))
    for batch in batches:
        assert len(batch.images) == INNER
        assert torch.equal(batch.images, outer.images[batch.indices])
        assert len(batch.indices.unique()) == INNER
    first_pass = torch.cat([batches[0].indices, batches[2].indices])
    assert len(first_pass.unique()) == 2 * INNER, "inner batches of one pass share no image"
    assert not torch.equal(batches[0].indices, batches[4].indices), "every pass has an order of its own"
    assert torch.equal(batches[0].indices, batches[1].indices)
    views = [method.augmented(batch.images, batch.rng("augmented")) for batch in batches[:2]]
    assert not torch.equal(*views), "both steps on an inner batch draw fresh transformations"


def test_a_small_outer_batch_is_one_inner_batch(root: Path) -> None:
    batches = list(make(root).split(outer_batch(count=16)))
    assert [len(batch.images) for batch in batches] == [16] * 4
    assert not list(make(root).split(outer_batch(count=1))), "a single image has no batch statistics"


def test_targets_are_those_of_the_outer_batch_without_gradient(root: Path) -> None:
    method, outer = make(root, thres1=0.8, thres2=0.3), outer_batch()
    batch = next(iter(method.split(outer)))
    with torch.no_grad():
        probs = method.network(outer.images / 255.0).logits.softmax(1)
    expected = losses.targets(probs, thres1=0.8, thres2=0.3)
    rows = batch.indices
    torch.testing.assert_close(batch.extra["s"], expected.s[rows][:, rows])
    assert torch.equal(batch.extra["W"], expected.W[rows][:, rows])
    for name in ("y", "V"):
        assert torch.equal(batch.extra[name], getattr(expected, name)[rows])
    assert not any(value.requires_grad for value in batch.extra.values())
    assert 0 < expected.V.float().mean() < 1, "the test needs confident and other images"


def test_equal_addresses_give_equal_batches(root: Path) -> None:
    method = make(root)
    pairs = zip(method.split(outer_batch()), method.split(outer_batch()), strict=True)
    assert all(torch.equal(one.indices, other.indices) for one, other in pairs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_takes_a_step(root: Path, variant: str) -> None:
    method = make(root, variant)
    batch = next(iter(method.split(outer_batch())))
    step = method.loss(batch)
    assert step.loss.isfinite()
    step.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_loss_is_that_of_the_loss_functions(root: Path) -> None:
    method = make(root, "paper", thres2=0.3)
    batch = next(iter(method.split(outer_batch())))
    found = method.loss(batch)
    given = losses.Targets(**batch.extra)
    on_views = method.network(method.augmented(batch.images, batch.rng("augmented")))
    logits = method.network(batch.images / 255.0).logits
    pairs = losses.select_pairs(given.s, given.W, generator=batch.rng("pairs"))
    t_pos, t_neg = method.discriminator(on_views.deep, on_views.shallow, pairs)
    mutual = losses.mutual_information_loss(t_pos, t_neg, keep_neg=pairs.negative_keep)
    total = 0.1 * mutual
    for each in (logits, on_views.logits):
        z = each.softmax(1)
        total = total + losses.pseudo_graph_loss(z, given.W) + 5 * losses.pseudo_label_loss(z, given.y, given.V)
    torch.testing.assert_close(found.loss, total)
    torch.testing.assert_close(found.parts["L_MI"], mutual.detach())
    assert found.parts["linked"] == given.W.float().mean()
    assert found.parts["confident"] == given.V.float().mean()


def test_only_m4_has_a_discriminator_and_transformed_views_have_no_loss_on_originals(root: Path) -> None:
    assert not hasattr(make(root, terms="M3"), "discriminator")
    method = make(root, terms="M3", train_views="transformed")
    step = method.loss(next(iter(method.split(outer_batch()))))
    torch.testing.assert_close(step.loss, step.parts["L_PG_t"] + 5 * step.parts["L_PL_t"])
    assert "L_PG" not in step.parts


def test_prediction_does_not_depend_on_the_neighbours(root: Path) -> None:
    method, images = make(root), outer_batch(200).images
    method.before_predict({"train": images}, lambda purpose: generator(0, purpose))
    method.eval()
    with torch.no_grad():
        probs = method.predict(images)
        torch.testing.assert_close(probs.sum(1), torch.ones(200))
        torch.testing.assert_close(method.predict(images[:3]), probs[:3])


def test_bn_eval_batch_uses_the_statistics_of_the_predicted_images(root: Path) -> None:
    method, images = make(root, batch_size=OUTER), outer_batch().images
    list(method.split(outer_batch(seed=1)))  # moves the running averages, which must not count
    method.before_predict({"train": images}, lambda purpose: generator(0, purpose))
    method.eval()
    with torch.no_grad():
        found = method.predict(images)
        method.train()
        torch.testing.assert_close(found, method.predict(images), rtol=0.02, atol=0.02)  # up to n / (n - 1)


def test_bn_eval_running_keeps_the_averages_of_training(root: Path) -> None:
    method = make(root, bn_eval="running")
    list(method.split(outer_batch()))
    before = {name: value.clone() for name, value in method.named_buffers()}
    method.before_predict({"train": outer_batch(seed=1).images}, lambda purpose: generator(0, purpose))
    assert before.keys() == dict(method.named_buffers()).keys()
    assert all(torch.equal(value, before[name]) for name, value in method.named_buffers())
    assert any("running_mean" in name and value.any() for name, value in before.items())


def test_transformations_treat_an_asymmetric_image_channels_first(root: Path) -> None:
    """Rotating the wrong pair of axes would mix the channels; each channel here holds another constant or ramp."""
    method = make(root, dataset="cifar10", channels=3)
    images = torch.zeros(256, 3, 32, 32, dtype=torch.uint8)
    images[:, 0, :16] = 200  # upper half
    images[:, 1, :, :16] = 100  # left half
    images[:, 2] = 50
    views = method.augmented(images, generator(0, "views")) * 255
    low, high = views.amin((2, 3)), views.amax((2, 3))
    assert (high[:, 2] - low[:, 2]).max() < 1e-3, "a constant channel stays constant"
    assert views.max() <= 200 * 0.95 + 1e-3, "clipped to the image's range, then multiplied by .95"
    upper = views[:, 0, :6].mean((1, 2)) - views[:, 0, -6:].mean((1, 2))
    assert (upper > 50).float().mean() > 0.95, "20 degrees and 18 % do not turn up into down"
    left = views[:, 1, :, :6].mean((1, 2)) > views[:, 1, :, -6:].mean((1, 2))
    assert 0.35 < left.float().mean() < 0.65, "half of the images are mirrored"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"terms": "M1", "train_views": "transformed"}, "M1 trains on originals"),
        ({"pair_mode": "code", "pairs": "V3"}, "V1 only"),
        ({"network": "conv-7"}, "conv-96"),
    ],
)
def test_bad_params_are_refused(root: Path, overrides: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(root, **overrides)


def test_images_of_another_size_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match="conv-8 takes images of 8x8, the views give 16x16"):
        list(make(root).split(outer_batch(size=16)))
