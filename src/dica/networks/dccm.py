"""The networks of DCCM (Wu et al., ICCV 2019; supplement, Table 4), which all methods of its Table 5 share.

Deviations and readings are keys of params/dccm.yaml, see `dica.methods.dccm`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from dica.files import UserError
from dica.networks.backbones import ResNet
from dica.networks.plain import BN_MOMENTUM, initialise, plain_layer


@dataclass(frozen=True)
class Layout:
    """A column of Table 4.

    Attributes
    ----------
    layers : convolutions (name, kernel, channels) and poolings (name, kernel = stride); no padding anywhere
    shallow : index of the layer marked S
    hidden : outputs of the first linear layer, marked D
    """

    image_size: int
    layers: tuple[tuple, ...]
    shallow: int
    hidden: int

    @property
    def code_shallow(self) -> int:
        """Index of the first max-pooling, the code's S; the marked layer where there is none."""
        return next((index for index, layer in enumerate(self.layers) if layer[0] == "max"), self.shallow)


LAYOUTS = {
    # Not of the paper: its style at a quarter of the size. Without padding, 8 > 6 > 4 > 2 > 1 pixels.
    "conv-8": Layout(8, (("conv", 3, 32), ("conv", 3, 32), ("conv", 3, 128), ("avg", 2)), shallow=1, hidden=64),
    "conv-32": Layout(
        32,
        (("conv", 3, 64), ("conv", 3, 64), ("max", 2), ("conv", 3, 128), ("max", 2), ("conv", 3, 256), ("avg", 4)),
        shallow=1,
        hidden=64,
    ),
    "conv-64": Layout(
        64,
        (
            *(("conv", 5, 64), ("conv", 5, 64), ("max", 4), ("conv", 3, 128), ("conv", 3, 128), ("max", 4)),
            *(("conv", 1, 256), ("avg", 2)),
        ),
        shallow=3,
        hidden=256,
    ),
    "conv-96": Layout(
        96,
        (
            *(("conv", 5, 64), ("conv", 5, 64), ("max", 4), ("conv", 3, 128), ("conv", 3, 128), ("max", 4)),
            *(("conv", 1, 256), ("avg", 4)),
        ),
        shallow=3,
        hidden=64,
    ),
}


class Features(NamedTuple):
    """What the network says about n images."""

    logits: Tensor  # (n, K), before the softmax
    deep: Tensor  # (n, deep_size), layer D
    shallow: Tensor  # (n, shallow_size, h, w), layer S


class Network(nn.Module):
    """Convolutions, two linear layers that start as the identity, and batch norm before the softmax.

    Parameters
    ----------
    layout
        A key of `LAYOUTS`.
    final_bn
        Batch norm after the last linear layer.
    mi_layers
        `paper` or `code`: which layers are S and D.
    """

    def __init__(self, layout: str, in_channels: int, num_clusters: int, final_bn: bool, mi_layers: str) -> None:
        super().__init__()
        spec = LAYOUTS[layout]
        self.layout, self.mi_layers = layout, mi_layers
        self.image_size: int | None = spec.image_size
        self.tap = spec.shallow if mi_layers == "paper" else spec.code_shallow
        self.stages = nn.ModuleList()
        channels, self.shallow_size = in_channels, 0
        for index, layer in enumerate(spec.layers):
            self.stages.append(plain_layer(channels, *layer))
            channels = layer[2] if layer[0] == "conv" else channels
            self.shallow_size = channels if index == self.tap else self.shallow_size
        self._end(channels, spec.hidden, num_clusters, final_bn)
        initialise(self)

    def _end(self, channels: int, hidden: int, num_clusters: int, final_bn: bool) -> None:
        """Make the layers behind the last pooling."""
        self.hidden = nn.Linear(channels, hidden)
        self.hidden_bn = nn.BatchNorm1d(hidden, momentum=BN_MOMENTUM)
        self.output = nn.Linear(hidden, num_clusters)
        self.output_bn = nn.BatchNorm1d(num_clusters, momentum=BN_MOMENTUM) if final_bn else nn.Identity()
        self.deep_size = hidden if self.mi_layers == "paper" else num_clusters

    def forward(self, images: Tensor) -> Features:
        """Map (n, c, s, s) to logits and the two layers of the mutual-information term."""
        self._check_size(images)
        x = images
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index == self.tap:
                shallow = x
        hidden = self._hidden(x)
        scores = self.output(hidden)
        return Features(self.output_bn(scores), hidden if self.mi_layers == "paper" else scores, shallow)

    def represent(self, images: Tensor, layer: str) -> Tensor:
        """Map (n, c, s, s) to (n, d): the flattened last convolution (`conv`), the first linear layer, or that layer
        before its ReLU (`before-relu`).
        """
        self._check_size(images)
        x = images
        for stage in self.stages[:-1]:
            x = stage(x)
        if layer == "conv":
            return x.flatten(1)
        x = self.stages[-1](x)
        return self._before_relu(x) if layer == "before-relu" else self._hidden(x)

    def _before_relu(self, pooled: Tensor) -> Tensor:
        return self.hidden_bn(self.hidden(pooled.flatten(1)))

    def _hidden(self, pooled: Tensor) -> Tensor:
        return F.relu(self._before_relu(pooled))

    def _check_size(self, images: Tensor) -> None:
        if self.image_size and images.shape[-2:] != (self.image_size, self.image_size):
            raise UserError(
                f"dccm: network {self.layout} takes images of {self.image_size}x{self.image_size}, the views give "
                f"{images.shape[-2]}x{images.shape[-1]}; add a resize step to views or choose another network"
            )


class ResidualNetwork(Network):
    """A residual network with the layers of Table 4 behind it; not of the paper.

    S is the map of the first stage, whatever `mi_layers`: there is no max-pooling among its stages.

    Parameters
    ----------
    backbone
        From `build_backbone`; its weights stay as they were drawn.
    num_clusters, final_bn, mi_layers
        See `Network`.
    """

    def __init__(self, backbone: nn.Module, num_clusters: int, final_bn: bool, mi_layers: str) -> None:
        nn.Module.__init__(self)
        if not isinstance(backbone, ResNet):
            raise UserError("dccm: backbone: a wide residual network has no maps that fit here; take a resnet")
        self.image_size, self.mi_layers, self.tap = None, mi_layers, 1
        self.stages = nn.ModuleList([backbone.stem, *backbone.stages, backbone.pool])
        self.shallow_size = backbone.stage_features[0]
        self._end(backbone.out_features, backbone.out_features, num_clusters, final_bn)
        for layer in (self.hidden, self.output):
            initialise(layer)
