"""GATCluster: Niu, Zhang, Wang and Liang, GATCluster: Self-Supervised Gaussian-Attention Network for Image Clustering,
ECCV 2020, after the authors' code.

A network without padding ends in two softmax layers: one on the mean of its maps, one on their sum under a Gaussian
bump whose place and width it finds itself. Training goes by outer batches (`dica.methods.outer_batches`): the images as
they are give the targets, their augmented views learn them (`dica.losses.gatcluster`). Prediction: the first softmax.

Deviations and readings, each a key of params/gatcluster.yaml or of the networks below:

- The code has settings for STL-10 and ImageNet-10 alone; `gat-32` and `gat-8` are ours.
- Images are grey: the network takes their luminance, the code's data do.
- An image is augmented once an outer batch, and seen so in all its passes (code).
- Targets come from the network in eval mode (code).
- `least_share`: K-means on the sharpened probabilities says which images belong together; if one of its clusters has
  less than this share of an equal one, each image belongs to itself alone (code).
- All weights are drawn as torch does (code).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dica.data.splits import DataInfo
from dica.files import UserError
from dica.losses.dec import target
from dica.losses.gatcluster import attention, balanced, gat_loss
from dica.methods.base import Batch, Step, evaluating
from dica.methods.feature_clusters import centroid_seed
from dica.methods.kmeans import fit_kmeans
from dica.methods.outer_batches import OuterBatchMethod
from dica.networks.plain import plain_layer
from dica.views.pixels import rgb_to_grey

WEIGHTS = ("similarity_weight", "entropy_weight", "relation_weight", "attention_weight")


@dataclass(frozen=True)
class Layout:
    """The layers before the 1x1 convolution to the described maps.

    Attributes
    ----------
    image_size, side : pixels of an image, and of a map at the end
    layers : convolutions and max-poolings
    relu : whether the maps that are averaged are rectified
    located : whether the place of the bump is read from maps of its own
    """

    image_size: int
    side: int
    layers: tuple[tuple, ...]
    relu: bool = False
    located: bool = True


def _convolutions(*channels: int) -> tuple[tuple, ...]:
    return tuple(("conv", 3, out) for out in channels)


POOL = (("max", 2),)
_HEAD = (*_convolutions(64, 64, 64), *POOL, *_convolutions(128, 128, 128))
_LONG = (*_HEAD, *POOL, *_convolutions(256, 256, 256), *POOL)
LAYOUTS = {
    "gat-8": Layout(8, 2, _convolutions(32, 32, 128)),
    "gat-32": Layout(32, 7, _HEAD),
    "gat-96": Layout(96, 6, _LONG),
    "gat-128": Layout(128, 6, (*_LONG, *_convolutions(256, 256)), relu=True, located=False),
}


class Outputs(NamedTuple):
    """What the network says about n images."""

    features: Tensor  # (n, maps)
    p: Tensor  # (n, K)
    attended: Tensor  # (n, K)


class Network(nn.Module):
    """Convolutions, the averaged maps with their classifier, and the bump with its own."""

    def __init__(self, layout: str, maps: int, num_clusters: int) -> None:
        super().__init__()
        spec, channels, layers = LAYOUTS[layout], 1, []
        for layer in (*spec.layers, ("conv", 1, maps)):
            layers.append(plain_layer(channels, *layer))
            channels = layer[2] if layer[0] == "conv" else channels
        self.layout, self.image_size, self.side = layout, spec.image_size, spec.side
        self.convolutions = nn.Sequential(*layers)
        described = [nn.Conv2d(maps, maps, 1), nn.BatchNorm2d(maps)]
        self.described = nn.Sequential(*described, nn.ReLU()) if spec.relu else nn.Sequential(*described)
        self.located = plain_layer(maps, "conv", 1, num_clusters) if spec.located else nn.Identity()
        self.place = nn.Linear((num_clusters if spec.located else maps) * spec.side**2, 3)
        self.classify, self.classify_attended = _classifier(maps, num_clusters), _classifier(maps, num_clusters)

    def forward(self, images: Tensor) -> Outputs:
        """Map grey or colour images (n, c, s, s) to features and both distributions."""
        if images.shape[-1] != self.image_size:
            raise UserError(
                f"gatcluster: network {self.layout} takes images {self.image_size} pixels wide, the views give "
                f"{images.shape[-1]}; add a step to views or choose another network"
            )
        maps = self.convolutions(rgb_to_grey(images))
        described = self.described(maps)
        features = described.mean(dim=(2, 3))
        theta = self.place(self.located(maps).flatten(1)).to(self.place.weight.dtype).sigmoid()
        attended = (described * attention(theta, self.side)).sum(dim=(2, 3))
        p, attended = (logits.softmax(dim=1) for logits in (self.classify(features), self.classify_attended(attended)))
        return Outputs(features, p, attended)


def _classifier(maps: int, num_clusters: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(maps, num_clusters), nn.ReLU(), nn.Linear(num_clusters, num_clusters))


class Targets(NamedTuple):
    """What supervises n images."""

    views: Tensor  # (n, C, H, W), augmented
    to_balance: Tensor  # (n, K)
    sharpened: Tensor  # (n, K)
    together: Tensor  # (n, n) bool


class GATCluster(OuterBatchMethod):
    """A network that learns its own balanced, sharpened and grouped outputs, with a bump of attention."""

    pairwise = ("together",)

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        self.network = Network(params["network"], params["maps"], params["num_clusters"])
        self.original, self.augmented = self.pipeline("original"), self.pipeline("augmented")
        self.weights = {name: params[name] for name in WEIGHTS}

    def networks(self) -> list[nn.Module]:
        """Return the one network."""
        return [self.network]

    def targets(self, batch: Batch) -> Targets:
        """Return the augmented views, and what the images as they are say of them."""
        with evaluating(self):
            p = self.network(self.original(batch.images, batch.rng("targets"))).p
        views, sharpened = self.augmented(batch.images, batch.rng("augmented")), target(p)
        groups = self._groups(np.array(sharpened.tolist()), centroid_seed(batch.rng))
        together = torch.from_numpy(groups[:, None] == groups).to(p.device)
        return Targets(views, balanced(p), sharpened, together)

    def _groups(self, points: np.ndarray, seed: int) -> np.ndarray:
        """Return the group of each point (n,): that of K-means, or its own if K-means has found a small one."""
        clusters, alone = self.params["num_clusters"], np.arange(len(points))
        if len(np.unique(points, axis=0)) < clusters:
            return alone
        found = fit_kmeans(points, clusters, seed, self.params["restarts"], self.params["max_iterations"]).labels_
        least = self.params["least_share"] * len(points) / clusters
        return alone if np.bincount(found, minlength=clusters).min() < least else found

    def loss(self, batch: Batch) -> Step:
        """The loss on an inner batch; `batch.extra` has its targets and views."""
        given = Targets(**batch.extra)
        _, p, attended = self.network(given.views)
        return Step(*gat_loss(p, attended, given.to_balance, given.sharpened, given.together, **self.weights))

    def predict(self, images: Tensor) -> Tensor:
        """Return the probabilities of all features for the test view, (n, K)."""
        return self.network(self.test_view(images)).p

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the averaged maps (n, maps)."""
        self.check_layer(layer)
        return self.network(self.test_view(images)).features


METHOD = GATCluster
