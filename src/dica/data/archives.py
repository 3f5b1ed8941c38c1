"""Read archives member by member; nothing is ever extracted.

Extraction filters have been bypassed more than once (CVE-2025-4517 and its kin). Here no name of an archive ever
becomes a path on disk, and an archive that holds an absolute name, `..`, a link or a device is refused as a whole.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from dica.files import UserError

IMAGE_LIMIT = 64 * 2**20  # bytes of one compressed image; the largest of ILSVRC-2012 has 16 MB
MEMBER_LIMIT = 16 * 2**30  # bytes that a member may claim; tarfile passes over one in steps, past the archive's end too
HEADER_LIMIT = (
    2**20
)  # bytes between two members: tarfile holds extended headers in memory, however long they claim to be
FOREIGN = {  # containers that are told by their first bytes and not read
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"\x04\x22\x4d\x18": "lz4",
    b"LZIP": "lzip",
    b"\x1f\x9d": "compress (.Z)",
    b"MSCF": "cabinet",
    b"\x89HDF": "HDF5",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"hsqs": "squashfs",
}


COMPRESSED: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ", lzma.open),
    (b"\x5d\0\0", lzma.open),
)
TAR_MAGIC = slice(257, 262)  # where a tar says what it is


class Member(NamedTuple):
    """A regular file of an archive; `stream` may be read only until the next member is asked for."""

    name: str
    size: int
    stream: IO[bytes]
    archive: str

    def read(self, limit: int = IMAGE_LIMIT) -> bytes:
        """Return all bytes, refusing a member that is, or claims to be, longer than `limit`."""
        if self.size > limit:
            raise UserError(f"{self.archive}: member {self.name!r} has {self.size} bytes, at most {limit} are expected")
        return self.take(self.size)

    def take(self, number: int) -> bytes:
        """Return the next `number` bytes, all of them or a UserError."""
        with damage_reported(self.archive):
            data = self.stream.read(number)
        if len(data) != number:
            raise UserError(f"{self.archive}: member {self.name!r} is cut short; the archive is damaged")
        return data


def checked_name(name: str, archive: str) -> str:
    """Return a member's name with `/` between folders and no leading `./`.

    Raises
    ------
    UserError
        If it points outside the archive or is not UTF-8.
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{archive}: member {name!a} has a name that is not UTF-8; refused") from None
    parts = name.replace("\\", "/").split("/")  # archives made on Windows separate folders by backslashes
    if name.startswith(("/", "\\")) or ".." in parts or "\0" in name:
        raise UserError(f"{archive}: member {name!r} points outside the archive; refused")
    return "/".join(part for part in parts if part not in ("", "."))


@contextlib.contextmanager
def damage_reported(archive: str) -> Iterator[None]:
    """Turn the many errors of damaged archives into one UserError."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{archive}: damaged or not an archive of the expected kind ({error})") from None
    except RuntimeError as error:  # what zipfile raises for an encrypted member
        raise UserError(f"{archive}: cannot be read ({error})") from None


def tar_members(source: Path | IO[bytes], archive: str, mode: str = "r|*") -> Iterator[Member]:
    """Yield the regular files of a tar archive in their order.

    Parameters
    ----------
    source
        A path or an open file.
    archive
        What error messages call it.
    mode
        `r|*` reads once, forward, through any compression, `r|` a plain tar. `r:` seeks, for plain tars that are read
        in part.

    Raises
    ------
    UserError
        At a member that is a link or a device or points outside, that comes twice, or if the archive is damaged.
    """
    seen: set[str] = set()
    with contextlib.ExitStack() as stack:
        stack.enter_context(damage_reported(archive))
        if isinstance(source, Path):
            refuse_foreign(source)
            source = stack.enter_context(open(source, "rb"))
        reader = _Bounded(_decompressed(source, mode), archive, mode.startswith("r|"))
        options: dict[str, Any] = {"mode": "r|" if mode == "r|*" else mode, "fileobj": reader}
        tar = stack.enter_context(tarfile.open(**options))
        for info in tar:
            name = checked_name(info.name, archive)
            if info.size > MEMBER_LIMIT:
                raise UserError(f"{archive}: member {name!r} claims {info.size} bytes; refused")
            reader.allow(info.size)
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise UserError(f"{archive}: member {name!r} is not a plain file (a link or a device?); refused")
            if name in seen:
                raise UserError(f"{archive}: member {name!r} is there twice; refused")
            seen.add(name)
            content = tar.extractfile(info)
            assert content is not None  # of a plain file
            yield Member(name, info.size, content, archive)


class _Bounded:
    """An open tar of which may be read the bytes of the members and, between them, `HEADER_LIMIT` of headers.

    Where the reader goes forward only, this holds for all reads up to the next member; where it seeks, for each one.
    """

    def __init__(self, stream: IO[bytes], archive: str, forward: bool) -> None:
        self.stream, self.archive, self.forward = stream, archive, forward
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable
        self.left = 0
        self.allow(0)

    def allow(self, size: int) -> None:
        """Let the next member's bytes, and the headers after it, be read."""
        self.left = size + HEADER_LIMIT

    def read(self, size: int) -> bytes:
        if size > self.left:
            raise UserError(f"{self.archive}: the headers of a member have more than {HEADER_LIMIT} bytes; refused")
        data = self.stream.read(size)
        if self.forward:
            self.left -= len(data)
        return data


