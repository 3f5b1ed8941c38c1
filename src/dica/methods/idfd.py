"""IDFD: Tao, Takagi and Nakata, Clustering-friendly Representation Learning via Instance Discrimination and Feature
Decorrelation, ICLR 2021.

Each image is to be told from all others by its stored features, while the columns of the features are decorrelated.
Losses: `dica.losses.idfd`. Clusters are those of K-means on the stored features, once after training.

Deviations and readings, each a key of params/idfd.yaml with the value of the authors' code as default:

- `cluster_on`: the code clusters the memory (`bank`), which holds averages of augmented views. Predictions are by the
  centroids nearest to the features of the un-augmented view, as for every method here; `features` fits K-means to
  those.
- `bank_momentum`: share of the old row; new rows are brought to unit length. The memory starts uniform, not of unit
  length, as in the code.
- `train_split`: the code trains on the 50,000 training images; the papers' tables compare with methods trained on all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dica.data.splits import DataInfo, splits_of
from dica.losses.common import l2_normalise
from dica.losses.crlc import bank_update
from dica.losses.idfd import idfd_loss
from dica.methods.base import Batch, Step
from dica.methods.feature_clusters import FeatureClusters, centroid_seed
from dica.networks.backbones import init_weights
from dica.rng import Rng


class IDFD(FeatureClusters):
    """Instance discrimination against a memory of all images, with decorrelated features."""

    layers = ("backbone", "projection")

    bank: Tensor

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        network, size = params["backbone"], params["projection_size"]
        self.backbone = self.build_backbone()
        self.last = nn.Linear(self.backbone.out_features, size)
        init_weights(self.last, network["init"])
        self.augmented = self.pipeline("augmented")
        rows = sum(data.counts[name] for name in splits_of(params["train_split"], data))
        bound = (size / 3) ** -0.5
        self.register_buffer("bank", torch.empty(rows, size).uniform_(-bound, bound))
        self.make_clusters(size)

    def embed(self, views: Tensor) -> Tensor:
        """Return unit features (n, d) of views."""
        return l2_normalise(self.last(self.backbone(views)).to(self.bank.dtype))

    def loss(self, batch: Batch) -> Step:
        """Both losses of one view of each image."""
        params = self.params
        f = self.embed(self.augmented(batch.images, batch.rng("augmented")))
        options = {name: params[name] for name in ("temperature", "temperature_fd", "weight")}
        loss, parts = idfd_loss(f, self.bank, batch.indices, **options)
        return Step(loss, parts, {"f": f.detach()})

    def after_step(self, batch: Batch, carry: dict[str, Tensor]) -> None:
        """Let the memory follow."""
        alpha, new = self.params["bank_momentum"], carry["f"]
        self.bank = bank_update(self.bank, batch.indices, new, alpha=alpha, kind="feature")

    @torch.no_grad()
    def before_predict(self, images: dict[str, Tensor], rng: Rng) -> None:
        """Fit the centroids to the memory, or to the features of the training images."""
        if self.params["cluster_on"] == "features":
            super().before_predict(images, rng)
        else:
            self.clusters.fit_points(self.bank, centroid_seed(rng))

    def clustered(self, images: Tensor) -> Tensor:
        """Return the features that are clustered."""
        return self.embed(self.test_view(images))

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the backbone's features (n, d), or the unit features that are clustered (`projection`)."""
        self.check_layer(layer)
        return super().features(images) if layer == "backbone" else self.clustered(images)


METHOD = IDFD
