"""Heads on top of a backbone: cluster logits, projections and prototypes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dica.losses.common import at_least_float32, l2_normalise


def mlp(sizes: Sequence[int], batch_norm: bool = False, activation: bool = True) -> nn.Sequential:
    """Return linear layers of the given sizes with [batch norm and] ReLU between them, nothing after the last.

    Parameters
    ----------
    sizes
        Input, hidden and output lengths; `(512, 1024, 1024, 10)` has two hidden layers.
    batch_norm, activation
        What stands between the layers; neither gives the purely linear projection of IMC-SwAV.
    """
    layers: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        if index and batch_norm:
            layers.append(nn.BatchNorm1d(inputs))
        if index and activation:
            layers.append(nn.ReLU(inplace=True))
        layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)


class ClusterHead(nn.Module):
    """Features to cluster logits: linear, or an MLP if hidden sizes are given.

    Parameters
    ----------
    hidden
        Lengths of the hidden layers, `()` for none.
    """

    def __init__(
        self, in_features: int, num_clusters: int, hidden: Sequence[int] = (), batch_norm: bool = False
    ) -> None:
        super().__init__()
        self.layers = mlp((in_features, *hidden, num_clusters), batch_norm)
        self.num_clusters = num_clusters

    def forward(self, features: Tensor) -> Tensor:
        """Map (..., in_features) to logits (..., num_clusters)."""
        return self.layers(features)


class ClusterSubHeads(nn.Module):
    """Several cluster heads of one shape, side by side; `forward` stacks their logits."""

    def __init__(self, in_features: int, num_clusters: int, num_heads: int, hidden: Sequence[int] = ()) -> None:
        super().__init__()
        self.heads = nn.ModuleList(ClusterHead(in_features, num_clusters, hidden) for _ in range(num_heads))
        self.num_clusters = num_clusters

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, in_features) to logits (num_heads, n, num_clusters)."""
        return torch.stack([head(features) for head in self.heads])


class ProjectionHead(nn.Module):
    """Features to a projection z for contrasts, of unit length unless `normalise` is false."""

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        batch_norm: bool = False,
        activation: bool = True,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.layers = mlp((in_features, *hidden, out_features), batch_norm, activation)
        self.normalise = normalise

    def forward(self, features: Tensor) -> Tensor:
        """Map (..., in_features) to z (..., out_features)."""
        z = self.layers(features)
        return l2_normalise(at_least_float32(z)) if self.normalise else z


class Prototypes(nn.Module):
    """k' learned unit vectors (a linear layer without bias whose rows are renewed to length 1 before each use)."""

    def __init__(self, in_features: int, num_prototypes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, num_prototypes, bias=False)

    def unit_rows(self) -> Tensor:
        """Bring the rows back to unit length, in place and outside the graph, and return the weight (k', d).

        Call it once a step, before the loss: changing a weight between a forward pass and its backward pass is
        an error in autograd.
        """
        with torch.no_grad():
            self.linear.weight.copy_(l2_normalise(self.linear.weight))
        return self.linear.weight
