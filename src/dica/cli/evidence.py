"""Commands of `dica` about evidence: where a file comes from, how many seeds a claim wants.

`dica.cli.__main__` adds them to the command.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dica.cli.runs import ARCHIVE, AsJson, Profile, console
from dica.files import UserError, project_root

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


def power(
    claim: Annotated[
        str | None, typer.Argument(help="A claim, such as drc-8 (default: all that are undecided).")
    ] = None,
    profile: Profile = ARCHIVE,
    as_json: AsJson = False,
) -> None:
    """Tell how many seeds would decide a claim: in four of five cases, if effect and scatter stayed as they are."""
    from dica.plan.parameters import load_profile
    from dica.scores.claims import POWER, UNDECIDED
    from dica.tables.claims import CSV, read_ledger
    from dica.validation import hint

    root = project_root()
    rows = read_ledger(root / load_profile(root / profile, root)["results"] / CSV)
    shown = [row for row in rows if (row["claim"] == claim if claim else row["verdict"] == UNDECIDED)]
    if claim and not shown:
        raise UserError(f"no claim {claim!r}; {hint(claim, [row['claim'] for row in rows])}")
    names = ("claim", "rung", "verdict", "comparison", "effect", "p_holm", "seeds", "seeds_needed")
    if as_json:
        print(json.dumps([{name: row[name] for name in names} for row in shown], indent=2, ensure_ascii=False))
        return
    table = Table(title=f"Seeds that would decide a claim with a power of {POWER:.0%}", title_justify="left")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right" if name[:4] in ("effe", "p_ho", "seed") else "left")
    for row in shown:
        needed = row["seeds_needed"] or ("–" if row["verdict"] != UNDECIDED else "more than 200, or not known")
        table.add_row(*(escape(row[name]) for name in names[:-1]), needed)
    console.print(table)
