"""Downloads over a loopback server that drops, lies and changes; mirrors; DVC. The digest decides every time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dica.data import download
from dica.data.download import ATTEMPTS
from dica.data.fetch import fetch
from dica.files import IntegrityError, UserError

DATA = os.urandom(700_000)
NAME = "a b ü.bin"


def source(data: bytes = DATA, **more) -> dict:
    return {"file": NAME, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), **more}


class Server(http.server.ThreadingHTTPServer):
    """Serves `data`; `plan` holds one behaviour per request, the last one repeats."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.etag, self.plan, self.seen = DATA, '"v1"', ["good"], []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/x"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        plan = server.plan.pop(0) if len(server.plan) > 1 else server.plan[0]
        server.seen.append({"path": self.path, **{key.lower(): value for key, value in self.headers.items()}})
        if plan.isdigit():
            self.send_error(int(plan))
            return
        if plan == "slow":
            time.sleep(1)
        if plan.startswith("to "):
            self.send_response(302)
            self.send_header("Location", plan.removeprefix("to "))
            self.end_headers()
            return
        if plan == "silent":
            time.sleep(2)
            return
        if plan in ("drip", "endless"):
            self.send_response(200)
            self.send_header("ETag", server.etag)
            self.end_headers()
            with contextlib.suppress(OSError):
                for place in range(40):
                    self.wfile.write(server.data[place : place + 1] if plan == "drip" else bytes(2**20))
                    time.sleep(0.1 if plan == "drip" else 0)
            return
        data, start = server.data, 0
        match = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match and self.headers.get("If-Range") == server.etag and plan != "ignore":
            start = int(match[1])
        self.send_response(206 if start else 200)
        if start:
            said = 0 if plan == "lie" else start
            self.send_header("Content-Range", f"bytes {said}-{len(data) - 1}/{len(data)}")
        if plan != "no validator":
            self.send_header("ETag", server.etag)
        body = data if plan == "lie quietly" else data[start:]
        if plan != "no length, cut":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if plan in ("drop", "no length, cut", "no validator") else body)


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()


