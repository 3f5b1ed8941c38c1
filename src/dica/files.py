"""Small file helpers that the whole package shares: atomic writes, hashes, errors meant for people."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

INTERRUPTED = 75  # exit code of a run that stopped with its state saved: EX_TEMPFAIL of sysexits.h, try again


class UserError(Exception):
    """A mistake in the input that its author can mend; the message says where and how. Exit code 2."""

    exit_code = 2


class IntegrityError(UserError):
    """Bytes are not the ones that were promised. Exit code 3."""

    exit_code = 3


def explain_os_error(error: OSError) -> str:
    """Return one line on what the system refused (disk full, read-only, no permission) and what to do about it."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; mend that and run the same command again (no file is half written)"


def project_root(start: Path | None = None) -> Path:
    """Return the nearest folder at or above `start` (default: the working directory) that holds the archive.

    Raises
    ------
    UserError
        If no folder with `Snakefile` and `params/` is found.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "Snakefile").is_file() and (folder / "params").is_dir():
            return folder
    raise UserError(f"no archive found at or above {here}: run this inside the folder that holds the Snakefile")


def atomic_write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` so that `path` holds either its old content or all of the new one, even after a crash."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp gives 0600, which would hide results from colleagues
        Path(temporary).replace(path)
    except BaseException as error:
        if isinstance(error, OSError):
            error.filename = str(path)  # a failed write does not say of which file
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write_text(path: Path | str, text: str) -> None:
    """Like `atomic_write_bytes`, for UTF-8 text."""
    atomic_write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON with a final newline; NaN is refused because no table may ever hold it."""
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises
    ------
    UserError
        If the file is missing or is not JSON; the message names it.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None


def canonical_json(value: Any) -> str:
    """Return the one JSON text that equal values share: sorted keys, no blanks, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file in hex, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_npz(path: Path | str, arrays: dict[str, np.ndarray]) -> None:
    """Write compressed arrays with bytes that depend on their content alone (fixed order and dates)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(arrays):
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(arrays[name], order="C"), allow_pickle=False)
            archive.writestr(member, content.getvalue())
    atomic_write_bytes(path, buffer.getvalue())
