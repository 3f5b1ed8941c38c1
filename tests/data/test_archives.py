"""Hostile and damaged archives are refused before anything of them is used."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

import archives
from dica.data.archives import archive_members, archive_names, tar_members
from dica.files import UserError


def hostile_tar(path: Path, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        good, bad = tarfile.TarInfo("good.png"), tarfile.TarInfo(name)
        good.size, bad.type, bad.linkname = 2, kind, link
        tar.addfile(good, io.BytesIO(b"ok"))
        tar.addfile(bad, io.BytesIO(b""))
    return path


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../escape.png", tarfile.REGTYPE, ""),
        ("a/../../escape.png", tarfile.REGTYPE, ""),
        ("/etc/absolute.png", tarfile.REGTYPE, ""),
        ("..\\windows.png", tarfile.REGTYPE, ""),
        ("../folder", tarfile.DIRTYPE, ""),
        ("symbolic.png", tarfile.SYMTYPE, "/etc/passwd"),
        ("hard.png", tarfile.LNKTYPE, "good.png"),
        ("device.png", tarfile.CHRTYPE, ""),
        ("block.png", tarfile.BLKTYPE, ""),
        ("pipe.png", tarfile.FIFOTYPE, ""),
        ("good.png", tarfile.REGTYPE, ""),
    ],
)
def test_hostile_tar_members_are_refused_by_name(tmp_path, name, kind, link):
    path = hostile_tar(tmp_path / "x.tar.gz", name, kind, link)
    with pytest.raises(UserError, match="refused") as error:
        archive_names(path)
    assert repr(name) in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.tar.gz"]


@pytest.mark.parametrize("name", ["../escape.png", "/etc/absolute.png", "a/../../b.png"])
def test_hostile_zip_names_are_refused(tmp_path, name):
    path = archives.write_zip(tmp_path / "x.zip", {"good.png": b"ok", name: b"bad"})
    with pytest.raises(UserError, match="refused"):
        archive_names(path)


def test_a_link_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        info = zipfile.ZipInfo("link.png")
        info.external_attr = 0o120777 << 16
        file.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="not a plain file"):
        archive_names(tmp_path / "x.zip")


def test_a_zip_member_that_declares_a_huge_size_is_not_read(tmp_path):
    path = archives.write_zip(tmp_path / "x.zip", {"bomb.png": b"\0" * 1000})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 3 * 2**30)  # uncompressed size in the central directory
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"bomb\.png' has 3221225472 bytes"):
        [member.read() for member in archive_members(path)]


def test_a_member_longer_than_the_limit_is_not_read(tmp_path):
    path = archives.write_tar(tmp_path / "x.tar.xz", {"big.png": b"\0" * 5000}, "w:xz")
    with pytest.raises(UserError, match="at most 4096"):
        [member.read(4096) for member in archive_members(path)]


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("gr\xf6\xdfe.png"), io.BytesIO())
    with pytest.raises(UserError, match="not UTF-8"):
        archive_names(tmp_path / "x.tar")


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2", "w"])
def test_a_truncated_archive_is_called_damaged(tmp_path, mode):
    noise = archives.images(1, 100, 100).tobytes()
    path = archives.write_tar(tmp_path / "x.tar", {"a.png": noise, "b.png": noise}, mode)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(UserError, match="damaged"):
        [member.read() for member in archive_members(path)]


def test_a_zip_with_a_wrong_checksum_is_called_damaged(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.png", b"0123456789")
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"0123456780"))
    with pytest.raises(UserError, match="damaged"):
        [member.read() for member in archive_members(path)]


def test_something_else_is_not_an_archive(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match=r"x\.tar\.gz: damaged"):
        archive_names(tmp_path / "x.tar.gz")


@pytest.mark.parametrize("level", [None, 0, 9])
def test_a_tar_with_a_zip_at_its_end_is_a_tar(tmp_path, level):
    inside = io.BytesIO()
    with zipfile.ZipFile(inside, "w") as file:
        file.writestr("other/3.png", b"3")
    path = archives.write_tar(tmp_path / "x.tar", {"a/1.png": b"1", "b/2.png": b"2", "c.zip": inside.getvalue()}, "w")
    if level is not None:  # of level 0 the zip is there as it is
        path.write_bytes(gzip.compress(path.read_bytes(), level))
    assert archive_names(path) == [member.name for member in archive_members(path)] == ["a/1.png", "b/2.png", "c.zip"]
    path.write_bytes(b"#!/bin/sh\n" + inside.getvalue())  # what unpacks itself
    assert archive_names(path) == ["other/3.png"]


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w"])
def test_a_member_that_claims_more_than_any_archive_holds_is_refused_at_once(tmp_path, mode):
    path = archives.write_tar(tmp_path / "x.tar", {"a.png": b"1"}, mode)
    with tarfile.open(path, mode, format=tarfile.GNU_FORMAT) as tar:
        claims = tarfile.TarInfo("huge.png")
        claims.size = 10**14
        tar.fileobj.write(claims.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(UserError, match=r"huge\.png' claims 100000000000000 bytes; refused"):
        archive_names(path)


@pytest.mark.parametrize("mode", ["r|*", "r:"])
def test_extended_headers_are_not_held_in_memory_however_long_they_are(tmp_path, mode):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.png")
        info.pax_headers = {"comment": "x" * 3 * 2**20}
        tar.addfile(info)
    with pytest.raises(UserError, match="the headers of a member have more than"):
        [member.name for member in tar_members(path, "x.tar", mode)]


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2", "w"])
def test_members_longer_than_the_bound_on_headers_are_read_and_passed_over(tmp_path, mode):
    large = bytes(3 * 2**20)
    path = archives.write_tar(tmp_path / "x.tar", {"a.png": large, "b.png": b"b", "c.png": large}, mode)
    assert archive_names(path) == ["a.png", "b.png", "c.png"]
    assert [len(member.read()) for member in archive_members(path)] == [3 * 2**20, 1, 3 * 2**20]
