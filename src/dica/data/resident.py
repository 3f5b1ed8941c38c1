"""A prepared data set held on the training device: no loader, no workers, no copies in the step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dica.data import prepared
from dica.files import IntegrityError, sha256_file
from dica.methods.base import DataInfo


class ResidentImages:
    """The splits of a prepared data set as uint8 on `device`; labels are not among them.

    Stored as (n, H, W, C): a batch seen as (n, C, H, W) is then channels-last without a copy.

    Raises
    ------
    IntegrityError
        If an array is not the one that was prepared (missing, truncated, a bit flipped).
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.manifest = prepared.load_manifest(folder)
        self.device = device
        self.splits: dict[str, Tensor] = {}
        for name, split in sorted(self.manifest["splits"].items()):
            images = prepared.open_split(folder, name)
            if sha256_file(folder / split["file"]) != split["sha256"]:
                raise IntegrityError(f"{folder / split['file']}: not the array that was prepared; prepare it again")
            self.splits[name] = torch.from_numpy(np.array(images)).to(device)

    @property
    def info(self) -> DataInfo:
        """Return what a method needs to know to build its networks."""
        counts = {name: len(images) for name, images in self.splits.items()}
        return DataInfo(self.manifest["channels"], self.manifest["image_size"], counts)

    def all_of(self, split: str) -> Tensor:
        """Return a whole split as (n, C, H, W) uint8, a view."""
        return self.splits[split].permute(0, 3, 1, 2)

    def take(self, splits: tuple[str, ...], indices: Tensor) -> Tensor:
        """Return the images at `indices` of the splits laid end to end, (n, C, H, W) uint8."""
        rows, start = None, 0
        for name in splits:
            source = self.splits[name]
            picked = source.index_select(0, (indices - start).clamp(0, len(source) - 1))
            rows = picked if rows is None else torch.where((indices >= start)[:, None, None, None], picked, rows)
            start += len(source)
        return rows.permute(0, 3, 1, 2)
