"""K-means on pixels: the nearest centroid decides, at the size and with the algorithm that the parameters name."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from dica.data.splits import DataInfo
from dica.files import UserError, write_npz
from dica.methods import build
from dica.methods import inputs as inputs_module
from dica.methods.inputs import FILTERS, MAPS, Inputs
from dica.methods.kmeans import fit_kmeans
from dica.scores.evaluation import recompute
from dica.train import predict
from dispatch import Operations

PARAMS = {"num_clusters": 3, "train_split": "train", "eval_split": "train", "restarts": 3, "max_iterations": 50}


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Three well separated grey levels, (90, 1, 8, 8) uint8, and which image has which."""
    torch.manual_seed(0)
    level = torch.arange(90) % 3
    noise = torch.randint(0, 20, (90, 1, 8, 8))
    return (noise + 100 * level[:, None, None, None]).to(torch.uint8), level


@pytest.mark.parametrize("extra", [{}, {"resize": 4}, {"minibatch": 30}])
def test_separated_groups_are_found(images, extra: dict) -> None:
    pixels, level = images
    method = build("kmeans", {**PARAMS, **extra}, DataInfo(1, 8, {"train": 90}))
    (row,) = method.fit({"train": pixels}, seed=0)
    assert row["loss"] > 0
    probs = method.predict(pixels)
    assert probs.shape == (90, 3)
    torch.testing.assert_close(probs.sum(1), torch.ones(90))
    assert adjusted_rand_score(level, probs.argmax(1)) == 1
    side = extra.get("resize", 8)
    assert method.centroids.shape == (3, side * side)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_images_that_are_all_alike_are_in_one_cluster() -> None:
    pixels = torch.full((30, 1, 8, 8), 77, dtype=torch.uint8)
    method = build("kmeans", PARAMS, DataInfo(1, 8, {"train": 30}))
    method.fit({"train": pixels}, seed=0)
    probs = method.predict(pixels)
    assert probs.isfinite().all()
    assert len(probs.argmax(1).unique()) == 1


def test_the_seed_decides_the_starts(images) -> None:
    pixels, _ = images
    noise = torch.randint(0, 256, pixels.shape, dtype=torch.uint8)
    fits = []
    for seed in (0, 0, 1):
        method = build("kmeans", {**PARAMS, "restarts": 1}, DataInfo(1, 8, {"train": 90}))
        method.fit({"train": noise}, seed=seed)
        fits.append(method.centroids.clone())
    assert torch.equal(fits[0], fits[1])
    assert not torch.equal(fits[0], fits[2])


def test_a_fit_is_the_same_bits_whatever_the_threads() -> None:
    points = np.random.default_rng(0).normal(size=(3000, 64)).astype(np.float32)
    found = set()
    for threads in (4, 4, 4, 4, 1):
        with threadpool_limits(threads, user_api="openmp"):
            found.add(fit_kmeans(points, 10, seed=1, restarts=1).cluster_centers_.tobytes())
    assert len(found) == 1


