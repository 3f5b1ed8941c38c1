"""DCCM: Wu et al., Deep Comprehensive Correlation Mining for Image Clustering, ICCV 2019.

A small convolutional network (supplement, Table 4) ends in K softmax outputs. Its own confident answers supervise it:
which images belong together (Eq. 2, 3) and which label they have (Eq. 7-9), on originals and on transformed images
(Eq. 12), beside a mutual-information term between a deep and a shallow layer (Eq. 14). Losses: `dica.losses.dccm`.

Training goes by outer batches (`batch_size`, 1,000): one pass without gradient gives the targets; then come
`inner_passes` passes over the same images in shuffled inner batches, each with `augmentations_per_batch` steps on
fresh transformations. This is the authors' code; the paper says "mini-batch" only.

Deviations and readings, each a key of params/dccm.yaml:

- `final_bn`: batch norm before the softmax (code; Table 4 has none).
- `bn_eval`: the code normalises by the batch also at prediction, in shuffled batches of 1,000. `batch` does so with the
  statistics averaged over such batches, so that an assignment does not depend on its neighbours (some data sets are
  stored class by class); `running` takes the moving averages of training.
- `mi_layers`: the paper's S and D (marked convolution, first linear layer, each after batch norm and ReLU) or those the
  code's layer numbers pick (first max-pooling, last linear layer before its batch norm).
- `discriminator_init`: the code leaves torch's default, with which the gradient of L_MI begins many times smaller than
  from Kaiming weights; the paper does not say.
- `keras_affine` turns and shifts the images. The code gives its images to Keras as (n, c, h, w) and leaves Keras'
  default, channels last, so that rows are turned and shifted with channels; Keras only warns. Here channels come first.
- `network: residual` puts a residual network (`backbone`) in the place of Table 4's, for comparisons on one network.
- `label_loss`, `train_views`, `pairs`, `pair_mode`, `terms` (M1 to M4): see `dica.losses.dccm`.
- L_MI takes its features from the transformed images (code; the paper does not say).
- `terms: MI` is the protocol of Table 6: a new network learns from L_MI alone, its pairs chosen by the pseudo-graph of
  a trained one (`source`), which does not change. Probes on its features (method `probe`) give the table's numbers; its
  own clusters mean nothing, since L_MI does not reach the layers behind D.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dica.data.splits import DataInfo, splits_of
from dica.files import UserError
from dica.losses.dccm import Pairs, Targets, dccm_loss, mutual_information_loss, select_pairs, targets
from dica.methods.base import Batch, Method, Step
from dica.methods.outer_batches import OuterBatchMethod
from dica.networks.dccm import Features, Network, ResidualNetwork
from dica.networks.plain import initialise


class Discriminator(nn.Module):
    """T(d, s): d repeated at each position of s, then 1x1 convolutions to `width`, `width` and 1, without biases.

    Its first weights are torch's default, or with `init: kaiming` those of the network's convolutions.
    """

    def __init__(self, deep_size: int, shallow_size: int, width: int, init: str) -> None:
        super().__init__()
        self.deep_size = deep_size
        self.first = nn.Conv2d(deep_size + shallow_size, width, 1, bias=False)
        self.second = nn.Conv2d(width, width, 1, bias=False)
        self.third = nn.Conv2d(width, 1, 1, bias=False)
        if init == "kaiming":
            initialise(self)

    def forward(self, deep: Tensor, shallow: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Score the positive and the negative pairs of n images.

        Returns
        -------
        t_pos : (2n, h, w), the n pairs (i, i) and then the selected positive ones
        t_neg : (n, r, h, w)
        """
        # The first convolution is linear: its two halves are computed once an image, not once a pair.
        weight = self.first.weight
        from_deep = F.conv2d(deep[:, :, None, None], weight[:, : self.deep_size])
        from_shallow = F.conv2d(shallow, weight[:, self.deep_size :])
        n, r = pairs.negative.shape
        anchors = torch.arange(n, device=deep.device)
        deep_rows = torch.cat([anchors, pairs.positive_anchor, anchors.repeat_interleave(r)])
        shallow_rows = torch.cat([anchors, pairs.positive, pairs.negative.flatten()])
        x = F.relu(from_deep[deep_rows] + from_shallow[shallow_rows])
        scores = self.third(F.relu(self.second(x))).squeeze(1)
        return scores[: 2 * n], scores[2 * n :].unflatten(0, (n, r))


