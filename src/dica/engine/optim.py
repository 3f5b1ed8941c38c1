"""Optimisers and learning-rate schedules, both given as data in the parameter files."""

from __future__ import annotations

import inspect
import math
from functools import cache

import torch

from dica.methods.base import Method

TINY = 1e-8  # keeps a quotient finite


def learning_rate(schedule: dict, base: float, step: int, epoch: int, epochs: int) -> float:
    """Return the learning rate of one step.

    Parameters
    ----------
    schedule
        ``{kind: constant}``, ``{kind: steps, milestones: [epoch, …], factor: f}`` or
        ``{kind: cosine, floor: fraction of the base rate}`` or ``{kind: cosine_7_16}``, cos(7/16 pi t) as in FixMatch,
        or ``{kind: inverse, decay: d, power: p}``, (1 + d step) to the power -p as in JULE;
        each may add ``warmup_steps`` (linear from 0).
    step, epoch
        Counted from 0.
    """
    factor = 1.0
    if schedule["kind"] == "steps":
        factor = schedule["factor"] ** sum(epoch >= milestone for milestone in schedule["milestones"])
    elif schedule["kind"] == "cosine":
        floor = schedule.get("floor", 0.0)
        factor = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    elif schedule["kind"] == "cosine_7_16":
        factor = math.cos(7 / 16 * math.pi * epoch / epochs)
    elif schedule["kind"] == "inverse":
        factor = (1 + schedule["decay"] * step) ** -schedule["power"]
    warmup = schedule.get("warmup_steps", 0)
    return base * factor * (min(1.0, (step + 1) / warmup) if warmup else 1.0)


@cache
def uncompiled(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Return an optimiser without the guards that keep torch's compiler out of it.

    They load the compiler, two seconds of every run, and then tell it to stay away; no optimiser is compiled here.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), {**plain, "step": torch.no_grad()(inspect.unwrap(kind.step))})


class LARS(torch.optim.SGD):
    """SGD whose step of each weight matrix is in proportion to the matrix (You, Gitman and Ginsburg, 2017).

    The gradient of a tensor with its decay is multiplied by `trust` |w| / (|gradient| + decay |w|), and by no more than
    makes the rate `lr` (`clip`). Biases and batch norms have neither this nor the decay.
    """

    def __init__(
        self, groups: list[dict], lr: float, trust: float, clip: bool, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(groups, lr=lr, momentum=momentum)
        self.trust, self.clip, self.decay = trust, clip, weight_decay

    def step(self) -> None:
        """Scale the gradients, then step as SGD."""
        for group in self.param_groups:
            for weight in (p for p in group["params"] if p.grad is not None and p.dim() > 1):
                own, slope = weight.norm(), weight.grad.norm()
                scale = self.trust * own / (slope + self.decay * own + TINY)
                scale = torch.where((own > 0) & (slope > 0), scale, group["lr"] if self.clip else 1.0)
                scale = (scale / group["lr"]).clamp(max=1.0) if self.clip else scale
                weight.grad.add_(weight, alpha=self.decay).mul_(scale)
        inspect.unwrap(torch.optim.SGD.step)(self)


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict) -> None:
    """Take over an optimiser's saved state (`state_dict`), which may come from another device or speed option.

    How it computes, and how its tensors lie in memory, is the affair of this attempt: a fused step asks for moments
    that lie as their parameters do, which is another order on a GPU (channels last) than on a CPU.
    """
    for theirs, mine in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        theirs.update({name: mine[name] for name in ("foreach", "fused", "capturable") if name in mine})
    optimizer.load_state_dict(saved)
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter).copy_(value)


def build_optimizer(
    method: Method, params: dict, device: torch.device, capturable: bool = False
) -> torch.optim.Optimizer:
    """Return the optimiser that ``params.optimizer`` names, fused on a GPU where torch has it.

    With `capturable` its step can be part of a CUDA graph.
    """
    spec = params["optimizer"]
    groups = method.parameter_groups()
    common = {"lr": params["lr"], "weight_decay": spec.get("weight_decay", 0.0)}
    fused = device.type == "cuda"
    if spec["name"] in ("adam", "adamw"):  # adamw: weights decay by rate times decay, apart from the gradient
        betas = tuple(spec.get("betas", (0.9, 0.999)))
        kind = uncompiled(torch.optim.Adam if spec["name"] == "adam" else torch.optim.AdamW)
        return kind(groups, betas=betas, eps=spec.get("eps", 1e-8), fused=fused, capturable=capturable, **common)
    if spec["name"] == "lars":
        trust, clip, momentum = spec.get("trust", 0.001), spec.get("clip", False), spec.get("momentum", 0.0)
        return uncompiled(LARS)(groups, trust=trust, clip=clip, momentum=momentum, **common)
    if spec["name"] == "sgd":
        momentum, nesterov = spec.get("momentum", 0.0), spec.get("nesterov", False)
        sgd = uncompiled(torch.optim.SGD)(groups, momentum=momentum, nesterov=nesterov, fused=fused, **common)
        if fused and momentum:  # torch's fused step fails where some parameters have moved before and others have not
            for parameter in (p for group in sgd.param_groups for p in group["params"]):
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    alpha = spec.get("alpha", 0.99)
    return uncompiled(torch.optim.RMSprop)(groups, alpha=alpha, foreach=True, capturable=capturable, **common)
