"""Write the network of one of our runs as a checkpoint of MoCo's form, as others give theirs: what `pretrained` reads.

    python workflow/scripts/checkpoint.py WEIGHTS.safetensors OUT.pth.tar

The digits' row "given weights" is made of such a file: `data/pretrained/simclr-digits.pth.tar`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from dica.files import UserError
from dica.methods.pretrained import PARTS, PREFIX


def main(weights: str, out: str) -> int:
    """Write the backbone and the RL-head of `weights` under the names of a MoCo checkpoint."""
    torch.save({"state_dict": moco_names(load_file(weights))}, Path(out))
    return 0


def moco_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of a backbone and an RL-head under MoCo's names; the inverse of `pretrained.read_moco`.

    Raises
    ------
    UserError
        If there is no backbone or no RL-head.
    """
    names = {part: name for name, part in PARTS.items()}
    named = {}
    for key, value in state.items():
        owner, _, rest = key.partition(".")
        if owner == "backbone":
            part = next((part for part in names if rest.startswith(f"{part}.")), "")
            named[f"{PREFIX}{names.get(part, '')}{rest.removeprefix(part)}"] = value
        elif owner == "rl_head":
            named[f"{PREFIX}fc.{rest.removeprefix('layers.')}"] = value
    if not {key.split(".")[2] == "fc" for key in named} == {True, False}:
        raise UserError("these weights have no backbone with an RL-head; give those of a run of simclr")
    return named


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
