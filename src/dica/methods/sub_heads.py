"""Which of several cluster heads predicts: the one with the lowest loss in the newest epoch, without labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SubHeadChoice(nn.Module):
    """Adds up each sub-head's losses of an epoch.

    Attributes
    ----------
    losses : (H,) sums over the steps of the epoch `epoch`
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("losses", torch.zeros(count))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def add(self, losses: Tensor, epoch: int) -> None:
        """Add the losses (H,) of a step, without waiting for the device; a new epoch begins at zero."""
        self.losses.mul_(self.epoch == epoch).add_(losses)
        self.epoch.fill_(epoch)

    def best(self) -> int:
        """Return the sub-head to predict with."""
        return int(self.losses.argmin())
