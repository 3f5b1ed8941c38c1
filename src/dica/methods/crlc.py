"""CRLC: Do, Tran and Venkatesh, Clustering by Maximizing Mutual Information Across Views, ICCV 2021.

One network, two heads: features z for a contrast of images (RL-head) and, from ten sub-heads, cluster probabilities
for a contrast of assignments (C-head). Loss: Eq. 11 (`dica.losses.crlc`), end to end.

Deviations and readings, each a key of params/crlc.yaml with the paper's value as default:

- `lambda1`, `critic`, `gamma`, `reg_weight`, `reg_bound`: see `dica.losses.crlc`.
- `framework`: two views contrasted within the batch (`simclr`), or one view against stored rows (`memory_bank`).
- `joint_views`: one forward pass a view (false, as the code), or one for both with joint batch-norm statistics.
- `use_rl_head`: false is the paper's "C-head only".
- `stl_unlabelled`: "to train the RL-head" the paper adds STL-10's unlabelled images. Here each step then has two
  batches: one of labelled images for every term and one of all images for L_FC, which is the mean of both. An epoch
  is a pass over the labelled images. The code leaves the unlabelled ones out.
- The two-stage version (Tables 2, 7) is the method `crlc-two-stage`, CRLC-semi (Tables 3, 8) `crlc-semi`.
- Prediction: the paper does not say by which sub-head, the code picks with the labels. Here it is the one with the
  lowest training loss in the last epoch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dica.data.splits import DataInfo, splits_of
from dica.files import UserError
from dica.losses.crlc import bank_loss, bank_update, crlc_loss, draw_negatives
from dica.methods.base import Batch, Method, Phase, Step, decayed_apart
from dica.networks.backbones import init_weights
from dica.networks.heads import ClusterSubHeads, ProjectionHead


class CRLC(Method):
    """Contrast of features and of cluster probabilities, with balanced clusters."""

    layers = ("backbone", "projection")
    replayable = True

    prob_bank: Tensor
    feature_bank: Tensor

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        network = params["backbone"] or {"init": "kaiming"}  # null where features are given, see `crlc_two_stage`
        self.backbone = self.build_backbone()
        features, hidden = self.backbone.out_features, (params["head_hidden"],) if params["head_hidden"] else ()
        self.c_head = ClusterSubHeads(features, params["num_clusters"], params["sub_heads"], hidden)
        with_rl_head = params.get("use_rl_head", False)
        self.rl_head = ProjectionHead(features, hidden, params["projection_size"]) if with_rl_head else None
        for head in filter(None, (self.c_head, self.rl_head)):
            init_weights(head, network["init"])
        self.augmented = self.pipeline("augmented")
        self.register_buffer("head_losses", torch.zeros(params["sub_heads"]))
        self.register_buffer("head_losses_epoch", torch.zeros((), dtype=torch.long))
        if self._has_bank:
            self._make_bank()

    @property
    def _has_bank(self) -> bool:
        return self.params.get("framework") == "memory_bank"

    def _make_bank(self) -> None:
        params, rows = self.params, sum(self.data.counts[name] for name in self._splits())
        if self._feature_splits():
            raise UserError("crlc: stl_unlabelled: true needs framework: simclr; the memory bank has no rows for them")
        uniform = torch.full((params["sub_heads"], rows, params["num_clusters"]), 1 / params["num_clusters"])
        self.register_buffer("prob_bank", uniform)
        if self.rl_head is not None:
            self.register_buffer("feature_bank", F.normalize(torch.randn(rows, params["projection_size"]), dim=1))

    def _splits(self) -> tuple[str, ...]:
        return splits_of(self.params["train_split"], self.data)

    def _feature_splits(self) -> tuple[str, ...]:
        """Return the splits of the second batch, which is for L_FC alone; none without unlabelled images."""
        wanted = self.params.get("stl_unlabelled") and self.rl_head is not None and self.data.counts.get("unlabeled")
        return (*self._splits(), "unlabeled") if wanted else ()

    def phases(self, epoch: int) -> list[Phase]:
        """Return the one pass; where there are unlabelled images, with a second batch drawn from all beside each."""
        return [Phase("main", self._splits(), second=self._feature_splits())]

    def parameter_groups(self) -> list[dict]:
        """Return weights apart from biases and batch norms, which do not decay (as the code)."""
        return decayed_apart(self)

    def loss(self, batch: Batch) -> Step:
        """Eq. 11, on two views or against the memory bank."""
        if self._has_bank:
            return self._bank_step(batch)
        loss, parts = crlc_loss(**self._views(batch), **self._settings("temperature", "lambda2"), **self._regulariser())
        return step_of(loss, parts)

    def _settings(self, *names: str) -> dict[str, float | str]:
        """Return the settings `names` of the loss and those of L_PC and H, which every variant has."""
        return {name: self.params[name] for name in ("gamma", "lambda1", "critic", *names)}

    def _regulariser(self) -> dict[str, float]:
        """Return the settings of L_reg by the names that the losses have for them."""
        return {"bound": self.params["reg_bound"], "reg_weight": self.params["reg_weight"]}

    def _views(self, batch: Batch) -> dict[str, Tensor | tuple[Tensor, Tensor] | None]:
        """Return what `crlc_loss` takes of two views of the batch, and of the second batch if there is one."""
        features, z, wide = self._embed(batch.images, batch.rng("augmented")), (None, None), None
        if self.rl_head is not None:
            z = self.rl_head(features)
        if "second" in batch.extra:
            assert self.rl_head is not None  # else there is no second batch, see `_feature_splits`
            wide = self.rl_head(self._embed(batch.extra["second"], batch.rng("beside")))
        logits = self.c_head(features)
        return {"z1": z[0], "z2": z[1], "logits1": logits[:, 0], "logits2": logits[:, 1], "wide": wide}

    def _embed(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Return the features of two views, (2, n, features)."""
        return self._forward(self.augmented.views(images, rng, 2))

    def _forward(self, views: Tensor) -> Tensor:
        """Return the features (2, n, features) of views (2, n, c, h, w)."""
        if self.params["joint_views"]:
            return self.backbone(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        return torch.stack([self.backbone(view) for view in views])

    def _bank_step(self, batch: Batch) -> Step:
        """Eq. 11 of one view against the memory bank."""
        params, index = self.params, batch.indices
        features = self.backbone(self.augmented(batch.images, batch.rng("augmented")))
        rows = self.prob_bank.shape[1]
        negatives = draw_negatives(index, rows, params["negatives"], generator=batch.rng("negatives"))
        logits, z, feature_bank, carry = self.c_head(features), None, None, {}
        if self.rl_head is not None:
            z, feature_bank = self.rl_head(features), self.feature_bank
            carry["z"] = z.detach()
        loss, parts = bank_loss(
            z,
            logits,
            feature_bank,
            self.prob_bank,
            index,
            negatives,
            **self._settings("temperature", "lambda2"),
        )
        return step_of(loss, parts, p=logits.detach().float().softmax(dim=-1), **carry)

    def regime(self, batch: Batch) -> tuple:
        """Return the epoch, whose losses of the sub-heads are added up."""
        return (batch.epoch,)

    @torch.no_grad()
    def after_step(self, batch: Batch, carry: dict[str, Tensor]) -> None:
        """Add to the sub-heads' losses of this epoch, and store this step's outputs in the memory bank (Eq. 10)."""
        alpha = self.params.get("bank_momentum")
        self.head_losses.mul_(self.head_losses_epoch == batch.epoch).add_(carry["heads"])
        self.head_losses_epoch.fill_(batch.epoch)
        if "p" in carry:
            self.prob_bank.copy_(bank_update(self.prob_bank, batch.indices, carry["p"], alpha=alpha))
        if "z" in carry:
            z = carry["z"]
            self.feature_bank.copy_(bank_update(self.feature_bank, batch.indices, z, alpha=alpha, kind="feature"))

    def predict(self, images: Tensor) -> Tensor:
        """Return the softmax of the sub-head with the lowest loss on the test view, (n, K)."""
        scores = self.c_head(self.backbone(self.test_view(images)))
        best = self.head_losses.argmin().view(1)  # stays on the device: nothing waits for it
        return torch.softmax(scores.index_select(0, best).squeeze(0), dim=1)

    def predict_heads(self, images: Tensor) -> Tensor:
        """Return the cluster that each sub-head gives, (H, n)."""
        return torch.softmax(self.c_head(self.backbone(self.test_view(images))), dim=2).argmax(dim=2)

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the backbone's features (n, 512), or z of the RL-head (`projection`) of unit length (n, 128)."""
        features = super().features(images, "backbone")
        self.check_layer(layer)
        if layer == "backbone":
            return features
        if self.rl_head is None:
            raise UserError("crlc: use_rl_head: false has no layer projection; take backbone")
        return self.rl_head(features)


def step_of(loss: Tensor, parts: dict[str, Tensor], **carry: Tensor) -> Step:
    """Return the step of a loss of CRLC: what each sub-head contributed is carried, the scalars go to the history."""
    scalars = {name: part for name, part in parts.items() if name != "heads"}
    return Step(loss, scalars, {"heads": parts["heads"], **carry})


METHOD = CRLC
