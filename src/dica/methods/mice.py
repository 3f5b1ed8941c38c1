"""MiCE: Tsai, Li and Zhu, Mixture of Contrastive Experts for Unsupervised Image Clustering, ICLR 2021.

A gate shares images out among K experts, each of which has to find an image's own embedding by a momentum teacher among
those of a queue. Loss: the likelihood of the mixture (`dica.losses.mice`). Prediction: the expert with the largest
posterior, from the un-augmented image.

Deviations and readings, each a key of params/mice.yaml with the value of the authors' code as default:

- Three views an image: for the experts, the teacher and the gate (code).
- The expert prototypes are parameters, and after each epoch are replaced by the sum of the teacher's embeddings of the
  images whose posterior is largest (code; the paper's update). `replace_prototypes: false` only trains them.
- The teacher follows by its parameters alone; its batch norms see whole batches, which the code shuffles among GPUs.
- The queue starts with random unit vectors; the code's are uniform and not of unit length.
- The rate of learning grows with every step of the warm-up, in the code with every epoch, from 0.
- Prediction changes nothing: the code puts what it scores into the queue as it goes.
- The gate's centres are fixed and as far apart as can be (a simplex), as in the paper.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dica.data.splits import DataInfo
from dica.losses.common import l2_normalise
from dica.losses.mice import expert_scores, gate, mice_loss
from dica.losses.tcc import enqueue, momentum_update
from dica.methods.base import Batch, Method, Step
from dica.methods.tcc import simplex
from dica.networks.backbones import build_backbone, init_weights
from dica.rng import Rng


class Network(nn.Module):
    """A backbone with the linear heads of K experts; the gate's head is not in it."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__()
        network = params["backbone"]
        self.clusters, self.size = params["num_clusters"], params["projection_size"]
        self.backbone = build_backbone(**network, in_channels=data.channels, image_size=data.image_size)
        self.experts = nn.Linear(self.backbone.out_features, self.clusters * self.size)
        init_weights(self.experts, network["init"])

    def forward(self, views: Tensor) -> Tensor:
        """Map views (n, C, H, W) to each expert's unit embedding, (n, K, d)."""
        embedding = self.experts(self.backbone(views)).unflatten(1, (self.clusters, self.size))
        return l2_normalise(embedding.to(self.experts.weight.dtype))


class MiCE(Method):
    """Mixture of contrastive experts."""

    queue: Tensor
    pointer: Tensor

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        clusters, size = params["num_clusters"], params["projection_size"]
        self.own = Network(params, data)
        self.teacher = copy.deepcopy(self.own).requires_grad_(False)
        self.gate_head = nn.Linear(self.own.backbone.out_features, size)
        init_weights(self.gate_head, params["backbone"]["init"])
        self.prototypes = nn.Parameter(F.normalize(torch.randn(clusters, size), dim=1))
        self.register_buffer("centres", simplex(clusters, size))
        self.register_buffer("queue", F.normalize(torch.randn(params["queue"], clusters, size), dim=2).flatten(1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        # The teacher's embeddings of this epoch, summed by the expert with the largest posterior
        self.register_buffer("sums", torch.zeros(clusters, size))
        self.register_buffer("sums_epoch", torch.zeros((), dtype=torch.long))
        self.augmented = self.pipeline("augmented")

    @property
    def backbone(self) -> nn.Module:
        """The trained network before the heads."""
        return self.own.backbone

    def loss(self, batch: Batch) -> Step:
        """Minus the log-likelihood of the mixture."""
        self._replace_prototypes(self.sums_epoch != batch.epoch)
        views = {name: self.augmented(batch.images, batch.rng(name)) for name in ("experts", "teacher", "gate")}
        with torch.no_grad():
            v = self.teacher(views["teacher"])
        log_gate, log_expert = self._mixture(self.own(views["experts"]), v, views["gate"])
        loss, parts = mice_loss(log_gate, log_expert)
        expert = (log_gate + log_expert).detach().argmax(dim=1)
        return Step(loss, parts, {"v": v, "expert": expert})

    def _mixture(self, f: Tensor, v: Tensor, gate_views: Tensor) -> tuple[Tensor, Tensor]:
        """Return log pi and log Phi, both (n, K)."""
        g = l2_normalise(self.gate_head(self.backbone(gate_views)).to(self.centres.dtype))
        queue = self.queue.unflatten(1, self.prototypes.shape).transpose(0, 1)
        params, prototypes = self.params, l2_normalise(self.prototypes)
        return (
            gate(g, self.centres, temperature=params["gate_temperature"]),
            expert_scores(f, v, prototypes, queue, temperature=params["temperature"]),
        )

    @torch.no_grad()
    def _replace_prototypes(self, due: Tensor) -> None:
        """Take the directions of the epoch's sums if it is over (`due`); an expert without images keeps its own."""
        if not self.params["replace_prototypes"]:
            return
        found = self.sums.norm(dim=1, keepdim=True) > 0
        self.prototypes.copy_(torch.where(due & found, l2_normalise(self.sums), self.prototypes))

    @torch.no_grad()
    def after_step(self, batch: Batch, carry: dict[str, Tensor]) -> None:
        """Add to the sums, put the teacher's embeddings into the queue, and let it follow."""
        v, expert = carry["v"], carry["expert"]
        self.sums.mul_(self.sums_epoch == batch.epoch)
        self.sums_epoch.fill_(batch.epoch)
        self.sums.index_add_(0, expert, v[torch.arange(len(v), device=v.device), expert])
        self.queue, self.pointer = enqueue(self.queue, v.flatten(1), self.pointer)
        own, teacher = list(self.own.parameters()), list(self.teacher.parameters())
        momentum_update(teacher, own, momentum=self.params["momentum"])

    @torch.no_grad()
    def before_predict(self, images: dict[str, Tensor], rng: Rng) -> None:
        """Replace the prototypes for the last time: predictions are made between epochs."""
        self._replace_prototypes(torch.ones((), dtype=torch.bool, device=self.sums.device))

    def predict(self, images: Tensor) -> Tensor:
        """Return the posterior of the experts for the test view, (n, K)."""
        view = self.test_view(images)
        log_gate, log_expert = self._mixture(self.own(view), self.teacher(view), view)
        return torch.softmax(log_gate + log_expert, dim=1)


METHOD = MiCE
