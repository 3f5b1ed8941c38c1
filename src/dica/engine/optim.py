"""Optimisers and learning-rate schedules, both given as data in the parameter files."""

from __future__ import annotations

import inspect
import math
from functools import cache

import torch

from dica.methods.base import Method


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
    if spec["name"] == "sgd":
        momentum, nesterov = spec.get("momentum", 0.0), spec.get("nesterov", False)
        return uncompiled(torch.optim.SGD)(groups, momentum=momentum, nesterov=nesterov, fused=fused, **common)
    alpha = spec.get("alpha", 0.99)
    return uncompiled(torch.optim.RMSprop)(groups, alpha=alpha, foreach=True, capturable=capturable, **common)
