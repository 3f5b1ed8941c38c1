"""The audit: a project that matches in everything, and every way in which one file of it can be made to lie."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import factory
from committed import (
    CELL,
    CELL_DECLARED,
    IDENTITY,
    build_tables,
    draw_figures,
    edit_cells,
    edit_json,
    edit_yaml,
    evaluate,
    make_archive,
    run_folder,
)
from dica.audit.auditor import Auditor, CellAudit
from dica.audit.uncelled import Uncelled, remake
from dica.cli.audit import audit_everything
from dica.data.prepared import fingerprint, labels_digest
from dica.files import IntegrityError, UserError, load_arrays, read_json, sha256_file, write_json, write_npz
from dica.plan import plan as identity
from dica.plan import planned
from dica.plan.parameters import load_profile
from dica.tables.drawn import DRAWN_WITH
from dica.tables.inputs import write_inputs


@pytest.fixture(scope="module")
def committed(tmp_path_factory, root: Path) -> Path:
    return make_archive(tmp_path_factory.mktemp("audit") / "project", root)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Where every test finds its copy: params/ are then read and checked once."""
    return tmp_path_factory.mktemp("copy") / "project"


@pytest.fixture
def project(committed: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(committed, place))


@pytest.fixture
def bare(project: Path) -> Path:
    """Without Git, so that the other checks stand alone."""
    shutil.rmtree(project / ".git")
    return project


@pytest.fixture
def editable(committed: Path, tmp_path: Path) -> Path:
    """A copy in a place of its own, whose params/ may be edited."""
    return Path(shutil.copytree(committed, tmp_path / "project"))


def audit(root: Path, cell: str = CELL[2], artefact: tuple[str, str] = CELL[:2]) -> CellAudit:
    auditor = Auditor(root)
    return auditor.audit(auditor.find(*artefact, cell))


def said(result: CellAudit, ok: bool | None = False) -> str:
    return "\n".join(f"{finding.what}: {finding.detail}" for finding in result.all_findings if finding.ok is ok)


def worst(root: Path) -> int:
    """The code that `dica audit --all` ends with."""
    return audit_everything(Auditor(root), as_json=False)


def test_what_is_as_committed_matches(project: Path) -> None:
    auditor = Auditor(project)
    result = auditor.audit(auditor.find(*CELL))
    assert (result.code, said(result)) == (0, "")
    holds = said(result, True)
    for expected in ("value", "spread", "parameters", "cells.csv", "labels", "printed table", "git", "identity",
                     "metrics.json", "acc", "predictions.npz", "weights.safetensors", "code"):  # fmt: skip
        assert f"{expected}: " in holds, expected
    json.dumps(result.as_dict())
    assert all(auditor.audit(row).code == (0 if row["runs"] or not row["method"] else 4) for row in auditor.all_rows())


def test_nothing_is_written(project: Path) -> None:
    def state() -> dict:
        return {path: path.stat().st_mtime_ns for path in project.rglob("*")}

    before = state()
    audit(project)
    assert state() == before


def test_each_file_is_hashed_once_and_git_asked_once_for_all_cells(project: Path, monkeypatch) -> None:
    from dica.audit import checkout as module

    hashed, asked, run = [], [], subprocess.run
    monkeypatch.setattr(module, "sha256_file", lambda path: hashed.append(path) or sha256_file(path))
    monkeypatch.setattr(subprocess, "run", lambda command, **o: asked.append(command) or run(command, **o))
    auditor = Auditor(project)
    assert len([auditor.audit(row) for row in auditor.all_rows()]) > 6
    assert len(hashed) == len(set(hashed))
    assert len([command for command in asked if "status" in command]) == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("published", "0.99"),
        ("verdict", "agrees"),
        ("reason", "close enough"),
        ("method", ""),
        ("best", "0.99"),
        ("n", "7"),
        ("value", "0.99"),
        ("value", ""),
        ("value", "much"),
        ("statistic", "best"),
        ("spread", ""),
        ("label", "Ours"),
        ("seeds_planned", "1"),
        ("runs", ""),
    ],
)
def test_a_changed_column_is_named(bare: Path, column: str, value: str) -> None:
    edit_cells(bare, lambda row, rows: row.update({column: value}))
    result = audit(bare)
    assert result.code == 3
    assert f"{column}: stored {value!r}, rebuilt " in said(result)


