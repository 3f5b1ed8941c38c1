"""GPU slots: Snakemake's ``resources`` only count, these locks assign.

Each visible device has twelve lock files. A process takes a whole device or an equal share of one (twelve divides by
2, 3, 4 and 6) and keeps it until it dies, so runs never meet on one lock, not even when the workflow that started them
was killed; and a run that was promised a whole device never gets one that others share.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dica.files import UserError

TWELFTHS = 12


def twelfths(share: int) -> int:
    """Return how many twelfths of a device a run takes when `share` runs may use it at a time.

    Raises
    ------
    UserError
        If twelve cannot be divided so.
    """
    if share < 1 or TWELFTHS % share:
        allowed = ", ".join(str(n) for n in range(1, TWELFTHS + 1) if TWELFTHS % n == 0)
        raise UserError(f"gpu_share is {share!r}; runs that may share one GPU: {allowed}")
    return TWELFTHS // share


def slot_folder() -> Path:
    """Return the folder of the lock files: ``DICA_SLOTS``, or one for this user in the temporary folder."""
    return Path(os.environ.get("DICA_SLOTS") or Path(tempfile.gettempdir()) / f"dica-slots-{os.getuid()}")


@contextmanager
def gpu_slot(devices: Sequence[str], share: int = 1, folder: Path | None = None, poll_s: float = 1.0) -> Iterator[int]:
    """Hold one slot and yield the index (into `devices`) of its device; wait while none is free.

    Parameters
    ----------
    devices
        Names that tell the devices apart on this machine (UUIDs), in the order of their indices.
    share
        Runs of this size that fit on one device; runs of different sizes may meet there.
    """
    folder, wanted = folder or slot_folder(), twelfths(share)
    folder.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        taken = _take(folder, devices, wanted)
        if taken is not None:
            break
        if not told:
            print(f"waiting for 1/{share} of one of {len(devices)} GPUs", file=sys.stderr, flush=True)
            told = True
        time.sleep(poll_s)
    index, locks = taken
    try:
        yield index
    finally:
        for lock in locks:
            lock.close()


def _take(folder: Path, devices: Sequence[str], wanted: int) -> tuple[int, list[IO[str]]] | None:
    """Lock `wanted` twelfths of the emptiest device, all or none."""
    with _open_lock(folder / "choosing.lock") as choosing:
        fcntl.flock(choosing, fcntl.LOCK_EX)  # one chooses at a time: nobody sees the locks of a half-made choice
        free = [_lock_free(folder, device) for device in devices]
        index = max(range(len(devices)), key=lambda i: (len(free[i]), -i))
        for number, locks in enumerate(free):
            enough = number == index and len(locks) >= wanted
            for lock in locks[wanted if enough else 0 :]:
                lock.close()
    return (index, free[index][:wanted]) if len(free[index]) >= wanted else None


def _lock_free(folder: Path, device: str) -> list[IO[str]]:
    locks = []
    for number in range(TWELFTHS):
        lock = _open_lock(folder / f"{device}-{number}.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locks.append(lock)
        except BlockingIOError:
            lock.close()
    return locks


def _open_lock(path: Path) -> IO[str]:
    """Open a lock file that other users of a shared folder may have made, or make it so that they can open it.

    A file that is there is opened without O_CREAT: Linux refuses that for others' files in a folder like /tmp.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            return open(_readable(path))
        with contextlib.suppress(FileExistsError):  # or another process was faster
            made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            os.fchmod(made, 0o666)  # whatever the umask
            return open(made)
        return open(_readable(path))
    except PermissionError:
        raise UserError(
            f"{path}: may not be opened; a folder of slots that users share (DICA_SLOTS) needs the mode 1777"
        ) from None


def _readable(path: Path) -> int:
    """Open a file for locking; a file that only its owner may write can be locked as well, except on NFS."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def visible_devices() -> list[str]:
    """Return a name for each CUDA device that this process may use; empty without one."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]
