"""The audit of claims: a sound ledger matches, and one that was changed, or is stale, is noticed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from committed import edit_json, make_archive, run_folder
from dica.audit.auditor import DIFFERS, MATCHES, MISSING, Auditor
from dica.audit.claims import ClaimsAudit
from dica.audit.uncelled import Uncelled
from dica.cli.__main__ import main
from dica.cli.evidence import power
from dica.cli.runs import ARCHIVE
from dica.files import UserError
from dica.plan.planned import load_plan
from dica.scores.claims import FAILS, UNDECIDED
from dica.tables.claims import CSV, MARKDOWN, ledger, markdown, overview, read_ledger, write_ledger
from edits import git

CLAIMS = {
    "dica-1": {
        "says": "DRC beats K-means on the digits.",
        "place": "nowhere, for a test",
        "kind": "dominance",
        "metric": "acc",
        "at": {"paper": {"artefact": "dica table-1", "rows": ["drc", "kmeans"]}},
    },
    "dica-2": {
        "says": "DRC beats K-means on data that nobody has.",
        "place": "nowhere, for a test",
        "kind": "dominance",
        "metric": "acc",
        "at": {"paper": {"artefact": "drc table-1", "rows": ["drc", "kmeans"]}},
    },
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory, root: Path) -> Path:
    """Two seeds of two methods on digits, and two claims over them, all of it in Git."""
    project = make_archive(tmp_path_factory.mktemp("claims") / "project", root)
    shutil.rmtree(project / "params/claims")
    (project / "params/claims").mkdir()
    (project / "params/claims/dica.yaml").write_text(yaml.safe_dump({"paper": "dica", "claims": CLAIMS}))
    write_ledger(ledger(load_plan(project / "results/plan.json"), project, "results"), project / "results")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "claims")
    return project


@pytest.fixture
def editable(archive: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(archive, tmp_path / "project"))


def test_a_sound_claim_matches_down_to_the_files_of_its_runs(archive: Path) -> None:
    found = ClaimsAudit(Auditor(archive)).audit("dica-1")
    assert found.code == MATCHES, [f for f in found.all_findings if f.ok is False]
    assert {run.folder for run in found.runs} == {
        run_folder(archive, name, seed).relative_to(archive).as_posix() for name in ("drc", "kmeans") for seed in (0, 1)
    }
    (told,) = (f.detail for f in found.findings if f.what == "dica-1 at the rung paper")
    assert "drc − kmeans" in told
    assert "2 seeds" in told
    with pytest.raises(UserError, match="no claim dica-9"):
        ClaimsAudit(Auditor(archive)).audit("dica-9")


def test_the_ledger_says_what_is_not_run_and_what_the_seeds_do_not_decide(archive: Path) -> None:
    first, second = read_ledger(archive / "results" / CSV)
    assert first["verdict"] == UNDECIDED
    assert float(first["low"]) < float(first["effect"]) < float(first["high"])
    assert len(first["runs"].split()) == 4
    assert second["verdict"] == "not run"
    assert second["runs"] == second["effect"] == ""
    assert "| dica | 2 | 0 | 0 | 1 | 1 |" in overview([first, second])


def test_unlike_numbers_of_epochs_are_told(archive: Path) -> None:
    plan = load_plan(archive / "results/plan.json")
    assert ledger(plan, archive, "results")[0]["epochs"] == ""  # K-means has none
    for run in plan["runs"]:
        run["params"]["epochs"] = 7 if run["method"] == "kmeans" else 200
    (first, _) = rows = ledger(plan, archive, "results")
    assert first["epochs"] == "drc 200, kmeans 7"
    assert "; epochs: drc 200, kmeans 7 |" in markdown(rows)


def _say_fails(project: Path) -> None:
    rows = read_ledger(project / "results" / CSV)
    rows[0]["verdict"] = FAILS
    write_ledger(rows, project / "results")  # the page agrees


def _other_page(project: Path) -> None:
    rows = read_ledger(project / "results" / CSV)
    rows[0]["verdict"] = FAILS
    (project / "results" / MARKDOWN).write_text(markdown(rows))


def _other_run(project: Path) -> None:
    path = run_folder(project) / "metrics.json"
    edit_json(path, lambda body: body["headline"].update(acc=0.123))


def _less(project: Path) -> None:
    rows = read_ledger(project / "results" / CSV)
    write_ledger(rows[1:], project / "results")


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (_say_fails, DIFFERS, "verdict: stored 'fails', its cells give 'undecided'"),
        (_other_page, DIFFERS, "says otherwise"),
        (_other_run, DIFFERS, "stale or changed: effect: stored"),
        (_less, DIFFERS, "is not in claims.csv"),
    ],
)
def test_a_changed_or_stale_ledger_is_noticed(
    editable: Path, change: Callable[[Path], None], code: int, said: str
) -> None:
    change(editable)
    auditor = Auditor(editable)
    for found in (ClaimsAudit(auditor).audit("dica-1"), ClaimsAudit(auditor).audit_all()):
        assert found.code == code
        assert said in "\n".join(f.detail for f in found.findings if f.ok is False)


def test_a_ledger_that_is_gone_is_missed(editable: Path) -> None:
    (editable / "results" / CSV).unlink()
    with pytest.raises(UserError, match=r"claims\.csv: no such file; build it first"):
        ClaimsAudit(Auditor(editable))
    gone = [found for found in Uncelled(Auditor(editable)).audit_all() if found.address == "claims"]
    assert [found.code for found in gone] == [MISSING]


def test_power_says_how_many_seeds_would_decide(archive: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(archive)
    power(None, ARCHIVE, as_json=True)
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["claim"], found["verdict"], found["seeds"]) == ("dica-1", UNDECIDED, "2")
    assert int(found["seeds_needed"]) > 2
    power("dica-2", ARCHIVE, as_json=False)
    assert "dica-2" in capsys.readouterr().out
    with pytest.raises(UserError, match="no claim 'dica-3'"):
        power("dica-3", ARCHIVE)


def test_the_command_answers_for_a_claim(archive: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(archive)
    monkeypatch.setattr("sys.argv", ["dica", "audit", "claim", "dica-1", "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)
    assert json.loads(capsys.readouterr().out)["address"] == "claim dica-1"