@pytest.fixture
def raw(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("DICA_MIRROR", raising=False)
    return tmp_path / "Röh daten"


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def get(server: Server, raw: Path, **more) -> bytes:
    path, digests = fetch(source(url=server.url, **more), raw, wait=0)
    assert digests["sha256"] == source()["sha256"]
    assert visible(raw) == [NAME]
    return path.read_bytes()


def test_a_plain_download_and_no_second_one(server, raw):
    assert get(server, raw) == DATA
    assert get(server, raw) == DATA
    assert len(server.seen) == 1


def test_a_drop_is_resumed_with_range_and_validator(server, raw):
    server.plan = ["drop", "drop", "good"]
    assert get(server, raw) == DATA
    first, second, third = server.seen
    assert "range" not in first
    assert second["range"] == f"bytes={len(DATA) // 2}-"
    assert second["if-range"] == third["if-range"] == '"v1"'
    assert int(third["range"][6:-1]) > len(DATA) // 2


def test_a_later_process_resumes_what_an_earlier_one_left(server, raw):
    server.plan = ["drop", "404"]
    with pytest.raises(UserError, match="404"):
        get(server, raw)
    server.plan = ["good"]
    assert get(server, raw) == DATA
    assert server.seen[-1]["range"] == f"bytes={len(DATA) // 2}-"


@pytest.mark.parametrize("plan", ["ignore", "lie"])
def test_a_server_that_ignores_range_or_resumes_elsewhere_is_asked_for_the_whole(server, raw, plan):
    server.plan = ["drop", plan, "good"]
    assert get(server, raw) == DATA
    assert "range" not in server.seen[-1] or plan == "ignore"


def test_a_resumed_body_that_starts_elsewhere_is_caught_by_the_digest(server, raw):
    server.plan = ["drop", "lie quietly"]
    with pytest.raises(IntegrityError, match="size is"):
        get(server, raw)
    assert visible(raw) == []
    server.plan = ["good"]
    assert get(server, raw) == DATA


def test_a_file_that_changed_between_attempts_is_started_again(server, raw):
    server.data, server.etag, server.plan = b"old" * 200_000, '"v0"', ["drop", "404"]
    with pytest.raises(UserError):
        get(server, raw)
    server.data, server.etag, server.plan = DATA, '"v1"', ["good"]
    assert get(server, raw) == DATA
    assert server.seen[-1]["if-range"] == '"v0"'


def test_what_one_address_left_is_not_resumed_at_another(server, raw):
    server.plan = ["drop", "404", "good"]
    assert fetch(source(url=server.url), raw, mirror=server.url + "/mirror", wait=0)[0].read_bytes() == DATA
    assert "range" in server.seen[1]
    assert "range" not in server.seen[2]


def test_without_a_validator_nothing_is_resumed(server, raw):
    server.plan = ["no validator", "good"]
    assert get(server, raw) == DATA
    assert "range" not in server.seen[-1]


def test_a_body_cut_without_a_stated_length_is_noticed(server, raw):
    server.plan = ["no length, cut", "good"]
    assert get(server, raw) == DATA


@pytest.mark.parametrize(
    "place",
    ["http://[bad", "http://:x/", "http://a b/", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://\u2100/", "//"],
)
def test_a_redirect_to_nonsense_is_one_line(server, raw, place):
    server.plan = [f"to {place}".encode().decode("latin-1")]
    with pytest.raises(UserError, match=re.escape(NAME)) as error:
        get(server, raw)
    assert "\n" not in str(error.value)


def test_redirects_in_a_circle_end(server, raw):
    server.plan = [f"to {server.url}"]
    with pytest.raises(UserError, match="30 redirects"):
        get(server, raw)


def test_a_server_that_never_answers_is_given_up(server, raw, monkeypatch):
    monkeypatch.setattr(download, "ANSWER_S", 0.1)
    server.plan = ["silent"]
    with pytest.raises(UserError, match=rf"failed {ATTEMPTS} times at byte 0 \(no answer within 0\.1 seconds\)"):
        get(server, raw)


def test_a_drip_is_dropped_for_its_pace_and_taken_up_again(server, raw, monkeypatch):
    monkeypatch.setattr(download, "WINDOW_S", 0.2)
    server.plan = ["drip", "good"]
    assert get(server, raw) == DATA
    assert "range" in server.seen[-1]


def test_all_attempts_together_have_an_end_and_what_came_stays(server, raw, monkeypatch):
    monkeypatch.setattr(download, "ALLOWED_S", -1.0)
    monkeypatch.setattr(download, "WINDOW_S", 60)
    server.plan = ["drip"]
    start = time.monotonic()
    with pytest.raises(UserError, match=r"took more than .* hours to byte \d+ .*run again to go on"):
        get(server, raw)
    assert time.monotonic() - start < 3
    assert [path.name for path in raw.glob("*.part")] == [f"{NAME}.part"]


@pytest.mark.parametrize("plan", ["endless", "good"])
def test_a_file_of_undeclared_size_has_a_largest_size(server, raw, monkeypatch, plan):
    monkeypatch.setattr(download, "LARGEST", 600_000)
    server.plan = [plan]
    unsized = {key: value for key, value in source(url=server.url).items() if key != "size"}
    with pytest.raises(IntegrityError, match="more than 600000 bytes; declare its `size`"):
        fetch(unsized, raw, wait=0)
    assert not list(raw.glob("*.part"))


def test_a_copy_from_a_mirror_stops_at_the_declared_size(raw, tmp_path):
    (tmp_path / NAME).write_bytes(DATA + bytes(5 * 2**20))
    with pytest.raises(IntegrityError, match="size is"):
        fetch(source(), raw, mirror=tmp_path)


def test_a_weak_etag_is_not_a_validator(server, raw):
    server.etag, server.plan = 'W/"v1"', ["drop", "good"]
    assert get(server, raw) == DATA
    assert "range" not in server.seen[-1]


@pytest.mark.parametrize("data", [DATA[:-1] + bytes([DATA[-1] ^ 1]), b"<html>sorry</html>", DATA + b"more"])
def test_wrong_bytes_are_removed_and_named(server, raw, data):
    server.data = data
    with pytest.raises(IntegrityError) as error:
        get(server, raw)
    assert NAME in str(error.value)
    assert str(source()["sha256"]) in str(error.value) or str(len(DATA)) in str(error.value)
    assert visible(raw) == []


def test_md5_alone_is_checked_too(server, raw):
    with pytest.raises(IntegrityError, match="md5"):
        fetch({"file": NAME, "md5": "0" * 32, "url": server.url}, raw, wait=0)


def test_not_found_is_said_at_once_and_a_busy_server_is_asked_again(server, raw):
    server.plan = ["404"]
    with pytest.raises(UserError, match="404"):
        get(server, raw)
    assert len(server.seen) == 1
    server.plan = ["503", "429", "good"]
    assert get(server, raw) == DATA


def test_a_server_that_never_gets_further_is_given_up(server, raw):
    server.plan = ["500"]
    with pytest.raises(UserError, match=f"failed {ATTEMPTS} times"):
        get(server, raw)
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="ConnectionError"):
        get(server, raw)


def test_a_wrong_file_that_is_already_there_is_kept_and_named(raw):
    raw.mkdir()
    (raw / NAME).write_bytes(b"mine")
    with pytest.raises(IntegrityError, match="remove"):
        fetch(source(), raw)
    assert (raw / NAME).read_bytes() == b"mine"


def test_a_mirror_folder_comes_before_the_url(server, raw, tmp_path, monkeypatch):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / NAME).write_bytes(DATA)
    monkeypatch.setenv("DICA_MIRROR", str(tmp_path / "mirror"))
    assert get(server, raw) == DATA
    assert server.seen == []


