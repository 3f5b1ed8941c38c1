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

from dica.cli import completion, data, evidence
from dica.cli.apply import export, predict
from dica.cli.audit import audit, number, scaled, spread
from dica.cli.own import cluster
from dica.cli.runs import ARCHIVE, AsJson, Profile, compare, console, estimate, evaluate, status
from dica.files import UserError, explain_os_error, project_root
from dica.scripting import print_anywhere
from dica.validation import hint, short

app = typer.Typer(help="Show and audit the numbers of this archive.", no_args_is_help=True, rich_markup_mode="rich")


@app.command()
def show(
    paper: Annotated[str, typer.Argument(help="Paper, such as drc.", autocompletion=completion.papers)],
    artefact: Annotated[str, typer.Argument(help="Table or figure.", autocompletion=completion.artefacts)],
    profile: Profile = ARCHIVE,
    as_json: AsJson = False,
) -> None:
    """Print a table, our numbers beside the published ones, or what a figure shows in words."""
    from dica.audit.auditor import Auditor

    auditor = Auditor(project_root(), profile.as_posix())
    rows = [row for row in auditor.cells if (row["paper"], row["artefact"]) == (paper, artefact)]
    figures = {known.address: known for known in auditor.declared if known.kind == "figure"}
    if not rows and f"{paper} {artefact}" in figures:
        _show_figure(auditor, figures[f"{paper} {artefact}"], as_json)
    elif not rows:
        known = sorted({f"{row['paper']} {row['artefact']}" for row in auditor.cells} | figures.keys())
        raise UserError(f"no table or figure {paper} {artefact}; {hint(f'{paper} {artefact}', known)}")
    elif as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        _show_table(auditor, rows)


def _show_figure(auditor, artefact, as_json: bool) -> None:
    from dica.plan.planned import has_something
    from dica.tables.drawn import read_words

    if not has_something(artefact, auditor.plan, auditor.root):
        raise UserError(
            f"{artefact.address}: not run; what it would cost: dica estimate {artefact.paper}/{artefact.name}"
        )
    folder = f"{auditor.results}/figures/{artefact.paper}"
    path = f"{folder}/{artefact.name}.svg"
    known = read_words(auditor.root / path)
    found = {
        "figure": artefact.address,
        "title": artefact.title,
        "words": known.words,
        "runs": known.runs,
        "file": path,
    }
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    console.print(f"[bold]{escape(artefact.address)}[/]  {escape(artefact.title)}\n{escape(known.words)}")
    console.print(f"[dim]{escape(path)}; of the runs {escape(' '.join(known.runs) or 'none')}[/]")


def _show_table(auditor, rows: list[dict]) -> None:
    from dica.audit.rows import cell_name
    from dica.plan.published import decimals
    from dica.tables.layout import PLAIN

    paper, artefact = rows[0]["paper"], rows[0]["artefact"]
    declared = auditor.artefacts.get((paper, artefact))
    percent = declared is not None and declared.scale == "percent"
    table = Table(title=f"{paper} {artefact}" + (", in percent" if percent else ""), title_justify="left")
    for heading in ("cell", "ours", "runs", "published", "verdict"):
        table.add_column(heading, justify="right" if heading in ("ours", "runs", "published") else "left")
    for row in rows:
        factor, shift = (100, 2) if percent and row["metric"] not in PLAIN else (1, 0)
        ours = number(row, "value", factor, 3 - shift) if row["value"] else "–"
        ours += spread(row, factor, 3 - shift)
        runs = (
            row["n"] if row["n"] == row["seeds_planned"] or not row["runs"] else f"{row['n']} of {row['seeds_planned']}"
        )
        printed = row["published"] and scaled(row["published"], factor, max(decimals(row["published"]) - shift, 0))
        table.add_row(*map(escape, (cell_name(row), ours, runs, printed or "–", row["verdict"])))
    console.print(table)


for command in (audit, evidence.trace, evidence.verify, evidence.power, cluster, predict, export):
    app.command()(command)
for command in (status, compare, estimate, evaluate):
    app.command()(command)

deposits = typer.Typer(help="Build or check the deposit: one file with all that an auditor needs.")
app.add_typer(deposits, name="deposit")
app.add_typer(data.app, name="data")


@deposits.command("build")
def build_deposit(
    file: Annotated[Path, typer.Argument(help="File to write, NAME.tar.gz.")],
    profile: Profile = ARCHIVE,
    key: Annotated[Path | None, typer.Option("--sign", help="Private key of OpenSSH; writes FILE.sig.")] = None,
) -> None:
    """Write the deposit; equal files give equal bytes."""
    from dica.audit.deposit import build
    from dica.audit.signature import sign
    from dica.plan.parameters import load_profile

    root = project_root()
    digest = build(root, load_profile(root / profile, root)["results"], file)
    console.print(f"{digest}  {escape(str(file))}  ({file.stat().st_size / 1e6:.1f} MB)")
    if key:
        console.print(f"signature: {escape(str(sign(file, key)))}")


@deposits.command("check")
def check_deposit(
    file: Annotated[Path, typer.Argument(help="A deposit.")],
    key: Annotated[Path | None, typer.Option(help="Public key of OpenSSH: its holder must have signed FILE.")] = None,
) -> None:
    """Unpack a deposit, verify its hashes, make its tables again and audit its cells: offline, without torch."""
    from dica.audit.deposit import check
    from dica.audit.signature import signature_of, verify

    if key:
        console.print(escape(verify(file, key)))
    elif signature_of(file).is_file():
        console.print("signed, but by whom was not checked: give --key")
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
