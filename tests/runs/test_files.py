"""The names of a run's files are told once."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from dica.runs import files
from dica.runs.files import models_of

NAMES = {*files.RESULT_FILES, files.TRACE, files.RECORD, files.WEIGHTS, files.STAGES, files.METRICS, files.FAILURE}


def test_no_other_module_spells_the_name_of_a_run_file(root: Path) -> None:
    found = [
        f"{where}:{line}: {text}"
        for where, line, text, whole in _texts(root / "src/dica")
        if where != "runs/files.py"
        and (text in NAMES if whole else text.startswith(tuple(f"/{name}" for name in NAMES)))
    ]
    assert not found, found


def test_no_other_module_spells_the_path_of_labels_archives_or_arrays(root: Path) -> None:
    folders = tuple(f"data/{name}" for name in ("labels", "prepared", "raw"))
    found = [
        f"{where}:{line}: {text}"
        for where, line, text, _ in _texts(root / "src/dica")
        if where != "data/paths.py" and text.startswith(folders) and "<" not in text
    ]
    assert not found, found


def test_no_rule_spells_what_the_package_tells(root: Path) -> None:
    """The rules of the workflow ask `dica.runs.files` and `dica.data.paths`; comments may say the names."""
    spelled = (*NAMES, "data/labels", "data/prepared", "manifest.json")
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in [root / "Snakefile", *sorted((root / "workflow/rules").glob("*.smk"))]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if any(name in line.partition("#")[0] for name in spelled)
    ]
    assert not found, found


@cache
def _texts(package: Path) -> list[tuple[str, int, str, bool]]:
    """Return file, line and text of every string, joined paths as one, and whether it is a whole one (no part)."""
    found = []
    for path in sorted(package.rglob("*.py")):
        where = path.relative_to(package).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append((where, node.lineno, node.value, id(node) not in parts))
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and _joined(node):
                found.append((where, node.lineno, _joined(node), True))
    return found


def _joined(node: ast.expr) -> str:
    """Return the last texts of ``root / "a" / "b"`` as one path."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and (last := _joined(node.right)):
        return "/".join(filter(None, (_joined(node.left), last)))
    return ""


def test_weights_lie_where_the_run_lies_among_the_runs() -> None:
    assert models_of(Path("/a/results/runs/drc/digits/s0-1")) == Path("/a/results/models/drc/digits/s0-1")
    assert models_of(Path("results/demo/runs/drc/digits/s0-1")) == Path("results/demo/models/drc/digits/s0-1")