def _decompressed(source: IO[bytes], mode: str) -> IO[bytes]:
    """Open what is inside the compression, told by its first bytes; tarfile's own way knows no bounds."""
    if mode != "r|*":
        return source
    start = source.read(6)
    source.seek(0)
    for magic, opened in COMPRESSED:
        if start.startswith(magic):
            unpacked: Any = opened(source)
            return unpacked
    return source


def refuse_foreign(path: Path) -> None:
    """Raise a UserError that says what a file is if it is a container of a known kind that is not read."""
    with open(path, "rb") as file:
        start = file.read(8)
    for magic, kind in FOREIGN.items():
        if start.startswith(magic):
            raise UserError(
                f"{path.name}: is a {kind} archive, which is not read; unpack it or pack it again as tar.xz"
            )


def zip_members(path: Path, archive: str, wanted: set[str] | None = None) -> Iterator[Member]:
    """Yield the regular files of a zip archive, or those in `wanted`, after every name has been checked.

    Raises
    ------
    UserError
        As `tar_members`.
    """
    with damage_reported(archive), zipfile.ZipFile(path) as file:
        for name, info in _zip_files(file, archive).items():
            if wanted is None or name in wanted:
                with file.open(info) as stream:
                    yield Member(name, info.file_size, stream, archive)


def _zip_files(file: zipfile.ZipFile, archive: str) -> dict[str, zipfile.ZipInfo]:
    infos: dict[str, zipfile.ZipInfo] = {}
    for info in file.infolist():
        name = checked_name(info.filename, archive)
        if info.is_dir() or info.filename.endswith("\\"):
            continue
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 when the archive was made where modes are unknown
        if kind not in (0, stat.S_IFREG):
            raise UserError(f"{archive}: member {name!r} is not a plain file (a link or a device?); refused")
        if name in infos:
            raise UserError(f"{archive}: member {name!r} is there twice; refused")
        infos[name] = info
    return infos


def archive_names(path: Path) -> list[str]:
    """Return the names of the regular files of a tar (plain, gz, bz2, xz) or zip archive, all checked."""
    if not _is_zip(path):
        return [member.name for member in tar_members(path, path.name)]
    with damage_reported(path.name), zipfile.ZipFile(path) as file:
        return list(_zip_files(file, path.name))


def archive_members(path: Path) -> Iterator[Member]:
    """Yield the regular files of a tar (plain, gz, bz2, xz) or zip archive."""
    return zip_members(path, path.name) if _is_zip(path) else tar_members(path, path.name)


def _is_zip(path: Path) -> bool:
    """Tell a zip, also behind a program that unpacks it, from a tar whose last member is one."""
    with open(path, "rb") as file:
        start = file.read(TAR_MAGIC.stop)
    packed = start.startswith(tuple(magic for magic, _ in COMPRESSED))
    return not packed and start[TAR_MAGIC] != b"ustar" and zipfile.is_zipfile(path)
