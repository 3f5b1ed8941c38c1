"""Agglomerative clustering (AC), a row of every paper's main table.

The papers cite Gowda and Krishna, Agglomerative clustering using the concept of mutual nearest neighbourhood, Pattern
Recognition 1978, for numbers that were copied from table to table; no code or setting of them is public. What runs here
is Ward's criterion (Ward, 1963), merging only along a graph that joins each image to its nearest neighbours: without
such a graph the 1.8 billion distances of 60,000 images would all have to be kept.

Deviations, each a key of params/ac.yaml:

- `neighbours`: edges of the graph an image. The linkage of the cited paper, by ranks of mutual neighbours, is not here.
- `resize`, `inputs`: what is clustered, as in `dica.methods.kmeans`; the copied rows do not say.

Nothing is drawn at random but the images kept for new ones (`dica.methods.fitted`), so that one seed says it all.
Ward's sums take 16 bytes a number in float64: 6.5 GB in all for 60,000 images of 32 pixels in colour.
"""

from __future__ import annotations

import torch
from sklearn.cluster import AgglomerativeClustering
from torch import Tensor

from dica.methods.fitted import FittedMethod, nearest_others, sparse_graph


class AC(FittedMethod):
    """Ward's merging along a graph of nearest neighbours."""

    def cluster(self, points: Tensor, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Merge until there are K clusters."""
        distances, positions = nearest_others(points, self.params["neighbours"])
        graph = sparse_graph(torch.ones_like(distances), positions)
        model = AgglomerativeClustering(self.params["num_clusters"], linkage="ward", connectivity=graph)
        labels = model.fit_predict(points.cpu().double().numpy())
        return torch.from_numpy(labels), {"components": float(model.n_connected_components_)}


METHOD = AC
