"""How scripts and commands that a person or a rule starts end: one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from dica.files import UserError, explain_os_error


def print_anywhere() -> None:
    """Let a terminal or a log that knows fewer characters show the others escaped, instead of ending in an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's has none, and needs none
            stream.reconfigure(errors="backslashreplace")


def run_script(main: Callable[[], str | None]) -> int:
    """Run `main`, print the line it returns, if any, to stderr, and return the exit code.

    A user's mistake, or a disk that refuses, is one line without a traceback.
    """
    print_anywhere()
    try:
        if said := main():
            print(said, file=sys.stderr)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {explain_os_error(error)}", file=sys.stderr)
        return 1
    return 0