SCALES = ["as-is", "standardised", "pca", "whitened"]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", [*MAPS, "filters"])
@pytest.mark.parametrize("channels", [1, 3])
def test_inputs_are_what_their_names_say(name: str, scale: str, channels: int) -> None:
    images = torch.randint(0, 256, (60, channels, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    inputs = Inputs(channels, 8, map=name, scale=scale, components=1)
    points = inputs.fit(images, seed=3)
    assert points.shape == (60, inputs.width)
    assert torch.allclose(points, inputs(images)), "the fitted map is the one that is applied later"
    if scale == "standardised":
        spread = points.std(dim=0, correction=0)
        torch.testing.assert_close(spread[spread > 0.5], torch.ones(int((spread > 0.5).sum())), rtol=1e-3, atol=1e-3)
    if scale == "whitened":
        torch.testing.assert_close(points.var(dim=0), torch.ones(1), rtol=1e-3, atol=1e-3)
    restored = Inputs(channels, 8, map=name, scale=scale, components=1)
    restored.load_state_dict(inputs.state_dict())
    assert torch.equal(restored(images), inputs(images)), "all that is fitted is in the weights"


def test_maps_against_plain_loops() -> None:
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    shares = Inputs(3, 4, map="histogram")(images)
    for image, row in zip(images, shares, strict=True):
        expected = torch.zeros(512)
        for red, green, blue in image.flatten(1).T.tolist():
            expected[red // 32 + 8 * (green // 32) + 64 * (blue // 32)] += 1 / 16
        torch.testing.assert_close(row, expected)
    each = Inputs(3, 4, map="image-standardised")(images)
    torch.testing.assert_close(each.mean(dim=1), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(each.std(dim=1, correction=0), torch.ones(5))
    flat = torch.full((1, 3, 4, 4), 9, dtype=torch.uint8)
    assert not Inputs(3, 4, map="image-standardised")(flat).any(), "a constant image stays at zero"
    mean = Inputs(3, 4, map="mean-colour")(images)
    torch.testing.assert_close(mean, images.float().mean(dim=(2, 3)) / 255)


@pytest.mark.parametrize("name", [*MAPS, "filters"])
def test_no_map_takes_more_memory_than_the_filters_for_a_part_of_32_pixels(name: str, monkeypatch) -> None:
    monkeypatch.setattr(inputs_module, "PART", 8)
    inputs = Inputs(3, 64, map=name)
    images = torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with Operations() as operations:
        assert len(inputs(images)) == 16
    assert operations.largest <= 8 * 32**2 * FILTERS * 4


def test_more_components_than_numbers_is_one_clear_error() -> None:
    with pytest.raises(UserError, match=r"inputs\.components: 50, but mean-colour gives 3 numbers an image"):
        Inputs(3, 8, map="mean-colour", scale="pca")


@pytest.mark.parametrize("scale", ["pca", "whitened"])
def test_more_components_than_images_is_one_clear_error(scale: str) -> None:
    with pytest.raises(UserError, match=r"inputs\.components: 50, but there are 49 images; lower it"):
        Inputs(3, 8, scale=scale).fit(torch.zeros(49, 3, 8, 8, dtype=torch.uint8), seed=0)


def test_kmeans_clusters_its_inputs(images) -> None:
    pixels, level = images
    params = {**PARAMS, "inputs": {"map": "pixels", "scale": "whitened", "components": 1}}
    method = build("kmeans", params, DataInfo(1, 8, {"train": 90}))
    method.fit({"train": pixels}, seed=0)
    assert method.centroids.shape == (3, 1)
    assert adjusted_rand_score(level, method.predict(pixels).argmax(1)) == 1
    assert method.features(pixels).shape == (90, 1)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_the_five_best_of_equal_images_begin_with_the_assignment(tmp_path) -> None:
    """1,000 equal images of classes 550 + 9 x 50: all scores are equal, and top-5 accuracy is not below accuracy."""
    labels = torch.cat([torch.zeros(550), torch.arange(1, 10).repeat_interleave(50)]).long()
    method = build("kmeans", {**PARAMS, "num_clusters": 10, "top5": True}, DataInfo(1, 8, {"train": 1000}))
    pixels = torch.full((1000, 1, 8, 8), 77, dtype=torch.uint8)
    method.fit({"train": pixels}, seed=0)
    write_npz(tmp_path / "labels.npz", {"train": labels.numpy()})
    images = SimpleNamespace(splits=["train"], device=torch.device("cpu"), all_of=lambda name: pixels)
    write_npz(tmp_path / "predictions.npz", predict(method, images, None))
    found = recompute(tmp_path / "predictions.npz", tmp_path / "labels.npz", "train")["headline"]
    assert found["acc"] == 0.55
    assert found["acc_top5"] == pytest.approx(0.75)
