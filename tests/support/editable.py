"""Edits of YAML files; libyaml reads and writes them, if it is there, eight times as fast."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from dica import validation

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def edit_yaml(path: Path, change: Callable[[Any], object]) -> None:
    """Change a file in place."""
    body = yaml.load(path.read_text(), _LOADER)
    change(body)
    path.write_text(yaml.dump(body, Dumper=_DUMPER, sort_keys=False))


def edit(project: Path, name: str, change) -> None:
    """Change a file of a project's parameters, read as the package reads it."""
    path = project / "params" / f"{name}.yaml"
    body = validation.load_yaml(path)
    change(body)
    path.write_text(yaml.dump(body, Dumper=_DUMPER))
