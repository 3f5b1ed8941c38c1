"""Whether a run is finished: its record is there, and every file is the one that the record names.

Snakemake removes what a rule declares as its output before a job starts and after it failed, also when another process
has finished that output meanwhile. The rule that trains therefore declares nothing but the record, and a copy of it
lies in the run's state folder: what Snakemake takes away can be put back without training.
"""

from __future__ import annotations

from pathlib import Path

from dica.files import UserError, atomic_write_bytes, sha256_file
from dica.runs.files import RECORD, STAGES, WEIGHTS
from dica.runs.read import TEXT, read_record

KEYS = {"id": TEXT, "files": dict, "files.*": TEXT}


def is_finished(run_id: str, out: Path, models: Path) -> bool:
    """Return whether a run is finished; False if it has no record.

    Parameters
    ----------
    out, models
        Folders of its records and of its weights.

    Raises
    ------
    UserError
        If there is a record and it is another run's, or its files are not all there as it says: nothing that is
        recorded is overwritten in silence.
    """
    if not (out / RECORD).is_file():
        return False
    if fault := _fault(out / RECORD, run_id, out, models):
        raise UserError(f"{out}: has the record of a run, but {fault}; move that folder away to train the run again")
    return True


def keep_record(content: bytes, state: Path) -> None:
    """Keep a copy of the record of a run in its state folder."""
    atomic_write_bytes(state / RECORD, content)


def put_back(run_id: str, out: Path, models: Path, state: Path) -> bool:
    """Put the record of a finished run back where it was taken away and nothing else was; return whether it was.

    A kept record whose files are no longer there as it says is forgotten: the run is to be trained anew.
    """
    kept = state / RECORD
    if not kept.is_file():
        return False
    if _fault(kept, run_id, out, models):
        kept.unlink()
        return False
    atomic_write_bytes(out / RECORD, kept.read_bytes())
    return True


def _fault(path: Path, run_id: str, out: Path, models: Path) -> str:
    """Return why a record is not that of the run whose files lie in these folders, or nothing."""
    record, faults = read_record(path, KEYS)
    if record is None:
        return f"{path.name} {faults[0].detail}"
    if record["id"] != run_id:
        return f"it is of run {record['id']}, not of {run_id}"
    for name, digest in record["files"].items():
        file = (models if name in (WEIGHTS, STAGES) else out) / name
        if not file.is_file():
            return f"{file} is not there"
        if sha256_file(file) != digest:
            return f"{file} is not the file that was recorded"
    return ""
