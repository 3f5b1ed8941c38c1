"""What the shell offers after Tab: papers, tables, cells, data sets, profiles. Reads files, imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from dica.data.paths import LABELS
from dica.files import UserError, project_root, read_csv


def papers(ctx: typer.Context, incomplete: str) -> list[str]:
    """Papers that have cells."""
    return _begin(incomplete, (row["paper"] for row in _cells(ctx)))


def tables(ctx: typer.Context, incomplete: str) -> list[str]:
    """Tables of the paper that is already typed."""
    return _begin(incomplete, (row["artefact"] for row in _cells(ctx) if row["paper"] == ctx.params.get("paper")))


def artefacts(ctx: typer.Context, incomplete: str) -> list[str]:
    """Tables and figures of the paper that is already typed."""
    root, paper = _root(), ctx.params.get("paper")
    drawn = sorted((root / _results(ctx, root) / "figures" / str(paper)).glob("*.svg")) if root else []
    return _begin(incomplete, [*tables(ctx, incomplete), *(path.stem for path in drawn)])


def cells(ctx: typer.Context, incomplete: str) -> list[str]:
    """Cells of the table that is already typed."""
    place = (ctx.params.get("paper"), ctx.params.get("artefact"))
    rows = (row for row in _cells(ctx) if (row["paper"], row["artefact"]) == place)
    return _begin(incomplete, (f"{row['row']}/{row['column']}/{row['metric']}" for row in rows))


def targets(ctx: typer.Context, incomplete: str) -> list[str]:
    """What a cost can be estimated of."""
    rows = _cells(ctx)
    names = [name for row in rows for name in (row["paper"], row["method"], f"{row['paper']}/{row['artefact']}")]
    return _begin(incomplete, ["all", *names])


def sides(ctx: typer.Context, incomplete: str) -> list[str]:
    """Cells and run folders."""
    rows = _cells(ctx)
    names = [f"{row['paper']}/{row['artefact']}/{row['row']}/{row['column']}/{row['metric']}" for row in rows]
    return _begin(incomplete, [*names, *(folder for row in rows for folder in row["runs"].split())])


def datasets(ctx: typer.Context, incomplete: str) -> list[str]:
    """Data sets whose labels are here."""
    root = _root()
    return _begin(incomplete, sorted(path.stem for path in (root / LABELS).glob("*.npz")) if root else [])


def profiles(ctx: typer.Context, incomplete: str) -> list[str]:
    """Files in params/ that say where results are."""
    root = _root()
    files = sorted((root / "params").glob("*.yaml")) if root else []
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in files}
    found = [f"params/{path.name}" for path, text in texts.items() if "\nresults:" in text]
    return _begin(incomplete, found)


def _begin(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _root() -> Path | None:
    try:
        return project_root()
    except UserError:
        return None


def _results(ctx: typer.Context, root: Path) -> str:
    """Return where the results of the typed profile are."""
    profile = root / str(ctx.params.get("profile") or "params/archive.yaml")
    lines = profile.read_text(encoding="utf-8", errors="replace").splitlines() if profile.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("results:")), "results")


def _cells(ctx: typer.Context) -> list[dict[str, str]]:
    root = _root()
    if root is None:
        return []
    needed = ("paper", "artefact", "row", "column", "metric", "runs", "method")
    try:
        return read_csv(root / _results(ctx, root) / "tables" / "cells.csv", needed)
    except UserError:
        return []  # there is no place for an error after Tab
