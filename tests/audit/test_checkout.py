"""What the audit says with the help of Git, of the parameters and of the plan."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from committed import IDENTITY, audit, edit_json, edit_yaml, run_folder, said
from dica.files import sha256_file
from dica.plan import plan as identity
from dica.plan.parameters import load_profile


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(commit="f" * 40),
        lambda record: record["device"].update(name="a faster one"),
        lambda record: record.update(dirty_sha256="f" * 64),
    ],
)
def test_what_only_git_can_tell_is_told(project: Path, change) -> None:
    path = run_folder(project) / "run.json"
    edit_json(path, change)
    result = audit(project)
    assert result.code == 3
    assert f"git: changed since the commit: {path.relative_to(project)}" in said(result)
    assert audit(project, "kmeans/digits/acc").code == 0


def test_the_last_writer_of_a_result_that_is_not_its_record_is_named(project: Path) -> None:
    assert "last writer" not in said(audit(project), None)
    path = run_folder(project) / "metrics.json"
    path.write_text(path.read_text() + "\n")
    subprocess.run(["git", *IDENTITY, "commit", "-qam", "later"], cwd=project, check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True).stdout[:12]
    result = audit(project)
    assert (result.code, f"last writer: metrics.json: commit {commit}" in said(result, None)) == (0, True)


def test_another_lock_file_than_that_of_the_run_is_told(bare: Path) -> None:
    (bare / "requirements.lock").write_text("torch==2\n")
    known = {"lock_sha256": sha256_file(bare / "requirements.lock")}
    edit_json(run_folder(bare) / "run.json", lambda record: record.update(environment=known))
    assert "environment" not in said(audit(bare), None)
    (bare / "requirements.lock").write_text("torch==3\n")
    result = audit(bare)
    assert (result.code, "trained with another requirements.lock" in said(result, None)) == (0, True)


def test_what_is_not_in_git_is_noted(project: Path) -> None:
    subprocess.run(["git", "rm", "-rq", "--cached", "results/runs/drc"], cwd=project, check=True)
    subprocess.run(["git", *IDENTITY, "commit", "-qm", "less"], cwd=project, check=True)
    result = audit(project)
    assert (result.code, "git: not committed: Git cannot vouch for results/runs/drc" in said(result, None)) == (0, True)
    (project / ".gitignore").write_text("results/\n")
    assert "Git cannot vouch for" in said(audit(project), None)
    shutil.rmtree(project / ".git")
    assert "git: no Git checkout" in said(audit(project), None)


def test_a_project_inside_another_repository_is_found(editable: Path, tmp_path: Path) -> None:
    shutil.rmtree(editable / ".git")
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "all")):
        subprocess.run(["git", *IDENTITY, *command], cwd=tmp_path, check=True)
    assert "git: what it rests on is as committed" in said(audit(editable), True)
    edit_json(run_folder(editable) / "run.json", lambda record: record.update(commit="f" * 40))
    assert audit(editable).code == 3


def test_edited_parameters_ask_for_other_runs(editable: Path) -> None:
    edit_yaml(editable / "params/drc.yaml", lambda body: body["datasets"]["digits"].update(lr=0.5))
    result = audit(editable)
    assert result.code == 3
    assert "parameters: the parameters in params/ now ask for other runs than results/runs/drc" in said(result)
    assert "cells.csv" not in said(result)
    folder = run_folder(editable).relative_to(editable)
    identifier = folder.name.split("-")[1]
    assert result.rebuild.startswith(
        f"python -m dica.train --config {folder}/config.json --data data/prepared/digits --out rebuilt/{identifier}"
    )
    assert "likewise for 1 more" in result.rebuild
    plan = identity.make_plan(load_profile(editable / "params/archive.yaml", editable), editable)
    identity.write_plan(plan, editable / "results/plan.json")  # as a dry run of Snakemake does
    result = audit(editable)
    assert "now ask for other runs than results/runs/drc" in said(result)
    assert "cells.csv" not in said(result)
    assert "made for other parameters" in said(result, None)
    result = audit(editable, "kmeans/digits/acc")
    assert result.code == 3, "a row of the same table stands in it as before"
    assert "params: what it reads in params/ is not what the tables were made of" in said(result)


def test_more_seeds_are_other_runs_too(editable: Path) -> None:
    edit_yaml(editable / "params/artefacts/dica.yaml", lambda body: body["artefacts"]["table-1"].update(seeds=3))
    assert "now ask for other runs too: results/runs/drc/digits/s2-" in said(audit(editable))


def test_changed_code_is_a_note(project: Path) -> None:
    (project / "src/dica/train.py").write_text("# other code\n")
    result = audit(project)
    assert (result.code, "code changed since: src/dica/train.py" in said(result, None)) == (0, True)


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan["runs"][0]["params"].update(revision=99),
        lambda plan: plan["runs"][0].update(path="results/runs/elsewhere"),
        lambda plan: plan["runs"][0].pop("method"),
        lambda plan: plan["runs"][0].pop("needed_by"),
        lambda plan: plan.update(runs=[None]),
        lambda plan: plan.clear(),
        lambda plan: plan.update(profile="other"),
    ],
)
def test_a_plan_whose_runs_are_not_what_their_ids_say_is_noticed(bare: Path, change) -> None:
    edit_json(bare / "results/plan.json", change)
    result = audit(bare)
    assert result.code == 3
    assert "plan.json: " in said(result)


def test_the_rebuild_command_removes_nothing(project: Path) -> None:
    result = audit(project)
    first, second = (str(run_folder(project, seed=seed).relative_to(project)) for seed in (0, 1))
    assert result.rebuild == (
        f"mv {first} {first}.old && mv {second} {second}.old && snakemake --cores all --resources gpu=1 -- "
        f"{first}/metrics.json {second}/metrics.json"
    )
    shutil.rmtree(project / first)
    assert f"mv {first}" not in audit(project).rebuild
