"""Layers of the real networks as text, for the table that sets them beside the printed ones (DCCM's Table 4).

python workflow/scripts/networks.py > params/networks.csv     (a test fails while that file is not what this prints)
"""

from __future__ import annotations

import csv
import sys

from torch import nn

from dica.networks.dccm import LAYOUTS, Network

COLUMNS = ("network", "layer", "text")


def layers(name: str) -> list[str]:
    """Return the layers of one of DCCM's networks in order, as its modules say; c = number of clusters."""
    clusters = 7  # stands for any number: no layer of these networks has as many outputs for another reason
    network = Network(name, 3, clusters, final_bn=True, mi_layers="paper")
    listed = [_stage(stage) + (" (S)" if index == network.tap else "") for index, stage in enumerate(network.stages)]
    listed.append(f"{_linear(network.hidden)}, BN, ReLU (D)")
    listed.append(_linear(network.output).replace(f"to {clusters}", "to c") + ", BN")
    return [*listed, "softmax"]


def _stage(stage: nn.Module) -> str:
    if isinstance(stage, nn.Sequential):
        convolution, *rest = stage
        names = ", ".join({nn.BatchNorm2d: "BN", nn.ReLU: "ReLU"}[type(part)] for part in rest)
        return f"{_size(convolution.kernel_size)} conv, {convolution.out_channels}, {names}"
    kind = {nn.MaxPool2d: "max", nn.AvgPool2d: "average"}[type(stage)]
    return f"{_size(stage.kernel_size)} {kind} pooling, stride {stage.stride}"


def _size(kernel: int | tuple[int, int]) -> str:
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    return f"{height}x{width}"


def _linear(layer: nn.Linear) -> str:
    return f"linear {layer.in_features} to {layer.out_features}"


def main() -> None:
    """Print the listing as CSV."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name in LAYOUTS:
        writer.writerows((name, f"layer-{k}", text) for k, text in enumerate(layers(name), start=1))


if __name__ == "__main__":
    main()
