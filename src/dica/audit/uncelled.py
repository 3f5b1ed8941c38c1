"""What no cell shows: figures and runs of figures alone, analyses, statistics, bounds, summaries, pages, README.

What can be made again cheaply is made again, in memory or a temporary folder, and compared byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from dica.audit.auditor import Auditor, CellAudit
from dica.audit.claims import ClaimsAudit
from dica.audit.runs import RunAudit
from dica.files import UserError, load_arrays, read_json, write_csv
from dica.plan.artefacts import Artefact
from dica.plan.plan import methods_of, write_recorded
from dica.plan.planned import artefacts_of, has_something, runs_of_artefact, scored_runs
from dica.runs.files import METRICS, PREDICTIONS, RECORD, RESULT_FILES
from dica.runs.read import Finding, read_record
from dica.tables import links
from dica.tables.cells import summarise
from dica.tables.claims import CSV as LEDGER
from dica.validation import hint

REMADE = (*(f"statistics/{name}.csv" for name in ("intervals", "pairs", "stability")), "consistency.csv")
UNMADE = (UserError, KeyError, ValueError, TypeError, IndexError, AttributeError)  # of files that are not what they say
README_TABLE = re.compile(r"<!-- begin: [\w-]+ -->\n(### (\S+) (\S+): .*?)\n<!-- end:", re.DOTALL)


class Uncelled:
    """Checks what no cell shows, with what an auditor knows of plan, runs and checkout."""

    def __init__(self, auditor: Auditor) -> None:
        self.auditor = auditor
        self.root, self.results, self.light = auditor.root, auditor.results, auditor.light
        self.checkout, self.run_checks = auditor.checkout, auditor.run_checks

    def audit_all(self, told: Callable[[Sequence, str], Iterable] = lambda items, _: items) -> list[CellAudit]:
        """Check everything, one entry a kind.

        Parameters
        ----------
        told
            Takes items and what they are, and yields them while it says how far they are.
        """
        figures = [artefact for artefact in self.auditor.declared if artefact.kind == "figure"]
        drawn = [self._check_figure(artefact) for artefact in told(figures, "figures")]
        drawn += [finding for artefact in figures for finding in self.auditor.params_checks.check(artefact)]
        results = self.results
        checks: list[tuple[str, Callable[[], list[Finding]], list[str]]] = [
            ("analyses", self._check_analyses, [f"{results}/analyses/"]),
            ("statistics and bounds", self._check_remade, [*self._places(REMADE), "params/published/"]),
            ("figures", lambda: drawn, [f"{results}/figures/"]),
            ("summaries", self._check_summaries, [f"{results}/metrics/", f"{results}/plans/"]),
            ("report", self._check_report, [f"{results}/report/"]),
            ("README", self._check_readme, ["README.md"]),
            ("dvc.lock", self._check_lock, ["dvc.lock"]),
            ("plan and stray files", lambda: [*self._check_plan(), *self._strays()], [f"{results}/plan.json"]),
        ]
        audits = []
        for name, check, prefixes in told(checks, "statistics, report and the rest"):
            findings, git = check(), self.checkout.check_git(prefixes)
            if findings or git.ok is False:
                audits.append(CellAudit(name, {}, [], [*findings, git], self.light))
        runs = self.check_runs_of_figures()
        return [*([runs] if runs.runs or runs.code else []), *audits, *self._claims()]

    def check_runs_of_figures(self) -> CellAudit:
        """Check the runs that no cell shows; one that is gone is told by Git, or by the count in ``dvc.lock``."""
        shown = set(chain.from_iterable(row["runs"].split() for row in self.auditor.all_rows()))
        others = [run["path"] for run in self.auditor.plan["runs"] if run["path"] not in shown]
        here = [folder for folder in others if (self.root / folder / RECORD).is_file()]
        runs, labels = self._runs(here)
        absent = [folder for folder in others if folder not in here]
        fewer = self.checkout.fewer_than_recorded(absent)
        fewer += [
            Finding(path, False, "its run is planned, a commit removed it", missing=True)
            for path in self.checkout.gone(f"{folder}/{RECORD}" for folder in absent)
        ]
        git = self.checkout.check_git([f"{folder}/" for folder in others])
        return CellAudit("runs of figures alone", {}, runs, [*labels, *fewer, git], self.light)

    def _claims(self) -> list[CellAudit]:
        """Check the ledger of claims, where there is one or a commit has one."""
        if (self.root / self.results / LEDGER).is_file():
            return [ClaimsAudit(self.auditor).audit_all()]
        gone = self._once_there([LEDGER])
        return [CellAudit("claims", {}, [], gone, self.light)] if gone else []

    def audit(self, paper: str, name: str) -> CellAudit:
        """Check one figure, or one of the tables that are made of runs without cells (``statistics/pairs``).

        Raises
        ------
        UserError
            If there is none of that name; the message lists what there is.
        """
        figures = {artefact.name: artefact for artefact in self.auditor.declared
                   if (artefact.paper, artefact.kind) == (paper, "figure")}  # fmt: skip
        stems = {file.removesuffix(".csv"): file for file in REMADE}
        remade = stems if paper == "dica" else {}
        if name not in figures and name not in remade:
            known = {artefact.address for artefact in self.auditor.declared} | {f"dica {stem}" for stem in stems}
            raise UserError(f"no artefact {paper} {name}; {hint(f'{paper} {name}', sorted(known))}")
        if name in figures:
            folders = runs_of_artefact(f"{paper} {name}", self.auditor.plan)
            findings = [self._check_figure(figures[name]), *self.auditor.params_checks.check(figures[name])]
            prefixes = [f"{self.results}/figures/{paper}/{name}."]
        else:
            folders = [run["path"] for run in self.auditor.plan["runs"]]
            findings, prefixes = (
                self._check_remade((remade[name],)),
                [*self._places((remade[name],)), "params/published/"],
            )
        here = [folder for folder in folders if (self.root / folder / RECORD).is_file()]
        runs, labels = self._runs(here)
        if name in figures and (absent := [folder for folder in folders if folder not in here]):
            detail = f"{len(here)} of {len(folders)} planned runs are there"
            findings.append(Finding("runs", False if here else None, detail, missing=True))
            findings += self.checkout.fewer_than_recorded(absent)
        prefixes += [f"{folder}/" for folder in folders]
        findings += [*labels, self.checkout.check_git(prefixes)]
        return CellAudit(f"{paper} {name}", {}, runs, findings, self.light)

    def _places(self, names: tuple[str, ...]) -> list[str]:
        return [f"{self.results}/tables/{name}" for name in names]

    def _runs(self, folders: list[str]) -> tuple[list[RunAudit], list[Finding]]:
        """Return the audits of runs, and what is said of their labels."""
        runs = [self.run_checks.audit(folder, "acc") for folder in folders]
        by_dataset: dict[str, list[RunAudit]] = {}
        for run in runs:
            by_dataset.setdefault(Path(run.folder).parts[-2], []).append(run)
        labels = [self.run_checks.check_labels(dataset, members) for dataset, members in by_dataset.items()]
        return runs, list(chain.from_iterable(labels))

    def _check_analyses(self) -> list[Finding]:
        """Tell whether each stored analysis is of the predictions that its run has."""
        findings = []
        place = self.root / self.results / "analyses"
        for path in sorted(place.rglob("*.npz")):
            name = path.relative_to(place).as_posix()
            record, faults = read_record(
                self.root / self.results / "runs" / Path(*path.relative_to(place).parts[1:]).with_suffix("") / RECORD,
                {"files": dict, "files.*": str},
            )
            try:
                of = str(load_arrays(path)["of"])
            except (UserError, KeyError, ValueError) as error:
                findings.append(Finding(name, False, f"not usable: {error}"))
                continue
            if record is None:
                findings.append(Finding(name, None, f"its run: {faults[0].what} {faults[0].detail}"))
            elif record["files"].get(PREDICTIONS) != of:
                findings.append(Finding(name, False, "is of other predictions than its run has"))
            else:
                findings.append(Finding(name, True, "is of its run's predictions, as it says"))
        return findings

    def _check_remade(self, chosen: tuple[str, ...] = REMADE) -> list[Finding]:
        """Make statistics and bounds again in a temporary folder and compare them with those that are stored."""
        stored = self.root / self.results / "tables"
        names = [name for name in chosen if (stored / name).is_file()]
        findings = self._once_there(chosen, "tables/")
        if not names:
            return findings
        scored = [run["path"] for run in scored_runs(self.auditor.plan_of_tables, self.root)]
        if absent := [path for path in scored if not (self.root / path / PREDICTIONS).is_file()]:
            detail = f"cannot be made again without the predictions of {', '.join(absent)}"
            return [*findings, Finding("statistics", False, detail, missing=True)]
        with TemporaryDirectory() as made:
            try:
                remake(self.auditor.plan_of_tables, self.root, self.results, Path(made))
            except (UserError, KeyError, ValueError, TypeError, IndexError) as error:
                return [Finding("statistics", False, f"cannot be made again: {error}")]
            same = {name: (stored / name).read_bytes() == (Path(made) / name).read_bytes() for name in names}
        return findings + [self._same(name, ok) for name, ok in same.items()]

    def _check_figure(self, artefact: Artefact) -> Finding:
        """Draw a figure again and compare it with the one that is stored."""
        from dica.audit.figures import check_figure  # heavy, and only this needs it

        plans = self.auditor.plan_of_params, self.auditor.plan
        asked, shown = (set(runs_of_artefact(artefact.address, plan)) for plan in plans)
        if asked != shown:
            detail = "the parameters in params/ now ask for other runs than plan.json has; build it again"
            return Finding(artefact.address, False, f"{detail}: {self.light}")
        if not has_something(artefact, self.auditor.plan, self.root):
            return self.auditor.absent_or_empty(artefact)
        if unusable := sorted(shown & set(self.auditor.unusable_runs)):
            detail = f"cannot be drawn again without the metrics of {', '.join(unusable)}"
            return Finding(artefact.address, None, detail)
        finding = check_figure(artefact, self.auditor.plan_of_tables, self.root, self.results)
        if finding.ok is None and self._figure_changed(artefact):  # then nothing vouches for it
            return replace(finding, ok=False, detail=f"changed since the commit; {finding.detail}")
        return finding

    def _figure_changed(self, artefact: Artefact) -> bool:
        prefix = f"{self.results}/figures/{artefact.paper}/{artefact.name}."
        return any(path.startswith(prefix) and s == "changed" for path, s in (self.checkout.states or {}).items())

    def _check_summaries(self) -> list[Finding]:
        """Make the numbers for ``dvc metrics`` and the lists for ``dvc repro`` again."""
        profile, plan = self.auditor.profile, self.auditor.plan_of_tables
        found = []
        for path in sorted((self.root / self.results / "metrics").glob("*.json")):
            made = summarise(path.stem, plan, self.root, self.results, profile["recorded_datasets"])
            same = _json_or_none(path) == made
            found.append(self._same(f"metrics/{path.name}", same))
        planned = self.auditor.plan_of_params
        methods = methods_of(profile, planned)
        found += self._once_there(f"{folder}/{method}.json" for folder in ("metrics", "plans") for method in methods)
        with TemporaryDirectory() as place:
            write_recorded(planned, methods, profile["recorded_datasets"], Path(place))
            for listed in sorted(Path(place).glob("*.json")):
                stored = self.root / self.results / "plans" / listed.name
                if stored.is_file():
                    found.append(self._same(f"plans/{listed.name}", stored.read_bytes() == listed.read_bytes()))
        return found

    def _check_report(self) -> list[Finding]:
        """Write the report's pages again; the graph of the rules is only looked at for what it says of itself."""
        folder = self.root / self.results / "report"
        stored = {path.name: path for path in sorted(folder.glob("*.html"))}
        graph = folder / "rules.svg"
        if not graph.is_file():  # no page is written without it
            lost = self._missing("report/rules.svg")
            return [lost] if stored else self._once_there((graph.name, links.INDEX), "report/")
        from dica.report import rulegraph
        from dica.report.pages import render

        drawn = graph.read_text(encoding="utf-8", errors="replace")
        found = [self._same("report/rules.svg", drawn == rulegraph.redrawn(drawn))]
        if any(
            row["verdict"] == "failed" or "; " in row["reason"].partition(" seeds")[2] for row in self.auditor.cells
        ):
            return [
                *found,
                Finding("report", None, "tells of failed runs, which only their machine knows: not made again"),
            ]
        plan, artefacts = self.auditor.plan, artefacts_of(self.auditor.plan, self.root)
        try:
            pages = render(artefacts, self.auditor.rebuilt, plan, self.root, self.results, drawn)
        except UNMADE as error:
            return [*found, Finding("report", None, f"cannot be written again: {error}")]
        unlike = [name for name, text in pages.items() if name in stored and stored[name].read_bytes() != text.encode()]
        if unlike and (gone := self._gone()):
            found.append(
                Finding("report", None, f"{unlike[0]}: cannot be written again without {', '.join(gone)}", missing=True)
            )
        else:
            found += [self._same(f"report/{name}", name not in unlike) for name in pages if name in stored]
        found += [self._missing(f"report/{name}") for name in pages if name not in stored]
        return found + [
            Finding(f"report/{name}", False, "no page of the report") for name in stored.keys() - pages.keys()
        ]

    def _check_readme(self) -> list[Finding]:
        """Compare the tables in README with those that are printed, which are checked with their cells."""
        path = self.root / "README.md"
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        found = []
        for shown, paper, name in README_TABLE.findall(text):
            file = self.root / self.results / "tables" / paper / f"{name}.md"
            printed = file.read_text(encoding="utf-8", errors="replace").strip() if file.is_file() else None
            finding = self._same(f"README {paper} {name}", printed == shown.strip())
            found.append(
                finding if finding.ok else replace(finding, detail="is another table than is printed: make readme")
            )
        return found

    def _check_lock(self) -> list[Finding]:
        """Compare what ``dvc.lock`` recorded of results and labels with what is there."""
        if self.checkout.gone(["dvc.lock"]):
            return [Finding("dvc.lock", False, "missing; `dvc repro` writes it again", missing=True)]
        return [self.checkout.check_recorded(path) for path in self.checkout.dvc_lock if (self.root / path).exists()]

    def _check_plan(self) -> list[Finding]:
        """Tell in what plan.json is not the plan that params/ give; what rests on that is checked elsewhere."""
        given, now = _json_or_none(self.root / self.results / "plan.json"), self.auditor.plan_of_params
        if gone := self._once_there(["plan.json"]):
            return gone
        if not isinstance(given, dict) or given == now:
            return []
        keys = [key for key in sorted({*given, *now}) if given.get(key) != now.get(key)]
        return [Finding("plan.json", None, f"is not the plan that params/ give now: other {', '.join(keys)}")]

    def _strays(self) -> list[Finding]:
        """Tell which tables and figures no declaration asks for: no rule makes them, so nothing was compared."""
        declared = {(f"{artefact.kind}s", artefact.paper, artefact.name) for artefact in self.auditor.declared}
        place, strays = self.root / self.results, []
        for path in sorted([*place.glob("tables/*/*"), *place.glob("figures/*/*")]):
            name = path.relative_to(place)
            if name.parts[1] != "statistics" and (*name.parts[:2], path.stem) not in declared:
                strays.append(Finding("stray", None, f"{name.as_posix()} is made by no rule: nothing vouches for it"))
        return strays

    def _gone(self) -> list[str]:
        """Return the files that are missing from run folders that are there."""
        folders = [Path(run["path"]) for run in self.auditor.plan["runs"] if (self.root / run["path"]).is_dir()]
        names = [folder / name for folder in folders for name in (*RESULT_FILES, METRICS, RECORD)]
        return [name.as_posix() for name in names if not (self.root / name).is_file()]

    def _missing(self, what: str) -> Finding:
        return Finding(what, False, f"missing; build it again: {self.light}", missing=True)

    def _once_there(self, names: Iterable[str], folder: str = "") -> list[Finding]:
        """Tell which files of the results are gone that a commit has, or had: the workflow makes them anew."""
        wanted = {f"{self.results}/{folder}{name}": name for name in names}
        return [self._missing(f"{folder.removeprefix('tables/')}{wanted[path]}") for path in self.checkout.gone(wanted)]

    def _same(self, what: str, same: bool) -> Finding:
        wrong = f"differs from what the runs give; build it again: {self.light}"
        return Finding(what, same, "is what the runs give" if same else wrong)


def _json_or_none(path: Path) -> object:
    try:
        return read_json(path)
    except UserError:
        return None


def remake(plan: dict, root: Path, results: str, out: Path) -> None:
    """Write the tables that are made of runs and printed numbers without cells, `REMADE`, into a folder."""
    from dica.scores.consistency import COLUMNS, audit_published
    from dica.scores.significance import write_statistics

    write_statistics(plan, root, results, out / "statistics")
    write_csv(audit_published(root, plan, results), COLUMNS, out / "consistency.csv")
