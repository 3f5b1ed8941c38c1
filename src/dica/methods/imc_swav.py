"""IMC-SwAV: Ntelemis, Jin and Thomas, Information Maximization Clustering via Multi-View Self-Labelling,
Knowledge-Based Systems (2022), arXiv:2103.07368.

SwAV's swapped prediction over many crops (Eq. 1-4) trains encoder, projection and prototypes; a classifier on the
detached embedding maximises the mutual information of clusters and prototypes (Eq. 6). Losses: `dica.losses.imc_swav`.

Deviations and readings, each a key of params/imc-swav.yaml; the authors' code is followed where the paper is silent:

- The projection is linear throughout: the code has no activation between its two layers.
- The embedding that the classifier reads is detached (code; the paper does not say).
- `reg_weight`: logit regulariser, in the code only; 0 removes it.
- `prototype_freeze_steps`: prototypes get no gradient in the first steps (code: 500, with a warm-up of the rate).
- `bn_refresh`: before prediction the code re-estimates batch-norm statistics on full-size test images without labels
  (`test`); `train` does so on training images, `off` not at all. A data set without a test split is renewed on
  what it is scored on, its training images.
- `joint_views`: one forward pass a crop (false, as the code), or one a crop size with joint batch-norm statistics.
- `classifier_split`: on STL-10 the classifier learns from the 5,000 training images alone, collected in a buffer
  until a full batch is there (`labelled`, code); elsewhere from every image (`all`). In the steps between, L_cluster
  and L_reg are 0, so their means in the history are over all steps.
- A short last batch takes no part in that renewal (the code lets it count as much as a full one).
- K-means on the embedding (Table 3) is the method `kmeans` with this one as its source, the linear probe (Tables 2, 4)
  the method `probe`.
- Fig. 3(c), fewer training images a class, is this method on data sets of their own (``cifar10-n1000`` and so on).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dica.data.splits import DataInfo
from dica.losses.imc_swav import imc_swav_loss
from dica.methods.base import Batch, Step, pick
from dica.methods.multi_crop import MultiCrop
from dica.networks.heads import ClusterHead, Prototypes
from dica.rng import Rng


class IMCSwAV(MultiCrop):
    """Swapped prediction over multi-crop views, and an information-maximising classifier beside it."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        features = self.make_network(activation=False)
        self.prototypes = Prototypes(params["projection_size"], params["num_prototypes"])
        hidden = (params["classifier_hidden"],) * 2
        self.classifier = ClusterHead(features, params["num_clusters"], hidden, batch_norm=True)
        self.replayable = params["classifier_split"] == "all"  # the other decides by what its buffer holds
        if not self.replayable:
            self._make_buffer(features)

    def loss(self, batch: Batch) -> Step:
        """Eq. 1 on all crops, and Eq. 6 with its regulariser on the detached embeddings."""
        params = self.params
        embeddings = self.embed(batch.images, batch.rng)
        scores = self.prototype_scores(embeddings)
        read, read_scores = self._classifier_inputs(batch, embeddings.detach(), scores.detach())
        loss, parts = imc_swav_loss(
            scores,
            None if read is None else self._logits(read),
            classifier_scores=read_scores,
            temperature=params["temperature"],
            epsilon=params["epsilon"],
            sinkhorn_iters=params["sinkhorn_iters"],
            assign_views=params["high_crops"],
            beta=params["beta"],
            reg_weight=params["reg_weight"],
            reg_bound=params["reg_bound"],
        )
        return Step(loss, parts)

    def _classifier_inputs(
        self, batch: Batch, embeddings: Tensor, scores: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return embeddings and cosines of the images that the classifier learns from in this step, if it does."""
        if self.params["classifier_split"] == "labelled":
            return self._fill_buffer(batch, embeddings, scores) or (None, None)
        return embeddings, scores

    def _logits(self, embeddings: Tensor) -> Tensor:
        """Classify (v, n, features), each view with batch-norm statistics of its own as the code does."""
        if self.params["joint_views"]:
            return self.classifier(embeddings.flatten(0, 1)).unflatten(0, embeddings.shape[:2])
        return torch.stack([self.classifier(view) for view in embeddings])

    def _make_buffer(self, features: int) -> None:
        size = 2 * self.params["batch_size"]  # it is emptied at one batch, and a batch adds at most one more
        self.register_buffer("buffered_embeddings", torch.zeros(self.num_views, size, features))
        self.register_buffer("buffered_scores", torch.zeros(self.num_views, size, self.params["num_prototypes"]))
        self.register_buffer("buffered", torch.zeros((), dtype=torch.long))
        self.register_buffer("buffered_epoch", torch.zeros((), dtype=torch.long))
        self.register_buffer("classifier_started", torch.zeros((), dtype=torch.bool))
        # The same for the host, which decides by them; None is not known, after a state was loaded.
        self._known: tuple[int, int, bool] | None = None
        self.register_load_state_dict_post_hook(lambda method, keys: method._forget())

    def _forget(self) -> None:
        self._known = None

    def _buffer_state(self) -> tuple[int, int, bool]:
        """Return epoch and number of the buffered images, and whether the classifier has begun; asks once a state."""
        if self._known is None:
            self._known = (int(self.buffered_epoch), int(self.buffered), bool(self.classifier_started))
        return self._known

    def _fill_buffer(self, batch: Batch, embeddings: Tensor, scores: Tensor) -> tuple[Tensor, Tensor] | None:
        """Add this batch's labelled images; return the buffer's content once it holds a full batch, else None."""
        epoch, start, started = self._buffer_state()
        start = start if epoch == batch.epoch else 0
        on_host = batch.indices.cpu().numpy() if batch.on_host is None else batch.on_host
        labelled = torch.from_numpy(np.flatnonzero(on_host < self.data.counts["train"]))
        labelled = labelled.to(embeddings.device, non_blocking=True)
        stop = start + len(labelled)
        self.buffered_embeddings[:, start:stop] = embeddings[:, labelled]
        self.buffered_scores[:, start:stop] = scores[:, labelled]
        full = stop >= self.params["batch_size"]
        self._known = (batch.epoch, 0 if full else stop, started)
        self.buffered_epoch.fill_(batch.epoch)
        self.buffered.fill_(0 if full else stop)
        if not full:
            return None
        return self.buffered_embeddings[:, :stop].clone(), self.buffered_scores[:, :stop].clone()

    def after_backward(self, batch: Batch) -> None:
        """Keep the prototypes where they are during the first steps; let a waiting classifier drift as in the code."""
        super().after_backward(batch)
        if self.params["classifier_split"] == "labelled":
            self._fill_idle_gradients()

    def _fill_idle_gradients(self) -> None:
        """Give the classifier gradients of zero between full buffers: the code's Adam goes on moving it (momentum)."""
        tensors = list(self.classifier.parameters())
        epoch, count, started = self._buffer_state()
        if tensors[0].grad is not None:
            self.classifier_started.fill_(True)
            self._known = (epoch, count, True)
        elif started:
            for tensor in tensors:
                tensor.grad = torch.zeros_like(tensor)

    @torch.no_grad()
    def before_predict(self, images: dict[str, Tensor], rng: Rng) -> None:
        """Re-estimate the batch-norm statistics on full-size images (`bn_refresh`); they were those of crops."""
        split = self.params["bn_refresh"]
        if split == "off":
            return
        pixels = images[split] if split in images else images["train"]
        self.train()  # the caller goes back to eval
        draw = rng("bn_refresh")
        order = torch.randperm(len(pixels), generator=draw, device=draw.device)
        size = min(self.params["batch_size"], len(pixels))
        # A short last batch is left out: its poor statistics would weigh as much as those of a full one.
        for start in range(0, len(pixels) - size + 1, size)[: self.params["bn_refresh_batches"]]:
            self.classifier(self.backbone(self.test_view(pick(pixels, order[start : start + size]))))

    def predict(self, images: Tensor) -> Tensor:
        """Return the classifier's softmax on full-size images, (n, K)."""
        return torch.softmax(self.classifier(self.backbone(self.test_view(images))), dim=1)


METHOD = IMCSwAV
