"""The command `dica`: show tables, audit cells, tell what is done. Exit codes: see `dica.audit` and `dica.files`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dica.files import UserError, project_root
from dica.runfiles import RECORD, failure_reason

app = typer.Typer(help="Show and audit the numbers of this archive.", no_args_is_help=True, rich_markup_mode="rich")
console = Console(highlight=False, soft_wrap=True)

Profile = Annotated[Path, typer.Option(help="Profile whose results are meant, such as params/demo.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
ARCHIVE = Path("params/archive.yaml")
MARKS = {True: "[green]ok[/]     ", False: "[red]WRONG[/]  ", None: "[yellow]note[/]   "}
VERDICTS = {0: "[green]matches[/]", 3: "[red]does not match[/]", 4: "[yellow]incomplete[/]"}


@app.command()
def audit(
    paper: Annotated[str | None, typer.Argument(help="Paper, such as drc.")] = None,
    artefact: Annotated[str | None, typer.Argument(help="Table, such as table-1.")] = None,
    cell: Annotated[str | None, typer.Argument(help="Cell as row/dataset/metric, such as drc/cifar10/acc.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Audit every cell.")] = False,
    profile: Profile = ARCHIVE,
    as_json: AsJson = False,
) -> None:
    """Re-hash the runs behind a cell, recompute its number, and say what changed since.

    Exit code: 0 it matches, 3 it does not, 4 something is missing, 2 wrong usage.
    """
    from dica.audit import Auditor

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
    """Audit every cell; those that rightly say that nothing was run count neither for nor against."""
    everything = [auditor.audit(row) for row in auditor.every()]
    results = [result for result in everything if not result.rightly_empty]
    worst = max((result.code for result in results), key=(0, 4, 3).index, default=4)
    if as_json:
        print(json.dumps([result.as_dict() for result in results], indent=2))
        return worst
    for result in results:
        if result.code:
            wrong = [f"{finding.what}: {finding.detail}" for finding in result.all_findings if finding.ok is False]
            console.print(f"{VERDICTS[result.code]}  {escape(result.address)}  {escape('; '.join(wrong))}")
    counts = {code: sum(result.code == code for result in results) for code in VERDICTS}
    runs = {run.folder for result in results for run in result.runs}
    summary = ", ".join(f"{count} {VERDICTS[code]}" for code, count in counts.items() if count or code == 0)
    console.print(f"{len(results)} cells over {len(runs)} runs: {summary}")
    if len(everything) > len(results):
        console.print(f"without a run, and rightly listed so: {len(everything) - len(results)} more")
    return worst


def _print_audit(result) -> None:
    row = result.row
    console.print(f"[bold]{escape(result.address)}[/]  {escape(row['label'])} on {escape(row['dataset_label'])}")
    if row["value"]:
        spread = f" ± {_scaled(row['spread'], 1, 4)}" if row["spread"] else ""
        published = row["published"] or "none"
        reason = f" ({row['reason']})" if row["reason"] else ""
        console.print(
            f"  {row['metric']} = [bold]{escape(_scaled(row['value'], 1, 4))}[/]"
            + escape(f"{spread} ({row['statistic']} of {row['n']} runs); published {published};")
            + escape(f" verdict: {row['verdict']}{reason}")
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
    console.print(f"\n  rebuild: {escape(result.rebuild)}")
    console.print(f"  verdict of the audit: {VERDICTS[result.code]}")


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
    paper: Annotated[str, typer.Argument(help="Paper, such as drc.")],
    artefact: Annotated[str, typer.Argument(help="Table, such as table-1.")],
    profile: Profile = ARCHIVE,
) -> None:
    """Print a table: our numbers beside the published ones."""
    from dica.audit import Auditor, cell_name
    from dica.published import decimals

    auditor = Auditor(project_root(), profile.as_posix())
    rows = [row for row in auditor.cells if (row["paper"], row["artefact"]) == (paper, artefact)]
    if not rows:
        raise UserError(f"no table {paper} {artefact}; there are: " + ", ".join(_tables(auditor)))
    declared = auditor.artefacts.get((paper, artefact))
    percent = declared is not None and declared.scale == "percent"
    factor, shift = (100, 2) if percent else (1, 0)
    table = Table(title=f"{paper} {artefact}" + (", in percent" if percent else ""), title_justify="left")
    for heading in ("cell", "ours", "runs", "published", "verdict"):
        table.add_column(heading, justify="right" if heading in ("ours", "runs", "published") else "left")
    for row in rows:
        ours = _scaled(row["value"], factor, 3 - shift) if row["value"] else "–"
        ours += f" ± {_scaled(row['spread'], factor, 3 - shift)}" if row["spread"] else ""
        printed = row["published"] and _scaled(row["published"], factor, max(decimals(row["published"]) - shift, 0))
        table.add_row(*map(escape, (cell_name(row), ours, row["n"], printed or "–", row["verdict"])))
    console.print(table)


def _tables(auditor) -> list[str]:
    return sorted({f"{row['paper']} {row['artefact']}" for row in auditor.cells})


@app.command()
def status(profile: Profile = ARCHIVE, as_json: AsJson = False) -> None:
    """Tell which planned runs are done, running, failed or missing."""
    from dica.config import load_profile
    from dica.identity import make_plan

    root = project_root()
    body = load_profile(root / profile, root)
    states = [(run, *_run_state(root, body["results"], run)) for run in make_plan(body, root)["runs"]]
    if as_json:
        print(
            json.dumps([{"path": run["path"], "state": state, "detail": why} for run, state, why in states], indent=2)
        )
        return
    table = Table()
    for heading in ("method", "dataset", "done", "running", "failed", "missing"):
        table.add_column(heading, justify="left" if heading in ("method", "dataset") else "right")
    for method, dataset in sorted({(run["method"], run["dataset"]) for run, *_ in states}):
        group = [state for run, state, _ in states if (run["method"], run["dataset"]) == (method, dataset)]
        counts = [str(group.count(name) or "") for name in ("done", "running", "failed", "missing")]
        table.add_row(method, dataset, *counts)
    console.print(table)
    for run, state, why in states:
        if state == "failed":
            console.print(f"[red]failed[/] {escape(run['path'])}: {escape(why)}")


def _run_state(root: Path, results: str, run: dict) -> tuple[str, str]:
    """Return (done | running | failed | missing, detail) of a planned run."""
    import fcntl

    if (root / run["path"] / RECORD).is_file():
        return "done", ""
    state = root / results / "state" / run["id"]
    if (state / "lock").is_file():
        with open(state / "lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return "running", lock.read().strip()
    if (reason := failure_reason(state)) is not None:
        return "failed", reason
    return "missing", ""


def main() -> None:
    """Entry point of the command: one line for a user's mistake, no traceback."""
    try:
        app()
    except UserError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]error:[/] {escape(str(error))}")
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