def test_a_row_made_to_say_published_only_or_not_run_is_noticed(bare: Path) -> None:
    lies = {"method": "", "runs": "", "value": "0.99", "n": "0", "verdict": "published only"}
    edit_cells(bare, lambda row, rows: row.update(lies))
    result = audit(bare)
    assert result.code == 3
    assert len(result.runs) == 2, "the runs that belong to the cell are audited all the same"
    lies = {"runs": "", "value": "", "spread": "", "best": "", "n": "0", "verdict": "not run", "method": "drc"}
    edit_cells(bare, lambda row, rows: row.update(lies))
    assert audit(bare).code == 3


def test_a_row_that_points_to_another_methods_runs_is_noticed(bare: Path) -> None:
    def swap(row: dict, rows: list) -> None:
        other = next(r for r in rows if (r["row"], r["dataset"], r["metric"]) == ("kmeans", "digits", "acc"))
        row.update({name: other[name] for name in ("runs", "value", "spread", "best")})

    edit_cells(bare, swap)
    result = audit(bare)
    assert result.code == 3
    assert "cells.csv: value: stored" in said(result)
    assert "; runs: stored" in said(result)


def test_dropped_doubled_and_invented_rows_are_noticed(bare: Path) -> None:
    edit_cells(bare, lambda row, rows: rows.remove(row))
    assert "has this cell 0 times" in said(audit(bare))
    assert worst(bare) == 3
    edit_cells(bare, lambda row, rows: rows.append(dict(row)), "drc/digits/nmi")
    assert "has this cell 2 times" in said(audit(bare, "drc/digits/nmi"))
    edit_cells(bare, lambda row, rows: rows.append({**row, "row": "better"}), "kmeans/digits/acc")
    assert "declares no such cell" in said(audit(bare, "better/digits/acc"))


def test_a_copied_number_is_checked_against_params(bare: Path) -> None:
    place, cell = ("drc", "table-1"), None
    auditor = Auditor(bare)
    cell = next(row for row in auditor.cells if not row["method"] and row["published"])
    address = f"{cell['row']}/{cell['dataset']}/{cell['metric']}"
    assert audit(bare, address, place).code == 0
    path = bare / "results/tables/cells.csv"
    text = path.read_text()
    line = next(line for line in text.splitlines() if f",{cell['row']}," in line and f",{cell['metric']}," in line
                and f",{cell['dataset']}," in line)  # fmt: skip
    path.write_text(text.replace(line, line.replace(f",{cell['published']},", ",0.999,")))
    assert "published: stored '0.999'" in said(audit(bare, address, place))


@pytest.mark.parametrize("kind", ["md", "tex", "html", "csv"])
def test_a_changed_printed_table_is_noticed(bare: Path, kind: str) -> None:
    path = bare / f"results/tables/dica/table-1.{kind}"
    path.write_text(path.read_text().replace("0.8", "0.9"))
    result = audit(bare)
    assert result.code == 3
    assert f"printed table: table-1.{kind} differs" in said(result)
    path.unlink()
    assert (audit(bare).code, "snakemake --cores all light" in said(audit(bare))) == (4, True)


def test_why_a_run_is_absent_need_not_be_in_git(bare: Path) -> None:
    """A fresh clone has no state folder: the verdict `failed` and the printed table stand as they are."""
    plan = planned.load_plan(bare / "results/plan.json")
    state = next(run for run in plan["runs"] if run["dataset"] == "cifar10")
    factory.write_failure(bare, state, "loss is not finite")
    shutil.rmtree(run_folder(bare, "kmeans", 1))
    factory.write_failure(
        bare, next(run for run in factory.select(plan, "kmeans", "digits") if run["seed"] == 1), "bad"
    )
    build_tables(bare)
    shutil.rmtree(bare / "results/state")
    result = audit(bare, f"{state['method']}/cifar10/acc", ("drc", "table-1"))
    assert (result.code, "failed: loss is not finite" in said(result)) == (4, True)
    result = audit(bare, "kmeans/digits/acc")
    assert result.code == 4, "its row says so, and yet a planned seed is not there"
    assert said(result).startswith("seeds: 1 of 2 planned seeds are there, without results/runs/kmeans/digits/s1-")


