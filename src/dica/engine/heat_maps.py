"""What spoke for a predicted cluster: Grad-CAM (Selvaraju et al., ICCV 2017) of a trained method."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dica.files import UserError
from dica.methods.base import Method

SMALLEST_MAP = 4  # positions a side that a heat map needs to be worth showing


def heat_maps(method: Method, images: Tensor) -> Tensor:
    """Return maps (n, h, w), each from 0 to 1, of the deepest layer of at least `SMALLEST_MAP` positions a side."""
    seen: list[Tensor] = []

    def watch(module: nn.Module, given: tuple, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) >= SMALLEST_MAP:
            seen.append(output)

    handles = [module.register_forward_hook(watch) for module in method.modules() if module is not method]
    method.requires_grad_(True)
    try:
        score = method.predict(images).clamp_min(1e-12).log().max(dim=1).values.sum()
        if not seen:
            raise UserError(f"gradcam: {type(method).__name__} has no map of {SMALLEST_MAP}x{SMALLEST_MAP} positions")
        (gradient,) = torch.autograd.grad(score, seen[-1])
    finally:
        for handle in handles:
            handle.remove()
        method.requires_grad_(False)
    weight = gradient.mean(dim=(2, 3), keepdim=True)
    heat = (weight * seen[-1].detach()).sum(dim=1).relu()
    return heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(heat.dtype).tiny)
