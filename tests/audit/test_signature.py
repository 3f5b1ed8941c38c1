"""Signatures: accepted for these bytes by this key alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dica.audit.signature import PROGRAM, PURPOSE, sign, signature_of, verify
from dica.files import IntegrityError, UserError


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        subprocess.run([PROGRAM, "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    return folder


@pytest.fixture
def signed(tmp_path: Path, keys: Path) -> Path:
    file = tmp_path / "a.tar.gz"
    file.write_bytes(b"content")
    assert sign(file, keys / "mine") == signature_of(file)
    return file


def test_the_right_key_accepts_it_and_a_second_signature_replaces_the_first(signed: Path, keys: Path) -> None:
    assert verify(signed, keys / "mine.pub") == "signed by the holder of mine.pub"
    sign(signed, keys / "other")
    assert verify(signed, keys / "other.pub")
    with pytest.raises(IntegrityError, match="is no signature of"):
        verify(signed, keys / "mine.pub")


def test_other_bytes_and_another_key_are_refused(signed: Path, keys: Path) -> None:
    with pytest.raises(IntegrityError, match=r"by other\.pub"):
        verify(signed, keys / "other.pub")
    signed.write_bytes(b"contenT")
    with pytest.raises(IntegrityError, match=r"is no signature of a\.tar\.gz"):
        verify(signed, keys / "mine.pub")


def test_a_signature_given_for_something_else_is_none(signed: Path, keys: Path) -> None:
    signature_of(signed).unlink()
    command = [PROGRAM, "-Y", "sign", "-q", "-n", "file", "-f", keys / "mine", signed]
    assert PURPOSE != "file"
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(IntegrityError, match="is no signature of"):
        verify(signed, keys / "mine.pub")


def test_what_is_no_key_or_no_signature_is_one_line(signed: Path, keys: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match="is no public key"):
        verify(signed, keys / "mine")
    with pytest.raises(UserError, match="no such file"):
        sign(signed, tmp_path / "nothing")
    (tmp_path / "text").write_text("text")
    with pytest.raises(UserError, match="cannot sign"):
        sign(signed, tmp_path / "text")
    with pytest.raises(IntegrityError, match="not signed"):
        verify(signed, keys / "mine.pub")  # the failed attempt has left none
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="openssh-client"):
        sign(signed, keys / "mine")