def test_a_mirror_url_comes_before_the_url(server, raw, monkeypatch):
    monkeypatch.setenv("DICA_MIRROR", server.url.removesuffix("/x") + "/deep/")
    assert get(server, raw) == DATA
    assert [request["path"] for request in server.seen] == ["/deep/a%20b%20%C3%BC.bin"]


def test_a_mirror_without_the_file_leaves_it_to_the_url(server, raw, tmp_path):
    assert fetch(source(url=server.url), raw, mirror=tmp_path)[0].read_bytes() == DATA
    (raw / NAME).unlink()
    server.plan = ["404", "good"]
    assert fetch(source(url=server.url), raw, mirror=server.url)[0].read_bytes() == DATA


def test_wrong_bytes_of_a_mirror_are_an_error(raw, tmp_path):
    (tmp_path / NAME).write_bytes(b"other")
    with pytest.raises(IntegrityError, match="mirror"):
        fetch(source(), raw, mirror=tmp_path)
    assert visible(raw) == []


def test_without_any_source_the_message_says_which_file_and_where(raw):
    with pytest.raises(UserError, match="register first") as error:
        fetch(source(get="register first"), raw)
    assert NAME in str(error.value)
    assert str(raw) in str(error.value)


def test_two_processes_do_not_disturb_each_other(server, raw):
    code = "import sys, json; from dica.data.fetch import fetch;fetch(json.loads(sys.argv[1]), sys.argv[2])"
    arguments = [sys.executable, "-c", code, json.dumps(source(url=server.url)), str(raw)]
    server.plan = ["slow"]
    running = [subprocess.Popen(arguments) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert (raw / NAME).read_bytes() == DATA
    assert len(server.seen) == 1


@pytest.mark.parametrize("place", ["cache", "remote"])
def test_dvc_serves_a_file_while_its_repository_is_locked(tmp_path, monkeypatch, place):
    monkeypatch.delenv("DICA_MIRROR", raising=False)
    md5 = hashlib.md5(DATA).hexdigest()
    root = tmp_path / "repo ü"
    raw = root / "data/raw"
    raw.mkdir(parents=True)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q", "--no-scm"], cwd=root, check=True)
    subprocess.run([*dvc, "remote", "add", "-q", "-d", "store", str(tmp_path / "store")], cwd=root, check=True)
    holder = {"cache": root / ".dvc/cache", "remote": tmp_path / "store"}[place] / "files/md5" / md5[:2] / md5[2:]
    holder.parent.mkdir(parents=True)
    holder.write_bytes(DATA)
    (raw / f"{NAME}.dvc").write_text(f"outs:\n- md5: {md5}\n  size: {len(DATA)}\n  hash: md5\n  path: {NAME}\n")
    locks = [root / ".dvc/tmp/lock", root / ".dvc/tmp/rwlock"]
    (root / ".dvc/tmp").mkdir(exist_ok=True)
    with open(locks[0], "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        locks[1].write_text("{}")
        path, _ = fetch(source(), raw)
        assert path.read_bytes() == DATA
        assert locks[1].read_text() == "{}"


def test_a_pointer_that_names_other_bytes_than_the_catalogue_is_an_error(tmp_path, monkeypatch):
    monkeypatch.delenv("DICA_MIRROR", raising=False)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / f"{NAME}.dvc").write_text(f"outs:\n- md5: {'1' * 32}\n  path: {NAME}\n")
    with pytest.raises(IntegrityError, match=r"\.dvc: md5 is 1+"):
        fetch(source(md5="2" * 32), tmp_path / "raw")


def test_a_broken_dvc_repository_does_not_stop_the_url(server, tmp_path, monkeypatch):
    monkeypatch.delenv("DICA_MIRROR", raising=False)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[[[")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / f"{NAME}.dvc").write_text(f"outs:\n- md5: {'1' * 32}\n  path: {NAME}\n")
    assert fetch(source(url=server.url), tmp_path / "raw")[0].read_bytes() == DATA
