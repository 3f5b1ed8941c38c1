"""The server of scripts: a command is what it was, only without its imports, and nothing of it outlives a kill."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dica import once

NAME = f"{once.SCRIPTS}script.py"
SCRIPT = """
import os, sys, time
from pathlib import Path
import helper
if __name__ == "__main__":
    print(helper.WORD, os.getppid(), os.getcwd(), os.environ["MARK"], *sys.argv[1:], sys.stdin.read())
    print("said", file=sys.stderr)
    if "wait" in sys.argv:
        Path("pid").write_text(str(os.getpid()))
        time.sleep(60)
    sys.exit({"fail": 3, "words": "in words", "raise": 1}.get(sys.argv[1]))
"""


def until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not true():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with one script and a module that it imports."""
    folder = tmp_path / "a checkout"
    (folder / once.SCRIPTS).mkdir(parents=True)
    (folder / "src").mkdir()
    (folder / "src/helper.py").write_text("WORD = 'first'\n")
    (folder / NAME).write_text(SCRIPT)
    return folder


@pytest.fixture
def place(root: Path) -> Iterator[Path]:
    """The folder of the program `python`, of a server that listens."""
    (folder,) = once.start(root)
    until((folder / once.SOCKET).exists)
    yield folder
    server = once._servers.pop()
    server.stdin.close()
    assert server.wait(20) == 0
    assert not folder.exists()


def begun(root: Path, place: Path, *words: str) -> subprocess.Popen:
    """Start a command as a rule's shell does."""
    settings = {**os.environ, "MARK": "its own", "PYTHONPATH": "src", "TOOLS": str(Path(sys.executable).parent)}
    shell = 'export PATH="$TOOLS:$PATH"; ' + once.prefix(root, place) + 'exec python "$@"'
    pipe = subprocess.PIPE
    return subprocess.Popen(
        ["bash", "-c", shell, "-", *words], cwd=root, env=settings, text=True, stdin=pipe, stdout=pipe, stderr=pipe
    )


def test_a_command_has_its_own_arguments_folder_environment_streams_and_exit_code(root: Path, place: Path) -> None:
    server = str(once._servers[-1].pid)
    for words, code, said in ((("a b", "c"), 0, ""), (("fail",), 3, ""), (("words",), 1, "in words\n")):
        command = begun(root, place, NAME, *words)
        out, err = command.communicate("from the pipe")
        assert out.split("\n")[0] == f"first {server} {root} its own {' '.join(words)} from the pipe"
        assert (command.returncode, err) == (code, f"said\n{said}")


def test_what_is_no_script_of_the_rules_or_was_edited_runs_as_it_stands(root: Path, place: Path) -> None:
    server = str(once._servers[-1].pid)
    out, _ = begun(root, place, "-c", "import os; print(os.getppid())").communicate()
    assert out.strip() != server
    assert begun(root, place, NAME, "x").communicate("")[0].startswith(f"first {server} ")
    (root / "src/helper.py").write_text("WORD = 'second'\n")
    os.utime(root / "src/helper.py", (1, 1))
    assert begun(root, place, NAME, "x").communicate("")[0].startswith(f"second {os.getpid()} ")
    (root / NAME).write_text("raise ValueError('broken')\n")
    broken = begun(root, place, NAME)
    assert "ValueError: broken" in broken.communicate("")[1]
    assert broken.returncode == 1


def test_a_command_that_is_killed_takes_its_work_with_it(root: Path, place: Path) -> None:
    command = begun(root, place, NAME, "wait")
    command.stdin.close()
    until(lambda: (root / "pid").is_file() and (root / "pid").read_text() != "")
    worker = Path("/proc") / (root / "pid").read_text()
    assert worker.exists()
    command.kill()
    until(lambda: not worker.exists())
    command.wait()


def test_without_its_server_a_command_runs_as_it_stands(root: Path, place: Path) -> None:
    (place / once.SOCKET).unlink()
    assert begun(root, place, NAME, "x").communicate("")[0].startswith(f"first {os.getpid()} ")


def test_the_server_ends_with_the_process_that_started_it(root: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from dica.once import SOCKET, start
(place,) = start(Path(sys.argv[1]))
while not (place / SOCKET).exists():
    time.sleep(0.01)
print(place, flush=True)
time.sleep(60)
"""
    head = subprocess.Popen([sys.executable, "-c", code, str(root)], text=True, stdout=subprocess.PIPE)
    place = Path(head.stdout.readline().strip())
    assert (place / once.SOCKET).exists()
    head.kill()
    head.wait()
    until(lambda: not place.exists())
    shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize("where", ["not there", "not to be run"])
def test_without_a_place_for_its_files_there_is_no_server(where: str, root: Path, monkeypatch) -> None:
    """A folder for temporary files is full or absent, or programs in it cannot be run."""
    if where == "not there":
        monkeypatch.setattr(tempfile, "tempdir", str(root / "nowhere"))
    else:
        monkeypatch.setattr(os, "access", lambda *arguments: False)
    assert once.start(root) == once._servers == []
    assert "PATH" not in once.prefix(root).replace("PYTHONPATH", "")