@pytest.mark.parametrize("recorded", [True, False])
def test_a_trace_is_checked_and_cannot_slip_out_of_the_record(bare: Path, recorded: bool) -> None:
    folder = run_folder(bare)
    (folder / "trace.npz").write_bytes(b"looks")
    if recorded:
        edit_json(folder / "run.json", lambda record: record["files"].update({"trace.npz": "0" * 64}))
    result = audit(bare)
    assert result.code == 3
    assert ("trace.npz: changed" if recorded else "lacks files.trace.npz") in said(result)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda record: record.update(files={}), "lacks files.config.json"),
        (lambda record: record["files"].pop("weights.safetensors"), "lacks files.weights.safetensors"),
        (lambda record: record.update(sources={}), "lacks sources.src/dica/train.py"),
        (lambda record: record.update(seed=7), "differ in seed"),
        (lambda record: record.update(determinism="strict"), "differ in determinism"),
        (lambda record: record.update(method="kmeans", variant="x"), "differ in method, variant"),
        (lambda record: record.clear(), "lacks id"),
        (lambda record: record.update(files=[]), "files: has the wrong type (list)"),
        (lambda record: record["files"].update({"config.json": None}), "files.config.json: has the wrong type"),
        (lambda record: record.pop("device"), "lacks device"),
        (lambda record: record.update(device={}), "lacks device.name"),
        (lambda record: record.update(seconds="long"), "seconds: has the wrong type"),
        (lambda record: record.update(seconds=1e300), "seconds: is not a finite number"),
    ],
)
def test_a_changed_or_malformed_run_record_is_named(bare: Path, change, expected: str) -> None:
    edit_json(run_folder(bare) / "run.json", change)
    result = audit(bare)
    assert result.code == 3
    assert expected in said(result)


@pytest.mark.parametrize("name", ["run.json", "config.json", "metrics.json"])
@pytest.mark.parametrize("text", ["{}", "[1]", "{not json", '{"id": 3, "headline": 1, "params": 2}', "\udcff"])
def test_a_record_that_is_none_is_a_finding(bare: Path, name: str, text: str) -> None:
    (run_folder(bare) / name).write_bytes(text.encode(errors="surrogateescape"))
    result = audit(bare)
    assert result.code == 3
    assert f"{name}: " in said(result)
    assert audit(bare, "kmeans/digits/acc").code == 0, "a broken run spoils its own cells only"


@pytest.mark.parametrize("name", ["run.json", "config.json", "metrics.json", "predictions.npz", "history.csv"])
def test_an_absent_file_is_missing_not_wrong(project: Path, name: str) -> None:
    (run_folder(project) / name).unlink()
    result = audit(project)
    assert result.code == 4, said(result)
    assert "missing" in said(result)


def show_metrics(root: Path, *names: str) -> None:
    """Let the table of digits show other metrics, in Git's absence."""
    shutil.rmtree(root / ".git", ignore_errors=True)
    edit_yaml(root / CELL_DECLARED, lambda body: body["artefacts"][CELL[1]].update(metrics=list(names)))


def test_a_metric_that_one_run_lacks_spoils_the_cells_of_that_run_only(editable: Path, capsys) -> None:
    show_metrics(editable, "acc", "nmi_geometric")
    build_tables(editable)
    assert worst(editable) == 0
    edit_json(run_folder(editable) / "metrics.json", lambda stored: stored["headline"].pop("nmi_geometric"))
    capsys.readouterr()
    assert worst(editable) == 3
    printed = capsys.readouterr().out
    assert "cannot be rebuilt: results/runs/drc/digits/" in printed
    assert "/metrics.json: lacks headline.nmi_geometric" in printed
    assert "4 cells over 4 runs: 2 matches, 2 does not match" in printed
    assert audit(editable, "kmeans/digits/nmi_geometric").code == 0


def test_a_metric_that_no_run_was_scored_with_is_missing(editable: Path) -> None:
    show_metrics(editable, "acc")
    build_tables(editable)
    show_metrics(editable, "acc", "acc_top5")
    plan = planned.load_plan(editable / "results/plan.json")
    write_inputs(planned.artefacts_of(plan, editable), plan, editable, editable / "results/tables/inputs.csv")
    assert worst(editable) == 4
    assert audit(editable).code == 0
    result = audit(editable, "drc/digits/acc_top5")
    assert result.code == 4
    assert "lacks headline.acc_top5" in said(result)


def test_a_time_that_one_run_lacks_spoils_every_ratio(editable: Path) -> None:
    show_metrics(editable, "acc", "time_ratio")
    edit_yaml(editable / CELL_DECLARED, lambda body: body["artefacts"][CELL[1]].update(options={"reference": "kmeans"}))
    build_tables(editable)
    assert worst(editable) == 0
    edit_json(run_folder(editable, "kmeans") / "run.json", lambda record: record.pop("seconds"))
    result = audit(editable, "drc/digits/time_ratio")
    assert (result.code, "run.json: lacks seconds" in said(result)) == (4, True)
    assert audit(editable).code == 0
    assert worst(editable) == 3


