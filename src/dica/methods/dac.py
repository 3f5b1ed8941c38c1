"""DAC: Chang, Wang, Meng, Xiang and Pan, Deep Adaptive Image Clustering, ICCV 2017.

A network without padding ends in K softmax outputs. Pairs of images whose outputs are alike or unlike beyond two
thresholds supervise it; the thresholds move towards each other from epoch to epoch. Losses: `dica.losses.dac`. Training
goes by outer batches (`dica.methods.outer_batches`), as in the authors' code.

Deviations and readings, each a key of params/dac.yaml; the defaults are the script of the authors' code that its
published log is of:

- `aux`, `aux_weight`: the code's second loss, which the paper does not have; `none` leaves it out.
- `pair_loss`: the paper's (`bce`), or what the code's swapped arguments compute (`swapped`).
- `both_thresholds`: false is the code's other recipe, one threshold that falls and leaves no pair out ("DAC*").
- One optimiser for the whole run; the script makes a new one each epoch, so that its averages begin anew.
- `bn_eval`: the code normalises by batches of 32 at prediction; `batch` does so with averages over shuffled batches,
  `running` takes the moving averages of training. Targets are those of the whole outer batch (code: chunks of 32).
- `shared_network`: DCCM's network for images of this size instead of DAC's own (DCCM, Table 5).
- `final_relu`: before the softmax; the scripts of STL-10, ImageNet-10 and ImageNet-Dogs have it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dica.data.splits import DataInfo
from dica.files import UserError
from dica.losses.dac import Targets, dac_loss, targets, thresholds
from dica.methods.base import Batch, Step
from dica.methods.outer_batches import OuterBatchMethod
from dica.networks import dccm
from dica.networks.plain import BN_MOMENTUM, initialise, plain_layer


@dataclass(frozen=True)
class Layout:
    """Convolutions and poolings before the 1x1 convolution to K maps, and the average pooling after it."""

    image_size: int
    layers: tuple[tuple, ...]
    average: int


def _convolutions(count: int, kernel: int, channels: int) -> tuple[tuple, ...]:
    return (("conv", kernel, channels),) * count


LAYOUTS = {
    # Not of the paper: its style at a quarter of the size. Without padding, 8 > 6 > 4 > 2 > 1 pixels.
    "dac-8": Layout(8, (*_convolutions(2, 3, 32), *_convolutions(1, 3, 128)), 2),
    "dac-32": Layout(32, (*_convolutions(3, 3, 64), ("max", 2), *_convolutions(3, 3, 128), ("max", 2)), 3),
    "dac-32-small": Layout(32, (*_convolutions(2, 3, 64), ("max", 2), *_convolutions(2, 3, 128), ("max", 2)), 4),
    # Not of the paper: as dac-96-dogs, for Tiny-ImageNet, of which there is no script.
    "dac-64": Layout(64, (*_convolutions(2, 5, 64), ("max", 4), *_convolutions(2, 3, 128), ("max", 4)), 2),
    "dac-96": Layout(
        96,
        (
            *(*_convolutions(3, 3, 64), ("max", 2), *_convolutions(3, 3, 128), ("max", 2)),
            *(*_convolutions(3, 3, 256), ("max", 2)),
        ),
        6,
    ),
    "dac-96-dogs": Layout(96, (*_convolutions(2, 5, 64), ("max", 4), *_convolutions(2, 3, 128), ("max", 4)), 4),
}


class Network(nn.Module):
    """Convolutions, a map for each cluster, and two linear layers that start as the identity; batch norm after each."""

    def __init__(self, layout: str, in_channels: int, num_clusters: int, final_relu: bool) -> None:
        super().__init__()
        spec = LAYOUTS[layout]
        self.layout, self.image_size = layout, spec.image_size
        layers, channels = [], in_channels
        for kind, kernel, *out in (*spec.layers, ("conv", 1, num_clusters), ("avg", spec.average)):
            layers.append(plain_layer(channels, kind, kernel, *out))
            channels = out[0] if out else channels
        self.convolutions = nn.Sequential(*layers)
        self.hidden = nn.Sequential(nn.Linear(channels, channels), _batch_norm(channels), nn.ReLU())
        last = [nn.Linear(channels, channels), _batch_norm(channels)]
        self.output = nn.Sequential(*last, nn.ReLU()) if final_relu else nn.Sequential(*last)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map (n, c, s, s) to logits (n, K)."""
        return self.output(self.hidden(self.represent(images, "backbone")))

    def represent(self, images: Tensor, layer: str) -> Tensor:
        """Map (n, c, s, s) to the flattened maps before the clusters' (`conv`), or to the averages of these (n, K)."""
        self._check_size(images)
        return (self.convolutions[:-2] if layer == "conv" else self.convolutions)(images).flatten(1)

    def _check_size(self, images: Tensor) -> None:
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise UserError(
                f"dac: network {self.layout} takes images of {self.image_size}x{self.image_size}, the views give "
                f"{images.shape[-2]}x{images.shape[-1]}; add a resize step to views or choose another network"
            )


class SharedNetwork(dccm.Network):
    """DCCM's network for images as large as those of a layout of DAC's."""

    def __init__(self, layout: str, in_channels: int, num_clusters: int) -> None:
        size = LAYOUTS[layout].image_size
        name = next(name for name, spec in dccm.LAYOUTS.items() if spec.image_size == size)
        super().__init__(name, in_channels, num_clusters, final_bn=True, mi_layers="paper")

    def forward(self, images: Tensor) -> Tensor:
        """Map (n, c, s, s) to logits (n, K)."""
        return super().forward(images).logits


def _batch_norm(size: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(size, momentum=BN_MOMENTUM)


class DAC(OuterBatchMethod):
    """Supervision of a network by pairs that it tells apart with confidence, chosen anew at every outer batch."""

    layers = ("backbone", "conv")
    pairwise = ("linked", "selected")

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        given = params["network"], data.channels, params["num_clusters"]
        self.network = SharedNetwork(*given) if params["shared_network"] else Network(*given, params["final_relu"])
        self.original, self.augmented = self.pipeline("original"), self.pipeline("augmented")

    def networks(self) -> list[nn.Module]:
        """Return the one network."""
        return [self.network]

    def targets(self, batch: Batch) -> Targets:
        """Return the pairs that supervise, by the thresholds of this epoch, and the probabilities."""
        probs = self.network(self.original(batch.images, batch.rng("targets"))).softmax(dim=1)
        params = self.params
        upper, lower = thresholds(
            batch.epoch / params["epochs"],
            upper=params["upper"],
            lower=params["lower"],
            both=params["both_thresholds"],
        )
        return targets(probs, upper=upper, lower=lower)

    def loss(self, batch: Batch) -> Step:
        """Both losses on an inner batch; `batch.extra` has its targets."""
        params = self.params
        logits = self.network(self.augmented(batch.images, batch.rng("augmented")))
        options = {"pair_kind": params["pair_loss"], "aux": params["aux"], "aux_weight": params["aux_weight"]}
        loss, parts = dac_loss(logits, *Targets(**batch.extra), **options)
        return Step(loss, parts)

    def predict(self, images: Tensor) -> Tensor:
        """Return the softmax outputs for the test view, (n, K)."""
        return torch.softmax(self.network(self.test_view(images)), dim=1)

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the averages of the clusters' maps (n, K), or the flattened maps before them (`conv`).

        Of the shared network they are those of DCCM.
        """
        self.check_layer(layer)
        return self.network.represent(self.test_view(images), layer)


METHOD = DAC
