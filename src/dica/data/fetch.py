"""Bring archives into `data/raw`. Where the bytes come from does not matter; the declared digest decides.

Order: the file that is there; the mirror (`DICA_MIRROR` or an argument); DVC's cache and remote, if the file has a
pointer; the URL. A file gets its final name only after its digest has been verified.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from dica.data import catalog
from dica.data.download import BLOCK, Hashes, Progress, discard, download, require_allowed, state_of
from dica.data.paths import RAW
from dica.files import IntegrityError, UserError, sync_folder
from dica.validation import load_yaml


class _Absent(Exception):
    """This place does not have the file: try the next."""


def fetch(
    source: dict[str, Any], folder: Path | str, mirror: str | Path | None = None, wait: float = 1.0
) -> tuple[Path, dict[str, str]]:
    """Bring one file into a folder and prove its digest.

    Parameters
    ----------
    source
        `file` (name), `sha256` and/or `md5`, and optionally `size`, `url`, `get` (what to do when there is no URL).
    folder
        Where the file goes (`data/raw`); `<file>.dvc` in it makes DVC a source.
    mirror
        Folder or http(s) URL that holds files under their names; default: environment variable DICA_MIRROR.
    wait
        Seconds before the first new attempt after a broken connection; doubled each time.

    Returns
    -------
    tuple
        The path and the file's `sha256` and `md5`.

    Raises
    ------
    IntegrityError
        If the bytes are not the declared ones; names file, expected and got. A wrong download is removed.
    UserError
        If no source has the file, or the server fails for good.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / source["file"]
    with _only_one(folder, source["file"]):  # two data sets may share an archive and be prepared at once
        if path.exists():
            return path, _verify_present(path, source)
        part = path.with_name(f"{path.name}.part")
        try:
            place, hashes = _obtain(source, folder, part, mirror or os.environ.get("DICA_MIRROR"), wait)
            hashes.require(source, place)
        except IntegrityError:
            discard(part)
            raise
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        state_of(part).unlink(missing_ok=True)
        sync_folder(folder)
        return path, hashes.digests


def fetch_dataset(
    entry: dict[str, Any], root: Path | str, mirror: str | Path | None = None
) -> tuple[dict[str, Any], dict[str, Path], list[dict[str, Any]]]:
    """Bring what one alternative of a data set's `sources` needs.

    A folder that is configured and exists is taken first, then an alternative whose files are all in `data/raw`,
    then the alternatives in their order.

    Returns
    -------
    tuple
        The alternative, its paths by role (or file name), and the manifest's records {file, sha256, md5}.

    Raises
    ------
    IntegrityError
        If bytes are wrong, at once: a wrong file is never passed over in silence.
    UserError
        If no alternative can be had; the message says what was tried.
    """
    root = Path(root)
    alternatives = entry["sources"]
    for alternative in alternatives:
        path = catalog.local_folder(alternative, root) if alternative["format"] == "folder" else None
        if path is not None:
            if not path.is_dir():
                raise UserError(f"{path}: no such folder (source of {entry['name']})")
            return alternative, {"folder": path}, [{"file": path.name, "sha256": None, "md5": None}]
    with_files = [a for a in alternatives if a.get("files")]
    with_files.sort(key=lambda a: not all((root / RAW / f["file"]).exists() for f in a["files"]))
    failures = []
    for alternative in with_files:
        try:
            return alternative, *_fetch_files(alternative["files"], root / RAW, mirror)
        except IntegrityError:
            raise
        except UserError as error:
            failures.append(str(error))
    if not failures and any(a["format"] == "embedded" for a in alternatives):
        return alternatives[0], {}, []
    raise UserError("; ".join(failures) or f"{entry['name']}: no source is configured")


def _fetch_files(
    sources: list[dict[str, Any]], folder: Path, mirror: str | Path | None
) -> tuple[dict[str, Path], list[dict[str, Any]]]:
    paths, records = {}, []
    for source in sources:
        path, digests = fetch(source, folder, mirror)
        paths[source.get("role", source["file"])] = path
        records.append({"file": source["file"], **digests})
    return paths, records