def test_predictions_that_are_none_are_a_finding(bare: Path) -> None:
    for arrays in ({"num_clusters": np.array("ten")}, {"num_clusters": np.int64(10), "train_assignment": np.zeros(3)}):
        write_npz(run_folder(bare) / "predictions.npz", arrays)
        assert "predictions.npz: not usable" in said(audit(bare))
    (run_folder(bare) / "predictions.npz").write_bytes(b"PK no archive")
    assert audit(bare).code == 3


def test_predictions_made_equal_to_the_labels_are_noticed_even_without_hashes(bare: Path) -> None:
    folder = run_folder(bare)
    train = load_arrays(bare / "data/labels/digits.npz")["train"]
    write_npz(folder / "predictions.npz", {"num_clusters": np.int64(10), "train_assignment": train})
    edit_json(folder / "run.json", lambda record: record.update(files={}, sources={}))
    evaluate(bare, folder)
    build_tables(bare)
    result = audit(bare)
    assert result.code == 3
    assert "run.json: lacks files." in said(result)


def test_labels_made_equal_to_the_predictions_are_noticed(bare: Path) -> None:
    """Metrics, cells and tables follow from the false labels: only the fingerprint in the ids tells."""
    arrays = load_arrays(run_folder(bare) / "predictions.npz")
    write_npz(bare / "data/labels/digits.npz", {"train": arrays["train_assignment"]})
    for method in ("drc", "kmeans"):
        for seed in (0, 1):
            evaluate(bare, run_folder(bare, method, seed))
    build_tables(bare)
    result = audit(bare)
    assert result.code == 3
    assert [finding.what for finding in result.all_findings if finding.ok is False] == ["labels"]
    train = load_arrays(bare / "data/labels/digits.npz")["train"]

    def follow(record: dict) -> None:
        record["splits"]["train"]["labels_sha256"] = labels_digest(train)
        record["fingerprint"] = fingerprint(record["splits"], record["classes"])

    edit_json(bare / "data/labels/digits.json", follow)
    assert audit(bare).code == 3, "the record of the labels cannot vouch for itself"


def test_labels_without_record_or_fingerprint_are_noted(bare: Path) -> None:
    record = bare / "data/labels/digits.json"
    content = record.read_text()
    record.unlink()
    result = audit(bare)
    assert (result.code, "labels: cannot be anchored" in said(result, None)) == (0, True)
    record.write_text("{}")
    assert "digits.json: lacks fingerprint" in said(audit(bare))
    record.write_text(content.replace("train", "test"))
    assert "has the splits train" in said(audit(bare))


def test_other_labels_than_those_of_the_metrics_are_noticed(bare: Path) -> None:
    edit_json(run_folder(bare) / "metrics.json", lambda body: body.update(labels_sha256="0" * 64, evaluated_on="test"))
    assert "metrics.json: differs from what predictions and labels give: evaluated_on, labels_sha256" in said(
        audit(bare)
    )
    edit_json(run_folder(bare) / "metrics.json", lambda body: body["headline"].update(acc=1.0))
    assert "acc: stored 1.000000, recomputed" in said(audit(bare))


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


def test_a_cell_list_of_another_form_is_refused(bare: Path) -> None:
    path = bare / "results/tables/cells.csv"
    path.write_text(path.read_text().replace("verdict", "judgement", 1))
    with pytest.raises(IntegrityError, match="other columns"):
        Auditor(bare)
    path.unlink()
    with pytest.raises(UserError, match="snakemake --cores all light"):
        Auditor(bare)


def test_what_no_cell_shows_is_checked_with_all_cells(bare: Path, capsys) -> None:
    """Statistics, bounds and analyses are made of runs, too; none of them is in cells.csv."""
    remake(planned.load_plan(bare / "results/plan.json"), bare, "results", bare / "results/tables")
    folder = run_folder(bare)
    analysis = bare / "results/analyses/cases" / Path(*folder.parts[-3:]).with_suffix(".npz")
    write_npz(analysis, {"of": np.array(sha256_file(folder / "predictions.npz"))})
    assert worst(bare) == 0
    for path in (bare / "results/tables/statistics/intervals.csv", bare / "results/tables/consistency.csv"):
        text = path.read_text()
        path.write_text(text.replace("0.8", "0.9"))
        assert worst(bare) == 3, path
        path.write_text(text)
    write_npz(analysis, {"of": np.array("0" * 64)})
    assert worst(bare) == 3
    assert "is of other predictions than its run has" in capsys.readouterr().out


