"""Read archives member by member; nothing is ever extracted.

Extraction filters have been bypassed more than once (CVE-2025-4517 and its kin). Here no name of an archive ever
becomes a path on disk, and an archive that holds an absolute name, `..`, a link or a device is refused as a whole.
"""

from __future__ import annotations

import contextlib
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dica.files import UserError

IMAGE_LIMIT = 64 * 2**20  # bytes of one compressed image; the largest of ILSVRC-2012 has 16 MB


class Member(NamedTuple):
    """A regular file of an archive; `stream` may be read only until the next member is asked for."""

    name: str
    size: int
    stream: BinaryIO
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
    """Return a member's name without a leading `./`, or raise a UserError if it points outside the archive."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{archive}: member {name!a} has a name that is not UTF-8; refused") from None
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or "\0" in name:
        raise UserError(f"{archive}: member {name!r} points outside the archive; refused")
    return "/".join(part for part in name.split("/") if part not in ("", "."))


@contextlib.contextmanager
def damage_reported(archive: str) -> Iterator[None]:
    """Turn the many errors of damaged archives into one UserError."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise UserError(f"{archive}: damaged or not an archive of the expected kind ({error})") from None
    except RuntimeError as error:  # what zipfile raises for an encrypted member
        raise UserError(f"{archive}: cannot be read ({error})") from None


def tar_members(source: Path | BinaryIO, archive: str, mode: str = "r|*") -> Iterator[Member]:
    """Yield the regular files of a tar archive in their order.

    Parameters
    ----------
    source
        A path or an open file.
    archive
        What error messages call it.
    mode
        `r|*` reads once, forward, through any compression. `r:` seeks, for plain tars that are read in part.

    Raises
    ------
    UserError
        At a member that is a link or a device or points outside, that comes twice, or if the archive is damaged.
    """
    arguments = {"name": source} if isinstance(source, Path) else {"fileobj": source}
    seen: set[str] = set()
    with damage_reported(archive), tarfile.open(mode=mode, **arguments) as tar:
        for info in tar:
            name = checked_name(info.name, archive)
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise UserError(f"{archive}: member {name!r} is not a plain file (a link or a device?); refused")
            if name in seen:
                raise UserError(f"{archive}: member {name!r} is there twice; refused")
            seen.add(name)
            yield Member(name, info.size, tar.extractfile(info), archive)


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
        if info.is_dir():
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
    if not zipfile.is_zipfile(path):
        return [member.name for member in tar_members(path, path.name)]
    with damage_reported(path.name), zipfile.ZipFile(path) as file:
        return list(_zip_files(file, path.name))


def archive_members(path: Path) -> Iterator[Member]:
    """Yield the regular files of a tar (plain, gz, bz2, xz) or zip archive."""
    return zip_members(path, path.name) if zipfile.is_zipfile(path) else tar_members(path, path.name)
