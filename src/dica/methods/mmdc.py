"""MMDC: Shiran and Weinshall, Multi-Modal Deep Clustering: Unsupervised Partitioning of Images, arXiv:1912.02678, after
the authors' code.

Every image is given one of K targets, the corners of the simplex; the network learns to map its crops there, and
targets are re-assigned within a batch to nearer images (`dica.losses.mmdc`). Before that each epoch has a pass in which
the same network tells quarter turns apart. In the refinement, the last epochs, targets are the clusters that K-means
finds in the outputs of all images.

Deviations and readings, each a key of params/mmdc.yaml:

- `refine_from`: the first epoch of the refinement; from then on nothing is re-assigned.
- `rotations`: whether there is the pass of quarter turns (code, and the paper's own ablation). Each of the four copies
  of an image has a crop of its own, cut before it is turned; the code cuts afterwards, which is as likely.
- The code draws the targets without noise (sigma 0), the paper's are modes of a mixture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dica.data.splits import DataInfo, splits_of
from dica.losses.common import l2_normalise
from dica.losses.mmdc import reassigned, renamed, target_loss
from dica.methods.base import Batch, Method, Phase, Step, decayed_apart, evaluating
from dica.methods.feature_clusters import centroid_seed
from dica.methods.kmeans import fit_kmeans
from dica.methods.rotnet import TURNS, quarter_turns
from dica.networks.backbones import init_weights
from dica.rng import Rng

PART = 1000  # images at a time


class MMDC(Method):
    """Outputs drawn to targets that are re-assigned within each batch."""

    target: Tensor  # the number of each image's

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        clusters = params["num_clusters"]
        self.backbone = self.build_backbone()
        self.output = nn.Linear(self.backbone.out_features, clusters)
        self.turns = nn.Linear(self.backbone.out_features, TURNS)
        for layer in (self.output, self.turns):
            init_weights(layer, params["backbone"]["init"])
        self.augmented, self.turned = self.pipeline("augmented"), self.pipeline("turned")
        self.splits = splits_of(params["train_split"], data)
        self.register_buffer("target", torch.randint(clusters, (sum(data.counts[name] for name in self.splits),)))

    def parameter_groups(self) -> list[dict]:
        """Return weights, which decay, and biases and batch norms, which do not (code)."""
        return decayed_apart(self)

    def phases(self, epoch: int) -> list[Phase]:
        """Return the pass of quarter turns, and that of the targets."""
        names = ["turns"] if self.params["rotations"] else []
        return [Phase(name, self.splits) for name in (*names, "main")]

    @torch.no_grad()
    def before_epoch(self, epoch: int, images: dict[str, Tensor], rng: Rng) -> None:
        """Take the clusters of K-means as targets, in the refinement."""
        if epoch < self.params["refine_from"]:
            return
        params = self.params
        parts = (part.to(self.target.device) for name in self.splits for part in images[name].split(PART))
        points = torch.cat([self._plain(part) for part in parts]).cpu().numpy()
        settings = {"restarts": params["restarts"], "max_iterations": params["max_iterations"]}
        found = fit_kmeans(points, params["num_clusters"], centroid_seed(rng), **settings).labels_
        groups = torch.from_numpy(found).to(self.target)
        self.target.copy_(renamed(groups, self.target, params["num_clusters"]))

    def loss(self, batch: Batch) -> Step:
        """Cross-entropy of quarter turns, or the distance from the targets."""
        if batch.phase == "turns":
            return self._quarter_turns(batch)
        views = self.augmented(batch.images, batch.rng("augmented"))
        targets = self.target[batch.indices]
        if batch.epoch < self.params["refine_from"]:
            targets = reassigned(self._plain(batch.images), targets)
        loss, parts = target_loss(self._outputs(views), targets)
        return Step(loss, parts, {"targets": targets})

    def _quarter_turns(self, batch: Batch) -> Step:
        views = self.turned.views(batch.images, batch.rng("turned"), TURNS)
        turned, turns = quarter_turns(list(views))
        logits = self.turns(self.backbone(turned)).to(self.turns.weight.dtype)
        loss = F.cross_entropy(logits, turns)
        return Step(loss, {"L_turns": loss.detach()})

    def after_step(self, batch: Batch, carry: dict[str, Tensor]) -> None:
        """Keep the targets that were re-assigned."""
        if batch.phase == "main":
            self.target[batch.indices] = carry["targets"]

    def _outputs(self, views: Tensor) -> Tensor:
        return l2_normalise(self.output(self.backbone(views)).to(self.output.weight.dtype))

    @torch.no_grad()
    def _plain(self, images: Tensor) -> Tensor:
        """Return the outputs of the un-augmented view, in eval mode (code)."""
        with evaluating(self):
            return self._outputs(self.test_view(images))

    def predict(self, images: Tensor) -> Tensor:
        """Return (n, K), largest for the nearest target: the softmax of the outputs."""
        return torch.softmax(self._outputs(self.test_view(images)), dim=1)


METHOD = MMDC
