"""Random numbers without state: every draw has an address.

A generator is made afresh from (run seed, purpose, position), so a resumed run draws what the uninterrupted one
would have drawn, whatever happened in between. There is nothing to save and nothing to restore.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch

Rng = Callable[[str], torch.Generator]


def derive_seed(seed: int, purpose: str, *position: int | str) -> int:
    """Return a 63-bit seed that is a hash of (seed, purpose, position)."""
    text = "/".join(map(str, (seed, purpose, *position)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *position: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator for one purpose at one position of the run."""
    return torch.Generator(device).manual_seed(derive_seed(seed, purpose, *position))
