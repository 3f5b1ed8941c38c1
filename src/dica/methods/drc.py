"""DRC: Zhong et al., Deep Robust Clustering by Contrastive Learning, arXiv:2008.03030 (2020).

One network, two linear heads: the K clusters (main) and an auxiliary over-clustering. Each epoch is a pass with the
over-clustering head and a pass with the main one, under one optimiser. Loss: Eq. 5, 8, 9 and 10 (`dica.losses.drc`).

Deviations and readings, each a key of params/drc.yaml with the paper's value as default:

- `normalise`, `repeat_mode`: see `dica.losses.drc`.
- `backbone.sobel`: the paper says "the same network" as PICA, whose published code feeds Sobel gradients: on.
- `over_clusters`: 0 removes the auxiliary head. `over_split` adds STL-10's unlabelled images to its pass.
- No code was published; what the paper leaves open follows PICA, on which DRC builds.
"""

from __future__ import annotations

from dica.losses.drc import drc_loss
from dica.methods.base import Batch, Step
from dica.methods.two_heads import TwoHeadMethod


class DRC(TwoHeadMethod):
    """Contrast of assignment features (rows) and of assignment probabilities (columns) between two views."""

    replayable = True

    def loss(self, batch: Batch) -> Step:
        """Eq. 10 for the head of this pass, on each original and its augmentations."""
        params = self.params
        z, z2 = self.outputs(batch, self.heads[batch.phase])
        loss, parts = drc_loss(
            z,
            z2.unflatten(0, (params["repeats"], len(z))),
            temperature_af=params["temperature_af"],
            temperature_ap=params["temperature_ap"],
            cr_weight=params["cr_weight"],
            normalise=params["normalise"],
            repeat_mode=params["repeat_mode"],
            use_af=params["use_af"],
            use_ap=params["use_ap"],
            use_cr=params["use_cr"],
        )
        return Step(loss, parts)


METHOD = DRC
