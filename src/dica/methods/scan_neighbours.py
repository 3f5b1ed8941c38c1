"""SCAN, its second stage: Van Gansbeke, Vandenhende, Georgoulis, Proesmans and Van Gool, SCAN: Learning to Classify
Images without Labels, ECCV 2020.

Stage 1 is another run, the `source`: SimCLR, or on ImageNet the public MoCo-v2 network. Here an image and one of its
nearest neighbours in the source's features learn to be in one cluster, and clusters to be in balance (Eq. 2;
`dica.losses.scan`). The third stage is the method `scan`.

Deviations and readings, each a key of params/scan-neighbours.yaml with the value of the authors' code as default:

- `with_self`: an image is one of its own neighbours, as in the code: 21 candidates.
- `weight` of the entropy in training, `select_weight` where a sub-head is chosen. The code so chooses an epoch and a
  sub-head on the test images, without labels; here a sub-head by its losses in the last epoch of training.
- `freeze_backbone`, `neighbour_layer`, `inputs`: see `dica.methods.crlc_two_stage`, which is this stage with
  another loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dica.data.splits import DataInfo
from dica.losses.scan import scan_loss
from dica.methods.base import Batch, Step
from dica.methods.crlc_two_stage import TwoStageCRLC


class SCANNeighbours(TwoStageCRLC):
    """Agreement of neighbours, on a pretrained backbone."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        if params["with_self"]:
            rows, count = self.neighbours.shape
            self.register_buffer("neighbours", torch.zeros(rows, count + 1, dtype=torch.long))

    def _find_neighbours(self, features: Tensor) -> None:
        super()._find_neighbours(features)
        if self.params["with_self"]:
            own = torch.arange(len(self.neighbours), device=self.neighbours.device)[:, None]
            self.neighbours = torch.cat([own, self.neighbours], dim=1)

    def loss(self, batch: Batch) -> Step:
        """Eq. 2 of the images and one neighbour of each, summed over the sub-heads (code)."""
        logits = self.c_head(self.neighbour_features(batch))
        each, parts = scan_loss(logits[:, 0], logits[:, 1], weight=self.params["weight"])
        heads = parts["consistency"] - self.params["select_weight"] * parts["H"]
        return Step(each.sum(), {name: value.mean() for name, value in parts.items()}, {"heads": heads})


METHOD = SCANNeighbours
