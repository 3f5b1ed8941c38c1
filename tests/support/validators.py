"""The validators of other communities: programs of an environment of their own, which `make validators` makes.

Their libraries would drag versions into requirements.lock that nothing here needs. Tests that use them skip without it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dica.files import read_csv, write_csv

ROOT = Path(__file__).resolve().parents[2]
LOCK = "validators.lock"
COLUMNS = ("validator", "version", "what", "accepted")


def run(
    package: str,
    program: str,
    *arguments: str | Path,
    cwd: Path | None = None,
    code: int = 0,
    folder: Path | None = None,
) -> str:
    """Run a program of the validators' environment and return its output; the test skips where there is none.

    Parameters
    ----------
    folder
        Another environment, such as that of `make site`.
    """
    folder = (folder or Path(os.environ.get("DICA_VALIDATORS", ROOT / ".venv-validators"))) / "bin"
    if not (folder / program).is_file():
        pytest.skip(f"no {package} at {folder}: `make validators` installs it and runs this test")
    settings = {"PYTHONPATH": "", "NO_COLOR": "1", "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    command = [str(folder / program), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=os.environ | settings, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def version(package: str, lock: str = LOCK) -> str:
    """Return the version of a validator, as locked."""
    lines = [line.partition("==") for line in (ROOT / lock).read_text(encoding="utf-8").splitlines()]
    return next(number for name, _, number in lines if name == package)


def note(validator: str, what: str, passed: bool, number: str | None = None) -> None:
    """Put a line into the table of validators, the csv in DICA_VALIDATED, if that is asked for."""
    if not (name := os.environ.get("DICA_VALIDATED")):
        return
    rows = read_csv(name, COLUMNS) if Path(name).is_file() else []
    rows = [row for row in rows if (row["validator"], row["what"]) != (validator, what)]
    line = [validator, number or version(validator), what, "yes" if passed else "no"]
    rows.append(dict(zip(COLUMNS, line, strict=True)))
    write_csv(sorted(rows, key=lambda row: (row["validator"], row["what"])), COLUMNS, Path(name))
