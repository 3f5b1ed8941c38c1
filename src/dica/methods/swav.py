"""SwAV, and K-means on its features: Caron, Misra, Mairal, Goyal, Bojanowski and Joulin, Unsupervised Learning of
Visual Features by Contrasting Cluster Assignments, NeurIPS 2020.

Crops of an image predict each other's assignment to prototypes (Eq. 1, 2), the assignments being balanced over the
batch and a queue of earlier images by Sinkhorn's algorithm (Eq. 3-5): `dica.losses.imc_swav.swap_loss`, of which
IMC-SwAV is a descendant. Clusters are K-means on the backbone, as TCC's Table 5 clusters it.

Deviations and readings, each a key of params/swav.yaml:

- `queue`, `queue_start`: earlier images that are balanced with the batch, and from which epoch on. The code begins to
  fill it in that epoch and uses it once it is full; here it is filled from the first step.
- `prototype_freeze_steps`: in steps; the code counts epochs.
- `joint_views`: one forward pass a crop size (true, as the code).
"""

from __future__ import annotations

import torch
from torch import Tensor

from dica.data.splits import DataInfo, splits_of
from dica.files import UserError
from dica.losses.common import l2_normalise
from dica.losses.imc_swav import cosines, swap_loss
from dica.losses.tcc import enqueue
from dica.methods.base import Batch, Step
from dica.methods.feature_clusters import FeatureClusters
from dica.methods.multi_crop import MultiCrop
from dica.networks.heads import Prototypes


class SwAV(MultiCrop, FeatureClusters):
    """Swapped prediction over multi-crop views."""

    queue: Tensor  # a row holds the projections of all high-resolution crops of an image, end to end
    pointer: Tensor

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        features, size = self.make_network(batch_norm=True), params["projection_size"]
        self.prototypes = Prototypes(size, params["num_prototypes"])
        seen = params["queue_start"] * sum(data.counts[name] for name in splits_of(params["train_split"], data))
        if params["queue"] > seen:
            raise UserError(
                f"swav: queue: {params['queue']} images are not there after {params['queue_start']} epochs of "
                f"{seen} images; shorten it or raise queue_start"
            )
        self.register_buffer("queue", torch.zeros(params["queue"], params["high_crops"] * size))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.make_clusters(features)

    def loss(self, batch: Batch) -> Step:
        """Eq. 1, averaged over the high-resolution crops and all others."""
        params, crops = self.params, self.params["high_crops"]
        prototypes = self.prototypes.unit_rows()
        z = self.project(self.embed(batch.images, batch.rng))
        queued = None
        if params["queue"] and batch.epoch >= params["queue_start"]:
            queued = cosines(self.queue.unflatten(1, (crops, -1)).transpose(0, 1), prototypes.detach())
        options = {name: params[name] for name in ("temperature", "epsilon")}
        loss = swap_loss(
            cosines(z, prototypes), **options, iterations=params["sinkhorn_iters"], assign_views=crops, queued=queued
        )
        rows = l2_normalise(z[:crops].detach().to(self.queue.dtype)).transpose(0, 1).flatten(1)
        return Step(loss, {"L_swap": loss.detach()}, {"rows": rows})

    def after_step(self, batch: Batch, carry: dict[str, Tensor]) -> None:
        """Put the projections of the high-resolution crops into the queue."""
        if self.params["queue"]:
            self.queue, self.pointer = enqueue(self.queue, carry["rows"], self.pointer)


METHOD = SwAV
