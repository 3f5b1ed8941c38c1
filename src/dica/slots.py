"""GPU slots: Snakemake's ``resources: gpu`` only counts, these locks assign.

Each visible device has `share` lock files. A process takes the first free one and keeps it until it dies,
so two runs never meet on one slot, not even when the workflow that started them was killed.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def slot_folder() -> Path:
    """Return the folder of the lock files: ``DICA_SLOTS``, or one for this user in the temporary folder."""
    return Path(os.environ.get("DICA_SLOTS") or Path(tempfile.gettempdir()) / f"dica-slots-{os.getuid()}")


@contextmanager
def gpu_slot(devices: Sequence[str], share: int = 1, folder: Path | None = None, poll_s: float = 1.0) -> Iterator[int]:
    """Hold one slot and yield the index (into `devices`) of its device; wait while all are taken.

    Parameters
    ----------
    devices
        Names that tell the devices apart on this machine (UUIDs), in the order of their indices.
    share
        Runs that may use one device at a time.
    """
    folder = folder or slot_folder()
    folder.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        # Shares are the outer loop: spread over the devices before doubling up on one.
        for number in range(share):
            for index, device in enumerate(devices):
                lock = open(folder / f"{device}-{number}.lock", "a")  # noqa: SIM115 - held across the yield
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    lock.close()
                    continue
                try:
                    yield index
                finally:
                    lock.close()
                return
        if not told:
            print(f"waiting for one of {len(devices) * share} GPU slots", file=sys.stderr, flush=True)
            told = True
        time.sleep(poll_s)


def visible_devices() -> list[str]:
    """Return a name for each CUDA device that this process may use; empty without one."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]


def scheduler_assigned(devices: Sequence[str]) -> bool:
    """Return whether a batch system has already given this process a device of its own.

    Of several visible `devices` none is: the runs of one allocation have to share them out by slots.
    """
    return len(devices) == 1 and "SLURM_JOB_ID" in os.environ and "CUDA_VISIBLE_DEVICES" in os.environ
