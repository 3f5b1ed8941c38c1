"""Two-stage CRLC: Do, Tran and Venkatesh, ICCV 2021, Section 5.1.2 and appendix A.7 (Tables 2 and 7).

Stage 1 is another run, the `source`: SimCLR on the small sets, the public MoCo-v2 network on ImageNet-50/100/200.
Stage 2 takes its backbone, finds the nearest neighbours of every training image by the cosine of its features, once,
and trains the C-head by L_cluster (Eq. 8); the positive of an image is one of its neighbours, drawn anew in every step.
Settings are SCAN's (Van Gansbeke et al., ECCV 2020), as the paper says.

Deviations and readings, each a key of params/crlc-two-stage.yaml with the paper's value as default:

- `neighbours`: 50. The image itself is not among them; in SCAN's code it is.
- `neighbour_layer`: features of the RL-head (`projection`) or of the `backbone`; the paper does not say, SCAN takes the
  output of the contrastive network for SimCLR, and what stands before its head for MoCo.
- `freeze_backbone`: true for ImageNet: only the C-head is trained and the backbone's statistics stay.
- `inputs`: features that another program has computed stand for those of a source, `backbone` and `source` are null:
  neighbours are found in them, and the C-head alone is trained on them, without views.
- `head_hidden`: the two-layer C-head of the paper; null for SCAN's linear heads.
- Weight decay is on every parameter, as in SCAN; `lambda1`, `critic`, `gamma`, `reg_*` and the choice of a sub-head are
  as in `dica.methods.crlc`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dica.data.splits import DataInfo
from dica.files import UserError
from dica.losses.common import l2_normalise, leading
from dica.losses.crlc import cluster_loss
from dica.methods.base import Batch, Method, Step
from dica.methods.crlc import CRLC, step_of
from dica.methods.inputs import Inputs
from dica.networks.backbones import load_state
from dica.rng import Rng

PART = 1000  # images at a time: through the network, and against all others


class TwoStageCRLC(CRLC):
    """Contrast of the cluster probabilities of neighbours, on a pretrained backbone."""

    replayable = False  # neighbours are drawn beside the batch
    neighbours: Tensor

    def __init__(self, params: dict, data: DataInfo) -> None:
        self.given = "inputs" in params
        if any((params[key] is None) != self.given for key in ("source", "backbone")):
            raise UserError("inputs: features that are given take the place of source and backbone: set both to null")
        super().__init__(params, data)
        rows, count = sum(data.counts[name] for name in self._splits()), params["neighbours"]
        if count >= rows:
            raise UserError(f"crlc-two-stage: neighbours: {count}, but an image has only {rows - 1} others")
        self.register_buffer("neighbours", torch.zeros(rows, count, dtype=torch.long))
        if params["freeze_backbone"]:
            self.backbone.requires_grad_(False)

    def build_backbone(self) -> nn.Module:
        """Return the network, or what rescales given features; there is nothing to train in that."""
        if not self.given:
            return super().build_backbone()
        return Inputs(self.data.channels, self.data.image_size, **self.params["inputs"])

    def pipeline(self, name: str) -> Any:
        """Return the views called `name`; rows of given features have none."""
        return _as_they_are if self.given else super().pipeline(name)

    @torch.no_grad()
    def before_epoch(self, epoch: int, images: dict[str, Tensor], rng: Rng) -> None:
        """Find the neighbours in features that are given, once; those of a source are found in `adopt`."""
        if self.given and epoch == 0:
            rows = torch.cat([images[name].to(self.neighbours.device) for name in self._splits()])
            self._find_neighbours(self.backbone.fit(rows, 0))  # a rescaling draws nothing

    @torch.no_grad()
    def adopt(self, source: Method, images: dict[str, Tensor]) -> None:
        """Take the source's backbone, and find each training image's neighbours in the source's features."""
        refusal = "crlc-two-stage: backbone is not the one of the source run"
        load_state(self.backbone, source.backbone.state_dict(), refusal)
        layer = self.params["neighbour_layer"]
        parts = (part for name in self._splits() for part in images[name].split(PART))
        self._find_neighbours(torch.cat([source.features(part.to(self.neighbours.device), layer) for part in parts]))

    def _find_neighbours(self, features: Tensor) -> None:
        self.neighbours = nearest_neighbours(features, self.params["neighbours"])

    def train(self, mode: bool = True) -> TwoStageCRLC:
        """Switch to training, but for a frozen backbone, whose batch norms keep their statistics."""
        super().train(mode)
        if self.params["freeze_backbone"]:
            self.backbone.eval()
        return self

    def parameter_groups(self) -> list[dict]:
        """Return everything that is trained as one group."""
        return Method.parameter_groups(self)

    def loss(self, batch: Batch) -> Step:
        """Eq. 8, of the images and one neighbour of each."""
        logits = self.c_head(self.neighbour_features(batch))
        loss, parts = cluster_loss(logits[:, 0], logits[:, 1], **self._settings(), **self._regulariser())
        return step_of(loss, parts)

    def neighbour_features(self, batch: Batch) -> Tensor:
        """Return the features of the images and of one neighbour of each, (2, n, d)."""
        partners = batch.take(self._draw_neighbours(batch))
        anchors = self.augmented(batch.images, batch.rng("anchor"))
        return self._forward(torch.stack([anchors, self.augmented(partners, batch.rng("partner"))]))

    def _draw_neighbours(self, batch: Batch) -> Tensor:
        """Return the position of one neighbour of each image of the batch, (n,)."""
        rows, draw = self.neighbours[batch.indices], batch.rng("neighbour")
        drawn = torch.randint(rows.shape[1], (len(rows), 1), generator=draw, device=draw.device)
        return rows.gather(1, drawn.to(rows.device))[:, 0]


def _as_they_are(rows: Tensor, rng: torch.Generator) -> Tensor:
    return rows


def nearest_neighbours(features: Tensor, count: int) -> Tensor:
    """Return the positions of the `count` nearest others of each row of features (n, d) by cosine, (n, count)."""
    unit, found = l2_normalise(features), []
    for start in range(0, len(unit), PART):
        similarity = unit[start : start + PART] @ unit.T
        similarity.diagonal(start).fill_(-torch.inf)  # the rows themselves
        found.append(leading(similarity, count))
    return torch.cat(found)


METHOD = TwoStageCRLC
