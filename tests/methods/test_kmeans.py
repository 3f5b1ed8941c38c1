"""K-means on pixels: the nearest centroid decides, at the size and with the algorithm that the parameters name."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from dica.data.splits import DataInfo
from dica.methods import build

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
