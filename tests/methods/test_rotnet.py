"""RotNet: four copies of each image, each with its angle, and the layer that K-means reads."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from dica import methods
from dica.data.splits import DataInfo
from dica.methods.base import Batch
from dica.plan import parameters as config
from dica.rng import generator

IMAGES = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def build(root, **overrides):
    torch.manual_seed(0)
    params = config.resolve("rotnet", "full", "digits", {"overrides": {"rotnet": overrides}}, root)
    return methods.build("rotnet", params, DataInfo(1, 8, {"train": 20}))


def test_each_copy_is_to_be_told_by_its_quarter_turns(root) -> None:
    model = build(root, views={"augmented": []}).eval()
    given = Batch(IMAGES, torch.arange(20), 0, 0, "main", lambda purpose: generator(0, purpose))
    step, plain = model.loss(given), model.augmented(IMAGES, generator(0, "augmented"))
    each, right = [], []
    for turns in range(4):
        logits = model.network(torch.rot90(plain, turns, dims=(2, 3))).logits
        each.append(F.cross_entropy(logits, torch.full((20,), turns)))
        right.append((logits.argmax(dim=1) == turns).float())
    torch.testing.assert_close(step.loss, torch.stack(each).mean())
    torch.testing.assert_close(step.parts["right"], torch.stack(right).mean())


@pytest.mark.parametrize(("layer", "size"), [("backbone", 64), ("conv", 512)])
def test_k_means_reads_the_layer_that_is_named(root, layer: str, size: int) -> None:
    model = build(root, clustered_layer=layer)
    model.before_predict({"train": IMAGES}, lambda purpose: generator(0, purpose))
    assert model.clusters.centroids.shape == (10, size)
    assert model.predict(IMAGES).shape == (20, 10)
