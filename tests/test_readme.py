"""README.md: its generated parts are up to date, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from project import environment


def test_generated_parts_are_those_of_the_committed_results(root: Path) -> None:
    command = ["python", "workflow/scripts/readme.py", "--check"]
    done = subprocess.run(command, cwd=root, env=environment(), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_every_make_target_and_path_that_is_named_exists(root: Path) -> None:
    text = (root / "README.md").read_text() + (root / "CONTRIBUTING.md").read_text()
    targets = re.findall(r"^(\w+):", (root / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"(?:`|^)make (\w+)", text, re.MULTILINE):
        assert target in targets, target
    for path in re.findall(r"\]\(([^)#]+)\)", text):
        assert path.startswith("http") or (root / path).exists(), path
    for path in re.findall(r"`((?:src|params|workflow|tests)/[\w./-]+)`", text):
        assert (root / path).exists() or (root / "src/dica" / path).exists(), path


def test_no_machine_path_or_foreign_address_is_committed(root: Path) -> None:
    listed = subprocess.run(
        ["git", "grep", "-nIE", r"(^|[\" '=])/(work|root|farm|opt)/"], cwd=root, text=True, capture_output=True
    )
    assert not listed.stdout, listed.stdout
