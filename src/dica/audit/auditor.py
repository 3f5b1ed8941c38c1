"""Answer for a table cell: rebuild its row, find its runs, re-hash their files, recompute the number.

Offline, without GPU or DVC remote; nothing is written. What could not be checked is said, not passed over.

What each check rests on: a row of cells.csv on the plan, params/ and the runs' metrics; a printed table on its rows; a
figure on its runs and analyses, from which it is drawn again; a run's files on run.json; its metrics on predictions and
labels; the labels on the fingerprint in the run's id; and all of them together on Git, which alone notices files that
were changed in agreement with each other. An analysis names the predictions that it is of; what it says of them takes
weights and images to make again, and is Git's to vouch for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from itertools import chain, product
from pathlib import Path

import pandas as pd

from dica.audit.checkout import Checkout
from dica.audit.params import ParamsChecks
from dica.audit.rows import cell_key, cell_name, parse, read_cells, verdicts
from dica.audit.runs import RunAudit, RunChecks, compare
from dica.data.paths import labels_file, labels_record, prepared_folder
from dica.files import UserError
from dica.plan.artefacts import Artefact, Row, headline_name, load_artefacts, planned
from dica.plan.made import shown_file
from dica.plan.parameters import load_profile
from dica.plan.plan import make_plan, rebuild_command, run_folder
from dica.plan.planned import artefacts_of, has_something, load_plan, runs_of_artefact, scored_runs
from dica.runs.files import CONFIG, METRICS, RECORD
from dica.runs.ids import run_id
from dica.runs.read import NUMBER, PLAN_KEYS, Finding, faults, read_metrics, read_record
from dica.scores.stats import mean, spread
from dica.tables import rendering
from dica.tables.cells import CELL_COLUMNS, best_of, cells, cells_text, places
from dica.tables.inputs import NAME as INPUTS
from dica.validation import hint

MATCHES, DIFFERS, MISSING = 0, 3, 4
VOUCHERS = ("git", "params")  # the findings in which a commit speaks for files


@dataclass
class CellAudit:
    """The audit of one cell; `code` is the exit code: 0 matches, 3 does not, 4 something is missing."""

    address: str
    row: dict
    runs: list[RunAudit]
    findings: list[Finding]
    rebuild: str

    @property
    def all_findings(self) -> list[Finding]:
        """Return the findings of the cell and of its runs."""
        return self.findings + [finding for run in self.runs for finding in run.findings]

    @property
    def code(self) -> int:
        """Return the exit code; a contradiction outweighs a gap."""
        if any(finding.ok is False and not finding.missing for finding in self.all_findings):
            return DIFFERS
        return MISSING if any(finding.missing for finding in self.all_findings) else MATCHES

    @property
    def not_run_and_says_so(self) -> bool:
        """Whether nothing was run for this cell and it says so."""
        return not self.runs and all(finding.what == "run" for finding in self.findings if finding.ok is False)

    @property
    def unvouched(self) -> list[str]:
        """What no Git commit vouches for: changes there that agree with each other would go unnoticed."""
        return [finding.detail for finding in self.all_findings if finding.ok is None and finding.what in VOUCHERS]

    def as_dict(self) -> dict:
        """Return everything as plain values, for ``--json``."""
        return {
            "address": self.address,
            "code": self.code,
            "unvouched": self.unvouched,
            "cell": self.row,
            "findings": [asdict(finding) for finding in self.findings],
            "runs": [asdict(run) for run in self.runs],
            "rebuild": self.rebuild,
        }


class Auditor:
    """Audits cells of one profile's tables.

    Parameters
    ----------
    root
        Project root.
    profile
        Profile file, relative to the root.

    Raises
    ------
    UserError
        If the profile is faulty or has no ``cells.csv`` yet.
    IntegrityError
        If ``cells.csv`` has not the columns of a cell list.
    """

    def __init__(self, root: Path, profile: str = "params/archive.yaml") -> None:
        self.root = root
        self.profile_file = profile
        self.profile = load_profile(root / profile, root)
        self.results = self.profile["results"]
        self.option = "" if profile == "params/archive.yaml" else f" --configfile {profile}"
        self.light = f"snakemake --cores all{self.option and self.option + ' --'} light"
        path = root / self.results / "tables" / "cells.csv"
        if not path.is_file():
            raise UserError(f"{path.relative_to(root)}: no such file; build the tables first: {self.light}")
        self.cells = read_cells(path)
        self.checkout = Checkout(root, self.results)
        self.run_checks = RunChecks(self.checkout)
        self.check_printed = cache(self._check_printed)

    @cached_property
    def plan_of_params(self) -> dict:
        """The plan that params/ gives now."""
        return make_plan(self.profile, self.root)

    @cached_property
    def shown(self) -> list[Artefact]:
        """The tables and figures of the profile, known without its plan, which takes long to make."""
        chosen = {key: self.profile[key] for key in ("artefacts", "substitute") if key in self.profile}
        named = load_artefacts(self.root, chosen["artefacts"], chosen.get("substitute"))
        return artefacts_of({**chosen, "artefacts": [artefact.address for artefact in named]}, self.root)

    @cached_property
    def declared(self) -> list[Artefact]:
        """The tables and figures that are regenerated."""
        return [artefact for artefact in self.shown if artefact.regenerated]

    @cached_property
    def artefacts(self) -> dict[tuple[str, str], Artefact]:
        """The declared tables by paper and name."""
        return {(artefact.paper, artefact.name): artefact for artefact in self.declared if artefact.kind == "table"}

    @cached_property
    def params_checks(self) -> ParamsChecks:
        """What vouches for what is read from params/."""
        return ParamsChecks(self.checkout, self.plan_of_params, self.light)

    @cached_property
    def plan(self) -> dict:
        """The plan that the tables were made from: plan.json, or today's where that is absent or not to be trusted."""
        path = self.root / self.results / "plan.json"
        return load_plan(path) if path.is_file() and not self.plan_findings else self.plan_of_params

    @cached_property
    def _asked(self) -> frozenset[str]:
        return frozenset(run["path"] for run in self.plan_of_params["runs"])

    @cached_property
    def _shown(self) -> frozenset[str]:
        return frozenset(run["path"] for run in self.plan["runs"])

    @cached_property
    def plan_findings(self) -> list[Finding]:
        """What is wrong with plan.json: its runs must be what their ids say."""
        path = self.root / self.results / "plan.json"
        try:
            plan = load_plan(path) if path.is_file() else self.plan_of_params
            forged = [run["path"] for run in plan["runs"] if not _id_is_right(run, self.results)]
            if plan["profile"] != self.plan_of_params["profile"]:
                forged.append(f"profile {plan['profile']}")
        except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
            return [Finding("plan.json", False, f"malformed: {error}")]
        return [Finding("plan.json", False, f"not what its id says: {', '.join(map(str, forged))}")] if forged else []

    @cached_property
    def unusable_runs(self) -> dict[str, Finding]:
        """Folders of runs whose metrics cannot be used, with the reason: rows over them cannot be rebuilt."""
        shown = set(chain.from_iterable(row["runs"].split() for row in self.cells))
        found: dict[str, Finding] = {}
        for run in self.plan["runs"]:
            path = self.root / run["path"] / METRICS
            if path.is_file():
                metrics, findings = read_metrics(path)
                if metrics and metrics["id"] != run["id"]:
                    findings = [Finding(METRICS, False, f"is of run {metrics['id']}, its folder of {run['id']}")]
                found |= {run["path"]: findings[0]} if findings else {}
            elif run["path"] in shown:
                found[run["path"]] = Finding(METRICS, False, "missing", missing=True)
        return found

    @cached_property
    def plan_of_tables(self) -> dict:
        """The plan without the runs whose metrics cannot be used."""
        return {**self.plan, "runs": [run for run in self.plan["runs"] if run["path"] not in self.unusable_runs]}

    @cached_property
    def missing_metrics(self) -> dict[tuple[str, str], Finding]:
        """(Folder, metric) of runs whose record lacks a metric that a table shows, with the reason.

        Only that metric's cells cannot be rebuilt.
        """
        scored = scored_runs(self.plan_of_tables, self.root)
        plan = {**self.plan, "runs": scored}
        judged = {run["path"] for run in scored if not self._unlabelled(run["path"])}
        wanted = {
            (run["path"], metric)
            for artefact in self.artefacts.values()
            for line, column in product(artefact.rows, artefact.columns)
            for metric in artefact.metrics_of(column)
            for run in planned(plan, artefact, line, column.key, metric)
            if metric == "time_ratio" or run["path"] in judged
        }
        needed = {place: _file_and_key(place[1]) for place in sorted(wanted)}
        read = cache(lambda folder, name, key: read_record(self.root / folder / name, {key: NUMBER})[1])
        found = {place: read(place[0], *key) for place, key in needed.items()}
        return {
            place: Finding(findings[0].what, False, findings[0].detail, missing=True)
            for place, findings in found.items()
            if findings
        }

    def _unlabelled(self, folder: str) -> bool:
        """Whether a run is scored without labels: it has no such metric, and needs none."""
        found, _ = read_record(self.root / folder / METRICS, {"headline": dict})
        return found is not None and found["headline"].get("num_classes") == 0

    @cached_property
    def rebuilt(self) -> pd.DataFrame:
        """The cells that plan, params/ and metrics give now, with the stored verdict where its ground is not in Git."""
        frame = cells(self.plan_of_tables, self.root, self.results, list(self.artefacts.values()), self.missing_metrics)
        stored = {cell_key(row): row for row in self.cells}
        for name, texts in verdicts(parse(cells_text(frame)), stored).items():
            frame[name] = texts
        return frame

    @cached_property
    def expected(self) -> dict[tuple, dict]:
        """The rows of cells.csv as they should be."""
        return {cell_key(row): row for row in parse(cells_text(self.rebuilt))}

    def find(self, paper: str, artefact: str, cell: str) -> dict:
        """Return the row of ``cells.csv`` that `cell` (``row/column/metric``) names.

        Raises
        ------
        UserError
            If there is none; the message lists what could have been meant.
        """
        keys = [key for key in self.known if key[:2] == (paper, artefact)]
        if not keys:
            tables = sorted({" ".join(key[:2]) for key in self.known})
            raise UserError(f"no table {paper} {artefact}; {hint(f'{paper} {artefact}', tables)}")
        cells = {"/".join(key[2:]): key for key in keys}
        if cell not in cells:
            raise UserError(f"{paper} {artefact} has no cell {cell!r}; {hint(cell, cells)}")
        return next(row for row in self.all_rows() if cell_key(row) == cells[cell])

    @cached_property
    def known(self) -> list[tuple[str, ...]]:
        """The keys of all rows, known without a plan: those of ``cells.csv``, then those that are declared."""
        declared = [(a.paper, a.name, row.key, column.key, metric) for a, row, column, metric in places(self.declared)]
        return list(dict.fromkeys([*map(cell_key, self.cells), *declared]))

    def all_rows(self) -> list[dict]:
        """Return the rows of ``cells.csv``, then those that it lacks."""
        stored = {cell_key(row) for row in self.cells}
        return self.cells + [row for key, row in self.expected.items() if key not in stored]

    def audit(self, row: dict) -> CellAudit:
        """Check one cell from its printed number down to the predictions."""
        address = f"{row['paper']} {row['artefact']} {cell_name(row)}"
        asked, shown = self._planned(self.plan_of_params, row), self._planned(self.plan, row)
        expected = self.expected.get(cell_key(row), {})
        folders = list(dict.fromkeys([*row["runs"].split(), *expected.get("runs", "").split()]))
        runs = [self.run_checks.audit(folder, headline_name(row["metric"])) for folder in folders]
        findings = [*self.plan_findings, *self._check_value(row, runs), *self._check_plan(row, asked, shown)]
        findings += self._check_row(row, shown)
        if runs:
            findings += self.run_checks.check_labels(row["dataset"], runs)
        findings.append(self.check_printed((row["paper"], row["artefact"])))
        if artefact := self.artefacts.get((row["paper"], row["artefact"])):
            findings += self.params_checks.check(artefact)
        findings.append(self.checkout.check_git(self._recorded(row, [*folders, *asked])))
        return CellAudit(address, row, runs, findings, self._rebuild(folders or asked))

    def _planned(self, plan: dict, row: dict) -> list[str]:
        """Return the folders of the runs that a plan holds for a cell."""
        artefact = self.artefacts.get((row["paper"], row["artefact"]))
        line = _line(artefact, row)
        if artefact is None or line is None or all(column.key != row["column"] for column in artefact.columns):
            return []
        return [run["path"] for run in planned(plan, artefact, line, row["column"], row["metric"])]

    def _check_value(self, row: dict, runs: list[RunAudit]) -> list[Finding]:
        line = _line(self.artefacts.get((row["paper"], row["artefact"])), row)
        if not runs and row["verdict"] in ("equal", "differs"):
            return [Finding("value", None, "rests on params/ alone, see the row")]
        if not runs and line and row["verdict"] == "published only":
            return [Finding("published only", None, "copied from the paper, never run here")]
        if not runs:
            return [Finding("run", False, f"{row['verdict']}: {row['reason']}", missing=True)]
        values = [run.value for run in runs if run.value is not None]
        if len(values) < len(runs):
            return []
        best = line.statistic == "best" if line else row["statistic"] == "best"
        findings = [compare("value", row["value"], best_of(values, row["metric"]) if best else mean(values))]
        if len(values) > 1:
            findings.append(compare("spread", row["spread"], spread(values)))
        return findings

    def _check_plan(self, row: dict, asked: list[str], shown: list[str]) -> list[Finding]:
        known = self._asked
        old = [folder for folder in row["runs"].split() if folder not in known]
        old = list(dict.fromkeys(old + [folder for folder in shown if folder not in asked]))
        new = [folder for folder in asked if folder not in shown]
        if old or new:
            detail = f"than {', '.join(old)}" if old else f"too: {', '.join(new)}"
            return [Finding("parameters", False, f"the parameters in params/ now ask for other runs {detail}")]
        if not asked:
            return []
        findings = [Finding("parameters", True, "params/ asks for exactly these runs")]
        absent = [folder for folder in asked if folder not in row["runs"].split()]
        if len(absent) < len(asked):
            detail = f"{len(asked) - len(absent)} of {len(asked)} planned seeds are there, without {', '.join(absent)}"
            findings += [Finding("seeds", False, detail, missing=True)] if absent else []
        return [*findings, *self.checkout.fewer_than_recorded(absent)]

    def _check_row(self, row: dict, shown: list[str]) -> list[Finding]:
        """Compare every column with the rebuilt row, unless the row is of runs that nothing asks for any more."""
        stored = row["runs"].split()
        if any(folder not in self._asked and folder not in self._shown for folder in stored):
            return []  # the parameters have changed, which is said
        unusable = self._unusable(row, dict.fromkeys([*shown, *stored]))
        if unusable:
            return [
                Finding("cells.csv", False, f"cannot be rebuilt: {folder}/{why.what}: {why.detail}", why.missing)
                for folder, why in unusable.items()
            ]
        count, expected = self._times[cell_key(row)], self.expected.get(cell_key(row))
        if expected is None or count != 1:
            what = "params/artefacts declares no such cell" if expected is None else f"has this cell {count} times"
            return [Finding("cells.csv", False, f"{what}; build the tables again: {self.light}")]
        unlike = [name for name in CELL_COLUMNS if row[name] != expected[name]]
        if unlike:
            detail = "; ".join(f"{name}: stored {row[name]!r}, rebuilt {expected[name]!r}" for name in unlike)
            return [Finding("cells.csv", False, detail)]
        return [Finding("cells.csv", True, "the row is what params/ and the metrics give")]

    def _unusable(self, row: dict, folders: Iterable[str]) -> dict[str, Finding]:
        """Return the runs of a cell that do not give its number, with the reason."""
        metric = row["metric"]
        if metric == "time_ratio":  # it also rests on the runs that it is relative to
            folders = runs_of_artefact(f"{row['paper']} {row['artefact']}", self.plan)
        found = {
            folder: self.unusable_runs.get(folder) or self.missing_metrics.get((folder, metric)) for folder in folders
        }
        return {folder: why for folder, why in found.items() if why}

    @cached_property
    def _times(self) -> Counter:
        return Counter(cell_key(row) for row in self.cells)

    def _check_printed(self, place: tuple[str, str]) -> Finding:
        """Compare a printed table with the rebuilt rows, laid out again."""
        what = "printed table"
        if place not in self.artefacts:
            return Finding(what, False, f"params/artefacts declares no table {' '.join(place)}")
        artefact = self.artefacts[place]
        if not has_something(artefact, self.plan, self.root):
            return self.absent_or_empty(artefact)
        shown = set(runs_of_artefact(artefact.address, self.plan))
        rows = [row for row in self.cells if (row["paper"], row["artefact"]) == place]
        if any(folder not in self._shown for row in rows for folder in row["runs"].split()):
            return Finding(
                what, None, f"made for other parameters than plan.json has now; build it again: {self.light}"
            )
        if unusable := sorted(shown & {*self.unusable_runs, *(folder for folder, _ in self.missing_metrics)}):
            return Finding(what, None, f"cannot be laid out again without the metrics of {', '.join(unusable)}")
        absent, unlike = self._printed(artefact)
        if unlike:  # `light` leaves alone what was made of the same numbers by code that laid it out otherwise
            file = shown_file(self.results, "table", artefact.paper, artefact.name, "md")
            again = f"build it again: snakemake --cores all{self.option} --force -- {file}"
            return Finding(what, False, f"{', '.join(unlike)} differs from what the metrics give; {again}")
        if absent:
            return Finding(what, False, f"missing: {', '.join(absent)}; build it: {self.light}", missing=True)
        return Finding(what, True, f"{artefact.name}.{{{','.join(rendering.FORMATS)}}} are what the metrics give")

    def absent_or_empty(self, artefact: Artefact) -> Finding:
        """Return what is to be said of a table or figure that has nothing to show: no file of it must be there."""
        folder = f"{self.results}/{artefact.kind}s/{artefact.paper}"
        files = sorted(path.name for path in (self.root / folder).glob(f"{artefact.name}.*"))
        if files:
            return Finding(
                artefact.address, False, f"nothing was run for it, yet there is {', '.join(files)}; remove it"
            )
        return Finding(artefact.address, None, "not run, and neither printed nor drawn")

    def _printed(self, artefact: Artefact) -> tuple[list[str], list[str]]:
        """Return the printed files of a table that are absent, and those that differ."""
        folder = self.root / self.results / "tables" / artefact.paper
        texts = rendering.printed(artefact, self.rebuilt, self.plan)
        files = {f"{artefact.name}.{kind}": text.encode() for kind, text in texts.items()}
        absent = [file for file in files if not (folder / file).is_file()]
        unlike = [file for file in files if file not in absent and (folder / file).read_bytes() != files[file]]
        return absent, unlike

    def _recorded(self, row: dict, folders: list[str]) -> list[str]:
        """Return the prefixes of every path that a cell rests on."""
        tables = f"{self.results}/tables"
        printed = f"{tables}/{row['paper']}/{row['artefact']}."
        return [
            *(f"{folder}/" for folder in folders),
            labels_file(row["dataset"]),
            labels_record(row["dataset"]),
            f"{tables}/cells.csv",
            f"{tables}/{INPUTS}",
            printed,
        ]

    def _rebuild(self, folders: list[str]) -> str:
        known = self._asked
        wanted, old = [f for f in folders if f in known], [f for f in folders if f not in known]
        parts = [rebuild_command(wanted, self.option, self.root)] if wanted else []
        if old:
            dataset, name = Path(old[0]).parent.name, Path(old[0]).name.rsplit("-", 1)[-1]
            command = f"python -m dica.train --config {old[0]}/{CONFIG} --data {prepared_folder(dataset)}"
            more = f", likewise for {len(old) - 1} more" if len(old) > 1 else ""
            parts.append(f"{command} --out rebuilt/{name}  # no longer planned{more}")
        return "; ".join(parts)


def _file_and_key(metric: str) -> tuple[str, str]:
    """Return the file of a run and the key in it that a table's metric is read from."""
    return (RECORD, "seconds") if metric == "time_ratio" else (METRICS, f"headline.{headline_name(metric)}")


def _line(artefact: Artefact | None, row: dict) -> Row | None:
    """Return the declaration of a cell's row."""
    return next((line for line in artefact.rows if line.key == row["row"]), None) if artefact else None


def _id_is_right(run: dict, results: str) -> bool:
    """Whether an entry of plan.json is complete, and id and folder are those of what it holds."""
    if any(faults(run, key.split("."), kind) for key, kind in PLAN_KEYS.items()):
        return False
    return (run["id"], run["path"]) == (run_id(run), run_folder(run, results))
