"""dica: an archive that regenerates and audits the numbers of five deep image clustering papers."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["DeepClustering"]


def __getattr__(name: str) -> Any:
    """Import the estimator, and torch with it, only when it is asked for."""
    if name == "DeepClustering":
        from dica.own.estimator import DeepClustering

        return DeepClustering
    raise AttributeError(f"module 'dica' has no attribute {name!r}")
