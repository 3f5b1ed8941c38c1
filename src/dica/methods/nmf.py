"""Non-negative matrix factorisation (NMF), a row of the papers' main tables; here the plain one.

The papers cite Cai et al., Locality preserving non-negative matrix factorization, IJCAI 2009, for copied numbers; no
code or setting of them is public. That one adds a graph of neighbours to the objective. What runs here is
X = W H with W, H >= 0 by the multiplicative updates of Lee and Seung (NIPS 2000) for the squared error, and K-means on
the coefficients W: another method, so tables should call it plain.

Deviations, each a key of params/nmf.yaml:

- `components`: columns of W for each cluster (2: twice K columns).
- `assignment`: `kmeans` on W, or `argmax`, the largest coefficient of an image (one column a cluster).
- `iterations` of the factorisation; `restarts`, `max_iterations` of K-means.
- `resize`, `inputs`: what is factorised; it must not be negative.
"""

from __future__ import annotations

import warnings

import torch
from sklearn.decomposition import NMF as Factorisation
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from dica.data.splits import DataInfo
from dica.files import UserError
from dica.methods.fitted import FittedMethod
from dica.methods.kmeans import fit_kmeans
from dica.rng import derive_seed


class NMF(FittedMethod):
    """Clusters of the coefficients of a non-negative factorisation."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        if params["assignment"] == "argmax" and params["components"] != 1:
            raise UserError(
                f"nmf: components: {params['components']}, but with assignment: argmax a cluster is one column; set 1"
            )

    def cluster(self, points: Tensor, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Factorise and cluster the rows of W."""
        params, numbers = self.params, points.cpu().numpy()
        if numbers.min() < 0:
            raise UserError("nmf: inputs: some numbers are negative; choose a map and a scale that give none")
        model = Factorisation(
            params["components"] * params["num_clusters"],
            solver="mu",
            init="random",
            max_iter=params["iterations"],
            random_state=derive_seed(seed, "factors") % 2**32,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of updates is what was asked for
            coefficients = model.fit_transform(numbers)
        said = {"loss": float(model.reconstruction_err_), "iterations": float(model.n_iter_)}
        if params["assignment"] == "argmax":
            return torch.from_numpy(coefficients.argmax(axis=1)), said
        starts = (params["restarts"], params["max_iterations"])
        clusters = fit_kmeans(coefficients, params["num_clusters"], derive_seed(seed, "kmeans"), *starts)
        return torch.from_numpy(clusters.labels_).long(), said


METHOD = NMF
