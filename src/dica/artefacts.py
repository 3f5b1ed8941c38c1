"""The declared tables and figures (params/artefacts/<paper>.yaml): what is shown decides what is run.

Imports nothing heavy: Snakemake reads these declarations each time it parses the workflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dica.config import load_yaml, validate
from dica.files import UserError

Need = tuple[str, str, str, int]


@dataclass(frozen=True)
class Column:
    """A data set as a table shows it."""

    dataset: str
    published_dataset: str
    label: str
    note: str = ""
    protocol: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A line of a table or a method of a figure; `method` None = the printed number is only copied."""

    key: str
    label: str
    method: str | None
    variant: str
    statistic: str
    seeds: int
    published_method: str | None
    published_paper: str
    published_table: str
    published_metrics: dict[str, str]
    protocol: dict[str, Any]
    note: str = ""


@dataclass(frozen=True)
class Artefact:
    """One declared table or figure; `paper` and `name` together are its address."""

    paper: str
    paper_title: str
    name: str
    kind: str
    title: str
    plot: str | None
    published_file: str
    seeds: int
    metrics: tuple[str, ...]
    scale: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    protocol: dict[str, Any]
    note: str = ""

    @property
    def address(self) -> str:
        """`<paper> <name>`, as plans, profiles and the audit write it."""
        return f"{self.paper} {self.name}"

    def protocol_of(self, row: Row, column: Column) -> dict[str, Any]:
        """Return the published protocol of one cell: the paper's, then the column's, then the row's overrides."""
        return {**self.protocol, **column.protocol, **row.protocol}


def paper_names(root: Path) -> list[str]:
    """Return the papers that declare artefacts."""
    return sorted(path.stem for path in (root / "params" / "artefacts").glob("*.yaml"))


def load_artefacts(root: Path, names: Sequence[str]) -> list[Artefact]:
    """Load what is declared for the named papers, in the order given.

    Parameters
    ----------
    root
        Project root.
    names
        Papers (`drc`: everything of it) or single artefacts (`drc table-1`).

    Raises
    ------
    UserError
        With the file, the key and what is allowed, for an unknown name or a bad declaration.
    """
    chosen: list[Artefact] = []
    for entry in names:
        paper, _, name = entry.partition(" ")
        declared = _load_paper(root, paper)
        if name and name not in declared:
            raise UserError(f"params/artefacts/{paper}.yaml: artefacts: no {name!r}; there are: {', '.join(declared)}")
        chosen += [declared[name]] if name else declared.values()
    return list({artefact.address: artefact for artefact in chosen}.values())  # each once


def _load_paper(root: Path, paper: str) -> dict[str, Artefact]:
    if paper not in paper_names(root):
        raise UserError(f"params/artefacts: no paper {paper!r}; there are: {', '.join(paper_names(root))}")
    where = f"params/artefacts/{paper}.yaml"
    body = load_yaml(root / where)
    validate(body, "artefacts", where, root)
    if body["paper"] != paper:
        raise UserError(f"{where}: paper: is {body['paper']!r}, must equal the file name {paper!r}")
    return {name: _artefact(body, name, where) for name in body["artefacts"]}


def _artefact(body: dict, name: str, where: str) -> Artefact:
    spec = body["artefacts"][name]
    if name.split("-")[0] != spec["kind"]:
        raise UserError(f"{where}: artefacts.{name}: kind is {spec['kind']!r}; a {name.split('-')[0]} is expected")
    rows = tuple(_row(row, spec, body["paper"]) for row in spec["rows"])
    columns = tuple(_column(column) for column in spec["datasets"])
    for what, keys in (("rows", [r.key for r in rows]), ("datasets", [c.dataset for c in columns])):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise UserError(f"{where}: artefacts.{name}.{what}: {twice[0]!r} is there twice; give each row a key")
    return Artefact(
        paper=body["paper"],
        paper_title=body["title"],
        name=name,
        kind=spec["kind"],
        title=spec["title"],
        plot=spec.get("plot"),
        published_file=body.get("published", "results.csv"),
        seeds=spec["seeds"],
        metrics=tuple(spec.get("metrics", ["acc"])),
        scale=spec.get("scale", "fraction"),
        columns=columns,
        rows=rows,
        protocol=body.get("protocol", {}),
        note=spec.get("note", ""),
    )


def _column(spec: str | dict) -> Column:
    spec = {"dataset": spec} if isinstance(spec, str) else spec
    name = spec["dataset"]
    return Column(
        dataset=name,
        published_dataset=spec.get("published_dataset", name),
        label=spec.get("label", name),
        note=spec.get("note", ""),
        protocol=spec.get("protocol", {}),
    )


def _row(spec: dict, artefact: dict, paper: str) -> Row:
    method, variant, statistic = spec.get("method"), spec.get("variant", "full"), spec.get("statistic", "mean")
    parts = [method, variant if variant != "full" else None] if method else [spec["published_method"]]
    parts.append("best" if statistic == "best" else None)
    return Row(
        key=spec.get("key", "-".join(part for part in parts if part)),
        label=spec["label"],
        method=method,
        variant=variant,
        statistic=statistic,
        seeds=spec.get("seeds", artefact["seeds"]),
        published_method=spec.get("published_method"),
        published_paper=spec.get("published_paper", paper),
        published_table=spec.get("published_table", artefact.get("published_table", "")),
        published_metrics=spec.get("published_metrics", {}),
        protocol=spec.get("protocol", {}),
        note=spec.get("note", ""),
    )


def needs(artefact: Artefact) -> list[Need]:
    """Return the runs an artefact shows, as (method, variant, dataset, seed), each once."""
    wanted = [
        (row.method, row.variant, column.dataset, seed)
        for row in artefact.rows
        if row.method
        for column in artefact.columns
        for seed in range(row.seeds)
    ]
    return list(dict.fromkeys(wanted))


def planned(plan: dict[str, Any], artefact: Artefact, row: Row, dataset: str) -> list[dict[str, Any]]:
    """Return the plan's runs behind one row of an artefact on one data set, by seed.

    Equal parameters under two variant names are one run, whose plan entry then has both names in `variants`.
    """
    mine = [
        run
        for run in plan["runs"]
        if (run["method"], run["dataset"]) == (row.method, dataset)
        and row.variant in run.get("variants", [run["variant"]])
        and artefact.address in run["needed_by"]
        and run["seed"] < row.seeds
    ]
    return sorted(mine, key=lambda run: run["seed"])
