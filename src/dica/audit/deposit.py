"""The deposit: one tarball with all that an auditor needs, the same bytes at every build, and its check.

    dica deposit build dist/dica-archive.tar.gz
    dica deposit check dist/dica-archive.tar.gz

Inside: sources, documentation, parameters, labels, results without weights, `manifest-sha256.txt` (as ``sha256sum -c``
reads it) and `ro-crate-metadata.json`, a Workflow Run RO-Crate with one action for each run. The check takes a deposit
for data and runs none of its code: it unpacks within bounds into an empty folder, verifies every hash, lets the package
that is installed here make every table again, byte for byte, without torch and without network, audits every cell and
draws every figure again.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from dica.data.archives import Member, tar_members
from dica.data.paths import LABELS
from dica.files import (
    IntegrityError,
    UserError,
    atomic_write_bytes,
    read_bytes,
    require_plain,
    sha256_bytes,
    sha256_file,
)
from dica.plan.planned import load_plan
from dica.runs.files import RECORD, WEIGHTS, models_of

MANIFEST, CRATE = "manifest-sha256.txt", "ro-crate-metadata.json"
TREES = ("params", "workflow", "src", "docs", LABELS, "LICENSES")
FILES = (
    *(
        "Snakefile",
        "Makefile",
        "README.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "CITATION.cff",
        "REUSE.toml",
        "codemeta.json",
    ),
    *("requirements.lock", "pyproject.toml", "environment.yml", "dvc.yaml", "dvc.lock"),
)
NEEDED = ("Snakefile", "LICENSE", "requirements.lock")
RESULT_TREES = ("runs", "tables", "figures", "metrics", "report", "analyses", "made")
RESULT_FILES = ("plan.json", "claims.csv", "claims.md")
MODE, EPOCH = 0o644, 0
BLOCK = 2**20
MOST_BYTES, MOST_MEMBERS = 1 << 30, 100_000  # of a deposit, unpacked; the archive's own has some 40 MB and 3,000 files
PACKAGE = Path(__file__).resolve().parents[1]


def contents(root: Path, results: str, with_weights: bool = False) -> list[str]:
    """Return the paths of a deposit relative to the project root, sorted; hidden files and caches stay out.

    Raises
    ------
    UserError
        If the results have no tables yet, or a file that belongs to every deposit is missing.
    """
    for name in (*NEEDED, f"{results}/plan.json", f"{results}/tables/cells.csv"):
        if not (root / name).is_file():
            raise UserError(
                f"{root / name}: no such file; a deposit needs it (`snakemake --cores all light` makes tables)"
            )
    folders = [*TREES, *(f"{results}/{name}" for name in RESULT_TREES)]
    paths = [path for folder in folders for path in (root / folder).rglob("*") if path.is_file()]
    paths += [
        root / name for name in (*FILES, *(f"{results}/{name}" for name in RESULT_FILES)) if (root / name).is_file()
    ]
    paths += (root / results / "state").glob("*/failed.json")  # tables say why a run failed
    paths += _weights(root, results) if with_weights else []
    names = {path.relative_to(root).as_posix() for path in paths if not path.is_symlink()}
    return sorted(name for name in names if not _is_litter(name))


def _weights(root: Path, results: str) -> list[Path]:
    """Return the weights of every finished run.

    Raises
    ------
    UserError
        If some are not here, or all together are more than a deposit may hold.
    """
    runs = [root / run["path"] for run in load_plan(root / results / "plan.json")["runs"]]
    files = [models_of(run) / WEIGHTS for run in runs if (run / RECORD).is_file()]
    if absent := [file.relative_to(root).as_posix() for file in files if not file.is_file()]:
        raise UserError(
            f"{absent[0]}: no such file, and {len(absent) - 1} more; `dvc pull` brings weights, if kept there"
        )
    if (size := sum(file.stat().st_size for file in files)) > MOST_BYTES // 2:
        raise UserError(f"--with-weights: they have {size} bytes, at most {MOST_BYTES // 2} are taken")
    return files


def _is_litter(name: str) -> bool:
    parts = name.split("/")
    return any(part.startswith(".") or part in ("__pycache__",) or part.endswith(".egg-info") for part in parts)


def build(root: Path, results: str, out: Path, with_weights: bool = False) -> str:
    """Write the deposit and return its SHA-256; equal files give equal bytes, whenever and wherever it is built.

    Parameters
    ----------
    root, results
        Project root and results root relative to it.
    out
        The file to write, ``NAME.tar.gz``; its content is in a folder NAME.
    with_weights
        Put the weights of all runs in; else their digests alone are there, in the records of the runs.
    """
    from dica.audit.crate import metadata

    if not out.name.endswith(".tar.gz"):
        raise UserError(f"{out}: the name of a deposit ends in .tar.gz")
    names = contents(root, results, with_weights)
    files = {name: (root / name).read_bytes() for name in names}
    files[CRATE] = metadata(root, results, [*names, MANIFEST]).encode()
    lines = [f"{sha256_bytes(data)}  {name}\n" for name, data in sorted(files.items())]
    files[MANIFEST] = "".join(lines).encode()
    data = _tarball(out.name.removesuffix(".tar.gz"), files)
    atomic_write_bytes(out, data)
    return sha256_bytes(data)


def _tarball(folder: str, files: dict[str, bytes]) -> bytes:
    """Return a gzipped tar of files in the order of their names, without times, owners or modes of this machine."""
    plain, packed = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in sorted(files.items()):
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.mode, member.mtime = len(data), MODE, EPOCH
            archive.addfile(member, io.BytesIO(data))
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=EPOCH, compresslevel=9) as file:
        file.write(plain.getvalue())
    return packed.getvalue()


@contextlib.contextmanager
def unpacked(file: Path) -> Iterator[Path]:
    """Yield the folder of a deposit, unpacked into an empty temporary place; nothing can be written outside of it.

    Raises
    ------
    UserError
        If it is missing or is no deposit.
    """
    with tempfile.TemporaryDirectory(prefix="dica-deposit-") as place:
        try:
            require_plain(file)
            _measure(file)
            for member in _members(file):
                _write(member, Path(place) / member.name)
        except FileNotFoundError:
            raise UserError(f"{file}: no such file") from None
        except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
            raise UserError(f"{file}: not a readable deposit ({error})") from None
        folders = list(Path(place).iterdir())
        if len(folders) != 1 or not (folders[0] / MANIFEST).is_file():
            raise UserError(f"{file}: is no deposit: one folder with {MANIFEST} is expected")
        yield folders[0]


class _Bounded(io.RawIOBase):
    """A stream that ends in an error after `MOST_BYTES`, whatever a compressed file grows to."""

    def __init__(self, stream: io.BufferedIOBase, name: str) -> None:
        self.stream, self.name_, self.count = stream, name, 0

    def read(self, size: int = -1) -> bytes:
        left = MOST_BYTES - self.count
        data = self.stream.read(left + 1 if size < 0 else min(size, left + 1))
        self.count += len(data)
        if self.count > MOST_BYTES:
            raise UserError(f"{self.name_}: unpacks to more than {MOST_BYTES} bytes; no deposit is as large")
        return data


def _members(file: Path) -> Iterator[Member]:
    """Yield the files of a deposit from a stream that cannot grow without bounds; links and devices are refused."""
    with gzip.open(file) as plain:
        yield from tar_members(cast(IO[bytes], _Bounded(plain, str(file))), str(file), "r|")


def _measure(file: Path) -> None:
    """Refuse a deposit by what its members say of themselves, before anything of it is written.

    Raises
    ------
    UserError
        If it has too many or too large members, or one that is neither a plain file nor a folder.
    """
    total = 0
    for count, member in enumerate(_members(file), 1):
        total += member.size
        if count > MOST_MEMBERS or total > MOST_BYTES:
            what = f"more than {MOST_MEMBERS} members" if count > MOST_MEMBERS else f"{total} bytes"
            raise UserError(f"{file}: says that it holds {what}; no deposit is as large")


def _write(member: Member, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for start in range(0, member.size, BLOCK):
            file.write(member.take(min(BLOCK, member.size - start)))


def verify(folder: Path) -> int:
    """Compare every file with the manifest and return their number.

    Raises
    ------
    IntegrityError
        If a file is changed, missing or not listed; the message has the first of them.
    """
    listed = {}
    for line in read_bytes(folder / MANIFEST).decode("utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    problems = [f"{name} is missing" for name in sorted(listed.keys() - found)]
    problems += [f"{name} is not in the manifest" for name in sorted(found - listed.keys())]
    problems += [
        f"{name} is changed" for name in sorted(found & listed.keys()) if sha256_file(folder / name) != listed[name]
    ]
    if problems:
        raise IntegrityError(f"{MANIFEST}: {problems[0]}" + (f", and {len(problems) - 1} more" if problems[1:] else ""))
    return len(listed)


# Run by the package that is installed here: torch cannot be imported, no socket can be connected.
CHECKED = """
import socket, sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ImportError(f"the check of a deposit does without {name}")
sys.meta_path.insert(0, NoTorch())
def refuse(*arguments):
    raise OSError("the check of a deposit works offline")
