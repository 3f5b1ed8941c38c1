"""`dica audit`: a cell, a table, a figure, a statistic, or everything, from what is printed down to the predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from dica.cli import completion
from dica.cli.runs import ARCHIVE, AsJson, Profile, console
from dica.files import UserError, project_root

if TYPE_CHECKING:
    from dica.audit.auditor import Auditor, CellAudit

MARKS = {True: "[green]ok[/]     ", False: "[red]WRONG[/]  ", None: "[yellow]note[/]   "}
MISSING = "[yellow]missing[/] "
VERDICTS = {0: "[green]matches[/]", 3: "[red]does not match[/]", 4: "[yellow]incomplete[/]"}
NOT_RUN = "[yellow]not run[/]"
NO_GIT = "no Git checkout: nothing vouches for files that were changed in agreement with each other"
SHOWN = 5  # notes of one kind


def audit(
    paper: Annotated[
        str | None, typer.Argument(help="Paper, such as drc; or the word claim.", autocompletion=completion.papers)
    ] = None,
    artefact: Annotated[
        str | None,
        typer.Argument(
            help="Table, figure, or statistics/pairs of dica; a claim, such as drc-1.",
            autocompletion=completion.artefacts,
        ),
    ] = None,
    cell: Annotated[
        str | None,
        typer.Argument(help="Cell as row/dataset/metric, such as drc/cifar10/acc.", autocompletion=completion.cells),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Audit every cell and what no cell shows.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 4 also for what no Git commit vouches for.")
    ] = False,
    profile: Profile = ARCHIVE,
    as_json: AsJson = False,
) -> None:
    """Re-hash the runs behind a number or a figure, make it again, and say what changed since.

    Exit code: 0 it matches, 3 it does not, 4 something is missing, 2 wrong usage.
    """
    from dica.audit.auditor import Auditor

    named = None if paper is None or artefact is None else (paper, artefact)
    if everything != (named is None) or (everything and paper is not None):
        raise UserError(
            "name a table, a figure or a cell (dica audit PAPER ARTEFACT [ROW/DATASET/METRIC]), a statistic (dica audit"
            " dica statistics/NAME) or a claim (dica audit claim NAME), or give --all"
        )
    auditor = Auditor(project_root(), profile.as_posix())
    if named is None:
        raise typer.Exit(audit_everything(auditor, as_json, strict))
    if cell is None:
        raise typer.Exit(_audit_artefact(auditor, *named, as_json, strict))
    result = auditor.audit(auditor.find(*named, cell))
    if as_json:
        print(json.dumps(result.as_dict(), indent=2))
    else:
        _print_audit(result)
    raise typer.Exit(_worst([result], strict))


def _worst(results: Sequence[CellAudit], strict: bool) -> int:
    """Return the worst code; with `strict`, what only the files themselves vouch for is incomplete."""
    codes = [result.code for result in results]
    if strict and any(result.unvouched for result in results):
        codes.append(4)
    return max([0, *codes], key=(0, 4, 3).index)


def _audit_artefact(auditor: Auditor, paper: str, artefact: str, as_json: bool, strict: bool) -> int:
    """Audit all cells of a table, or a figure, or a statistic."""
    from dica.audit.claims import ClaimsAudit
    from dica.audit.uncelled import Uncelled

    if paper == "claim":
        result = ClaimsAudit(auditor).audit(artefact)
        print(json.dumps(result.as_dict(), indent=2)) if as_json else _print_audit(result)
        return _worst([result], strict)
    rows = []
    if any(key[:2] == (paper, artefact) for key in auditor.known):
        rows = [row for row in auditor.all_rows() if (row["paper"], row["artefact"]) == (paper, artefact)]
    results = [auditor.audit(row) for row in rows] or [Uncelled(auditor).audit(paper, artefact)]
    counted = [result for result in results if not result.not_run_and_says_so] if rows else results
    if as_json:
        print(json.dumps([result.as_dict() for result in results], indent=2))
    elif rows:
        for result in results:
            console.print(f"{_verdict(result)}  {escape(result.address)}{_wrongs(result)}")
        _print_notes(auditor, counted)
    else:
        _print_audit(results[0])
    return _worst(counted, strict) if counted else 4


def audit_everything(auditor: Auditor, as_json: bool, strict: bool = False) -> int:
    """Audit every cell and what no cell shows; cells that are listed as not run do not count."""
    from dica.audit.uncelled import Uncelled
    from dica.cli.progress import told

    everything = [auditor.audit(row) for row in told(auditor.all_rows(), "cells")]
    results = [result for result in everything if not result.not_run_and_says_so]
    uncelled = Uncelled(auditor).audit_all(told)
    worst = max(_worst([*results, *uncelled], strict), 0 if results else 4, key=(0, 4, 3).index)
    if as_json:
        print(json.dumps([result.as_dict() for result in [*results, *uncelled]], indent=2))
        return worst
    for result in [*results, *uncelled]:
        if result.code:
            console.print(f"{VERDICTS[result.code]}  {escape(result.address)}{_wrongs(result)}")
    counts = {code: sum(result.code == code for result in results) for code in VERDICTS}
    runs = {run.folder for result in results for run in result.runs}
    summary = ", ".join(f"{count} {VERDICTS[code]}" for code, count in counts.items() if count or code == 0)
    console.print(f"{len(results)} cells over {len(runs)} runs: {summary}")
    if len(everything) > len(results):
        console.print(f"not run, and listed as not run: {len(everything) - len(results)} more")
    for result in uncelled:
        console.print(f"beside the cells, {escape(result.address)}: {VERDICTS[result.code]}")
    _print_notes(auditor, [*results, *uncelled])
    return worst


def _wrongs(result: CellAudit) -> str:
    """Return what does not hold, behind an address."""
    wrong = [f"{finding.what}: {finding.detail}" for finding in result.all_findings if finding.ok is False]
    return f"  {escape('; '.join(dict.fromkeys(wrong)))}" if result.code and not result.not_run_and_says_so else ""


def _print_notes(auditor: Auditor, results: Sequence[CellAudit]) -> None:
    """Say what could not be checked, by kind; above all what no commit vouches for."""
    notes: dict[str, dict[str, int]] = {}
    for result in results:
        for note in dict.fromkeys((f.what, f.detail) for f in result.all_findings if f.ok is None):
            kind = notes.setdefault(note[0].split(" ")[0], {})
            kind[note[1]] = kind.get(note[1], 0) + 1
    for what, details in notes.items():
        for detail, count in sorted(details.items(), key=lambda item: -item[1])[:SHOWN]:
            console.print(f"{MARKS[None]}{escape(what)}: {escape(detail)} ({count} times)")
        if len(details) > SHOWN:
            console.print(f"{MARKS[None]}{escape(what)}: {len(details) - SHOWN} more of the kind; --json has them")
    if auditor.checkout.states is None:
        console.print(f"[bold yellow]{NO_GIT}[/]")
    elif loose := sum(bool(result.unvouched) for result in results):
        console.print(f"[bold yellow]{loose} of {len(results)} rest on files that no Git commit vouches for[/]")


def _print_audit(result: CellAudit) -> None:
    row = result.row
    of = f"  {escape(row['label'])} on {escape(row['dataset_label'])}" if row else ""  # a figure has no row
    console.print(f"[bold]{escape(result.address)}[/]{of}")
    if row and (row["value"] or row["published"]):
        ours = f" = [bold]{escape(number(row, 'value', 1, 4))}[/]" if row["value"] else ""
        around = spread(row, 1, 4)
        runs = f" ({row['statistic']} of {row['n']} runs)" if row["runs"] else ""  # counts and p values rest on none
        published = f"{';' if ours else ':'} published {row['published'] or 'none'};"
        reason = f" ({row['reason']})" if row["reason"] else ""
        console.print(
            f"  {escape(row['metric'])}{ours}" + escape(f"{around}{runs}{published} verdict: {row['verdict']}{reason}")
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
    console.print(f"  verdict of the audit: {_verdict(result)}")


def _verdict(result: CellAudit) -> str:
    return NOT_RUN if result.not_run_and_says_so and result.code else VERDICTS[result.code]


def number(row: dict, name: str, factor: int, digits: int) -> str:
    """Return one of our numbers as text; counts, which rest on no run, without a fraction."""
    whole = not row["runs"] and not row[name].partition(".")[2].strip("0")
    return scaled(row[name], factor, 0 if whole else digits)


def spread(row: dict, factor: int, digits: int) -> str:
    """Return the spread as it stands behind a mean, or an empty text: it is not that of a best run."""
    return f" ± {number(row, 'spread', factor, digits)}" if row["spread"] and row["statistic"] != "best" else ""


def scaled(text: str, factor: int, digits: int) -> str:
    """Return a number of cells.csv times `factor`; what is no number, as it stands there."""
    try:
        return f"{float(text) * factor:z.{digits}f}"
    except ValueError:
        return text


def _print_findings(findings, indent: str = "  ") -> None:
    for finding in findings:
        mark = MISSING if finding.missing else MARKS[finding.ok]
        console.print(f"{indent}{mark}{escape(finding.what)}: {escape(finding.detail)}")
