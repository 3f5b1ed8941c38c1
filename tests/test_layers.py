"""The laws of the package's rooms: imports point one way, the light half has no torch, nobody imports a door."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# A room imports from itself and from those above it in this list.
GROUND = ("files", "validation", "rng", "scripting")
LEARNING = ("losses", "views", "networks", "methods", "engine")  # these import torch
LIGHT = ("plan", "scores", "tables", "figures", "report", "audit", "cli")
DOORS = ("train", "analyse", "apply", "measure", "torchrun")
ESTIMATOR = "estimator"  # the package for Python: it may import all but doors; only `dica/__init__` names it, lazily
ORDER = (*GROUND, "data", "runs", *LEARNING, *LIGHT, ESTIMATOR, *DOORS)
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


@pytest.mark.parametrize("room", ["files", "validation", "scripting", "data", "runs", *LIGHT])
def test_the_light_half_never_imports_torch(room: str, root: Path) -> None:
    package = root / "src/dica"
    files = sorted((package / room).glob("*.py")) or [package / f"{room}.py"]
    modules = [".".join(path.relative_to(package.parent).with_suffix("").parts) for path in files]
    statement = f"import sys, {', '.join(modules)}\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_itself_is_light_until_the_estimator_is_asked_for() -> None:
    statement = (
        "import sys, dica\nassert 'torch' not in sys.modules\ndica.DeepClustering\nassert 'torch' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
