"""A network that others have trained, given as a file: the MoCo-v2 weights of CRLC's Table 2.

Two-stage CRLC starts on ImageNet-50/100/200 from the public MoCo-v2 checkpoint (ResNet-50, 800 epochs on all of
ImageNet; He et al., CVPR 2020; Chen et al., 2020): the query encoder and its two-layer head (CRLC, appendix A.7).
A run of this method trains nothing. It checks the file against the declared digests, loads it without executing
anything in it, and fits K-means to the backbone's features: the row "pretext + K-means" of Table 2.

`weights.md5` are the leading digits that MoCo's authors publish; declare `weights.sha256` as well once you have the
file and trust it: both are part of the run's identity.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import torch
from torch import Tensor

from dica.files import IntegrityError, UserError, sha256_bytes
from dica.methods.base import FitMethod
from dica.methods.simclr import FeatureMethod
from dica.networks.backbones import load_state
from dica.rng import Rng

PREFIX = "module.encoder_q."
PARTS = {"conv1": "stem.0", "bn1": "stem.1"} | {f"layer{i}": f"stages.{i - 1}" for i in range(1, 5)}


class Pretrained(FeatureMethod, FitMethod):
    """The features of given weights, and K-means on them; fitted in one go."""

    def fit(self, images: dict[str, Tensor], seed: int) -> list[dict[str, float]]:
        """Load the weights, then fit the centroids to the training images; returns one history row."""
        weights = self.params["weights"]
        for part, state in zip(("backbone", "rl_head"), read_moco(weights), strict=True):
            load_state(getattr(self, part), state, f"{weights['file']}: not the weights of this {part}")
        self.eval()
        return self.clusters.fit(images, seed)

    def before_predict(self, images: dict[str, Tensor], rng: Rng) -> None:
        """Keep the centroids that `fit` found."""


def read_moco(weights: dict) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the query encoder of a MoCo checkpoint as the states of our backbone and of our RL-head.

    Parameters
    ----------
    weights
        `file`, `url`, and the digests `md5` (leading digits) and `sha256` (or null).

    Raises
    ------
    UserError
        If the file is missing or not such a checkpoint.
    IntegrityError
        If it is not the declared file.
    """
    file = Path(weights["file"])
    if not file.is_file():
        raise UserError(f"{file}: no such file; download {weights['url']} and put it there (from the project's folder)")
    content = file.read_bytes()
    found = {"md5": hashlib.md5(content, usedforsecurity=False).hexdigest(), "sha256": sha256_bytes(content)}
    for name, digest in found.items():
        if not digest.startswith(weights[name] or ""):
            raise IntegrityError(f"{file}: its {name} is {digest}, declared is {weights[name]}; download it again")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)["state_dict"]
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not a MoCo checkpoint ({error})") from None
    backbone, head = {}, {}
    for name, value in state.items():
        first, _, rest = name.removeprefix(PREFIX).partition(".")
        if name.startswith(PREFIX) and first == "fc":
            head[f"layers.{rest}"] = value
        elif name.startswith(PREFIX):
            backbone[f"{PARTS.get(first, first)}.{rest}"] = value
    return backbone, head


METHOD = Pretrained
