"""MCR2: its coding rates beside plain linear algebra, which views it sees, and its network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dica import methods
from dica.data.splits import DataInfo
from dica.losses.mcr2 import coding_rate, mcr2_loss
from dica.methods.base import Batch
from dica.methods.mcr2 import build_network
from dica.rng import generator
from tiny import tiny_config

IMAGES = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def build(**overrides: object):
    torch.manual_seed(0)
    params = tiny_config("mcr2", **overrides)["params"]
    return methods.build("mcr2", params, DataInfo(1, 8, {"train": len(IMAGES)})).train()


@pytest.mark.parametrize("views", [3, 9])
def test_the_loss_is_that_of_determinants(views: int) -> None:
    """Features as columns and classes by their membership, as the equations have them."""
    draw = torch.Generator().manual_seed(1)
    z = torch.nn.functional.normalize(torch.randn(4, views, 5, generator=draw, dtype=torch.float64), dim=2)
    columns = z.flatten(0, 1).T.numpy()
    size, count = columns.shape
    error, scale, weight = 0.4, 7.0, 0.3
    rate = lambda x, scalar: math.log(np.linalg.det(np.eye(size) + scalar * x @ x.T)) / 2  # noqa: E731
    every = rate(columns, scale * size / (count * error))
    each = 0.0
    for image in range(4):
        member = np.diag([float(at // views == image) for at in range(count)])
        held = member.trace()
        each += held / count * rate(columns @ member, size / (held * error))
    loss, parts = mcr2_loss(z, error=error, scale=scale, weight=weight)
    assert float(parts["R_all"]) == pytest.approx(every)
    assert float(parts["R_image"]) == pytest.approx(each)
    assert float(loss) == pytest.approx(each - weight * every)


def test_points_and_directions_have_the_same_determinant() -> None:
    z = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    wide = torch.cat(
        [z, torch.zeros(7, 6, dtype=torch.float64)], dim=1
    )  # more directions than points, with a third of d
    torch.testing.assert_close(coding_rate(wide, scale=1 / 3), coding_rate(z))


def test_a_step_sees_each_image_as_it_is_and_in_other_views() -> None:
    model = build(num_views=3).eval()
    given = Batch(IMAGES, torch.arange(4), 0, 0, "main", lambda purpose: generator(0, purpose))
    step = model.loss(given)
    plain = model.embed(model.original(IMAGES, given.rng("original")))
    others = model.embed(model.augmented(IMAGES.repeat_interleave(2, dim=0), given.rng("augmented")))
    z = torch.stack([torch.stack([plain[i], others[2 * i], others[2 * i + 1]]) for i in range(4)])
    settings = {name: model.params[name] for name in ("error", "scale", "weight")}
    torch.testing.assert_close(step.loss, mcr2_loss(z, **settings)[0])
    torch.testing.assert_close(z.norm(dim=2), torch.ones(4, 3))


@pytest.mark.parametrize(("stem", "size", "side"), [("cifar", 32, 4), ("large", 96, 4)])
def test_the_stages_of_the_network_are_as_wide_as_asked_for(stem: str, size: int, side: int) -> None:
    network = build_network(3, stem, [8, 8, 16, 12], 2).eval()
    assert network.feature_map(torch.rand(1, 3, size, size)).shape == (1, 12, side, side)
    assert network(torch.rand(2, 3, size, size)).shape == (2, 12)
    shortcuts = [stage[0].downsample is not None for stage in network.stages]
    assert shortcuts == [False, True, True, True]
