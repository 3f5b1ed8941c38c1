"""SCAN, with its third stage: Van Gansbeke, Vandenhende, Georgoulis, Proesmans and Van Gool, SCAN: Learning to Classify
Images without Labels, ECCV 2020.

The `source` is a run of the second stage (`scan-neighbours`), which itself builds on SimCLR. Its network and its chosen
sub-head go on to learn from their own confident labels of un-augmented images, which they have to repeat on strong
views (`dica.losses.scan.self_label_loss`).

Deviations and readings, each a key of params/scan.yaml with the value of the authors' code as default:

- `balanced`: each class counts alike in a batch (code).
- The labels are made in training mode, without gradient (code): their views also move the batch norms.
- `ema`: on ImageNet the code predicts by a moving average of the weights; null for none.
- A batch without a confident image changes nothing (in the code it is an error).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from dica.data.splits import DataInfo
from dica.losses.scan import self_label_loss
from dica.losses.tcc import momentum_update
from dica.methods.base import Batch, Method, Step
from dica.networks.backbones import init_weights, load_state
from dica.networks.heads import ClusterHead


class SCAN(Method):
    """Self-labelling of a network that was clustered by neighbours."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        network, hidden = params["backbone"], (params["head_hidden"],) if params["head_hidden"] else ()
        backbone = self.build_backbone()
        head = ClusterHead(backbone.out_features, params["num_clusters"], hidden)
        init_weights(head, network["init"])
        self.own = nn.Sequential(backbone, head)
        self.average = copy.deepcopy(self.own).requires_grad_(False) if params["ema"] else None
        self.augmented = self.pipeline("augmented")

    @torch.no_grad()
    def adopt(self, source: Method, images: dict[str, Tensor]) -> None:
        """Take the source's backbone and its chosen sub-head."""
        refusal = "scan: backbone and head are not those of the source run"
        best = source.c_head.heads[int(source.head_losses.argmin())]
        for network in filter(None, (self.own, self.average)):
            load_state(network[0], source.backbone.state_dict(), refusal)
            load_state(network[1], best.state_dict(), refusal)

    @property
    def scored(self) -> nn.Module:
        """The network that predicts."""
        return self.own if self.average is None else self.average

    def loss(self, batch: Batch) -> Step:
        """Cross-entropy of strong views with confident labels."""
        with torch.no_grad():
            weak = self.own(self.test_view(batch.images))
        strong = self.own(self.augmented(batch.images, batch.rng("augmented")))
        options = {name: self.params[name] for name in ("threshold", "balanced")}
        loss, parts = self_label_loss(weak, strong, **options)
        return Step(loss, parts)

    @torch.no_grad()
    def after_step(self, batch: Batch, carry: dict[str, Tensor]) -> None:
        """Let the moving average follow, batch norms included."""
        if self.average is None:
            return
        momentum_update(list(self.average.parameters()), list(self.own.parameters()), momentum=self.params["ema"])
        for mine, theirs in zip(self.average.buffers(), self.own.buffers(), strict=True):
            mine.copy_(theirs)

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the backbone's features (n, d)."""
        self.check_layer(layer)
        return self.scored[0](self.test_view(images))

    def predict(self, images: Tensor) -> Tensor:
        """Return the softmax for the test view, (n, K)."""
        return torch.softmax(self.scored(self.test_view(images)), dim=1)


METHOD = SCAN
