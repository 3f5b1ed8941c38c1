"""Commands of `dica` about evidence: where a file comes from, whether a run comes out again, what a claim wants.

`dica.cli.__main__` adds them to the command.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dica.cli.apply import RunName, find_run
from dica.cli.audit import MARKS
from dica.cli.own import door_environment
from dica.cli.runs import ARCHIVE, AsJson, Profile, console, this_device
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
        right = name[:4] in ("effe", "p_ho", "seed")
        table.add_column(name.replace("_", " "), justify="right" if right else "left", overflow="fold")
    for row in shown:
        needed = row["seeds_needed"] or ("–" if row["verdict"] != UNDECIDED else "more than 200, or not known")
        rounded = {name: f"{float(row[name]):.3g}" for name in ("effect", "p_holm") if row[name]}
        table.add_row(*(escape(rounded.get(name, row[name])) for name in names[:-1]), needed)
    console.print(table)


def verify(
    run: RunName,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Train so many epochs again (default: all).", show_default=False)
    ] = None,
    only_estimate: Annotated[bool, typer.Option("--estimate", help="Say what it would take, and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a run again and compare it with what the run left: the one check that rests on no stored number.

    Exit code: 0 it comes out again, 3 it does not. If interrupted, the same command goes on.
    """
    from importlib import metadata

    from dica.audit import again
    from dica.runs.record import processor_kind

    root = project_root()
    stored = again.stored_run(find_run(root, run)[0])
    first = epochs if epochs and epochs < stored.epochs else 0
    which = f"the first {first} of {stored.epochs} epochs" if first else "the whole run"
    took, where = stored.seconds(first), stored.record["device"]["name"]
    if not as_json:
        console.print(f"{escape(which)}: about {took:.0f} s on {escape(where)}; this is {escape(this_device())}")
    if only_estimate:
        if as_json:
            print(json.dumps({"run": str(stored.folder), "seconds": took, "device": where}, indent=2))
        return
    place = stored.results / "state" / f"verify-{stored.config['id']}-{first}"
    done = subprocess.run([sys.executable, *again.command(stored, root, place, first)], env=door_environment(root))
    if done.returncode:
        raise typer.Exit(done.returncode)
    versions = {name: metadata.version(name) for name in again.DECIDE}
    here = {"device": this_device(), "processor": processor_kind(), **versions}
    findings = again.compare(stored, place, here, first)
    shutil.rmtree(place)
    wrong = any(finding.ok is False for finding in findings)
    if as_json:
        found = [vars(finding) for finding in findings]
        print(json.dumps({"run": str(stored.folder), "ok": not wrong, "findings": found}, indent=2))
    else:
        for finding in findings:
            console.print(f"{MARKS[finding.ok]}{escape(finding.what)}: {escape(finding.detail)}")
        console.print("[red]it does not come out again[/]" if wrong else "[green]it comes out again[/]")
    raise typer.Exit(3 if wrong else 0)