socket.socket.connect = socket.create_connection = refuse
"""
REBUILD = """
from pathlib import Path
from dica.audit.deposit import rebuild
rebuild(Path.cwd(), sys.argv[1])
"""
AUDIT = """
from dica.cli.__main__ import main
sys.argv = ["dica", "audit", "--all", "--profile", sys.argv[1]]
main()
"""


def check(file: Path) -> list[str]:
    """Check a deposit in a clean folder and return what was found, a line each.

    Raises
    ------
    IntegrityError
        If a file is not the one of the manifest, a table comes out otherwise, or a cell does not pass the audit.
    """
    with unpacked(file) as folder:
        count = verify(folder)
        found = [f"{count} files are those of {MANIFEST}"]
        plans = list(folder.glob("results/**/plan.json"))
        if len(plans) != 1:
            raise IntegrityError(f"{file}: has {len(plans)} files plan.json under results, one is expected")
        (plan,) = plans
        results = plan.parent.relative_to(folder).as_posix()
        _require_data(folder, results)
        profile = _profile_of(plan)
        found.append(_about_code(folder))
        for script, argument in ((REBUILD, results), (AUDIT, profile)):
            done = _python(folder, CHECKED + script, argument)
            if done.returncode:
                raise IntegrityError(f"{file}: {(done.stdout + done.stderr).strip()}")
            found += done.stdout.strip().splitlines()
    return found


def _require_data(folder: Path, results: str) -> None:
    """Refuse files that no deposit holds: a program of this machine (Git, matplotlib) could take its orders from them.

    Raises
    ------
    IntegrityError
        If there is a hidden file, or one outside the folders of a deposit.
    """
    known = (*(f"{tree}/" for tree in TREES), f"{results}/")
    for path in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        name = path.relative_to(folder).as_posix()
        if name not in (*FILES, MANIFEST, CRATE) and (_is_litter(name) or not name.startswith(known)):
            raise IntegrityError(f"{name}: is nothing that a deposit holds")


def _profile_of(plan: Path) -> str:
    name = load_plan(plan)["profile"]
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        raise IntegrityError(f"{plan.name}: profile: {str(name)[:50]!r} is no name of a profile")
    return f"params/{name}.yaml"


def _about_code(folder: Path) -> str:
    """Return whether the code inside is the code that checks it; it is not run either way."""
    here = {path.relative_to(PACKAGE.parent).as_posix(): path for path in PACKAGE.rglob("*.py")}
    inside = {path.relative_to(folder / "src").as_posix(): path for path in (folder / "src").rglob("*.py")}
    unlike = sorted(
        name
        for name in here.keys() | inside.keys()
        if name not in here or name not in inside or here[name].read_bytes() != inside[name].read_bytes()
    )
    if not unlike:
        return "its code is the code of the installed package, which checked it"
    more = f" and {len(unlike) - 3} more" if len(unlike) > 3 else ""
    return f"checked by the installed package; the code inside was not run and differs: {', '.join(unlike[:3])}{more}"


def _python(folder: Path, script: str, argument: str) -> subprocess.CompletedProcess:
    """Run this Python with this package in a deposit's folder, from which nothing is imported (`-P`)."""
    settings = {"PYTHONPATH": str(PACKAGE.parent), "NO_COLOR": "1", "COLUMNS": "200", "MPLBACKEND": "agg"}
    settings |= {"GIT_CEILING_DIRECTORIES": str(folder.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-P", "-c", script, argument]
    return subprocess.run(command, cwd=folder, env={**os.environ, **settings}, text=True, capture_output=True)


def rebuild(root: Path, results: str) -> None:
    """Make every table of a project again in a temporary folder and compare it with the stored one.

    Raises
    ------
    SystemExit
        If a table differs or is missing; the message names them.
    """
    from dica.audit.uncelled import remake
    from dica.plan.planned import artefacts_of
    from dica.tables.cells import cells, write_cells
    from dica.tables.inputs import NAME, write_inputs
    from dica.tables.rendering import write_tables

    plan = load_plan(root / results / "plan.json")
    declared = artefacts_of(plan, root)
    frame = cells(plan, root, results, declared)
    with tempfile.TemporaryDirectory() as place:
        out = Path(place)
        write_cells(frame, out / "cells.csv")
        write_inputs(declared, plan, root, out / NAME)
        write_tables(declared, frame, plan, out)
        remake(plan, root, results, out)
        made = sorted(path for path in out.rglob("*") if path.is_file())
        unlike = [
            path.relative_to(out).as_posix()
            for path in made
            if not _same(path, root / results / "tables" / path.relative_to(out))
        ]
    if unlike:
        raise SystemExit(f"error: {results}/tables: {', '.join(unlike)} come out otherwise when built again")
    print(f"{len(made)} tables come out byte for byte when built again, offline and without torch")


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()
