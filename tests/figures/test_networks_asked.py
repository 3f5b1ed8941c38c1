"""What networks are asked for figures, every head and heat maps, and the surfaces of the critics that train them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dica import analyse, methods, train
from dica.engine.heat_maps import heat_maps
from dica.engine.images import ResidentImages
from dica.figures import clusters
from dica.files import UserError
from dica.losses.crlc import critic_scores
from tiny import make_prepared, tiny_config


@pytest.mark.parametrize("name", ["iic", "crlc"])
def test_each_head_is_asked_as_the_chosen_one_is(name: str, tmp_path: Path) -> None:
    pixels = ResidentImages(make_prepared(tmp_path / "data"), torch.device("cpu"))
    method = methods.build(name, tiny_config(name)["params"], pixels.info).eval()
    losses = method.choice.losses if name == "iic" else method.head_losses
    losses.copy_(torch.rand(len(losses), generator=torch.Generator().manual_seed(1)))
    before, images = losses.clone(), pixels.all_of("train")
    run = SimpleNamespace(method=method, stored=(np.zeros(len(images)),), config={"method": name})
    run.ask = lambda question, rows: question(images[rows]).detach().numpy()
    found = analyse.heads(run)
    assert torch.equal(losses, before), "the run still chooses as it did"
    np.testing.assert_array_equal(found["loss"], before)
    np.testing.assert_array_equal(found["assignment"][int(before.argmin())], method.predict(images).argmax(dim=1))
    assert len(np.unique(found["assignment"], axis=0)) > 1
    arrays = train.predict(method, pixels, lambda purpose: torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(arrays["train_heads"], found["assignment"])
    np.testing.assert_array_equal(arrays["train_heads"][int(before.argmin())], arrays["train_assignment"])
    run.method = nn.Identity()
    with pytest.raises(UserError, match=f"heads: {name} has no several heads"):
        analyse.heads(run)


class LeftOnly(nn.Module):
    """Clusters by what its first convolution sees on the left half; the right half has no say."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.last = nn.Linear(4, 2)

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.maps(images.float() / 255)
        return self.last(maps[..., : maps.shape[-1] // 2].mean(dim=(2, 3))).softmax(dim=1)


def test_heat_maps_show_what_spoke_for_the_cluster() -> None:
    torch.manual_seed(0)
    method, images = LeftOnly(), torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    heat = heat_maps(method, images)
    seen = method.maps(images.float() / 255).detach()
    probability = method.predict(images).detach()
    chosen = probability.argmax(dim=1)
    # By hand: d log p_c / d mean = W_c - sum_k p_k W_k, spread evenly over the left half of each map.
    slope = method.last.weight.detach()[chosen] - probability @ method.last.weight.detach()
    expected = (slope[:, :, None, None] * seen).sum(dim=1).relu()
    expected /= expected.amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)
    torch.testing.assert_close(heat, expected, atol=1e-5, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in method.parameters())


@pytest.mark.parametrize("name", clusters.CRITICS)
def test_surfaces_are_the_critics_that_are_trained(name: str) -> None:
    p, q = np.meshgrid(np.linspace(0.05, 0.95, 7), np.linspace(0.05, 0.95, 7))
    two = [torch.tensor(np.stack([v.ravel(), 1 - v.ravel()], axis=1)) for v in (p, q)]
    expected = critic_scores(*two, critic=name).diagonal().numpy()
    np.testing.assert_allclose(clusters.critic(name, p, q).ravel(), expected, atol=1e-12)
