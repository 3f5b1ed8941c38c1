"""Where a file under results/ comes from: the rule that makes it, its runs, its parameters, its last commit.

Read from the plan, the declarations and Git; nothing is made again (`dica audit` does that).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dica.audit.checkout import Checkout
from dica.files import UserError
from dica.plan.artefacts import analyses, analysis_path
from dica.plan.planned import artefacts_of, load_plan, scored_runs
from dica.runs.files import METRICS, RECORD, RESULT_FILES, STAGES, TRACE, WEIGHTS
from dica.tables.inputs import files_of

ALL_PARAMS = ["params/"]
BY_HAND = "is made by no rule"
OF_RUNS = (*RESULT_FILES, RECORD, METRICS, TRACE, STAGES, WEIGHTS)


@dataclass
class Origin:
    """What is behind a file; `commit` is empty where Git does not know it, `state` what Git says of it now."""

    file: str
    rule: str
    runs: list[str]
    params: list[str]
    commit: str = ""
    date: str = ""
    subject: str = ""
    state: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for ``--json``."""
        return asdict(self)


def trace(file: Path, root: Path, results: str) -> Origin:
    """Return where a file comes from.

    Parameters
    ----------
    file
        A file under the results root; relative to the working directory, or to the project root.
    root, results
        Project root and the results root relative to it.

    Raises
    ------
    UserError
        If there is no such file, or it lies elsewhere.
    """
    places = (Path.cwd() / file, root / file)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        folder = any(place.is_dir() for place in places)
        raise UserError(f"{file}: {'a folder; name a file in it' if folder else 'no such file'}")
    path, home = path.resolve(), (root / results).resolve()
    if not path.is_relative_to(home):
        raise UserError(f"{file}: does not lie under {results}; `dica trace` answers for what was made there")
    inside = path.relative_to(home).as_posix()
    rule, runs, params = _Maker(root, results).of(inside)
    origin = Origin(f"{results}/{inside}", rule, runs, params)
    checkout = Checkout(root, results)
    if checkout.states is None:
        origin.state = "no Git checkout"
        return origin
    known = checkout.last_commit(origin.file)
    if known:
        origin.commit, origin.date, origin.subject = known
    states = {"changed": "changed since the commit", "loose": "not committed"}
    found = checkout.differing([origin.file]).get(origin.file)
    origin.state = states.get(found or "", "as committed" if known else "not committed")
    return origin


class _Maker:
    """Tells rule, runs and parameters by the place of a file."""

    def __init__(self, root: Path, results: str) -> None:
        self.root, self.results = root, results
        self.plan = load_plan(root / results / "plan.json")
        self.declared = {artefact.address: artefact for artefact in artefacts_of(self.plan, root)}

    def of(self, inside: str) -> tuple[str, list[str], list[str]]:
        """Return rule, run folders and files of params/ behind a file, given by its path inside the results root."""
        parts = inside.split("/")
        kind, name = parts[0], parts[-1]
        if kind in ("runs", "models") and len(parts) == 5 and name in OF_RUNS:
            return self._of_run("evaluate" if name == METRICS else "train", parts[1:4])
        if kind == "state" and len(parts) > 2:
            folders = [run["path"] for run in self.plan["runs"] if run["id"] == parts[1]]
            return "train", folders, self._params(folders)
        if kind == "analyses" and len(parts) > 4:
            return self._of_run("analyse", [*parts[2:4], name.removesuffix(".npz")])
        if kind in ("tables", "figures") and len(parts) == 3 and parts[1] != "statistics":
            return self._of_artefact(kind.removesuffix("s"), f"{parts[1]} {Path(name).stem}")
        return self._of_all(inside, kind, name)

    def _of_run(self, rule: str, parts: list[str]) -> tuple[str, list[str], list[str]]:
        folder = f"{self.results}/runs/{'/'.join(parts)}"
        return rule, [folder], self._params([folder]) or [f"params/{parts[0]}.yaml", "params/datasets.yaml"]

    def _of_artefact(self, rule: str, address: str) -> tuple[str, list[str], list[str]]:
        if address not in self.declared:
            return f"{BY_HAND}: params/artefacts declares no {address}", [], []
        artefact = self.declared[address]
        extra = [analysis_path(self.results, kind, run["path"]) for kind, run in analyses(self.plan, artefact)]
        return rule, [*self._finished(address), *extra], files_of(artefact, self.plan, self.root)

    def _of_all(self, inside: str, kind: str, name: str) -> tuple[str, list[str], list[str]]:
        published = [f"params/published/{file}" for file in ("results.csv", "discrepancies.csv")]
        if inside in ("tables/cells.csv", "tables/inputs.csv"):
            return "cells", self._finished(), ALL_PARAMS
        if inside.startswith("tables/statistics/"):
            return "statistics", self._finished(), ["params/artefacts/"]
        if inside in ("claims.csv", "claims.md"):
            return "claims", self._finished(), ["params/claims/", "params/artefacts/", *published[:1]]
        if inside == "tables/consistency.csv":
            return "consistency", self._finished(), published
        if kind == "metrics":
            method = Path(name).stem
            folders = [run for run in self._finished() if f"/runs/{method}/" in run]
            return "summary", folders, [f"params/{self.plan['profile']}.yaml"]
        if inside == "report/rules.svg":
            return "rulegraph", [], ALL_PARAMS
        if kind == "made" and name.endswith(".json"):
            return f"{Path(name).stem} (what it read and wrote when it last ran)", [], []
        if kind == "report":
            return "page", self._finished(), ALL_PARAMS
        if inside == "plan.json" or kind == "plans":
            return "written whenever Snakemake reads the workflow", [], ALL_PARAMS
        return BY_HAND, [], []

    def _finished(self, address: str = "") -> list[str]:
        """Return the folders of scored runs, of one artefact or of all."""
        return [run["path"] for run in scored_runs(self.plan, self.root, address)]

    def _params(self, folders: list[str]) -> list[str]:
        methods = [run["method"] for run in self.plan["runs"] if run["path"] in folders]
        return [*(f"params/{name}.yaml" for name in dict.fromkeys(methods)), "params/datasets.yaml"] if methods else []
