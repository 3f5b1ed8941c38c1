"""Bring archives into `data/raw`. Where the bytes come from does not matter; the declared digest decides.

Order: the file that is there; the mirror (`DICA_MIRROR` or an argument); DVC's cache and remote, if the file has a
pointer; the URL. A file gets its final name only after its digest has been verified.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from dica.data import catalog
from dica.files import IntegrityError, UserError, read_json, sync_folder, write_json
from dica.validation import load_yaml

RAW = Path("data/raw")
BLOCK = 2**20
NETWORK_BLOCK = 2**16  # smaller: what a broken connection had not filled is lost
ATTEMPTS = 5  # without progress; each attempt that gets further starts the count again
TIMEOUT = (15, 60)  # seconds to connect, seconds without a byte


class _Dropped(Exception):
    """The connection broke or the server asked to come back: worth another attempt."""


class _Absent(Exception):
    """This place does not have the file: try the next."""


class Hashes:
    """Size and both digests of a stream, in one pass."""

    def __init__(self) -> None:
        self.size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()

    def update(self, data: bytes) -> None:
        self.size += len(data)
        self._md5.update(data)
        self._sha256.update(data)

    def update_file(self, path: Path) -> None:
        with open(path, "rb") as file:
            while data := file.read(BLOCK):
                self.update(data)

    @property
    def digests(self) -> dict[str, str]:
        return {"sha256": self._sha256.hexdigest(), "md5": self._md5.hexdigest()}

    def require(self, source: dict[str, Any], place: str) -> None:
        """Raise an IntegrityError unless size and every declared digest agree."""
        found = {"size": self.size, **self.digests}
        for key in ("size", "sha256", "md5"):
            if source.get(key) is not None and source[key] != found[key]:
                raise IntegrityError(
                    f"{source['file']} from {place}: {key} is {found[key]}, params/datasets.yaml declares {source[key]}"
                )


class Progress:
    """A bar on a terminal, a plain line every tenth otherwise; to stderr."""

    def __init__(self, name: str, total: int | None, start: int) -> None:
        self.name, self.total, self.done = name, total, start
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=name)
        self.step = max((total or 0) // 10, 100 * BLOCK if not total else BLOCK)
        self.next = (start // self.step + 1) * self.step

    def add(self, number: int) -> None:
        self.done += number
        if self.bar is not None:
            self.bar.update(number)
        elif self.done >= self.next:
            self.next = (self.done // self.step + 1) * self.step
            of = f" of {self.total / 1e6:.0f}" if self.total else ""
            print(f"{self.name}: {self.done / 1e6:.0f}{of} MB", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


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
        place, hashes = _obtain(source, folder, part, mirror or os.environ.get("DICA_MIRROR"), wait)
        try:
            hashes.require(source, place)
        except IntegrityError:
            _discard(part)
            raise
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        _state_of(part).unlink(missing_ok=True)
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
    _state_of(part).unlink(missing_ok=True)  # a copy is not resumed; nor may a later download resume a copy
    with open(part, "wb") as file:
        while data := stream.read(BLOCK):
            file.write(data)
            hashes.update(data)
            progress.add(len(data))
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
            raise _Absent(f"DVC cannot serve it ({' '.join(str(error).split())})") from None
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


def download(url: str, source: dict[str, Any], part: Path, wait: float = 1.0) -> Hashes:
    """Download into `part`, resuming what an earlier attempt or process left there.

    Raises
    ------
    UserError
        If the server refuses, or the connection breaks ATTEMPTS times without getting further. The part stays, so that
        the next call resumes.
    """
    furthest, failures = 0, 0
    while True:
        try:
            return _attempt(url, source, part)
        except _Dropped as error:
            reached = part.stat().st_size if part.exists() else 0
            if reached > furthest:
                furthest, failures = reached, 0
            failures += 1
            if failures >= ATTEMPTS:
                raise UserError(
                    f"{source['file']}: {url} failed {ATTEMPTS} times at byte {reached} ({error}); run again to go on"
                ) from None
            print(f"{source['file']}: {error}; trying again", file=sys.stderr, flush=True)
            time.sleep(wait * 2 ** (failures - 1))


def _attempt(url: str, source: dict[str, Any], part: Path) -> Hashes:
    import requests
    import urllib3

    offset, validator = _resumable(part, url)
    headers = {"Accept-Encoding": "identity"}  # the bytes as stored, or the digest would be of something else
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            offset = _accepted_offset(response, offset, part, source, url)
            if not offset:
                _remember(part, url, response.headers)
            return _receive(response, offset, source, part)
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
        raise _Dropped(f"connection to {url} broke ({type(error).__name__})") from None
    except requests.RequestException as error:
        raise UserError(f"{source['file']}: cannot download {url} ({error})") from None


def _accepted_offset(response: Any, offset: int, part: Path, source: dict[str, Any], url: str) -> int:
    """Return where the body starts: `offset` if the server truly resumes, 0 if it sends the whole file."""
    status = response.status_code
    if status == 200:
        return 0
    if status == 206:
        match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match and int(match[1]) == offset:
            return offset
    if status in (206, 416):  # a range that was not asked for, or the part is longer than the file: start again
        _discard(part)
        raise _Dropped(f"the server does not resume at byte {offset}")
    if status in (408, 429) or status >= 500:
        raise _Dropped(f"the server answered {status}")
    raise UserError(f"{source['file']}: {url} answered {status} {response.reason}")


def _receive(response: Any, offset: int, source: dict[str, Any], part: Path) -> Hashes:
    hashes = Hashes()
    if offset:
        hashes.update_file(part)
    length = response.headers.get("Content-Length", "")
    size = source.get("size")
    progress = Progress(source["file"], size or (offset + int(length) if length.isdigit() else None), offset)
    try:
        with open(part, "ab" if offset else "wb") as file:
            while data := response.raw.read(NETWORK_BLOCK, decode_content=False):
                file.write(data)
                hashes.update(data)
                progress.add(len(data))
                if size is not None and hashes.size > size:
                    return hashes  # longer than declared: wrong already, no need to see how much longer
    finally:
        progress.close()
    if size is not None and hashes.size < size and not length.isdigit():
        raise _Dropped(f"the body ended at byte {hashes.size} of {size}")
    return hashes


def _state_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_of(part).unlink(missing_ok=True)


def _remember(part: Path, url: str, headers: Any) -> None:
    """Keep what a later attempt needs to ask for the rest of the same version."""
    part.write_bytes(b"")
    write_json(_state_of(part), {"url": url, "etag": headers.get("ETag"), "modified": headers.get("Last-Modified")})


def _resumable(part: Path, url: str) -> tuple[int, str]:
    """Return the bytes that can be kept and the validator for If-Range; 0 without a validator to rely on."""
    if not part.is_file() or not _state_of(part).is_file():
        return 0, ""
    try:
        state = read_json(_state_of(part))
    except UserError:
        return 0, ""
    etag = state.get("etag") or ""
    validator = etag if etag and not etag.startswith("W/") else state.get("modified")  # weak tags do not prove bytes
    if state.get("url") != url or not validator:
        return 0, ""
    return part.stat().st_size, validator
