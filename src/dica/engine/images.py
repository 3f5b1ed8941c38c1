"""A prepared data set held on the training device: no loader, no workers, no copies in the step.

Where a GPU has no room for it, it stays in the main memory, and each next batch is copied while the GPU computes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dica.data import prepared
from dica.data.splits import DataInfo
from dica.data.whole import is_whole
from dica.files import IntegrityError, sha256_file

PLACES = ("auto", "device", "host")


class ResidentImages:
    """The splits of a prepared data set as uint8; labels are not among them.

    Stored as (n, H, W, C): a batch seen as (n, C, H, W) is then channels-last without a copy.

    Parameters
    ----------
    folder
        ``data/prepared/<name>``.
    device
        Where batches are wanted.
    place
        `device`, `host`, or `auto`: on the device if they take at most half of what is free there; of several runs
        that share a GPU, each counts with its part of that half.
    share
        Runs that share the device.

    Attributes
    ----------
    place : `device` or `host`
    index_device : where `take` wants its indices

    Raises
    ------
    IntegrityError
        If an array is not the one that was prepared (missing, truncated, a bit flipped).
    """

    def __init__(self, folder: Path, device: torch.device, place: str = "auto", share: int = 1) -> None:
        self.manifest = prepared.load_manifest(folder)
        self.device = device
        arrays: dict[str, np.ndarray] = {}
        for name, split in sorted(self.manifest["splits"].items()):
            arrays[name] = prepared.open_split(folder, name)
            if sha256_file(folder / split["file"]) != split["sha256"]:
                raise IntegrityError(f"{folder / split['file']}: not the array that was prepared; prepare it again")
        self.place = _place(sum(a.nbytes for a in arrays.values()), device, share) if place == "auto" else place
        self.index_device = device if self.place == "device" else torch.device("cpu")
        self.splits = {name: torch.from_numpy(np.array(a)).to(self.index_device) for name, a in arrays.items()}
        self._stream = torch.cuda.Stream(device) if self.place == "host" and device.type == "cuda" else None
        self._next: tuple[Tensor, Tensor] | None = None  # indices and images of the batch under way

    @property
    def info(self) -> DataInfo:
        """Return what a method needs to know to build its networks."""
        counts = {name: len(images) for name, images in self.splits.items()}
        whole = any(is_whole(*images.shape[1:3]) for images in self.splits.values())
        return DataInfo(self.manifest["channels"], self.manifest["image_size"], counts, whole)

    def all_of(self, split: str) -> Tensor:
        """Return all of a split as (n, C, H, W) uint8, a view; with `place: host` it is in the main memory."""
        return self.splits[split].permute(0, 3, 1, 2)

    def take(self, splits: tuple[str, ...], indices: Tensor) -> Tensor:
        """Return the images at `indices` (on `index_device`) of the splits laid end to end, (n, C, H, W) uint8."""
        under_way, self._next = self._next, None
        images = under_way[1] if under_way and under_way[0] is indices else self._send(splits, indices)
        if self._stream is not None:
            now = torch.cuda.current_stream(self.device)
            now.wait_stream(self._stream)
            images.record_stream(now)  # or its memory could be given away while a kernel still reads it
        return images.permute(0, 3, 1, 2)

    def prefetch(self, splits: tuple[str, ...], indices: Tensor) -> None:
        """Start to copy the batch that `take` will be asked for next, by the same `indices` tensor."""
        if self.place == "host":
            self._next = (indices, self._send(splits, indices))

    def _send(self, splits: tuple[str, ...], indices: Tensor) -> Tensor:
        rows = self._gather(splits, indices)
        if self._stream is None:
            return rows.to(self.device)
        with torch.cuda.stream(self._stream):
            return rows.pin_memory().to(self.device, non_blocking=True)

    def _gather(self, splits: tuple[str, ...], indices: Tensor) -> Tensor:
        rows, start = None, 0
        for name in splits:
            images = self.splits[name]
            picked = images.index_select(0, (indices - start).clamp(0, len(images) - 1))
            rows = picked if rows is None else torch.where((indices >= start)[:, None, None, None], picked, rows)
            start += len(images)
        return rows


def _place(size: int, device: torch.device, share: int) -> str:
    """Return `device` if `size` bytes are at most this run's part of half the free memory there, else `host`."""
    if device.type != "cuda":
        return "device"
    room = torch.cuda.mem_get_info(device)[0] // (2 * share)
    if size <= room:
        return "device"
    print(
        f"images: {size / 2**30:.1f} GiB, and {room / 2**30:.1f} GiB of the GPU may be theirs; they stay in the main "
        "memory and each next batch is copied while the GPU computes",
        file=sys.stderr,
    )
    return "host"
