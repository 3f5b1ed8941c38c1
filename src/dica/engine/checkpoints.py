"""Checkpoints that survive any kill, and the lock that keeps a second writer out.

A checkpoint is one file: a magic word, the SHA-256 of the rest, then `torch.save` of tensors, numbers and strings.
It is loaded with ``weights_only=True``, so loading never executes code. Two generations are kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import socket
import time
from pathlib import Path
from typing import IO, Any

import torch

from dica.files import UserError, atomic_write_bytes, write_json
from dica.runs.files import FAILURE

MAGIC = b"DICA-STATE-3\n"
NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"


class StateFolder:
    """The folder of one run's training state, locked for the life of this process.

    Parameters
    ----------
    folder
        ``results/state/<id>``; created if absent.
    run_id
        Checkpoints of another run are refused.
    read_only
        For the further processes of a run on several devices: the first one has the lock, and it alone writes.

    Raises
    ------
    UserError
        If another process works on this run; the message has its host and process number.
    """

    def __init__(self, folder: Path, run_id: str, read_only: bool = False) -> None:
        self.folder = folder
        self.run_id = run_id
        self.read_only = read_only
        if not read_only:
            self._take_lock()

    def _take_lock(self) -> None:
        folder, run_id = self.folder, self.run_id
        folder.mkdir(parents=True, exist_ok=True)
        # The kernel drops an flock when its process dies, however it dies: no stale locks, no second writer.
        self._lock = open(folder / "lock", "a+")  # noqa: SIM115 - held until the process ends
        if not _locked(self._lock):
            self._lock.seek(0)
            holder = self._lock.read().strip() or "another process"
            self._lock.close()
            raise UserError(f"run {run_id} is being trained by {holder}; wait for it or stop it")
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._lock.flush()

    def close(self) -> None:
        """Give the lock back; the end of the process does as well."""
        if not self.read_only:
            self._lock.close()

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint; the one before stays as the previous generation."""
        if self.read_only:
            return
        buffer = io.BytesIO()
        torch.save({**state, "run_id": self.run_id}, buffer)
        payload = buffer.getvalue()
        newest = self.folder / NEWEST
        staged = self.folder / "checkpoint.next.pt"
        atomic_write_bytes(staged, MAGIC + hashlib.sha256(payload).digest() + payload)
        if newest.is_file():
            newest.replace(self.folder / PREVIOUS)
        staged.replace(newest)

    def load(self, device: torch.device) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest sound checkpoint, or None, and a warning for each one that had to be refused."""
        warnings = []
        for name in (NEWEST, PREVIOUS):
            path = self.folder / name
            if path.is_file():
                try:
                    return self._read(path, device), warnings
                except UserError as error:
                    warnings.append(str(error))
        return None, warnings

    def _read(self, path: Path, device: torch.device) -> dict[str, Any]:
        data = path.read_bytes()
        start = len(MAGIC) + 32
        if not data.startswith(MAGIC) or hashlib.sha256(data[start:]).digest() != data[len(MAGIC) : start]:
            raise UserError(f"{path}: a torn, changed or outdated checkpoint, not used")
        state = torch.load(io.BytesIO(data[start:]), map_location=device, weights_only=True)
        if state["run_id"] != self.run_id:
            raise UserError(f"{path}: belongs to run {state['run_id']}, not to {self.run_id}; not used")
        return state

    def fail(self, reason: str) -> None:
        """Leave the reason of a failure where tables and `dica status` find it."""
        if self.read_only:
            return
        with contextlib.suppress(OSError):  # a full disk: what went wrong is said on stderr all the same
            write_json(self.folder / FAILURE, {"id": self.run_id, "reason": reason})

    def clear_failure(self) -> None:
        """Forget an earlier failure: a new attempt has begun."""
        if not self.read_only:
            (self.folder / FAILURE).unlink(missing_ok=True)

    def discard_checkpoints(self) -> None:
        """Remove the checkpoints of a finished run; its weights are kept elsewhere."""
        if self.read_only:
            return
        # What a kill left half written as well: it is as large as a checkpoint.
        for pattern in ("checkpoint*.pt", ".checkpoint*.tmp"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)


def _locked(file: IO[str], patience_s: float = 1.0) -> bool:
    """Lock `file` for this process; a reader such as ``dica status`` may hold it for a moment, so try again a while."""
    give_up = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > give_up:
                return False
            time.sleep(0.05)
