"""What the audit says of runs: records, metrics, predictions and labels that were changed or are gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from committed import (
    CELL,
    CELL_DECLARED,
    audit,
    build_tables,
    edit_json,
    edit_yaml,
    evaluate,
    run_folder,
    said,
    worst,
)
from dica.data.prepared import fingerprint, labels_digest
from dica.files import load_arrays, write_npz
from dica.plan import planned
from dica.tables.inputs import write_inputs


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
    ("change", "ok", "expected"),
    [
        (lambda record: None, True, "commit: the code is that of"),
        (lambda record: record.update(commit="f" * 40), None, "commit: ffffffffffff is not in this clone"),
        (lambda record: record.update(commit="--help"), None, "commit: --help is not in this clone"),
        (lambda record: record.update(commit=None), None, "commit: trained with changes that were not committed"),
        (lambda record: record.update(dirty_sha256="0" * 64), None, "commit: trained with changes"),
        (lambda record: record["sources"].update({"src/new.py": "0" * 64}), False, "run.json says: src/new.py"),
    ],
)
def test_the_code_of_a_run_is_that_of_its_commit(project: Path, change, ok: bool | None, expected: str) -> None:
    edit_json(run_folder(project) / "run.json", change)
    assert expected in said(audit(project), ok)


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


@pytest.mark.parametrize("name", ["n", "num_clusters", "largest_cluster_share"])
def test_scores_without_a_number_that_tables_need_are_not_usable(name: str, project: Path) -> None:
    edit_json(run_folder(project) / "metrics.json", lambda body: body["headline"].pop(name))
    result = audit(project)
    assert result.code == 3
    assert f"lacks headline.{name}" in said(result)


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
