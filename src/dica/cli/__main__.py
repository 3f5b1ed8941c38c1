"""The command `dica`: show tables, audit cells; `dica.cli.runs` has what is about runs.

Exit codes: see `dica.audit.auditor` and `dica.files`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dica.cli import completion, data
from dica.cli.apply import export, predict
from dica.cli.own import cluster
from dica.cli.runs import ARCHIVE, AsJson, Profile, compare, console, estimate, evaluate, status
from dica.files import UserError, explain_os_error, project_root
from dica.scripting import print_anywhere
from dica.validation import hint, short

app = typer.Typer(help="Show and audit the numbers of this archive.", no_args_is_help=True, rich_markup_mode="rich")

MARKS = {True: "[green]ok[/]     ", False: "[red]WRONG[/]  ", None: "[yellow]note[/]   "}
VERDICTS = {0: "[green]matches[/]", 3: "[red]does not match[/]", 4: "[yellow]incomplete[/]"}


@app.command()
def audit(
    paper: Annotated[str | None, typer.Argument(help="Paper, such as drc.", autocompletion=completion.papers)] = None,
    artefact: Annotated[
        str | None, typer.Argument(help="Table, such as table-1.", autocompletion=completion.tables)
    ] = None,
    cell: Annotated[
        str | None,
        typer.Argument(help="Cell as row/dataset/metric, such as drc/cifar10/acc.", autocompletion=completion.cells),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Audit every cell.")] = False,
    profile: Profile = ARCHIVE,
    as_json: AsJson = False,
) -> None:
    """Re-hash the runs behind a cell, recompute its number, and say what changed since.

    Exit code: 0 it matches, 3 it does not, 4 something is missing, 2 wrong usage.
    """
    from dica.audit.auditor import Auditor

    if every != (cell is None):
        raise UserError("name one cell (dica audit PAPER ARTEFACT ROW/DATASET/METRIC) or give --all")
    auditor = Auditor(project_root(), profile.as_posix())
    if every:
        raise typer.Exit(_audit_all(auditor, as_json))
    result = auditor.audit(auditor.find(paper, artefact, cell))
    if as_json:
        print(json.dumps(result.as_dict(), indent=2))
    else:
        _print_audit(result)
    raise typer.Exit(result.code)


def _audit_all(auditor, as_json: bool) -> int:
    """Audit every cell and what no cell shows. A cell without a run that says so does not count."""
    everything = [auditor.audit(row) for row in auditor.all_rows()]
    results = [result for result in everything if not result.not_run_and_says_so]
    uncelled = auditor.audit_uncelled()
    codes = [result.code for result in results] or [4]
    worst = max([*codes, *(result.code for result in uncelled)], key=(0, 4, 3).index)
    if as_json:
        print(json.dumps([result.as_dict() for result in [*results, *uncelled]], indent=2))
        return worst
    for result in [*results, *uncelled]:
        if result.code:
            wrong = [f"{finding.what}: {finding.detail}" for finding in result.all_findings if finding.ok is False]
            console.print(f"{VERDICTS[result.code]}  {escape(result.address)}  {escape('; '.join(wrong))}")
    counts = {code: sum(result.code == code for result in results) for code in VERDICTS}
    runs = {run.folder for result in results for run in result.runs}
    summary = ", ".join(f"{count} {VERDICTS[code]}" for code, count in counts.items() if count or code == 0)
    console.print(f"{len(results)} cells over {len(runs)} runs: {summary}")
    if len(everything) > len(results):
        console.print(f"not run, and listed as not run: {len(everything) - len(results)} more")
    for result in uncelled:
        console.print(f"in no cell, {escape(result.address)}: {VERDICTS[result.code]}")
    return worst


def _print_audit(result) -> None:
    row = result.row
    console.print(f"[bold]{escape(result.address)}[/]  {escape(row['label'])} on {escape(row['dataset_label'])}")
    if row["value"] or row["published"]:
        ours = f" = [bold]{escape(_number(row, 'value', 1, 4))}[/]" if row["value"] else ""
        spread = _spread(row, 1, 4)
        runs = f" ({row['statistic']} of {row['n']} runs)" if row["runs"] else ""  # counts and p values rest on none
        published = f"{';' if ours else ':'} published {row['published'] or 'none'};"
        reason = f" ({row['reason']})" if row["reason"] else ""
        console.print(
            f"  {escape(row['metric'])}{ours}" + escape(f"{spread}{runs}{published} verdict: {row['verdict']}{reason}")
        )
    _print_findings(result.findings)
    for run in result.runs:
        record = run.record
        console.print(f"\n  run [bold]{escape(run.folder)}[/]")
        if record:
            dirty = " with uncommitted changes" if record["dirty_sha256"] else ""
            console.print(
                f"    trained {escape(record['started'])} on {escape(record['device']['name'])} in"
                f" {record['seconds']:.0f} s, commit {escape((record['commit'] or 'none')[:12])}{dirty},"
                f" torch {escape(str(record['versions'].get('torch', '?')))}"
            )
        _print_findings(run.findings, indent="    ")
    console.print(f"\n  rebuild: {escape(result.rebuild)}" if result.rebuild else "")
    console.print(f"  verdict of the audit: {VERDICTS[result.code]}")


def _number(row: dict, name: str, factor: int, digits: int) -> str:
    """Return one of our numbers as text; counts, which rest on no run, without a fraction."""
    whole = not row["runs"] and not row[name].partition(".")[2].strip("0")
    return _scaled(row[name], factor, 0 if whole else digits)


def _spread(row: dict, factor: int, digits: int) -> str:
    """Return the spread as it stands behind a mean, or an empty text: it is not that of a best run."""
    return f" ± {_number(row, 'spread', factor, digits)}" if row["spread"] and row["statistic"] != "best" else ""


def _scaled(text: str, factor: int, digits: int) -> str:
    """Return a number of cells.csv times `factor`; what is no number, as it stands there."""
    try:
        return f"{float(text) * factor:.{digits}f}"
    except ValueError:
        return text


def _print_findings(findings, indent: str = "  ") -> None:
    for finding in findings:
        console.print(f"{indent}{MARKS[finding.ok]}{escape(finding.what)}: {escape(finding.detail)}")


@app.command()
def show(
    paper: Annotated[str, typer.Argument(help="Paper, such as drc.", autocompletion=completion.papers)],
    artefact: Annotated[str, typer.Argument(help="Table, such as table-1.", autocompletion=completion.tables)],
    profile: Profile = ARCHIVE,
) -> None:
    """Print a table: our numbers beside the published ones."""
    from dica.audit.auditor import Auditor, cell_name
    from dica.plan.published import decimals
    from dica.tables.layout import PLAIN

    auditor = Auditor(project_root(), profile.as_posix())
    rows = [row for row in auditor.cells if (row["paper"], row["artefact"]) == (paper, artefact)]
    if not rows:
        raise UserError(f"no table {paper} {artefact}; {hint(f'{paper} {artefact}', _tables(auditor))}")
    declared = auditor.artefacts.get((paper, artefact))
    percent = declared is not None and declared.scale == "percent"
    table = Table(title=f"{paper} {artefact}" + (", in percent" if percent else ""), title_justify="left")
    for heading in ("cell", "ours", "runs", "published", "verdict"):
        table.add_column(heading, justify="right" if heading in ("ours", "runs", "published") else "left")
    for row in rows:
        factor, shift = (100, 2) if percent and row["metric"] not in PLAIN else (1, 0)
        ours = _number(row, "value", factor, 3 - shift) if row["value"] else "–"
        ours += _spread(row, factor, 3 - shift)
        printed = row["published"] and _scaled(row["published"], factor, max(decimals(row["published"]) - shift, 0))
        table.add_row(*map(escape, (cell_name(row), ours, row["n"], printed or "–", row["verdict"])))
    console.print(table)


def _tables(auditor) -> list[str]:
    return sorted({f"{row['paper']} {row['artefact']}" for row in auditor.cells})


for command in (cluster, predict, export, status, compare, estimate, evaluate):
    app.command()(command)

deposits = typer.Typer(help="Build or check the deposit: one file with all that an auditor needs.")
app.add_typer(deposits, name="deposit")
app.add_typer(data.app, name="data")


@deposits.command("build")
def build_deposit(
    file: Annotated[Path, typer.Argument(help="File to write, NAME.tar.gz.")], profile: Profile = ARCHIVE
) -> None:
    """Write the deposit; equal files give equal bytes."""
    from dica.audit.deposit import build
    from dica.plan.parameters import load_profile

    root = project_root()
    digest = build(root, load_profile(root / profile, root)["results"], file)
    console.print(f"{digest}  {escape(str(file))}  ({file.stat().st_size / 1e6:.1f} MB)")


@deposits.command("check")
def check_deposit(file: Annotated[Path, typer.Argument(help="A deposit.")]) -> None:
    """Unpack a deposit, verify its hashes, make its tables again and audit its cells: offline, without torch."""
    from dica.audit.deposit import check

    for line in check(file):
        console.print(escape(line))


def main() -> None:
    """Entry point of the command: one line for a user's mistake or what the system refuses, no traceback."""
    print_anywhere()
    try:
        app()
    except UserError as error:
        _end(str(error), error.exit_code)
    except BrokenPipeError:
        os._exit(1)  # whoever read has left: nothing can be said, nor flushed at the end
    except OSError as error:
        _end(explain_os_error(error), 1)


def _end(message: str, code: int) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]error:[/] {escape(short(message))}")
    raise SystemExit(code) from None


if __name__ == "__main__":
    main()
