"""Whether the stored ledger of claims is what the runs give: what `dica audit claim drc-1` says.

The ledger is made again from params/claims, the plan and the runs' metrics, and compared column by column.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from dica.audit.auditor import Auditor, CellAudit
from dica.files import UserError
from dica.plan.artefacts import headline_name
from dica.plan.claims import FOLDER, load_claims
from dica.runs.files import RECORD
from dica.runs.read import Finding
from dica.scores.claims import NOT_RUN
from dica.tables.claims import COLUMNS, CSV, MARKDOWN, ledger, markdown, read_ledger, unlike_epochs
from dica.validation import hint

Key = tuple[str, str]  # claim and rung


class ClaimsAudit:
    """Compares the stored ledger with the one that an auditor's plan gives.

    Raises
    ------
    UserError
        If there is no ledger yet, or it is not one.
    """

    def __init__(self, auditor: Auditor) -> None:
        self.auditor, self.root = auditor, auditor.root
        self.folder = self.root / auditor.results
        if not (self.folder / CSV).is_file():
            raise UserError(f"{auditor.results}/{CSV}: no such file; build it first: {auditor.light}")
        self.stored = {_key(row): row for row in read_ledger(self.folder / CSV)}

    @cached_property
    def _made(self) -> tuple[dict[Key, dict[str, str]], str]:
        try:
            rows = ledger(self.auditor.plan_of_tables, self.root, self.auditor.results)
        except (UserError, KeyError, ValueError, TypeError) as error:
            return {}, str(error)
        return {_key(row): row for row in rows}, ""

    @property
    def rebuilt(self) -> dict[Key, dict[str, str]]:
        """The ledger that plan, params/ and metrics give now; empty if they give none."""
        return self._made[0]

    @property
    def fault(self) -> str:
        """Why they give none."""
        return self._made[1]

    def audit(self, name: str) -> CellAudit:
        """Check one claim at every rung, down to the files of its runs.

        Raises
        ------
        UserError
            If there is no such claim.
        """
        self._require(name, [claim for claim, _ in self.stored] + self._declared())
        keys = list(dict.fromkeys(key for key in [*self.stored, *self.rebuilt] if key[0] == name))
        self._require(name, [claim for claim, _ in [*self.stored, *self.rebuilt]])
        rows = [self.stored.get(key) or self.rebuilt[key] for key in keys]
        folders = list(dict.fromkeys(folder for row in rows for folder in row["runs"].split()))
        here = [folder for folder in folders if (self.root / folder / RECORD).is_file()]
        runs = [self.auditor.run_checks.audit(folder, headline_name(rows[0]["metric"])) for folder in here]
        findings = [Finding("claim", None, f"{rows[0]['says']} ({rows[0]['place']})")]
        findings += [self._check(key) for key in keys] + self._check_markdown()
        for dataset in dict.fromkeys(Path(folder).parts[-2] for folder in here):
            members = [run for run in runs if Path(run.folder).parts[-2] == dataset]
            findings += self.auditor.run_checks.check_labels(dataset, members)
        findings += [self._check_params(rows[0]["paper"]), self._check_git(folders)]
        return CellAudit(f"claim {name}", {}, runs, findings, self.auditor.light)

    def _require(self, name: str, known: list[str]) -> None:
        if name not in known:
            raise UserError(f"no claim {name}; {hint(name, known)}")

    def _declared(self) -> list[str]:
        """Return the names of the claims that a ledger has, without the plan that it takes; none of faulty params/."""
        if "dataset" in self.auditor.profile.get("substitute", {}):
            return []
        try:
            shown = [artefact.address for artefact in self.auditor.shown]
            return [claim.name for claim in load_claims(self.root, shown=shown)]
        except UserError:
            return []

    def audit_all(self) -> CellAudit:
        """Check every claim and the page of them; the runs behind them are checked with cells and figures."""
        keys = list(dict.fromkeys([*self.stored, *self.rebuilt]))
        checked = [self._check(key) for key in keys]
        tested = [finding for finding in checked if finding.ok is not None]
        findings = tested + self._check_markdown()
        if untested := len(checked) - len(tested):
            findings.append(Finding("claims", None, f"{untested} of {len(checked)} not run; {MARKDOWN} says why"))
        findings += [self._check_params(paper) for paper in dict.fromkeys(self._paper(key) for key in keys)]
        return CellAudit("claims", {}, [], [*findings, self._check_git([])], self.auditor.light)

    def _paper(self, key: Key) -> str:
        return (self.stored.get(key) or self.rebuilt[key])["paper"]

    def _check(self, key: Key) -> Finding:
        what = f"{key[0]} at the rung {key[1]}"
        if self.fault:
            return Finding(what, False, f"cannot be tested again: {self.fault}")
        stored, rebuilt = self.stored.get(key), self.rebuilt.get(key)
        if rebuilt is None:
            return Finding(what, False, f"{FOLDER} declares no such claim at this rung; {self._again}")
        if stored is None:
            return Finding(what, False, f"is not in {CSV}; {self._again}", missing=True)
        if unlike := [name for name in COLUMNS if stored[name] != rebuilt[name]]:
            told = "; ".join(f"{name}: stored {stored[name]!r}, its cells give {rebuilt[name]!r}" for name in unlike)
            return Finding(what, False, f"stale or changed: {told}; {self._again}")
        return Finding(what, None if stored["verdict"] == NOT_RUN else True, _said(stored))

    def _check_markdown(self) -> list[Finding]:
        path = self.folder / MARKDOWN
        if not path.is_file():
            return [Finding(MARKDOWN, False, f"missing; {self._again}", missing=True)]
        same = not self.fault and path.read_bytes() == markdown(list(self.rebuilt.values())).encode()
        return [Finding(MARKDOWN, same, "is what the runs give" if same else f"says otherwise; {self._again}")]

    def _check_params(self, paper: str) -> Finding:
        file = f"{FOLDER}/{paper}.yaml"
        state = self.auditor.checkout.differing([file]).get(file)
        if state is None:
            return Finding("params", True, f"{file} is as committed")
        if state == "loose":
            return Finding("params", None, f"not committed: Git cannot vouch for {file}")
        return Finding("params", False, f"changed since the commit: {file}; commit it if it is meant")

    def _check_git(self, folders: list[str]) -> Finding:
        prefixes = [f"{self.auditor.results}/{CSV}", f"{self.auditor.results}/{MARKDOWN}"]
        return self.auditor.checkout.check_git([*prefixes, *(f"{folder}/" for folder in folders)])

    @property
    def _again(self) -> str:
        return f"build it again: {self.auditor.light}"


def _key(row: dict[str, str]) -> Key:
    return row["claim"], row["rung"]


def _said(row: dict[str, str]) -> str:
    """Return a verdict with the numbers that it rests on."""
    if not row["effect"]:
        return ": ".join(text for text in (row["verdict"], row["reason"]) if text)
    numbers = f"{row['comparison']} = {row['effect']} ({row['low']} to {row['high']}), p {row['p_holm']} corrected"
    more = f", about {row['seeds_needed']} would decide" if row["seeds_needed"] else ""
    return f"{row['verdict']}: {numbers}; {row['seeds']} seeds{more}{unlike_epochs(row)}"
