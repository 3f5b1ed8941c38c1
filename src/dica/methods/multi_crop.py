"""What methods on many crops of an image share: a few crops of high resolution, more of low, projected to prototypes.

Multi-crop is of SwAV (Caron et al., NeurIPS 2020, Section 3.3); DeepCluster-v2 and IMC-SwAV took it over. Keys:
`high_crops`, `low_crops`, `joint_views` (one forward pass a crop, or one a crop size), `projection_hidden`,
`projection_size`, `prototype_freeze_steps`; views `high` and `low`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dica.losses.imc_swav import cosines
from dica.methods.base import Batch, Method
from dica.networks.heads import ProjectionHead, Prototypes
from dica.rng import Rng


class MultiCrop(Method):
    """Base of a method that embeds several crops of each image; the high-resolution ones come first.

    `prototypes` are the subclass's, if it trains some.
    """

    layers = ("backbone", "projection")

    prototypes: Prototypes

    def make_network(self, activation: bool = True, batch_norm: bool = False) -> int:
        """Build backbone, projection and views; return the length of the embedding that the backbone gives."""
        params = self.params
        self.backbone = self.build_backbone()
        sizes = self.backbone.out_features, (params["projection_hidden"],), params["projection_size"]
        self.projection = ProjectionHead(*sizes, batch_norm=batch_norm, activation=activation, normalise=False)
        self.high, self.low = self.pipeline("high"), self.pipeline("low")
        return self.backbone.out_features

    @property
    def num_views(self) -> int:
        """Return the number of crops of an image, high-resolution ones first."""
        return self.params["high_crops"] + self.params["low_crops"]

    def embed(self, images: Tensor, rng: Rng) -> Tensor:
        """Return the embeddings of all crops of uint8 images (n, C, H, W), (v, n, features)."""
        embeddings = [self.embed_crops(name, images, rng) for name in ("high", "low") if self.params[f"{name}_crops"]]
        return torch.cat(embeddings)

    def embed_crops(self, name: str, images: Tensor, rng: Rng) -> Tensor:
        """Return the embeddings of the crops of one resolution, `high` or `low`, (crops, n, features)."""
        crops, pipeline = self.params[f"{name}_crops"], self.high if name == "high" else self.low
        views = pipeline(images.repeat(crops, 1, 1, 1), rng(name))
        parts = [views] if self.params["joint_views"] else views.chunk(crops)
        return torch.cat([self.backbone(part) for part in parts]).unflatten(0, (crops, len(images)))

    def project(self, embeddings: Tensor) -> Tensor:
        """Return the projections (..., d), of any length, of embeddings (..., features), all in one pass."""
        return self.projection(embeddings.flatten(0, -2)).unflatten(0, embeddings.shape[:-1])

    def prototype_scores(self, embeddings: Tensor) -> Tensor:
        """Return the cosines of projected embeddings (..., features) and prototypes, (..., k')."""
        return cosines(self.project(embeddings), self.prototypes.unit_rows())

    def regime(self, batch: Batch) -> tuple:
        """Return whether the prototypes are frozen."""
        return (batch.step < self.params["prototype_freeze_steps"],)

    def after_backward(self, batch: Batch) -> None:
        """Keep the prototypes where they are during the first steps."""
        (frozen,) = self.regime(batch)
        if frozen:
            self.prototypes.linear.weight.grad = None

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the embedding (n, features), or the unit projection (`projection`), of full-size images."""
        self.check_layer(layer)
        embedding = self.backbone(self.test_view(images))
        return embedding if layer == "backbone" else F.normalize(self.projection(embedding), dim=-1)
