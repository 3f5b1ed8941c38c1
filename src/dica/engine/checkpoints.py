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
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from dica.files import INTERRUPTED, UserError, atomic_write_bytes, write_json
from dica.runs.files import FAILURE

MAGIC = b"DICA-STATE-4\n"
NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
REFUSED = "refused-"  # what the name of a checkpoint begins with that could not be used and is kept for a look


class HeldError(UserError):
    """Another process trains this run. Exit code 75: the same command may succeed later."""

    exit_code = INTERRUPTED


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
    wait_s
        How long to wait while another process works on this run.

    Raises
    ------
    HeldError
        If another process still works on this run then; the message has its host and process number.
    """

    def __init__(self, folder: Path, run_id: str, read_only: bool = False, wait_s: float = 0.0) -> None:
        self.folder = folder
        self.run_id = run_id
        self.read_only = read_only
        if not read_only:
            self._take_lock(wait_s)

    def _take_lock(self, wait_s: float) -> None:
        folder, run_id = self.folder, self.run_id
        folder.mkdir(parents=True, exist_ok=True)
        # The kernel drops an flock when its process dies, however it dies: no stale locks, no second writer.
        self._lock = open(folder / "lock", "a+")  # noqa: SIM115 - held until the process ends
        if not _locked(self._lock):
            self._lock.seek(0)
            busy = f"run {run_id} is being trained by {self._lock.read().strip() or 'another process'}"
            if wait_s:
                print(f"{busy}; waiting for it, at most {wait_s / 60:.0f} minutes", file=sys.stderr, flush=True)
            if not _locked(self._lock, wait_s, poll_s=1.0):
                self._lock.close()
                raise HeldError(f"{busy}; wait for it or stop it")
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

    def load(
        self, device: torch.device, unfit: Callable[[dict[str, Any]], str] = lambda state: ""
    ) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest sound checkpoint, or None, and a warning for each one that had to be refused.

        `unfit` says why the trainer cannot go on from a state; an empty text if it can.
        A refused one is kept under another name, so that the next attempt does not stumble over it and the next save
        does not put it in the place of the sound one.
        """
        warnings: list[str] = []
        for name in (NEWEST, PREVIOUS):
            path = self.folder / name
            if path.is_file():
                try:
                    state = self._read(path, device)
                    if not (why := unfit(state)):
                        return state, warnings
                    warnings.append(f"{path}: does not fit this run ({why}), not used; kept as {REFUSED}{name}")
                except UserError as error:
                    warnings.append(f"{error}; kept as {REFUSED}{name}")
                if not self.read_only:
                    path.replace(self.folder / f"{REFUSED}{name}")
        return None, warnings

    def _read(self, path: Path, device: torch.device) -> dict[str, Any]:
        data = path.read_bytes()
        start = len(MAGIC) + 32
        if not data.startswith(MAGIC) or hashlib.sha256(data[start:]).digest() != data[len(MAGIC) : start]:
            raise UserError(f"{path}: a torn, changed or outdated checkpoint, not used")
        try:
            state = torch.load(io.BytesIO(data[start:]), map_location=device, weights_only=True)
            owner = state["run_id"]
        except (MemoryError, torch.OutOfMemoryError):
            raise  # says nothing about the file
        except Exception as error:  # torch, pickle and zipfile each have their own errors for what cannot be read
            first = str(error).split("\n", 1)[0]
            raise UserError(f"{path}: does not load ({type(error).__name__}: {first}), not used") from None
        if owner != self.run_id:
            raise UserError(f"{path}: belongs to run {owner}, not to {self.run_id}; not used")
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


def _locked(file: IO[str], patience_s: float = 1.0, poll_s: float = 0.05) -> bool:
    """Lock `file` for this process; a reader such as ``dica status`` may hold it for a moment, so try again a while."""
    give_up = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > give_up:
                return False
            time.sleep(poll_s)
