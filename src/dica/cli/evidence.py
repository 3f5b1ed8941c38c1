"""Commands of `dica` about evidence: where a file comes from. `dica.cli.__main__` adds them to the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dica.cli.runs import ARCHIVE, AsJson, Profile, console
from dica.files import project_root

SHOWN = 12  # runs or parameter files in a text


def trace(
    file: Annotated[Path, typer.Argument(help="A file under results/.")],
    profile: Profile = ARCHIVE,
    as_json: AsJson = False,
) -> None:
    """Tell which rule made a file, from which runs and parameters, and which commit last wrote it."""
    from dica.audit.trace import trace
    from dica.plan.parameters import load_profile

    root = project_root()
    origin = trace(file, root, load_profile(root / profile, root)["results"])
    if as_json:
        print(json.dumps(origin.as_dict(), indent=2, ensure_ascii=False))
        return
    console.print(f"[bold]{escape(origin.file)}[/]  {escape(origin.state)}")
    console.print(f"  rule: {escape(origin.rule)}")
    for what, names in (("runs", origin.runs), ("params", origin.params)):
        more = f" and {len(names) - SHOWN} more; --json has them" if len(names) > SHOWN else ""
        console.print(f"  {what}: {escape(', '.join(names[:SHOWN]) or 'none')}{more}")
    last = f"{origin.commit[:12]} of {origin.date}: {origin.subject}" if origin.commit else "none"
    console.print(f"  last commit: {escape(last)}")