def test_a_run_that_only_a_figure_shows_is_checked_with_all_cells(editable: Path, capsys) -> None:
    shutil.rmtree(editable / ".git")
    edit_yaml(editable / "params/archive.yaml", lambda body: body.update(artefacts=["dica figure-2", "drc table-1"]))
    edit_yaml(editable / "params/artefacts/dica.yaml", lambda body: body["artefacts"]["figure-2"].update(seeds=2))
    plan = identity.make_plan(load_profile(editable / "params/archive.yaml", editable), editable)
    identity.write_plan(plan, editable / "results/plan.json")
    build_tables(editable)
    assert worst(editable) == 4
    assert "figures  dica figure-2: missing: figure-2.svg, figure-2.png" in capsys.readouterr().out
    draw_figures(editable)
    auditor = Auditor(editable)
    found = [(found.address, len(found.runs), found.code) for found in Uncelled(auditor).audit_all()]
    assert found == [("runs of figures alone", 4, 0), ("figures", 0, 0), ("plan and stray files", 0, 0)]
    (run_folder(editable) / "history.csv").write_text("epoch\n")
    assert worst(editable) == 3
    assert "history.csv: changed" in capsys.readouterr().out


@pytest.fixture(scope="module")
def drawn_once(committed: Path, tmp_path_factory) -> Path:
    """The archive with a figure beside its table, without Git."""
    root = Path(shutil.copytree(committed, tmp_path_factory.mktemp("drawn") / "project"))
    shutil.rmtree(root / ".git")
    shown = ["dica table-1", "dica figure-2"]
    edit_yaml(root / "params/archive.yaml", lambda body: body.update(artefacts=shown))
    edit_yaml(root / CELL_DECLARED, lambda body: body["artefacts"]["figure-2"].update(seeds=2))
    plan = identity.make_plan(load_profile(root / "params/archive.yaml", root), root)
    identity.write_plan(plan, root / "results/plan.json")
    build_tables(root)
    draw_figures(root)
    return root


@pytest.fixture
def drawn(drawn_once: Path) -> Path:
    """The same, put back afterwards."""
    kept = drawn_once.with_name("kept")
    shutil.copytree(drawn_once / "results", kept)
    yield drawn_once
    shutil.rmtree(drawn_once / "results")
    shutil.move(kept, drawn_once / "results")


def figures_say(root: Path) -> tuple[int, str]:
    """Audit the figures; return their code and what is said of them."""
    (found,) = [found for found in Uncelled(Auditor(root)).audit_all() if found.address == "figures"]
    return found.code, "; ".join(f"{finding.what}: {finding.detail}" for finding in found.findings)


