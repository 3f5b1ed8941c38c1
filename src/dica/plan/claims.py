"""The declared claims of the papers (params/claims/<paper>.yaml), resolved into cells and their runs.

A claim is about rows of tables or figures at each rung (see `dica.plan.rungs`); `dica.scores.claims` tests it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dica.files import UserError, canonical_json
from dica.plan.artefacts import load_artefacts, method_behind, paper_names, planned
from dica.plan.declared import Artefact, Column, Row
from dica.plan.parameters import load_yaml, validate
from dica.plan.rungs import RUNGS
from dica.validation import hint

FOLDER = "params/claims"
MARGIN, FLAT_MARGIN = 0.01, 0.05
LEAST_ROWS = 2


@dataclass(frozen=True)
class Member:
    """A cell that a claim is about: one row of a table or figure under one column."""

    artefact: Artefact
    row: Row
    column: Column
    metric: str

    @property
    def address(self) -> str:
        """As the audit writes a cell."""
        return f"{self.artefact.address} {self.row.key}/{self.column.key}/{self.metric}"

    @property
    def runs_of(self) -> tuple[str, str] | None:
        """Method and variant of its runs; None where nothing is run."""
        return method_behind(self.row, self.column, self.metric)


@dataclass(frozen=True)
class Claim:
    """One claim at one rung; `groups` are its members by column, in the order of the claim."""

    name: str
    paper: str
    rung: str
    says: str
    place: str
    kind: str
    direction: str
    metric: str
    margin: float
    groups: tuple[tuple[Member, ...], ...]

    @property
    def members(self) -> list[Member]:
        """All cells of the claim."""
        return [member for group in self.groups for member in group]


def load_claims(root: Path, papers: Sequence[str] | None = None, shown: Collection[str] | None = None) -> list[Claim]:
    """Return the claims of the papers (default: of all that declare some), at every rung that they have cells at.

    Parameters
    ----------
    shown
        Addresses of artefacts: claims about others are left out (default: none are).

    Raises
    ------
    UserError
        With file, key and what is allowed, for a bad declaration.
    """
    known = sorted(path.stem for path in (root / FOLDER).glob("*.yaml"))
    if papers is not None and (unknown := [paper for paper in papers if paper not in known]):
        raise UserError(f"{FOLDER}: no paper {unknown[0]!r}; {hint(unknown[0], known)}")
    declared = {artefact.address: artefact for artefact in load_artefacts(root, paper_names(root))}
    found = [_of_paper(root, paper, declared, shown) for paper in (known if papers is None else papers)]
    return [claim for claims in found for claim in claims]


def _of_paper(root: Path, paper: str, declared: dict[str, Artefact], shown: Collection[str] | None) -> list[Claim]:
    where = f"{FOLDER}/{paper}.yaml"
    body = load_yaml(root / where)
    validate(body, "claims", where, root)
    if body["paper"] != paper:
        raise UserError(f"{where}: paper: is {body['paper']!r}, must equal the file name {paper!r}")
    claims = []
    for name, spec in body["claims"].items():
        place = f"{where}: claims.{name}"
        _check(paper, name, spec, place)
        claims += [
            Claim(
                name=name,
                paper=paper,
                rung=rung,
                says=spec["says"],
                place=spec["place"],
                kind=spec["kind"],
                direction=spec.get("direction", ""),
                metric=spec["metric"],
                margin=spec.get("margin", FLAT_MARGIN if spec.get("direction") == "flat" else MARGIN),
                groups=_groups(spec, cells, f"{place}.at.{rung}", declared),
            )
            for rung, cells in _rungs(spec["at"], declared).items()
            if shown is None or _addresses(cells) <= set(shown)
        ]
    return claims


def _check(paper: str, name: str, spec: dict[str, Any], where: str) -> None:
    if not name.startswith(f"{paper}-") or not name.removeprefix(f"{paper}-").isdigit():
        raise UserError(f"{where}: its id must be {paper}-NUMBER")
    if ("direction" in spec) != (spec["kind"] == "trend"):
        raise UserError(f"{where}: direction: a trend has one, and nothing else")


def _rungs(at: dict[str, Any], declared: dict[str, Artefact]) -> dict[str, dict[str, Any]]:
    """Return the cells by rung, those of the artefacts of the same name at a lower rung included."""
    paper, found = at["paper"], {}
    for rung in RUNGS:
        lower = declared.get(f"{paper['artefact']}-{rung}")
        if rung in at:
            found[rung] = at[rung]
        elif lower and len(paper["rows"]) >= LEAST_ROWS and set(paper["rows"]) <= {row.key for row in lower.rows}:
            found[rung] = {"artefact": lower.address, "rows": paper["rows"]}
            if "columns" in paper:
                meant = {c.setting for c in declared[paper["artefact"]].columns if c.key in paper["columns"]}
                found[rung]["columns"] = [column.key for column in lower.columns if column.setting in meant]
    return found


def _addresses(cells: dict[str, Any]) -> set[str]:
    """Return the artefacts that the rows of a claim are of."""
    return {" ".join(name.split(" ")[:-1]) or cells["artefact"] for name in cells["rows"]}


def _groups(
    spec: dict[str, Any], cells: dict[str, Any], where: str, declared: dict[str, Artefact]
) -> tuple[tuple[Member, ...], ...]:
    """Return the members by column: what is compared with each other is on the same images."""
    rows = [_row(name, cells["artefact"], where, declared) for name in cells["rows"]]
    known = [column.key for column in rows[0][0].columns]
    for artefact, _ in rows[1:]:
        known = [key for key in known if key in {column.key for column in artefact.columns}]
    keys = cells.get("columns", known)
    if unknown := [key for key in keys if key not in known]:
        raise UserError(f"{where}.columns: no column {unknown[0]!r} that all rows have; {hint(unknown[0], known)}")
    if not keys:
        raise UserError(f"{where}.rows: they share no column, so that nothing can be compared")
    groups = [[_member(*row, key, spec["metric"], where) for row in rows] for key in keys]
    if spec["kind"] == "trend" and len(rows) == 1:
        groups = [[member for group in groups for member in group]]
    if len(groups[0]) < LEAST_ROWS:
        raise UserError(f"{where}.rows: a claim needs two rows at least, a trend over one row two columns")
    return tuple(map(tuple, groups))


def _row(name: str, address: str, where: str, declared: dict[str, Artefact]) -> tuple[Artefact, Row]:
    *other, key = name.split(" ")
    address = " ".join(other) or address
    if address not in declared:
        raise UserError(f"{where}: no artefact {address!r}; {hint(address, declared)}")
    for row in declared[address].rows:
        if row.key == key:
            return declared[address], row
    raise UserError(f"{where}.rows: {address} has no row {key!r}; {hint(key, [r.key for r in declared[address].rows])}")


def _member(artefact: Artefact, row: Row, key: str, metric: str, where: str) -> Member:
    column = next(column for column in artefact.columns if column.key == key)
    member = Member(artefact, row, column, metric)
    if member.runs_of is None:
        raise UserError(f"{where}.rows: nothing is run for {member.address}; name a row that is")
    return member


def alike(plan: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return by run id the plan's runs that differ from a run in nothing but the seed, by seed, itself among them.

    More seeds of a recipe than its own artefact shows may be planned by another one; a claim takes them all.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in sorted(plan["runs"], key=lambda run: run["seed"]):
        groups.setdefault(_without_seed(run), []).append(run)
    return {run["id"]: group for group in groups.values() for run in group}


def own_entries(plan: dict[str, Any], member: Member) -> list[dict[str, Any]]:
    """Return the plan's runs that a member's own artefact shows, by seed."""
    return planned(plan, member.artefact, member.row, member.column.key, member.metric)


def _without_seed(run: dict[str, Any]) -> str:
    """Return what the seeds of one recipe share; the run that one builds on has the same seed, and another id."""
    params = dict(run["params"])
    if params.get("source"):
        params["source"] = {key: value for key, value in params["source"].items() if key != "id"}
    return canonical_json([run["method"], run["dataset"], run["data_id"], run["determinism"], params])
