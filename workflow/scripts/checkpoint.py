"""Write the network of one of our runs as a checkpoint of MoCo's form, as others give theirs: what `pretrained` reads.

    python workflow/scripts/checkpoint.py WEIGHTS.safetensors OUT.pth.tar

The digits' row "given weights" is made of such a file: `data/pretrained/simclr-digits.pth.tar`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from dica.files import UserError
from dica.methods.pretrained import PARTS, PREFIX
from dica.scripting import run_script


def main() -> None:
    """Write the backbone and the RL-head of a run under the names of a MoCo checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="weights.safetensors of a run")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    torch.save({"state_dict": moco_names(load_file(given.weights))}, given.out)


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
    if {key.split(".")[2] == "fc" for key in named} != {True, False}:
        raise UserError("these weights have no backbone with an RL-head; give those of a run of simclr")
    return named


if __name__ == "__main__":
    sys.exit(run_script(main))
