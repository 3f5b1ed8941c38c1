"""The scripts of the rules in one process that imports once: making a table takes 0.1 s, importing what it needs 2 s.

Snakemake starts a `python workflow/scripts/NAME.py` for each table, figure and score. Its head starts a server beside
itself (`start`), and for those commands `python` is a program that hands the command over (`ask`): the server forks,
and the fork does what the command would have done, with its arguments, folder, environment and streams. A command is
still the same text and its log the same file, and a kill of the job or of the whole group ends the fork as well.
Where there is no server, or the code has been edited since it began, the command runs as it stands.

This file is run by its path, too: it needs the standard library alone.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

SCRIPTS = "workflow/scripts/"
SOCKET = "socket"
PLAIN = "plain"  # the answer to a command that is to be run as it stands
# What Snakemake sets for jobs of one thread: libraries read it when they are loaded, the scripts' once for all.
THREADS = ("OMP", "GOTO", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR")
PROGRAM = """#!/bin/sh
PATH=${{PATH#*:}}
case $1 in
{scripts}*.py) exec python -IS {this} {place} "$@" ;;
esac
exec python "$@"
"""

_servers: list[subprocess.Popen] = []  # their standard input is open as long as this process is there


def prefix(root: Path, *programs: Path) -> str:
    """Return what each job begins with: strict mode, the code of this checkout, and folders to find programs in.

    It replaces Snakemake's own prefix and its strict mode, without which a failure before a pipe goes unnoticed.
    """
    path = "".join(f"{shlex.quote(str(folder))}:" for folder in programs)
    found = f" PATH={path}$PATH" if programs else ""
    return f"set -euo pipefail; export PYTHONPATH={shlex.quote(str(root / 'src'))}{found}; "


def start(root: Path) -> list[Path]:
    """Start a server for the scripts of a checkout, which ends with this process; return the folder of its `python`.

    None where temporary files cannot be written or not be run: then each command runs as it stands.
    """
    try:
        place = Path(tempfile.mkdtemp(prefix="dica-"))
        program, this = place / "python", Path(__file__).resolve()
        program.write_text(PROGRAM.format(scripts=SCRIPTS, this=shlex.quote(str(this)), place=shlex.quote(str(place))))
        program.chmod(0o700)
        if not os.access(program, os.X_OK):
            shutil.rmtree(place)
            return []
        one = {f"{name}_NUM_THREADS": "1" for name in THREADS}
        settings = {**os.environ, **one, "PYTHONPATH": str(root / "src")}
        command = [sys.executable, str(this), str(place)]
        _servers.append(subprocess.Popen(command, cwd=root, env=settings, stdin=subprocess.PIPE))
    except OSError:
        return []
    return [place]


@atexit.register
def _end() -> None:
    """Wait for the servers, so that their processor time counts as this process's."""
    for server in _servers:
        assert server.stdin
        server.stdin.close()
        server.wait()


class Server:
    """What has imported the scripts that were asked for.

    Parameters
    ----------
    place
        The folder of the socket.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.root = place, Path.cwd()
        self.times: dict[str, int] = {}  # of the checkout's files, when they were imported

    def serve(self) -> None:
        """Answer until standard input is closed: its other end is the head's alone."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the head and the forks
        signal.signal(signal.SIGCHLD, _reap)
        with socket.socket(socket.AF_UNIX) as listener:
            try:
                listener.bind(str(self.place / SOCKET))
            except OSError:  # a path too long for a socket: whoever asks runs the command itself
                return
            listener.listen(64)
            while sys.stdin.fileno() not in (ready := select.select([sys.stdin.fileno(), listener], [], [])[0]):
                if ready:
                    with listener.accept()[0] as caller:
                        self._answer(caller)

    def _answer(self, caller: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):  # a caller that was killed has nothing to be told
            streams = socket.recv_fds(caller, 1, 3)[1]
            try:
                with caller.makefile("rb") as file:
                    asked = json.loads(file.readline())
                if not self._imported(asked):
                    caller.sendall(PLAIN.encode())
                elif os.fork() == 0:
                    _work(caller, streams, asked)
            finally:
                for stream in streams:
                    os.close(stream)

    def _imported(self, asked: dict) -> bool:
        """Import what a command needs; False where that is not what the command itself would import."""
        script = asked["arguments"][0]
        if asked["bin"] != str(Path(sys.executable).parent) or asked["folder"] != str(self.root):
            return False
        if script not in self.times:
            try:
                runpy.run_path(script, run_name="once")
            except BaseException:  # the command itself shall say it
                return False
            files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
            for file in [script, *(file for file in files if file and file.startswith(f"{self.root}{os.sep}"))]:
                self.times.setdefault(file, _changed(file))
        return all(_changed(file) == time for file, time in self.times.items())


def _reap(*_: object) -> None:
    """Take note of the forks that have ended: their processor time then counts as the server's."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _changed(file: str) -> int:
    """Return when a file was last written; 0 if it is not there."""
    try:
        return Path(file).stat().st_mtime_ns
    except OSError:
        return 0


def _work(caller: socket.socket, streams: list[int], asked: dict) -> None:
    """Do what a command does, in a process of its own, and tell its exit code."""
    code = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv = asked["arguments"]
        threading.Thread(target=_end_with, args=(caller,), daemon=True).start()
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        with contextlib.suppress(OSError):
            caller.sendall(str(code).encode())
        os._exit(code)


def _end_with(caller: socket.socket) -> None:
    """End this process when the command that stands for it is killed: it says nothing more, so reading ends then."""
    with contextlib.suppress(OSError):
        caller.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)


def ask(place: Path, arguments: list[str]) -> int:
    """Let the server run a script and return its exit code; run it here where the server does not."""
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(str(place / SOCKET))
            socket.send_fds(server, [b"s"], [0, 1, 2])
            told = {"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}
            told["bin"] = str(Path(sys.executable).parent)
            server.sendall(json.dumps(told).encode() + b"\n")
            answer = server.recv(16).decode()
        except OSError:
            answer = PLAIN
    if answer == PLAIN:
        os.execv(sys.executable, [sys.executable, *arguments])
    return int(answer) if answer else 128 + signal.SIGKILL


if __name__ == "__main__":
    if sys.argv[2:]:
        sys.exit(ask(Path(sys.argv[1]), sys.argv[2:]))
    sys.path[0] = str(Path.cwd() / SCRIPTS)  # as for a script there, and not the folder of this file
    Server(Path(sys.argv[1])).serve()
    shutil.rmtree(sys.argv[1], ignore_errors=True)
