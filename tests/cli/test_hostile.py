"""Records from strangers: every command answers with a known code and at most one line of error, never a traceback.

One process for all of them, so that nothing is imported twice. The long version is `make faults`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from committed import CELL, make_archive, run_folder
from dica.cli import __main__ as cli
from fuzz import RECORDS, complaint, spoilt_records

CELL_NAME = "/".join(CELL)


@pytest.fixture(scope="module")
def archive(tmp_path_factory, root: Path) -> Path:
    return make_archive(tmp_path_factory.mktemp("hostile") / "project", root)


@pytest.fixture
def call(archive: Path, monkeypatch, capsys):
    """Run a command in the archive; return what is wrong with its answer."""
    monkeypatch.chdir(archive)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["dica", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code
        except Exception as error:
            return f"{type(error).__name__}: {error}"[:300]
        found = capsys.readouterr()
        return complaint(code, found.out, found.err)

    return run


def commands(root: Path, long: bool) -> list[tuple[str, ...]]:
    folder = run_folder(root).relative_to(root).as_posix()
    other = run_folder(root, seed=1).relative_to(root).as_posix()
    found = [("audit", *CELL), ("status",), ("compare", folder, other), ("estimate", "all"), ("show", *CELL[:2])]
    if long:
        found += [("audit", *CELL, "--json"), ("status", "--json"), ("compare", CELL_NAME, folder, "--json")]
    return found


def records(root: Path) -> list[Path]:
    """Every kind of file that a command reads and a stranger may have written."""
    folder = run_folder(root)
    names = [folder / name for name in ("run.json", "config.json", "metrics.json", "history.csv")]
    return [*names, root / "results/plan.json", root / "results/tables/cells.csv", root / "data/labels/digits.json"]


def try_all(root: Path, call, texts: Sequence[str], spoilings: int, long: bool) -> tuple[int, list[str]]:
    """Spoil every record in every way and ask every command; return how many answers there were, and the bad ones."""
    tried, wrong = 0, []
    for path in records(root):
        sound = path.read_bytes()
        try:
            for what, content in spoilt_records(path, texts, spoilings, seed=0):
                path.write_bytes(content)
                for arguments in commands(root, long):
                    tried += 1
                    if problem := call(*arguments):
                        wrong.append(f"{path.name}: {what}: dica {arguments[0]}: {problem}")
        finally:
            path.write_bytes(sound)
    return tried, wrong


def test_spoilt_records_are_answered_in_one_line(archive: Path, call) -> None:
    texts = ("a list", "nested 100,000 deep", "an integer of 5,000 digits", "not UTF-8")
    tried, wrong = try_all(archive, call, texts, spoilings=0, long=False)
    assert tried >= 4 * 7 * 5
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_records_spoilt_in_many_ways(archive: Path, call, note_figures) -> None:
    tried, wrong = try_all(archive, call, list(RECORDS), spoilings=12, long=True)
    assert not wrong, "\n".join(wrong)
    note_figures("spoilt records behind `dica` commands: a known exit code, one line", "answers", tried, tried)


@pytest.mark.parametrize("kind", [".csv", ".txt", ".npy", ".npz"])
def test_predictions_that_are_none_are_refused_in_one_line(kind: str, archive: Path, call, tmp_path: Path) -> None:
    for what, content in RECORDS.items():
        file = tmp_path / f"predictions{kind}"
        file.write_bytes(content)
        assert call("evaluate", str(file), "--dataset", "digits") == "", what


@pytest.mark.parametrize("kind", ["a folder", "a link to itself"])
def test_what_the_system_refuses_is_one_line(kind: str, archive: Path, call) -> None:
    for path in records(archive):
        kept = path.with_name("kept")
        path.rename(kept)
        try:
            if kind == "a folder":
                path.mkdir()
            else:
                path.symlink_to(path.name)
            for arguments in commands(archive, long=False):
                assert call(*arguments) == "", (path.name, arguments)
        finally:
            path.unlink() if path.is_symlink() else path.rmdir()
            kept.rename(path)
