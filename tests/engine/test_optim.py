"""LARS against its formula; the other optimisers are torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dica.engine.optim import build_optimizer, load_optimizer


class Given(nn.Module):
    """A matrix and a bias, and the optimiser's one group of them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))

    def parameter_groups(self) -> list[dict]:
        return [{"params": list(self.parameters())}]


@pytest.mark.parametrize(("trust", "clip"), [(0.02, True), (0.02, False), (9.0, True)])
def test_lars_steps_in_proportion_to_what_it_moves(trust: float, clip: bool) -> None:
    given, decay, rate = Given(), 0.5, 0.1
    spec = {"name": "lars", "trust": trust, "clip": clip, "momentum": 0.9, "weight_decay": decay}
    optimizer = build_optimizer(given, {"optimizer": spec, "lr": rate}, torch.device("cpu"))
    start, slope = given.weight.detach().clone(), torch.tensor([[0.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    moved = torch.zeros_like(start)
    weight = start.clone()
    for _ in range(2):
        given.weight.grad, given.bias.grad = slope.clone(), torch.ones_like(given.bias)
        own = weight.norm()
        scale = trust * own / (4 + decay * own)
        scale = min(scale / rate, torch.tensor(1.0)) if clip else scale
        moved = 0.9 * moved + scale * (slope + decay * weight)
        weight = weight - rate * moved
        optimizer.step()
        torch.testing.assert_close(given.weight.detach(), weight)
    torch.testing.assert_close(given.bias.detach(), torch.tensor([1 - 0.1 - 0.19], dtype=torch.float64))


def test_lars_leaves_a_weight_without_a_direction_to_sgd() -> None:
    given = Given()
    given.weight.data.zero_()
    spec = {"name": "lars", "trust": 0.02, "clip": True, "momentum": 0.0, "weight_decay": 0.0}
    optimizer = build_optimizer(given, {"optimizer": spec, "lr": 0.1}, torch.device("cpu"))
    given.weight.grad = torch.ones_like(given.weight)
    optimizer.step()
    torch.testing.assert_close(given.weight.detach(), torch.full_like(given.weight, -0.1))


def test_a_gpu_s_sgd_takes_layers_that_learn_later() -> None:
    """A head without a gradient in the first pass of an epoch, as MMDC's, has not moved when the others have."""
    spec = {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
    both = {kind: Given() for kind in ("cpu", "cuda")}
    steps = {kind: build_optimizer(both[kind], {"optimizer": spec, "lr": 0.1}, torch.device(kind)) for kind in both}
    for turn in range(3):
        for kind, given in both.items():
            given.weight.grad = torch.full_like(given.weight, 1.0 + turn)
            given.bias.grad = torch.ones_like(given.bias) if turn else None
            steps[kind].step()
    torch.testing.assert_close(both["cuda"].state_dict(), both["cpu"].state_dict())


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop"])
def test_moments_are_laid_out_as_what_they_move(name: str) -> None:
    """A state saved on a CPU goes on where the weights are channels last, as on a GPU, whose fused steps ask for it."""
    spec, step = {"name": name, "momentum": 0.9}, torch.randn(4, 3, 2, 2)
    first, second = nn.Conv2d(3, 4, 2), nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
    second.load_state_dict(first.state_dict())
    optimizers = []
    for layer in (first, second):
        layer.parameter_groups = lambda layer=layer: [{"params": list(layer.parameters())}]
        optimizers.append(build_optimizer(layer, {"optimizer": spec, "lr": 0.1}, torch.device("cpu")))

    def move(layer: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        layer.weight.grad, layer.bias.grad = step.to(layer.weight), torch.ones(4)
        optimizer.step()

    move(first, optimizers[0])
    second.load_state_dict(first.state_dict())
    load_optimizer(optimizers[1], copy.deepcopy(optimizers[0].state_dict()))
    moments = [value for value in optimizers[1].state[second.weight].values() if value.dim() == 4]
    assert moments
    assert all(value.stride() == second.weight.stride() for value in moments)
    for layer, optimizer in zip((first, second), optimizers, strict=True):
        move(layer, optimizer)
    torch.testing.assert_close(second.state_dict(), first.state_dict())
