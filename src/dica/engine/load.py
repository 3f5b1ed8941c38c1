"""Load a trained run: its network with its weights, proved by the run's record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors

from dica import methods
from dica.data.splits import DataInfo
from dica.files import IntegrityError, UserError, read_json, sha256_bytes
from dica.methods.base import Method
from dica.runs.files import CONFIG, RECORD, WEIGHTS
from dica.runs.ids import run_id


@dataclass(frozen=True)
class RunFolders:
    """Where a run lies: the folder of its records and the one of its weights."""

    folder: Path
    models: Path


def load_trained(folders: RunFolders, expected_id: str, data: DataInfo, device: torch.device) -> tuple[Method, dict]:
    """Build the method of a finished run and load its weights, ready to be asked and not to be trained.

    Parameters
    ----------
    expected_id
        The run that is wanted; another one is refused.
    data
        The images it was trained on: they decide the network's shape.

    Returns
    -------
    tuple
        The method in eval mode, and what a record says of it: `id` and `weights_sha256`.

    Raises
    ------
    UserError
        If the run or its weights are not there, or it is another run.
    IntegrityError
        If config or weights are not what the run's record says.
    """
    record, weights = folders.folder / RECORD, folders.models / WEIGHTS
    for file in (record, weights):
        if not file.is_file():
            raise UserError(f"{file}: no such file; the run {expected_id} is needed with its weights: train it first")
    record, config = read_json(record), read_json(folders.folder / CONFIG)
    for what, found in ((RECORD, record.get("id")), (CONFIG, run_id(config))):
        if found != expected_id:
            raise UserError(f"{folders.folder / what}: is of run {found}, {expected_id} is needed")
    content = weights.read_bytes()
    if (digest := sha256_bytes(content)) != record["files"][WEIGHTS]:
        raise IntegrityError(f"{weights}: changed: its SHA-256 is not the one in {folders.folder / RECORD}")
    with torch.random.fork_rng(devices=[]):  # its initial weights are thrown away: nobody else's may depend on them
        method = methods.build(config["method"], config["params"], data)
    method.load_state_dict(load_safetensors(content))
    method.to(device).requires_grad_(False).eval()
    return method, {"id": expected_id, "weights_sha256": digest}
