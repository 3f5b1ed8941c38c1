"""Networks that are a list of layers: convolutions without padding and poolings, as in DAC and DCCM."""

from __future__ import annotations

from torch import nn

BN_MOMENTUM = 0.1


def plain_layer(channels: int, kind: str, kernel: int, out: int = 0) -> nn.Module:
    """Return a pooling (`max`, `avg`; stride = kernel) or a convolution (`conv`) with batch norm and ReLU."""
    if kind == "max":
        return nn.MaxPool2d(kernel)
    if kind == "avg":
        return nn.AvgPool2d(kernel)
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel), nn.BatchNorm2d(out, momentum=BN_MOMENTUM), nn.ReLU(inplace=True)
    )


def initialise(module: nn.Module) -> None:
    """Convolutions: Kaiming normal over fan-in, zero bias. Linear layers: identity, so no cluster starts at random."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.eye_(part.weight)
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