def edit_bytes(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def swap_picture(svg: Path, png: Path) -> None:
    """Put another picture in a PNG's place and let the SVG vouch for it."""
    old = sha256_file(png).encode()
    picture = np.array(Image.open(png))
    picture[:9] = 0
    Image.fromarray(picture).save(png)
    edit_bytes(svg, old, sha256_file(png).encode())


def test_a_figure_that_is_as_drawn_matches(drawn: Path) -> None:
    assert worst(drawn) == 0
    code, said_ = figures_say(drawn)
    assert code == 0
    assert "dica figure-2: is what the runs give" in said_
    assert "no Git checkout: changes that agree with each other go unnoticed" in said_


@pytest.mark.parametrize(
    ("tamper", "code", "message"),
    [
        (lambda svg, png: edit_bytes(svg, b'<path d="M ', b'<path d="M 1'), 3, "differs from what the runs give"),
        (lambda svg, png: edit_bytes(svg, b": 0.", b": 1."), 3, "says other numbers than the runs give"),
        (lambda svg, png: edit_bytes(svg, b"dica with", b"paint"), 3, "does not say what drew it"),
        (lambda svg, png: edit_bytes(png, b"IDAT", b"IDAt"), 3, "the PNG is not the one"),
        (lambda svg, png: swap_picture(svg, png), 3, "differs from what the runs give"),
        (lambda svg, png: png.unlink(), 4, "missing: figure-2.png"),
        (lambda svg, png: svg.unlink(), 4, "missing: figure-2.svg"),
    ],
)
def test_a_changed_figure_is_noticed(drawn: Path, tamper, code: int, message: str) -> None:
    folder = drawn / "results/figures/dica"
    tamper(folder / "figure-2.svg", folder / "figure-2.png")
    found, said_ = figures_say(drawn)
    assert (found, message in said_) == (code, True), said_
    assert worst(drawn) == code


def test_a_figure_of_older_runs_is_noticed(drawn: Path) -> None:
    """Predictions, record and tables are made anew, the figure is not."""
    folder = run_folder(drawn)
    arrays = load_arrays(folder / "predictions.npz")
    arrays["train_assignment"][:60] = 0
    write_npz(folder / "predictions.npz", arrays)
    evaluate(drawn, folder)
    files = {"predictions.npz": sha256_file(folder / "predictions.npz")}
    edit_json(folder / "run.json", lambda record: record["files"].update(files))
    build_tables(drawn)
    assert audit(drawn).code == 0
    assert "says other numbers" in figures_say(drawn)[1]
    draw_figures(drawn)
    assert worst(drawn) == 0


def test_other_libraries_than_those_that_drew_a_figure_are_a_note(drawn: Path) -> None:
    """A line may then lie elsewhere; the words and the PNG are checked all the same."""
    svg, png = (drawn / f"results/figures/dica/figure-2.{kind}" for kind in ("svg", "png"))
    versions = DRAWN_WITH.search(svg.read_text())[1].encode()
    edit_bytes(svg, versions, b"matplotlib 1.0")
    edit_bytes(svg, b'<path d="M ', b'<path d="M 1')
    code, text = figures_say(drawn)
    assert (code, "drawn with matplotlib 1.0, it was not drawn again" in text) == (0, True)
    edit_bytes(svg, b": 0.", b": 1.")
    assert figures_say(drawn)[0] == 3
    edit_bytes(svg, b": 1.", b": 0.")
    png.write_bytes(png.read_bytes() + b" ")
    assert figures_say(drawn)[0] == 3


def commit_all(root: Path) -> None:
    for command in (["init", "-q"], ["add", "-Af"], ["commit", "-qm", "all"]):
        subprocess.run(["git", *IDENTITY, *command], cwd=root, check=True)


def test_a_changed_figure_of_other_libraries_is_for_git_to_vouch_for(drawn: Path) -> None:
    svg = drawn / "results/figures/dica/figure-2.svg"
    versions = DRAWN_WITH.search(svg.read_text())[1].encode()
    commit_all(drawn)
    try:
        edit_bytes(svg, versions, b"matplotlib 1.0")
        code, text = figures_say(drawn)
    finally:
        shutil.rmtree(drawn / ".git")
    assert (code, "changed since the commit" in text) == (3, True)


def test_a_figure_without_a_run_that_the_parameters_ask_for_is_noticed(drawn: Path) -> None:
    plan = read_json(drawn / "results/plan.json")
    hidden = next(run for run in plan["runs"] if "dica figure-2" in run["needed_by"])
    hidden["needed_by"].remove("dica figure-2")
    write_json(drawn / "results/plan.json", plan)
    draw_figures(drawn)
    code, text = figures_say(drawn)
    assert (code, "ask for other runs" in text) == (3, True)


def test_deleted_bounds_are_missing(drawn: Path) -> None:
    bounds = drawn / "results/tables/consistency.csv"
    bounds.write_text("paper\n")
    commit_all(drawn)
    try:
        bounds.unlink()
        (found,) = [each for each in Uncelled(Auditor(drawn)).audit_all() if each.address == "statistics and bounds"]
    finally:
        shutil.rmtree(drawn / ".git")
    assert found.code == 4
    assert "missing; build it again" in found.findings[0].detail


def test_a_figure_whose_runs_are_damaged_is_told_from_a_changed_one(drawn: Path) -> None:
    folder = run_folder(drawn)
    metrics_file = (folder / "metrics.json").read_bytes()
    (folder / "metrics.json").write_text("{}")
    code, text = figures_say(drawn)
    assert (code, "cannot be drawn again without the metrics of results/runs/drc" in text) == (0, True)
    (folder / "metrics.json").write_bytes(metrics_file)
    (folder / "history.csv").unlink()
    code, text = figures_say(drawn)
    assert (code, "cannot be drawn again without results/runs/drc" in text) == (4, True)