class DCCM(OuterBatchMethod):
    """Supervision of a network by its own confident pairs and labels, renewed at every outer batch."""

    layers = ("backbone", "embedding", "conv")  # the first two are the same: the first linear layer, Y(64)
    replayable = True
    pairwise = ("s", "W")

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        _check(params)
        settings = (params["num_clusters"], params["final_bn"], params["mi_layers"])
        self.network = (
            ResidualNetwork(self.build_backbone(), *settings)
            if params["network"] == "residual"
            else Network(params["network"], data.channels, *settings)
        )
        if params["terms"] in ("M4", "MI"):
            self.discriminator = Discriminator(
                *(self.network.deep_size, self.network.shallow_size),
                *(params["discriminator_width"], params["discriminator_init"]),
            )
        self.original, self.augmented = self.pipeline("original"), self.pipeline("augmented")

    def adopt(self, source: Method, images: dict[str, Tensor]) -> None:
        """Take over what a trained network says of the training images: the fixed pseudo-graph of `terms: MI`."""
        if self.params["terms"] != "MI":
            super().adopt(source, images)
        pixels = torch.cat([images[split] for split in splits_of(self.params["train_split"], self.data)])
        with torch.no_grad():
            parts = pixels.split(self.params["batch_size"])
            probs = torch.cat([source.predict(part.to(source.device)) for part in parts])
        self.register_buffer("given_probs", probs, persistent=False)

    def networks(self) -> list[nn.Module]:
        """Return the convolutions, and the discriminator if there is one."""
        return [part for part in self.children() if isinstance(part, Network | Discriminator)]

    def targets(self, batch: Batch) -> Targets:
        """Return pseudo-graph and pseudo-labels (Eq. 2, 7, 8)."""
        if self.params["terms"] == "MI":
            probs = self.given_probs[batch.indices]
        else:
            probs = self.network(self.original(batch.images, batch.rng("targets"))).logits.softmax(dim=1)
        return targets(probs, thres1=self.params["thres1"], thres2=self.params["thres2"])

    def loss(self, batch: Batch) -> Step:
        """Eq. 15 on an inner batch; `batch.extra` has its targets."""
        params, given = self.params, Targets(**batch.extra)
        on_originals, mutual = params["train_views"] == "both", {}
        transformed: Any = None  # what the network gives, of other terms than M1
        # How much supervises: the share of linked pairs and of confident images.
        shares = {"linked": given.W.float().mean(), "confident": given.V.float().mean()}
        if params["terms"] != "M1":
            transformed = self.network(self.augmented(batch.images, batch.rng("augmented")))
        if params["terms"] in ("M4", "MI"):
            mutual = self._scores(transformed, given, batch.rng("pairs"))
        if params["terms"] == "MI":
            return Step(mutual_information_loss(**mutual), {"linked": shares["linked"]})
        logits = self.network(self.original(batch.images, batch.rng("original"))).logits if on_originals else None
        loss, parts = dccm_loss(
            logits if on_originals else transformed.logits,
            None if transformed is None else transformed.logits,
            thres1=params["thres1"],
            thres2=params["thres2"],
            alpha=params["alpha"],
            beta=params["beta"],
            label_loss=params["label_loss"],
            train_views=params["train_views"],
            variant=params["terms"],
            given=given,
            **mutual,
        )
        if not on_originals:
            parts = {name: part for name, part in parts.items() if name not in ("L_PG", "L_PL")}
        return Step(loss, {**parts, **shares})

    def _scores(self, features: Features, given: Targets, generator: torch.Generator) -> dict[str, Tensor]:
        """Choose the pairs of L_MI and score them."""
        pairs = select_pairs(
            given.s,
            given.W,
            variant=self.params["pairs"],
            pair_mode=self.params["pair_mode"],
            num_negatives=self.params["num_negatives"],
            generator=generator,
        )
        t_pos, t_neg = self.discriminator(features.deep, features.shallow, pairs)
        keep_pos = torch.cat([torch.ones_like(pairs.positive_keep), pairs.positive_keep])
        return {"t_pos": t_pos, "t_neg": t_neg, "keep_pos": keep_pos, "keep_neg": pairs.negative_keep}

    def predict(self, images: Tensor) -> Tensor:
        """Return the softmax outputs for the test view, (n, K)."""
        return torch.softmax(self.network(self.test_view(images)).logits, dim=1)

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the first linear layer, (n, 64 or 256), or the flattened last convolution (`conv`); Section 4."""
        self.check_layer(layer)
        return self.network.represent(self.test_view(images), layer)


def _check(params: dict) -> None:
    """Refuse combinations that the schema cannot."""
    if params["terms"] == "M1" and params["train_views"] == "transformed":
        raise UserError("dccm: terms M1 trains on originals only; set train_views to both")
    if (params["terms"] == "MI") != bool(params.get("source")):
        raise UserError("dccm: terms MI takes its pseudo-graph from a source, and no other terms take one")
    if (params["network"] == "residual") != ("backbone" in params):
        raise UserError("dccm: network residual is the one that backbone describes, and no other network takes one")
    if params["pair_mode"] == "code" and params["pairs"] != "V1":
        raise UserError(f"dccm: pair_mode code exists for pairs V1 only, not {params['pairs']}")


METHOD = DCCM
