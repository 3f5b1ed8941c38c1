"""PICA: Huang, Gong and Zhu, Deep Semantic Clustering by Partition Confidence Maximisation, CVPR 2020.

One network, two linear heads: the K clusters and an auxiliary over-clustering, one pass an epoch for each. Loss: the
partition uncertainty index between originals and perturbed views, and the balance (`dica.losses.pica`).

Deviations and readings, each a key of params/pica.yaml with the value of the paper or of the authors' code as default:

- `repeats`: perturbed views of each image, joined in one batch with the originals repeated (code).
- `over_clusters`: the code's configuration of CIFAR-10 is not published; 70 and 10 are the author's word.
- The authors' code keeps the state with the best accuracy by the true labels; here it is the last epoch.
"""

from __future__ import annotations

from dica.losses.pica import pica_loss
from dica.methods.base import Batch, Step
from dica.methods.two_heads import TwoHeadMethod


class PICA(TwoHeadMethod):
    """Confidence of the partition: each cluster's column like itself and unlike the others after a perturbation."""

    def loss(self, batch: Batch) -> Step:
        """The loss of the head of this pass, on each original and its perturbed views."""
        z, z2 = self.outputs(batch, self.heads[batch.phase])
        repeated = z2.softmax(dim=1).unflatten(0, (self.params["repeats"], len(z)))
        loss, parts = pica_loss(z.softmax(dim=1), repeated, weight=self.params["weight"])
        return Step(loss, parts)


METHOD = PICA
