"""Spectral clustering (SC), a row of the papers' main tables.

The papers cite Zelnik-Manor and Perona, Self-tuning spectral clustering, NIPS 2004, for copied numbers; no code or
setting of them is public. With d_ij the distance of two images and s_i that of image i from its 7th neighbour,
W_ij = exp(-d_ij^2 / (s_i s_j)); the K largest eigenvectors of D^-1/2 W D^-1/2 are an embedding whose rows are brought
to unit length and clustered by K-means (Ng, Jordan and Weiss, NIPS 2001).

Deviations, each a key of params/sc.yaml:

- `neighbours`: W is kept for the nearest neighbours alone, so that a sparse eigensolver (ARPACK) serves.
- `scale_neighbour`: which neighbour sets the scale; null takes 1 for every edge.
- The number of clusters is given; the cited paper's choice of it by rotation is not here.
- `restarts`, `max_iterations` of K-means; `resize`, `inputs`: what is clustered, as in `dica.methods.kmeans`.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import diags
from scipy.sparse.linalg import eigsh
from torch import Tensor

from dica.data.splits import DataInfo
from dica.files import UserError
from dica.methods.fitted import FittedMethod, nearest_others, sparse_graph
from dica.methods.kmeans import fit_kmeans
from dica.rng import derive_seed

SMALLEST = 1e-12  # copies of an image are at distance 0 from it, and may be all of its neighbours


class SC(FittedMethod):
    """Normalised cut of a graph of nearest neighbours, by its leading eigenvectors."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        if (params["scale_neighbour"] or 1) > params["neighbours"]:
            raise UserError(
                f"sc: scale_neighbour: {params['scale_neighbour']} is not among the {params['neighbours']} neighbours; "
                "lower it or raise neighbours"
            )

    def cluster(self, points: Tensor, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Embed and run K-means on the unit rows."""
        params = self.params
        distances, positions = nearest_others(points, params["neighbours"])
        affinities = self_tuning(distances, positions, params["scale_neighbour"])
        values, vectors = leading_eigenvectors(sparse_graph(affinities, positions), params["num_clusters"], seed)
        starts = (params["restarts"], params["max_iterations"])
        model = fit_kmeans(unit_rows(vectors), params["num_clusters"], derive_seed(seed, "kmeans"), *starts)
        said = {"loss": float(model.inertia_), "last_eigenvalue": float(values.min())}
        return torch.from_numpy(model.labels_).long(), said


def self_tuning(distances: Tensor, positions: Tensor, neighbour: int | None) -> Tensor:
    """Return the affinity exp(-d^2 / (s_i s_j)) of each point with each of its neighbours, (n, k); 1 without a scale.

    Parameters
    ----------
    distances, positions
        (n, k): squared distances of the neighbours, the nearest first, and which they are.
    neighbour
        The scale s of a point is the distance of this neighbour, counted from 1.
    """
    if neighbour is None:
        return torch.ones_like(distances)
    scale = distances[:, neighbour - 1].sqrt().clamp_min(SMALLEST)
    return torch.exp(-distances / (scale[:, None] * scale[positions]))


def leading_eigenvectors(graph, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `count` largest eigenvalues of D^-1/2 W D^-1/2 and their vectors, (count,) and (n, count)."""
    degree = np.asarray(graph.sum(axis=1)).ravel()
    half = diags(1 / np.sqrt(np.maximum(degree, SMALLEST)))
    start = np.random.default_rng(derive_seed(seed, "eigenvectors")).standard_normal(graph.shape[0])
    return eigsh(half @ graph @ half, k=count, which="LA", v0=start)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Return the rows of (n, d) divided by their lengths."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), SMALLEST)


METHOD = SC
