"""Random labels: a control. Every image is in a cluster that is drawn evenly, whatever it shows.

What a table's metrics give for it is where they begin: with Hungarian matching accuracy is above 1 / K.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dica.methods.fitted import FittedMethod
from dica.rng import generator


class RandomLabels(FittedMethod):
    """A cluster for each image, drawn by the run's seed."""

    def cluster(self, points: Tensor, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Draw."""
        return torch.randint(self.params["num_clusters"], (len(points),), generator=generator(seed, "labels")), {}


METHOD = RandomLabels
