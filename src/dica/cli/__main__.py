"""The command `dica`: what it knows, and how it ends.

Exit codes: see `dica.audit.auditor` and `dica.files`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from dica.cli import data, evidence
from dica.cli.apply import export, predict
from dica.cli.audit import audit
from dica.cli.own import cluster
from dica.cli.runs import ARCHIVE, AsJson, Profile, compare, console, estimate, evaluate, status
from dica.cli.show import show
from dica.files import UserError, explain_os_error, project_root
from dica.scripting import print_anywhere
from dica.validation import short

app = typer.Typer(
    help="Cluster your own images (`dica cluster FOLDER --k 10`), or show and audit the numbers of this archive.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


SEEN = (show, audit, evidence.trace, evidence.verify, evidence.power)
COMMANDS: tuple[Callable[..., None], ...] = (*SEEN, cluster, predict, export, status, compare, estimate, evaluate)
for command in COMMANDS:
    app.command()(command)

deposits = typer.Typer(help="Build or check the deposit: one file with all that an auditor needs.")
app.add_typer(deposits, name="deposit")
app.add_typer(data.app, name="data")


@deposits.command("build")
def build_deposit(
    file: Annotated[Path, typer.Argument(help="File to write, NAME.tar.gz.")],
    profile: Profile = ARCHIVE,
    key: Annotated[Path | None, typer.Option("--sign", help="Private key of OpenSSH; writes FILE.sig.")] = None,
    with_weights: Annotated[bool, typer.Option("--with-weights", help="The weights of all runs, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the deposit; equal files give equal bytes."""
    from dica.audit.deposit import build
    from dica.audit.signature import sign
    from dica.plan.parameters import load_profile

    root = project_root()
    digest = build(root, load_profile(root / profile, root)["results"], file, with_weights)
    signature = str(sign(file, key)) if key else None
    if as_json:
        print(json.dumps({"file": str(file), "sha256": digest, "bytes": file.stat().st_size, "signature": signature}))
        return
    console.print(f"{digest}  {escape(str(file))}  ({file.stat().st_size / 1e6:.1f} MB)")
    if signature:
        console.print(f"signature: {escape(signature)}")


@deposits.command("check")
def check_deposit(
    file: Annotated[Path, typer.Argument(help="A deposit.")],
    key: Annotated[Path | None, typer.Option(help="Public key of OpenSSH: its holder must have signed FILE.")] = None,
    as_json: AsJson = False,
) -> None:
    """Unpack a deposit, verify its hashes, make its tables again and audit its cells: offline, without torch."""
    from dica.audit.deposit import check
    from dica.audit.signature import signature_of, verify

    signed = ""
    if key:
        signed = verify(file, key)
    elif signature_of(file).is_file():
        signed = "signed, but by whom was not checked: give --key"
    if signed and not as_json:
        console.print(escape(signed))
    found = []
    for line in check(file):
        found.append(line)
        if not as_json:
            console.print(escape(line))
    if as_json:
        print(json.dumps({"file": str(file), "signature": signed or None, "checks": found}))


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
