"""Drive a copy of the project as a user would: commands in, exit codes and output out."""

from __future__ import annotations

import compileall
import contextlib
import io
import os
import py_compile
import re
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from dica.cli.__main__ import main
from dica.cli.runs import console
from editable import edit_yaml


def children_seconds() -> float:
    """Return the processor time of all finished child processes: what a command takes, however busy the machine is."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass
class Project:
    """A checkout under test and what can be done to it."""

    folder: Path

    def run(self, *command: str, code: int | None = 0) -> str:
        """Run a command in the checkout with this environment's tools; return all it printed."""
        done = subprocess.run(command, cwd=self.folder, env=environment(), text=True, capture_output=True)
        output = done.stdout + done.stderr
        assert code is None or done.returncode == code, f"{' '.join(command)}: exit {done.returncode}\n{output}"
        return output

    def snakemake(self, *arguments: str, code: int | None = 0) -> str:
        return self.run("snakemake", "--cores", "2", "--rerun-incomplete", *arguments, code=code)

    def dica(self, *arguments: str, code: int | None = 0) -> str:
        return self.run(sys.executable, "-m", "dica.cli", *arguments, code=code)

    def audit(self, *arguments: str, code: int = 0) -> str:
        """Run `dica audit` on the checkout inside this process, which has imported all of it; return all it printed."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.MonkeyPatch.context() as here:
            here.chdir(self.folder)
            here.setattr(sys, "argv", ["dica", "audit", *arguments])
            here.setattr(console, "width", 200)
            with pytest.raises(SystemExit) as end:
                main()
        assert (end.value.code or 0) == code, said.getvalue()
        return said.getvalue()

    def edit(self, name: str, change) -> None:
        """Change a YAML file in place."""
        edit_yaml(self.folder / name, change)

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)

    def copy(self, folder: Path) -> Project:
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def clone(self, folder: Path) -> Project:
        """What a colleague gets: only what is committed, beside what Python has compiled (see `compile`)."""
        self.run("git", "clone", "-q", str(self.folder), str(folder))
        for compiled in (self.folder / "src").rglob("__pycache__"):
            shutil.copytree(compiled, folder / compiled.relative_to(self.folder))
        return Project(folder)

    def compile(self) -> None:
        """Compile the package once for all copies: a file counts as compiled while its content is the same."""
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(self.folder / "src", quiet=1, invalidation_mode=mode)

    def runs(self, method: str) -> set[str]:
        return {path.name for path in (self.folder / "results/runs" / method / "digits").glob("s*")}


def kill_group(process: subprocess.Popen) -> None:
    """Kill a command that was started in a session of its own, and all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def environment() -> dict[str, str]:
    """The tools beside this Python come first; the package comes from the checkout that a command runs in."""
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    identity = {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return {**os.environ, **identity, "PATH": tools, "PYTHONPATH": "src", "COLUMNS": "200", "NO_COLOR": "1"}


def steps(output: str) -> dict[str, int]:
    """Return how often Snakemake planned each rule, from its table of jobs."""
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}
