"""Every tampering that we could think of is noticed: see `tamperings`.

`make faults` writes the list to docs/tampering.csv, which docs/reliability.md shows.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from committed import CELL, CELL_DECLARED, draw_figures, edit_json, edit_yaml, make_archive, run_folder
from dica.audit.auditor import Auditor, CellAudit
from dica.audit.uncelled import Uncelled, remake
from dica.cli.audit import audit_everything
from dica.files import sha256_file, write_json, write_npz
from dica.plan import planned
from dica.plan.parameters import load_profile
from dica.plan.plan import methods_of, write_recorded
from dica.report import rulegraph
from dica.report.pages import write_report
from dica.runs.files import RECORD
from dica.runs.read import Finding
from dica.tables.cells import read_cells, summarise
from edits import edit_published, git, light, remove_run, replace
from factory import ARROWS
from tamperings import BESIDE, EVERY, PARAMS, TABLE, Tampering

GONE = (
    "report",
    "claims.csv",
    "plan.json",
    "metrics/drc.json",
    "plans/drc.json",
    "tables/consistency.csv",
    "tables/statistics/pairs.csv",
)


@pytest.fixture(scope="module")
def committed(tmp_path_factory, root: Path) -> Path:
    """A small archive with a figure, statistics, summaries, an analysis, a report and a README, all of it in Git."""
    project = make_archive(tmp_path_factory.mktemp("tampering") / "project", root)
    shown = ["dica table-1", "drc table-1", "dica figure-2"]
    edit_yaml(project / "params/archive.yaml", lambda body: body.update(artefacts=shown))
    edit_yaml(project / CELL_DECLARED, lambda body: body["artefacts"]["figure-2"].update(seeds=2))
    light(project)
    draw_figures(project)
    plan, profile = (
        planned.load_plan(project / "results/plan.json"),
        load_profile(project / "params/archive.yaml", project),
    )
    remake(plan, project, "results", project / "results/tables")
    write_recorded(plan, methods_of(profile, plan), profile["recorded_datasets"], project / "results/plans")
    summary = summarise("drc", plan, project, "results", profile["recorded_datasets"])
    write_json(project / "results/metrics/drc.json", summary)
    folder = run_folder(project)
    analysis = project / "results/analyses/cases" / Path(*folder.parts[-3:]).with_suffix(".npz")
    write_npz(analysis, {"of": np.array(sha256_file(folder / "predictions.npz"))})
    table = (project / f"{TABLE}.md").read_text().strip()
    (project / "README.md").write_text(f"# x\n<!-- begin: digits -->\n{table}\n<!-- end: digits -->\n")
    artefacts, frame = planned.artefacts_of(plan, project), read_cells(project / "results/tables/cells.csv")
    report, graph = project / "results/report", rulegraph.svg(ARROWS)
    write_report(artefacts, frame, plan, project, "results", report, graph)
    (report / "rules.svg").write_text(graph)
    git(project, "add", "-A")
    git(project, "commit", "-qm", "all")
    return project


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("copies")


@pytest.fixture(scope="module")
def noted(faults) -> Iterator[list[Tampering]]:
    """What was noticed; written beside `faults` when all has been tried."""
    found: list[Tampering] = []
    yield found
    if faults and len(found) == len(EVERY):
        with open(faults.with_name("tampering.csv"), "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["what was changed", "noticed by", "which rests on", "exit code"])
            writer.writerows([t.what, t.check.rstrip("/"), t.rests_on, t.code] for t in found)


def results_of(root: Path, cell: tuple[str, str, str] | None) -> list[CellAudit]:
    auditor = Auditor(root)
    return [auditor.audit(auditor.find(*cell))] if cell else Uncelled(auditor).audit_all()


def test_files_that_no_rule_makes_and_another_plan_are_told(committed: Path, shared_place: Path) -> None:
    root = Path(shutil.copytree(committed, shared_place / "strays"))
    edit_json(root / "results/plan.json", lambda body: body["artefacts"].pop())
    (root / f"{TABLE}.md").with_name("table-99.md").write_text("# Ours is best\n")
    told = {(f.what, f.detail) for result in results_of(root, None) for f in result.all_findings if f.ok is None}
    assert ("stray", "tables/dica/table-99.md is made by no rule: nothing vouches for it") in told
    assert ("plan.json", "is not the plan that params/ give now: other artefacts") in told
    assert [what for what, _ in told].count("stray") == 1


def test_what_is_gone_altogether_is_noticed_too(committed: Path, shared_place: Path, monkeypatch) -> None:
    """Where nothing of a kind is left there is nothing to compare: Git, or the count in dvc.lock, knows of it."""
    root = Path(shutil.copytree(committed, shared_place / "gone"))
    for name in ("results/analyses", "results/metrics", "results/plans"):
        shutil.rmtree(root / name)
    (root / "results/plan.json").unlink()
    replace(root, "README.md", "begin: digits", "digits")  # then no table is known as one
    monkeypatch.setattr(Uncelled, "_check_figure", lambda self, artefact: Finding("figure", True, "as before"))
    monkeypatch.setattr(Uncelled, "_check_report", lambda self: [])
    monkeypatch.setattr(Uncelled, "_check_remade", lambda self: [])
    codes = {result.address: result.code for result in results_of(root, None)}
    assert {name: codes[name] for name in codes.keys() - {"figures"}} == {
        "analyses": 4,
        "summaries": 4,
        "plan and stray files": 4,
        "README": 3,
    }


def test_what_is_removed_and_that_committed_is_missed(committed: Path, shared_place: Path) -> None:
    """The checkout is then as committed, and nothing of a kind may be left to compare: the history has it."""
    root = Path(shutil.copytree(committed, shared_place / "removed"))
    (root / "dvc.lock").write_text("stages: {}\n")
    (root / "results/claims.csv").write_text("claim\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "more")
    run = run_folder(root).relative_to(root).as_posix()
    git(root, "rm", "-rq", "dvc.lock", run, *(f"results/{name}" for name in GONE))
    git(root, "commit", "-qm", "fewer")
    auditor = Auditor(root)
    auditor.cells = [row for row in auditor.cells if "/drc/" not in row["runs"]]
    checks = Uncelled(auditor)
    parts = (checks._check_remade(), checks._check_summaries(), checks._check_report(), checks._check_plan())
    found = [*chain.from_iterable(parts), *checks._check_lock(), *checks._claims()[0].findings]
    found += checks.check_runs_of_figures().findings
    missed = {finding.what for finding in found if finding.missing}
    made = {name.removeprefix("tables/") for name in GONE if name != "report"}
    assert missed >= {*made, "report/index.html", "dvc.lock", f"{run}/run.json"}
    shutil.rmtree(root / ".git")
    assert Uncelled(Auditor(root))._claims() == [], "without Git nobody knows of it"


def test_a_run_that_only_a_figure_shows_and_that_is_gone_is_noticed(committed: Path, shared_place: Path) -> None:
    root = Path(shutil.copytree(committed, shared_place / "alone"))

    def looked() -> CellAudit:
        auditor = Auditor(root)
        auditor.cells = [row for row in auditor.cells if "/drc/" not in row["runs"]]
        auditor.expected = {key: row for key, row in auditor.expected.items() if "/drc/" not in row["runs"]}
        return Uncelled(auditor).check_runs_of_figures()

    method, folder = "results/runs/drc", run_folder(root)
    count = sum(path.is_file() for path in (root / method).rglob("*"))
    (root / "dvc.lock").write_text(json.dumps({"stages": {"runs": {"outs": [{"path": method, "nfiles": count}]}}}))
    assert looked().code == 0
    shutil.rmtree(folder)
    said = {finding.what: finding.missing for finding in looked().findings if finding.ok is False}
    assert said == dict.fromkeys(("dvc.lock", "git", f"{folder.relative_to(root).as_posix()}/{RECORD}"), True)


def test_the_archive_that_is_tampered_with_is_sound(committed: Path, shared_place: Path) -> None:
    root = Path(shutil.copytree(committed, shared_place / "sound"))
    for cell in (CELL, None):
        for result in results_of(root, cell):
            wrong = [f for f in result.all_findings if f.ok is False]
            assert not wrong, wrong
    assert len({tampering.what for tampering in EVERY}) == len(EVERY) >= 60


@pytest.mark.parametrize("tampering", EVERY, ids=lambda tampering: tampering.what)
def test_a_tampering_is_noticed(
    tampering: Tampering, committed: Path, shared_place: Path, tmp_path: Path, noted: list[Tampering]
) -> None:
    # Parameters are read once for each folder, so that only edited ones need a folder of their own.
    root = (tmp_path if tampering in PARAMS else shared_place) / "project"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(committed, root)
    tampering.do(root)
    results = results_of(root, tampering.cell if tampering not in BESIDE else None)
    wrong = [finding for result in results for finding in result.all_findings if finding.ok is False]
    said = "\n".join(f"{finding.what}: {finding.detail}" for finding in wrong)
    assert max(result.code for result in results if result.code != 4 or tampering.code == 4) == tampering.code, said
    assert any(finding.what.startswith(tampering.check) for finding in wrong), said
    assert not any(result.not_run_and_says_so for result in results if result.code), "it would not count"
    noted.append(tampering)


def test_an_edit_that_a_table_does_not_read_is_no_finding(committed: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(committed, tmp_path / "project"))
    edit_published(lambda row: row.update(value="0.111"))(root)
    auditor = Auditor(root)
    result = auditor.audit(auditor.find(*CELL))
    assert result.code == 0
    said = [finding.detail for finding in result.findings if finding.what == "params"]
    assert any("in nothing that it reads" in detail for detail in said), said


def test_a_row_says_how_many_seeds_it_really_has(committed: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(committed, tmp_path / "project"))
    remove_run(root)
    light(root)
    for kind in ("md", "tex", "html"):
        assert "DRC, tuned for digits, mean of 1 of 2" in (root / f"{TABLE}.{kind}").read_text()
    assert "K-means, mean of 2" in (root / f"{TABLE}.md").read_text()


def test_what_rests_on_nothing_is_said(committed: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    root = Path(shutil.copytree(committed, tmp_path / "project"))
    git(root, "rm", "-rq", "--cached", str(run_folder(root).relative_to(root)))
    git(root, "commit", "-qm", "less")
    assert audit_everything(Auditor(root), as_json=False) == 0
    printed = capsys.readouterr().out
    assert "Git cannot vouch for results/runs/drc" in printed
    assert "rest on files that no Git commit vouches for" in printed
    assert audit_everything(Auditor(root), as_json=False, strict=True) == 4
    shutil.rmtree(root / ".git")
    capsys.readouterr()
    audit_everything(Auditor(root), as_json=False)
    assert "no Git checkout: nothing vouches" in capsys.readouterr().out


def test_weights_that_are_never_in_git_are_not_what_a_commit_fails_to_vouch_for(
    committed: Path, tmp_path: Path
) -> None:
    """A clone has none of them, and all the same rests on what is committed."""
    root = Path(shutil.copytree(committed, tmp_path / "clone"))
    shutil.rmtree(root / "results/models")
    auditor = Auditor(root)
    result = auditor.audit(auditor.find(*CELL))
    assert any(finding.what == "weights.safetensors" and finding.ok is None for finding in result.all_findings)
    assert (result.code, result.unvouched) == (0, [])
    assert audit_everything(auditor, as_json=False, strict=True) == audit_everything(
        auditor, as_json=False, strict=False
    )
