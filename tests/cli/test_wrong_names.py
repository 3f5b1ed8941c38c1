"""A wrong name is answered before a plan is made, which takes long, and as the plan would have it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import yaml

from committed import edit_cells, edit_yaml, make_archive
from dica.audit.auditor import Auditor
from dica.audit.claims import ClaimsAudit
from dica.audit.rows import cell_key
from dica.cli import __main__ as cli
from dica.files import UserError
from dica.plan import estimate
from dica.plan.parameters import load_profile
from dica.plan.plan import make_plan
from dica.plan.targets import require_target
from dica.tables.claims import ledger, write_ledger

CLAIM = {
    "says": "DRC beats K-means on the digits.",
    "place": "nowhere, for a test",
    "kind": "dominance",
    "metric": "acc",
    "at": {"paper": {"artefact": "dica table-1", "rows": ["drc", "kmeans"]}},
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory, root: Path) -> Path:
    project = make_archive(tmp_path_factory.mktemp("cli") / "project", root)
    edit_yaml(project / "params/archive.yaml", lambda body: body["artefacts"].append("dccm table-5"))
    shutil.rmtree(project / "params/claims")
    (project / "params/claims").mkdir()
    (project / "params/claims/dica.yaml").write_text(yaml.safe_dump({"paper": "dica", "claims": {"dica-1": CLAIM}}))
    write_ledger(ledger(Auditor(project).plan, project, "results"), project / "results")
    return project


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("audit drc table-99", "no artefact drc table-99; did you mean drc table-1"),
        ("audit DRC Table-1", "no artefact DRC Table-1; did you mean drc table-1"),
        ("audit dica statistics/pair", "did you mean dica statistics/pairs"),
        ("audit drc table-99 drc/cifar10/acc", "no table drc table-99; did you mean drc table-1"),
        ("audit drc table-1 nope/cifar10/acc", "no cell 'nope/cifar10/acc'; did you mean"),
        ("audit claim dica-9", "no claim dica-9; did you mean dica-1"),
        ("show drc table-99", "no table or figure drc table-99; did you mean drc table-1"),
        ("show DRC Table-1", "did you mean drc table-1"),
        ("estimate drc/table-99", "no target 'drc table-99'; did you mean drc table-1"),
        ("estimate DRC table-1", "did you mean drc table-1"),
        ("estimate kmean", "did you mean kmeans"),
        ("estimate all --device x87", "device 'x87': no finished run was timed on it"),
        ("compare dica/table-1/drc/digit/acc drc/table-1/x/y/z", "did you mean dica/table-1/drc/digits/acc"),
    ],
)
def test_a_wrong_name_is_refused_without_a_plan(archive: Path, monkeypatch, capsys, words: str, told: str) -> None:
    for module in ("dica.plan.plan", "dica.audit.auditor"):
        monkeypatch.setattr(f"{module}.make_plan", None)
    monkeypatch.chdir(archive)
    monkeypatch.setattr(sys, "argv", ["dica", *words.split()])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert (end.value.code, told in capsys.readouterr().err) == (2, True)


def test_the_names_are_those_that_the_plan_has(archive: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(archive, tmp_path / "project"))
    edit_cells(root, lambda row, rows: rows.remove(row))
    auditor = Auditor(root)
    assert auditor.known == [cell_key(row) for row in auditor.all_rows()]
    assert any(key[:2] == ("dccm", "table-5") for key in auditor.known), "declared, in no file yet"
    claims = ClaimsAudit(auditor)
    assert claims._declared() == [claim for claim, _ in claims.rebuilt] == ["dica-1"]


def test_a_target_is_refused_as_by_the_plan(archive: Path) -> None:
    profile = load_profile(archive / "params/archive.yaml", archive)
    plan = make_plan(profile, archive)
    assert "probe" in {run["method"] for run in plan["runs"]}, "whose sources are methods, too"
    known = {name for run in plan["runs"] for name in (run["method"], f"method {run['method']}", *run["needed_by"])}
    for words in (
        ["all"],
        ["drc"],
        ["drc/table-1"],
        [plan["runs"][0]["path"]],
        ["0" * 12],
        *([name] for name in known),
    ):
        require_target(words, profile, archive)
    for words in (["kmean"], ["drc", "table-9"], ["method", "crlc"], ["results"]):
        with pytest.raises(UserError) as found:
            require_target(words, profile, archive)
        with pytest.raises(UserError) as expected:
            estimate.select(plan, words)
        assert str(found.value) == str(expected.value)


def test_methods_below_others_are_targets(archive: Path, tmp_path: Path) -> None:
    """K-means on the features of a method is planned with that method's runs."""
    root = Path(shutil.copytree(archive, tmp_path / "project"))
    rows = [{"label": "K", "method": "kmeans", "variant": "on-imc-swav"}]
    edit_yaml(root / "params/artefacts/dica.yaml", lambda body: body["artefacts"]["table-1"].update(rows=rows))
    edit_yaml(root / "params/archive.yaml", lambda body: body.update(artefacts=["dica table-1"]))
    profile = load_profile(root / "params/archive.yaml", root)
    require_target(["imc-swav"], profile, root)
    with pytest.raises(UserError, match="there are: all, dica, imc-swav, kmeans, dica table-1"):
        require_target(["drc"], profile, root)