@contextlib.contextmanager
def _only_one(folder: Path, name: str) -> Iterator[None]:
    with open(folder / f".{name}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _verify_present(path: Path, source: dict[str, Any]) -> dict[str, str]:
    hashes = Hashes()
    hashes.update_file(path)
    try:
        hashes.require(source, str(path.parent))
    except IntegrityError as error:
        raise IntegrityError(f"{error}; remove {path} and run again") from None
    return hashes.digests


def _obtain(
    source: dict[str, Any], folder: Path, part: Path, mirror: str | Path | None, wait: float
) -> tuple[str, Hashes]:
    """Fill `part` from the first place that has the file; return the place and the hashes of all bytes."""
    tried = []
    if mirror and re.match(r"https?://", str(mirror)):
        url = f"{str(mirror).rstrip('/')}/{quote(source['file'])}"
        try:
            return url, download(url, source, part, wait)
        except UserError as error:  # a mirror that is down must not stop the rest
            tried.append(str(error))
    elif mirror:
        candidate = Path(mirror).expanduser() / source["file"]
        if candidate.is_file():
            with open(candidate, "rb") as stream:
                return f"mirror {mirror}", _copy(stream, source, part)
        tried.append(f"mirror {mirror} does not have it")
    try:
        with _from_dvc(source, folder) as stream:
            return "DVC", _copy(stream, source, part)
    except _Absent as error:
        tried.append(str(error))
    except OSError as error:
        tried.append(f"DVC's copy could not be read ({error})")
    if source.get("url"):
        return source["url"], download(source["url"], source, part, wait)
    how = source.get("get", "it has no download address")
    raise UserError(
        f"{source['file']} is not in {folder}: {' '.join(how.split())} (also tried: {'; '.join(filter(None, tried))})"
    )


def _copy(stream: BinaryIO, source: dict[str, Any], part: Path) -> Hashes:
    hashes = Hashes()
    progress = Progress(source["file"], source.get("size"), 0)
    state_of(part).unlink(missing_ok=True)  # a copy is not resumed; nor may a later download resume a copy
    with open(part, "wb") as file:
        while data := stream.read(BLOCK):
            file.write(data)
            hashes.update(data)
            progress.add(len(data))
            if source.get("size") is not None and hashes.size > source["size"]:
                break  # wrong already
            require_allowed(hashes.size, source)
    progress.close()
    return hashes


@contextlib.contextmanager
def _from_dvc(source: dict[str, Any], folder: Path) -> Iterator[BinaryIO]:
    """Open the file's bytes in DVC's cache or default remote by their md5, taking no lock and building no index."""
    pointer = folder / f"{source['file']}.dvc"
    root = next((parent for parent in folder.resolve().parents if (parent / ".dvc").is_dir()), None)
    if root is None or not pointer.is_file():
        raise _Absent("no DVC pointer" if root else "no DVC project")
    md5 = (load_yaml(pointer, ours=False) or {}).get("outs", [{}])[0].get("md5")
    if source.get("md5") and md5 != source["md5"]:
        raise IntegrityError(f"{pointer}: md5 is {md5}, params/datasets.yaml declares {source['md5']}")
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(_open_in_dvc(root, md5))
        except _Absent:
            raise
        except Exception as error:  # no network, no plugin, no credentials: DVC is one source among several
            mend = "" if (root / ".git").exists() else "; for a copy without .git: `dvc config core.no_scm true`"
            raise _Absent(f"DVC cannot serve it ({' '.join(str(error).split())}{mend})") from None
        yield stream


@contextlib.contextmanager
def _open_in_dvc(root: Path, md5: str) -> Iterator[BinaryIO]:
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        stores = [repo.cache.local]
        if repo.config["core"].get("remote"):
            stores.append(repo.cloud.get_remote_odb())
        for store in stores:
            path = store.oid_to_path(md5)
            if store.fs.exists(path):
                with store.fs.open(path, "rb") as stream:
                    yield stream
                return
    raise _Absent("DVC has no copy in its cache or default remote")
