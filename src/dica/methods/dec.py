"""DEC: Xie, Girshick and Farhadi, Unsupervised Deep Embedding for Clustering Analysis, ICML 2016 (Eq. 1-3).

The encoder is that of a trained auto-encoder, the `source`; the centres begin at those of K-means on its codes. At the
start of every `refresh`-th epoch the target is made anew from all images, and training stops when fewer than
`tolerance` of them have changed their cluster since the last one.

Deviations, each a key of params/dec.yaml:

- `refresh`: in epochs. The published code counts steps of 256 images: 160 (MNIST, .6 epochs), 40 (STL-10, .8 epochs).
- `source`: an auto-encoder trained at once, by Adam, from He's initial weights; the paper trains layer by layer with
  dropout, from weights of deviation .01.
- Input are pixels; the paper's STL-10 is histograms of gradients and colours.
- `encoder`: the paper's `dense` layers, or convolutions, whose batch norms keep the statistics of the source.
- The loss is the mean over images (`dica.losses.dec`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dica.data.splits import DataInfo, splits_of
from dica.files import UserError
from dica.losses.dec import dec_loss, student_t, target
from dica.methods.base import Batch, Method, Step
from dica.methods.kmeans import KMeans
from dica.networks.backbones import load_state
from dica.networks.mirrored import Encoder
from dica.rng import Rng

PART = 1000  # images at a time


class DEC(Method):
    """Soft clusters of the codes of an auto-encoder, sharpened by a target made of all of them."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        if not params.get("source"):
            raise UserError("dec: source: name the auto-encoder and its variant to begin with")
        self.splits = splits_of(params["train_split"], data)
        count, clusters, code = (
            sum(data.counts[name] for name in self.splits),
            params["num_clusters"],
            params["code_size"],
        )
        size, dense = params.get("size", data.image_size), params["encoder"] == "dense"
        self.encoder = Encoder(data.channels, size, params["widths"], code, dense)
        self.centres = nn.Parameter(torch.zeros(clusters, code))
        self.register_buffer("target", torch.zeros(count, clusters))
        self.register_buffer("assignment", torch.zeros(count, dtype=torch.long))
        self.register_buffer("changed", torch.ones(()))  # share of the images, at the last refreshing
        self.register_buffer("stopped", torch.zeros((), dtype=torch.bool))

    def adopt(self, source: Method, images: dict[str, Tensor]) -> None:
        """Take the encoder, and the centres of K-means on its codes, drawn by the run's seed."""
        load_state(self.encoder, source.encoder.state_dict(), "dec: encoder is not the one of the source run")
        self.encoder.eval()  # from the first step on: a new module trains, batch norms included
        keys = ("num_clusters", "train_split", "restarts", "max_iterations")
        clusters = KMeans({key: self.params[key] for key in keys}, self.data).to(self.centres)
        clusters.adopt(source, images)
        clusters.fit(images, int(torch.randint(2**31, ())))
        self.centres.data.copy_(clusters.centroids)

    def train(self, mode: bool = True) -> DEC:
        """Switch to training, but for batch norms, which keep the statistics of the source."""
        super().train(mode)
        self.encoder.eval()
        return self

    @torch.no_grad()
    def before_epoch(self, epoch: int, images: dict[str, Tensor], rng: Rng) -> None:
        """Renew the target, and stop if next to nothing has changed."""
        if self.stopped or epoch % self.params["refresh"]:
            return
        parts = (part.to(self.centres.device) for name in self.splits for part in images[name].split(PART))
        q = torch.cat([self.predict(part) for part in parts])
        now = q.argmax(dim=1)
        if epoch:
            self.changed.copy_((now != self.assignment).to(q.dtype).mean())
            self.stopped.copy_(self.changed < self.params["tolerance"])
        self.assignment.copy_(now)
        self.target.copy_(target(q))

    def finished(self) -> bool:
        """Return whether too few images change their cluster to go on."""
        return bool(self.stopped)

    def networks(self) -> list[nn.Module]:
        """Return the parts with nearly all of the arithmetic."""
        return [self.encoder]

    def loss(self, batch: Batch) -> Step:
        """Eq. 2 with the target of the last refreshing."""
        q = student_t(self.encoder(self.test_view(batch.images)), self.centres)
        loss, parts = dec_loss(q, self.target[batch.indices])
        return Step(loss, {**parts, "changed": self.changed})

    def predict(self, images: Tensor) -> Tensor:
        """Return q (n, K)."""
        return student_t(self.features(images), self.centres)

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the codes of the un-augmented view, (n, code_size)."""
        self.check_layer(layer)
        return self.encoder(self.test_view(images))


METHOD = DEC
