"""Whether what a table or figure takes from params/ is what its files were made of, and what was committed.

Printed numbers and facts of data sets are evidence as much as runs are: a changed one changes a verdict.
"""

from __future__ import annotations

import csv
import io
from functools import cached_property

from dica.audit.checkout import Checkout
from dica.plan.artefacts import Artefact
from dica.runs.read import Finding
from dica.tables.inputs import NAME, digest_of, files_of, read_inputs


class ParamsChecks:
    """Checks what artefacts read under params/, each artefact once.

    Parameters
    ----------
    checkout
        What Git says.
    plan
        The plan that params/ gives now.
    light
        The command that makes the tables.
    """

    def __init__(self, checkout: Checkout, plan: dict, light: str) -> None:
        self.checkout, self.root, self.plan, self.light = checkout, checkout.root, plan, light
        self.path = f"{checkout.results}/tables/{NAME}"
        self.checked: dict[str, list[Finding]] = {}

    def check(self, artefact: Artefact) -> list[Finding]:
        """Tell what vouches for what an artefact reads."""
        if artefact.address not in self.checked:
            now = digest_of(artefact, self.plan, self.root)
            found = [self._against_tables(artefact, now), *self._against_commit(artefact, now)]
            self.checked[artefact.address] = found
        return self.checked[artefact.address]

    def _against_tables(self, artefact: Artefact, now: str) -> Finding:
        stored = self.stored.get(artefact.address)
        if stored is None and artefact.address in self.committed:
            return Finding(
                "params", False, f"{self.path} has lost its digest of it; build the tables again: {self.light}"
            )
        if stored is None:
            return Finding("params", None, f"{self.path} has no digest of it; build the tables again: {self.light}")
        if stored != now:
            detail = "what it reads in params/ is not what the tables were made of; build them again"
            return Finding("params", False, f"{detail}: {self.light}")
        return Finding("params", True, f"what it reads there has the sha256 {now[:12]}…")

    def _against_commit(self, artefact: Artefact, now: str) -> list[Finding]:
        """Name changed files; whether the artefact feels a change, the digest in the committed tables tells."""
        names = files_of(artefact, self.plan, self.root)
        unlike = {name: state for name, state in self.checkout.differing(names).items() if name in names}
        changed = [name for name, state in unlike.items() if state != "loose"]
        loose = [name for name, state in unlike.items() if state == "loose"]
        findings = []
        if changed and self.committed.get(artefact.address) == now:
            detail = f"changed since the commit, but in nothing that it reads: {', '.join(changed)}"
            findings.append(Finding("params", True, detail))
        elif changed:
            detail = f"changed since the commit: {', '.join(changed)}; commit it if it is meant"
            findings.append(Finding("params", False, detail))
        if loose:
            findings.append(Finding("params", None, f"not committed: Git cannot vouch for {', '.join(loose)}"))
        return findings

    @cached_property
    def stored(self) -> dict[str, str]:
        """Artefact -> digest of what it took from params/ when the tables were made; empty where none are kept."""
        return read_inputs(self.root / self.path) if (self.root / self.path).is_file() else {}

    @cached_property
    def committed(self) -> dict[str, str]:
        """The same as committed."""
        rows = csv.DictReader(io.StringIO(self.checkout.committed(self.path) or ""), restval="")
        return {row.get("artefact", ""): row.get("sha256", "") for row in rows}
