"""Data sets from the command line: fetch, prepare, verify, fingerprint, list.

Exit codes: 0 done, 2 wrong input or no source, 3 bytes are not the declared ones.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dica.data import catalog
from dica.data.paths import prepared_folder
from dica.files import project_root, write_json
from dica.scripting import run_script

TEXT = {
    "fetch": "bring the archives of a data set into data/raw and prove their digests",
    "prepare": "fetch, then write arrays, labels and manifest",
    "verify": "hash prepared arrays and labels again",
    "fingerprint": "print the line that declares a prepared data set's content",
    "list": "list the data sets",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = command_line().parse_args(arguments)
    commands = {"fetch": _fetch, "prepare": _prepare, "verify": _verify, "fingerprint": _fingerprint, "list": _list}
    return run_script(lambda: commands[options.command](options.root or project_root(), options))


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dica.data", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in TEXT.items():
        sub = commands.add_parser(command, help=text, description=text)
        sub.add_argument("--root", type=Path, help="project root (default: found from the working directory)")
        if command != "list":
            sub.add_argument("name", help="a data set of params/datasets.yaml")
        if command in ("fetch", "prepare"):
            sub.add_argument("--mirror", help="folder or URL with the archives (default: environment DICA_MIRROR)")
        if command == "fetch":
            sub.add_argument("--record", type=Path, help="JSON file to write the proved digests to")
    return parser


def _fetch(root: Path, options: argparse.Namespace) -> None:
    from dica.data.fetch import fetch_dataset

    _, paths, sources = fetch_dataset(catalog.entry(root, options.name), root, options.mirror)
    for path in paths.values():
        print(path)
    if options.record:
        write_json(options.record, sources)


def _prepare(root: Path, options: argparse.Namespace) -> None:
    from dica.data.prepare import prepare

    manifest = prepare(options.name, root, options.mirror)
    counts = ", ".join(f"{split} {record['n']}" for split, record in manifest["splits"].items())
    print(f"{options.name}: {counts}; fingerprint {manifest['fingerprint']}")


def _verify(root: Path, options: argparse.Namespace) -> None:
    from dica.data.prepare import verify

    print(f"{options.name}: verified, fingerprint {verify(options.name, root)['fingerprint']}")


def _fingerprint(root: Path, options: argparse.Namespace) -> None:
    from dica.data.prepared import load_manifest

    catalog.entry(root, options.name)
    manifest = load_manifest(root / prepared_folder(options.name))
    print(f"  fingerprint: {manifest['fingerprint']}  # of {options.name} in params/datasets.yaml")


def _list(root: Path, options: argparse.Namespace) -> None:
    from dica.data.prepared import MANIFEST

    for name, entry in catalog.load(root).items():
        ready = (root / prepared_folder(name) / MANIFEST).is_file()
        counts = ", ".join(f"{split} {number}" for split, number in entry["splits"].items())
        print(f"{name:<16}{'prepared' if ready else '-':<10}{entry['num_classes']:>4} classes  {counts}")


if __name__ == "__main__":
    sys.exit(main())
