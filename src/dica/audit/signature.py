"""The signature of a deposit, by OpenSSH's own program: who holds the public key needs nothing of this archive.

    ssh-keygen -t ed25519 -f key                    # once; the private key can stay on a machine without network
    dica deposit build dist/dica-archive.tar.gz --sign key
    dica deposit check dist/dica-archive.tar.gz --key key.pub

A deposit that was changed in agreement with itself passes every check from inside, but not the one of its signature.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from dica.files import IntegrityError, UserError, read_bytes

PURPOSE = "dica-deposit"  # a signature that the same key gave for something else is none
SIGNER = "deposit"
PROGRAM = "ssh-keygen"


def signature_of(file: Path) -> Path:
    """Return where the signature of a deposit lies: beside it."""
    return file.with_name(f"{file.name}.sig")


def sign(file: Path, key: Path) -> Path:
    """Write the signature of a file beside it and return its path.

    Parameters
    ----------
    key
        A private key of OpenSSH, or a public one whose private key an ssh-agent holds.

    Raises
    ------
    UserError
        If the key cannot sign.
    """
    read_bytes(key)
    signature_of(file).unlink(missing_ok=True)  # an old one would be asked about at the terminal
    done = _run(["-Y", "sign", "-q", "-n", PURPOSE, "-f", str(key), str(file)], None)
    if done.returncode or not signature_of(file).is_file():
        raise UserError(f"{key}: cannot sign {file.name}: {_said(done)}")
    return signature_of(file)


def verify(file: Path, key: Path) -> str:
    """Check that the holder of a key signed exactly these bytes, and return that in a line.

    Parameters
    ----------
    key
        The public key, a file of one line as ``ssh-keygen`` writes it.

    Raises
    ------
    IntegrityError
        If there is no signature, or it is another one's or of other bytes.
    """
    parts = read_bytes(key).decode("utf-8", errors="replace").split()
    if len(parts) < 2 or not parts[0].startswith(("ssh-", "ecdsa-", "sk-")):
        raise UserError(f"{key}: is no public key of OpenSSH (a line such as `ssh-ed25519 AAAA… name`)")
    if not signature_of(file).is_file():
        raise IntegrityError(f"{signature_of(file)}: no such file; the deposit is not signed")
    with tempfile.TemporaryDirectory(prefix="dica-signers-") as place:
        signers = Path(place) / "signers"
        signers.write_text(f"{SIGNER} {parts[0]} {parts[1]}\n", encoding="utf-8")
        options = ["-f", str(signers), "-I", SIGNER, "-n", PURPOSE, "-s", str(signature_of(file))]
        done = _run(["-Y", "verify", *options], file)
    if done.returncode:
        raise IntegrityError(f"{signature_of(file)}: is no signature of {file.name} by {key.name}: {_said(done)}")
    return f"signed by the holder of {key.name}"


def _run(arguments: list[str], given: Path | None) -> subprocess.CompletedProcess:
    try:
        if given is None:
            return subprocess.run([PROGRAM, *arguments], capture_output=True, check=False)
        with open(given, "rb") as file:
            return subprocess.run([PROGRAM, *arguments], stdin=file, capture_output=True, check=False)
    except FileNotFoundError as error:
        if error.filename != PROGRAM:
            raise UserError(f"{given}: no such file") from None
        raise UserError(f"{PROGRAM} is not installed; signatures need it (package openssh-client)") from None


def _said(done: subprocess.CompletedProcess) -> str:
    lines = (done.stderr + done.stdout).decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else f"{PROGRAM} ended with code {done.returncode}"
