"""Edits of the parameter files in a copy of them."""

from __future__ import annotations

from pathlib import Path

import yaml

from dica import validation


def edit(project: Path, name: str, change) -> None:
    path = project / "params" / f"{name}.yaml"
    body = validation.load_yaml(path)
    change(body)
    path.write_text(yaml.safe_dump(body))
