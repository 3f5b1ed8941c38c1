"""The laws of the package's rooms: imports point one way, the light half has no torch, nobody imports a door."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import dica
from dica.own.estimator import DeepClustering

# A room imports from itself and from those above it in this list.
GROUND = ("files", "validation", "rng", "scripting", "once")
LEARNING = ("losses", "views", "networks", "methods", "engine")  # these import torch
LIGHT = ("plan", "scores", "tables", "figures", "report", "audit", "cli")
DOORS = ("train", "analyse", "torchrun", "own")  # of `own` only `dica/__init__` names something, and lazily
ORDER = (*GROUND, "data", "runs", *LEARNING, *LIGHT, *DOORS)
RANK = {room: 0 if room in GROUND else place for place, room in enumerate(ORDER)}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and first name below `dica` of every import of the package, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"dica.{alias.name}" for alias in node.names] if node.module == "dica" else [node.module or ""]
        else:
            continue
        yield from ((node.lineno, name.split(".")[1]) for name in names if name.startswith("dica."))


def room_of(path: Path, package: Path) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


def test_imports_point_to_earlier_rooms_and_never_to_a_door(root: Path) -> None:
    package = root / "src/dica"
    files = [path for path in package.rglob("*.py") if path != package / "__init__.py"]
    wrong = [
        f"{path.relative_to(package)}:{line} imports {target}"
        for path in files
        for line, target in imports(path)
        if RANK[target] > RANK[room_of(path, package)]
        or (target in DOORS and target != room_of(path, package) and room_of(path, package) != "torchrun")
    ]
    assert len(files) > 50
    assert not wrong, "\n".join(wrong)


def modules_at_import(path: Path, package: Path) -> Iterator[str]:
    """Yield the modules of the package that importing a file imports: not what its functions import later."""

    def parts_of(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            yield child
            yield from parts_of(child)

    for node in parts_of(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("dica"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dica":
            inside = package.joinpath(*node.module.split(".")[1:])
            named = [alias.name for alias in node.names if (inside / f"{alias.name}.py").is_file()]
            yield from (f"{node.module}.{name}" for name in named)
            if len(named) < len(node.names):
                yield node.module


def test_no_module_imports_itself_by_way_of_others(root: Path) -> None:
    package = root / "src/dica"
    graph = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        graph[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = set(modules_at_import(path, package))
    assert len(graph) > 150
    assert not [name for targets in graph.values() for name in targets if name not in graph]
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_light_half_never_imports_torch(root: Path) -> None:
    """One process imports all of it, room after room, and says what brought torch in."""
    package = root / "src/dica"
    rooms = ["files", "validation", "scripting", "data", "runs", *LIGHT]
    files = [path for room in rooms for path in sorted((package / room).glob("*.py")) or [package / f"{room}.py"]]
    modules = [".".join(path.relative_to(package.parent).with_suffix("").parts) for path in files]
    statement = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert "torch" not in sys.modules, name
"""
    done = subprocess.run([sys.executable, "-c", statement, "dica", *modules], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_gives_the_estimator_and_nothing_that_it_does_not_have() -> None:
    assert dica.DeepClustering is DeepClustering
    with pytest.raises(AttributeError, match="no attribute 'Deep'"):
        dica.Deep  # noqa: B018


def test_few_modules_lie_outside_rooms_and_none_is_long(root: Path) -> None:
    package = root / "src/dica"
    assert len([path for path in package.glob("*.py") if path.name != "__init__.py"]) <= 8
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in package.rglob("*.py")}
    lengths |= {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (root / "tests").rglob("*.py")}
    assert [f"{path}: {length}" for path, length in lengths.items() if length > 450] == []
    common = root / "workflow/rules/common.smk"  # what is longer belongs in `dica.plan.work`
    assert len(common.read_text(encoding="utf-8").splitlines()) < 120


def test_no_function_is_longer_than_a_screen(root: Path) -> None:
    long = []
    for path in (root / "src/dica").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                told = node.body[0] if ast.get_docstring(node) else None
                docstring = told.end_lineno - told.lineno + 1 if told else 0
                if (length := node.end_lineno - node.lineno + 1 - docstring) > 60:
                    long.append(f"{path.name}: {node.name} has {length} lines")
    assert not long, long
