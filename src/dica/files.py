"""Small file helpers that the whole package shares: atomic writes, hashes, errors meant for people."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

ARRAYS_LIMIT = 512 * 2**20  # bytes of all arrays of one npz file; zeros are packed a thousand times smaller
FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")  # how a cell begins that a spreadsheet computes
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


@contextlib.contextmanager
def no_empty_folders(*folders: Path) -> Iterator[None]:
    """Remove at the end those of the folders that are empty and were not there at the beginning."""
    new = [folder for folder in folders if not folder.exists()]
    try:
        yield
    finally:
        for folder in sorted(new, key=lambda folder: len(folder.parts), reverse=True):
            with contextlib.suppress(OSError):  # it is not there, or holds something
                folder.rmdir()


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


def json_text(value: Any) -> str:
    """Return `value` as indented JSON with a final newline; NaN is refused because no table may ever hold it."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path | str, value: Any) -> None:
    """Write a JSON file; see `json_text`."""
    atomic_write_text(path, json_text(value))


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises
    ------
    UserError
        If the file is missing, cannot be read or is not JSON; the message names it.
    """
    return parse_json(read_bytes(path), str(path))


def parse_json(data: bytes | str, where: str) -> Any:
    """Return the value of a JSON text; whatever a stranger may have written there is one line of error.

    Parameters
    ----------
    where
        What the text is called in messages.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except RecursionError:
        raise UserError(f"{where}: not readable as JSON (nested too deeply)") from None
    except ValueError as error:  # not JSON, not UTF-8, or an integer of thousands of digits
        raise UserError(f"{where}: not readable as JSON ({error})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; a name given twice means one thing to one reader and another to the next."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:40]!r} is given twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def require_plain(path: Path | str) -> None:
    """Raise an OSError if a path leads to a pipe or a device: reading one may never end."""
    mode = Path(path).stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder the system says it better
        raise OSError(errno.EINVAL, "is no plain file", str(path))


def read_bytes(path: Path | str) -> bytes:
    """Return the content of a file.

    Raises
    ------
    UserError
        If the system does not give it; the message names file and reason.
    """
    try:
        require_plain(path)
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def read_csv(path: Path | str, needed: Sequence[str] = ()) -> list[dict[str, str]]:
    """Read a CSV file with a header: one mapping a row, an empty text where a row is too short.

    Raises
    ------
    UserError
        If the file cannot be read, is not CSV, lacks one of the columns `needed`, or has a row longer than its header.
    """
    try:
        text = read_bytes(path).decode("utf-8")
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="", strict=True)
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not readable as CSV ({error})") from None
    if lacking := [name for name in needed if name not in (reader.fieldnames or ())]:
        raise UserError(f"{path}: lacks the column {lacking[0]!r}")
    if any(None in row for row in rows):
        raise UserError(f"{path}: not readable as CSV (a row has more cells than the header)")
    return rows


def safe_cell(value: Any) -> Any:
    """Return a cell for a CSV file; a text that a spreadsheet would run as a formula gets a `'` in front of it."""
    if not isinstance(value, str) or not FORMULA.match(value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value  # a negative number


def plain_cell(text: str) -> str:
    """Return what `safe_cell` was given."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


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


def load_arrays(path: Path | str, limit: int = ARRAYS_LIMIT) -> dict[str, np.ndarray]:
    """Read every array of an npz file without ever unpickling.

    Raises
    ------
    UserError
        If the file is missing, is not such an archive, or would fill more than `limit` bytes.
    """
    import numpy as np  # this module is read by every command, and most have no arrays

    try:
        require_plain(path)
        require_small_arrays(path, limit)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UserError:
        raise
    except Exception as error:  # zip, zlib and numpy each have their own errors for a damaged file
        raise UserError(f"{path}: not a readable npz file ({error})") from None


def require_small_arrays(path: Path | str, limit: int = ARRAYS_LIMIT) -> None:
    """Raise a UserError, before memory is taken, if the arrays of an npz file claim more than `limit` bytes or lie."""
    import numpy as np

    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if (claimed := sum(member.file_size for member in members)) > limit:
            raise UserError(f"{path}: its arrays have {claimed} bytes, at most {limit} are read")
        for member in members:
            with archive.open(member) as file:
                read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, _, dtype = read_header[np.lib.format.read_magic(file)](file)
                if dtype.hasobject:
                    objects = f"{member.filename} holds Python objects, not numbers or texts"
                    raise UserError(f"{path}: not a readable npz file ({objects})")
                if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
                    raise UserError(f"{path}: {member.filename} claims to have the shape {shape}, its bytes do not")


def write_npz(path: Path | str, arrays: dict[str, np.ndarray]) -> None:
    """Write compressed arrays with bytes that depend on their content alone (fixed order and dates)."""
    import numpy as np

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(arrays):
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(arrays[name], order="C"), allow_pickle=False)
            archive.writestr(member, content.getvalue())
    atomic_write_bytes(path, buffer.getvalue())


def write_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str], path: Path) -> None:
    """Write rows as CSV with bytes that depend on their content alone."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: safe_cell(value) for name, value in row.items()} for row in rows)
    atomic_write_text(path, out.getvalue())
