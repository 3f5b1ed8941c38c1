"""The names of a run's files are told once."""

from __future__ import annotations

import ast
from pathlib import Path

from dica.runs import files
from dica.runs.files import models_of

NAMES = {*files.RESULT_FILES, files.TRACE, files.RECORD, files.WEIGHTS, files.STAGES, files.METRICS, files.FAILURE}
NOT_YET = ("audit",)  # rooms that still spell them


def test_no_other_module_spells_the_name_of_a_run_file(root: Path) -> None:
    package = root / "src/dica"
    found = []
    for path in sorted(package.rglob("*.py")):
        where = path.relative_to(package)
        if where.parts[0] in NOT_YET or where.as_posix() == "runs/files.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        found += [
            f"{where}:{node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and node.value in NAMES and id(node) not in inside
        ]
    assert not found, found


def test_weights_lie_where_the_run_lies_among_the_runs() -> None:
    assert models_of(Path("/a/results/runs/drc/digits/s0-1")) == Path("/a/results/models/drc/digits/s0-1")
    assert models_of(Path("results/demo/runs/drc/digits/s0-1")) == Path("results/demo/models/drc/digits/s0-1")
