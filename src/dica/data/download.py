"""Download a file over HTTP: resumed after every break, and bounded in time, pace and length.

What is slow, endless or nonsense ends in one line; the part that came stays, so that the same command goes on.
"""

from __future__ import annotations

import hashlib
import queue
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

from dica.files import IntegrityError, UserError, read_json, write_json

BLOCK = 2**20
NETWORK_BLOCK = 2**16  # smaller: what a broken connection had not filled is lost
ATTEMPTS = 5  # without progress; each attempt that gets further starts the count again
TIMEOUT = (15, 60)  # seconds to connect, seconds without a byte
ANSWER_S = 120  # for an answer to begin, redirects included: headers may come a byte at a time
SLOWEST = 1000  # bytes a second, over WINDOW_S; a slower connection is given up and taken up again
WINDOW_S = 60
ALLOWED_S = 3600  # for one call of `download`, and a second more for every ALLOWED_BYTES that are declared
ALLOWED_BYTES = 500_000
LARGEST = 20 * 2**30  # bytes of a file whose size is not declared; those above (ILSVRC-2012) declare it


class _Dropped(Exception):
    """The connection broke or the server asked to come back: worth another attempt."""


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


def download(url: str, source: dict[str, Any], part: Path, wait: float = 1.0) -> Hashes:
    """Download into `part`, resuming what an earlier attempt or process left there.

    Raises
    ------
    UserError
        If the server refuses, the connection breaks ATTEMPTS times without getting further, or all attempts together
        take too long. The part stays, so that the next call resumes.
    """
    allowed = ALLOWED_S + source.get("size", LARGEST) / ALLOWED_BYTES
    until = time.monotonic() + allowed
    furthest, failures = 0, 0
    while True:
        try:
            return _attempt(url, source, part, until)
        except _Dropped as error:
            reached = part.stat().st_size if part.exists() else 0
            if time.monotonic() > until:
                raise UserError(
                    f"{source['file']}: {url} took more than {allowed / 3600:.1f} hours to byte {reached} ({error}); "
                    f"run again to go on"
                ) from None
            if reached > furthest:
                furthest, failures = reached, 0
            failures += 1
            if failures >= ATTEMPTS:
                raise UserError(
                    f"{source['file']}: {url} failed {ATTEMPTS} times at byte {reached} ({error}); run again to go on"
                ) from None
            print(f"{source['file']}: {error}; trying again", file=sys.stderr, flush=True)
            time.sleep(wait * 2 ** (failures - 1))


def _attempt(url: str, source: dict[str, Any], part: Path, until: float) -> Hashes:
    import requests
    import urllib3

    offset, validator = _resumable(part, url)
    headers = {"Accept-Encoding": "identity"}  # the bytes as stored, or the digest would be of something else
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    try:
        with _answer(url, headers) as response:
            offset = _accepted_offset(response, offset, part, source, url)
            if not offset:
                _remember(part, url, response.headers)
            return _receive(response, offset, source, part, until)
    except urllib3.exceptions.LocationValueError as error:
        raise UserError(f"{source['file']}: {url} leads to an address that cannot be read ({error})") from None
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
        raise _Dropped(f"connection to {url} broke ({type(error).__name__})") from None
    except (requests.RequestException, ValueError) as error:  # a redirect to nonsense may end in either
        raise UserError(f"{source['file']}: cannot download {url} ({' '.join(str(error).split())})") from None


def _answer(url: str, headers: dict[str, str]) -> Any:
    """Return the response once its headers are there; a thread of its own, because reading them knows no total time."""
    import requests

    found: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found.put(requests.get(url, headers=headers, stream=True, timeout=TIMEOUT))
        except Exception as error:
            found.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        response = found.get(timeout=ANSWER_S)
    except queue.Empty:
        raise _Dropped(f"no answer within {ANSWER_S} seconds") from None
    if isinstance(response, Exception):
        raise response
    return response


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
        discard(part)
        raise _Dropped(f"the server does not resume at byte {offset}")
    if status in (408, 429) or status >= 500:
        raise _Dropped(f"the server answered {status}")
    raise UserError(f"{source['file']}: {url} answered {status} {response.reason}")


def _receive(response: Any, offset: int, source: dict[str, Any], part: Path, until: float) -> Hashes:
    hashes = Hashes()
    if offset:
        hashes.update_file(part)
    length = response.headers.get("Content-Length", "")
    size = source.get("size")
    if size is None and length.isdigit():
        require_allowed(offset + int(length), source)
    progress = Progress(source["file"], size or (offset + int(length) if length.isdigit() else None), offset)
    try:
        with open(part, "ab" if offset else "wb") as file:
            since, before = time.monotonic(), hashes.size
            while data := response.raw.read1(NETWORK_BLOCK, decode_content=False):
                file.write(data)
                hashes.update(data)
                progress.add(len(data))
                if size is not None and hashes.size > size:
                    return hashes  # longer than declared: wrong already, no need to see how much longer
                require_allowed(hashes.size, source)
                now = time.monotonic()
                if now > until:
                    raise _Dropped("out of time")
                if now - since > WINDOW_S:
                    if hashes.size - before < SLOWEST * (now - since):
                        raise _Dropped(f"less than {SLOWEST} bytes a second")
                    since, before = now, hashes.size
    finally:
        progress.close()
    if size is not None and hashes.size < size and not length.isdigit():
        raise _Dropped(f"the body ended at byte {hashes.size} of {size}")
    return hashes


def require_allowed(number: int, source: dict[str, Any]) -> None:
    """Raise an IntegrityError if a file of undeclared size is longer than any such file should be."""
    if number > source.get("size", LARGEST):
        raise IntegrityError(f"{source['file']}: more than {LARGEST} bytes; declare its `size` if that is right")


def state_of(part: Path) -> Path:
    """Return the file beside a part that says which version of which address it is of."""
    return part.with_name(f"{part.name}.json")


def discard(part: Path) -> None:
    """Remove what was downloaded so far."""
    part.unlink(missing_ok=True)
    state_of(part).unlink(missing_ok=True)


def _remember(part: Path, url: str, headers: Any) -> None:
    """Keep what a later attempt needs to ask for the rest of the same version."""
    part.write_bytes(b"")
    write_json(state_of(part), {"url": url, "etag": headers.get("ETag"), "modified": headers.get("Last-Modified")})


def _resumable(part: Path, url: str) -> tuple[int, str]:
    """Return the bytes that can be kept and the validator for If-Range; 0 without a validator to rely on."""
    if not part.is_file() or not state_of(part).is_file():
        return 0, ""
    try:
        state = read_json(state_of(part))
    except UserError:
        return 0, ""
    etag = state.get("etag") or ""
    validator = etag if etag and not etag.startswith("W/") else state.get("modified")  # weak tags do not prove bytes
    if state.get("url") != url or not validator:
        return 0, ""
    return part.stat().st_size, validator
