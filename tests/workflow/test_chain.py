"""From raw images to an audited cell, and what happens when something changes, fails or is killed."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import validators
from dica.files import sha256_file
from project import Project, children_seconds, environment, steps

pytestmark = pytest.mark.workflow
CELL = ("dica", "table-1", "drc/digits/acc")


def cells(project: Project) -> dict[str, dict[str, str]]:
    with open(project.folder / "results/tables/cells.csv", newline="") as file:
        return {f"{row['row']}/{row['dataset']}/{row['metric']}": row for row in csv.DictReader(file)}


def run_folder(project: Project, method: str) -> Path:
    (name,) = project.runs(method)
    return project.folder / "results/runs" / method / "digits" / name


def test_the_chain_ends_in_tables_figures_and_a_report(finished: Project) -> None:
    results = finished.folder / "results"
    for suffix in ("md", "tex", "html", "csv"):
        assert (results / f"tables/dica/table-1.{suffix}").stat().st_size
    assert (results / "figures/dica/figure-2.svg").is_file()
    assert "| dica-1 | DRC beats K-means on the digits. |" in (results / "claims.md").read_text()
    assert "http" not in (results / "report/index.html").read_text().split("<body")[0]
    row = cells(finished)["kmeans/digits/acc"]
    assert 0.7 < float(row["value"]) < 0.9
    assert row["runs"].split() == [str(run_folder(finished, "kmeans").relative_to(finished.folder))]


def test_snakemake_writes_its_own_report_too(finished: Project, tmp_path) -> None:
    page = tmp_path / "report.html"
    finished.snakemake("--report", str(page))
    text = page.read_text()
    for part in ("table-1.html", "figure-2.svg", "index.html", "All numbers", "sample standard deviation"):
        assert part in text, part


def test_nothing_is_left_to_do(finished: Project) -> None:
    started = children_seconds()
    assert "Nothing to be done" in finished.snakemake()
    assert children_seconds() - started < 15


def test_a_fresh_clone_with_results_trains_nothing_and_rebuilds_the_same_tables(finished: Project, tmp_path) -> None:
    clone = finished.clone(tmp_path / "clone")
    for target in ("all", "light"):
        assert "Nothing to be done" in clone.snakemake("-n", target)
    tables = sorted((clone.folder / "results/tables").rglob("*.*"))
    times = [path.stat().st_mtime_ns for path in tables]
    assert "Nothing to be done" in clone.snakemake("light")
    assert [path.stat().st_mtime_ns for path in tables] == times
    clone.snakemake("--forceall", "light")
    assert [path.stat().st_mtime_ns for path in tables] != times
    assert clone.run("git", "status", "--porcelain") == ""


def test_what_changes_in_a_clone_and_no_more_is_made_again(finished: Project, tmp_path) -> None:
    """A printed number reaches all tables; a broken file, its own; what is made is current, also in the next clone."""
    clone = finished.clone(tmp_path / "clone")
    table = clone.folder / "results/tables/dica/table-1.md"
    text = table.read_text()
    table.write_text(text[:100])
    (clone.folder / "results/tables/cells.csv").write_bytes(b"\xff\xfe")
    planned = steps(clone.snakemake("-n", "light"))
    assert planned == {"table": 1, "cells": 1, "page": 1, "light": 1, "total": 4}
    clone.snakemake("light")
    assert clone.run("git", "status", "--porcelain") == ""
    published = clone.folder / "params/published/results.csv"
    published.write_text(published.read_text().replace(".229", ".199"))
    planned = steps(clone.snakemake("-n", "light"))
    assert planned["table"] == planned["cells"] == planned["page"] == 1
    assert "evaluate" not in planned
    clone.snakemake("light")
    clone.commit("a printed number")
    assert "Nothing to be done" in clone.clone(tmp_path / "next").snakemake("-n", "light")


def test_scores_that_cannot_be_read_are_made_again(finished: Project, tmp_path) -> None:
    clone = finished.clone(tmp_path / "clone")
    (run_folder(clone, "drc") / "metrics.json").write_text('{"id": ')
    output = clone.snakemake("light")
    assert "ignored: " in output
    assert "metrics.json" in output
    assert clone.run("git", "status", "--porcelain") == ""
    assert "Nothing to be done" in clone.snakemake("light")


def test_nothing_but_its_identity_retrains_a_finished_run(finished: Project, tmp_path) -> None:
    """Neither an edited rule, nor other software, nor newer inputs."""
    project = finished.copy(tmp_path / "project")
    for name, old, new in [
        ("workflow/rules/train.smk", "--threads {threads}", "--threads  {threads}"),
        ("workflow/rules/data.smk", "python -m dica.data prepare", "python  -m dica.data prepare"),
        ("environment.yml", "python=3.11", "python=3.12"),
    ]:
        path = project.folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    (project.folder / "data/prepared/digits/manifest.json").touch()
    assert not {"train", "prepare"} & set(steps(project.snakemake("-n")))


def test_dvc_has_nothing_to_do_after_the_work_is_done(finished: Project) -> None:
    assert "up to date" in finished.run("dvc", "status")


def test_an_edited_parameter_reruns_its_method_and_the_tables_only(finished: Project, tmp_path) -> None:
    """In a fresh clone, where old results lie under the old parameters: the new numbers must be recorded."""
    clone = finished.clone(tmp_path / "clone")
    before, old = cells(clone), clone.runs("imc-swav")
    clone.edit("params/imc-swav.yaml", lambda body: body["datasets"]["digits"].update(lr=0.003))
    assert "imc-swav.yaml" in clone.run("dvc", "params", "diff")
    output = clone.run("dvc", "repro")
    assert "Running stage 'runs@imc-swav'" in output
    assert "Running stage 'tables'" in output
    assert "Running stage 'runs@drc'" not in output
    assert "Running stage 'runs@kmeans'" not in output
    (new,) = clone.runs("imc-swav") - old
    after = cells(clone)
    assert after["imc-swav/digits/acc"]["runs"].endswith(new)
    assert after["drc/digits/acc"] == before["drc/digits/acc"]
    config = json.loads((clone.folder / "results/runs/imc-swav/digits" / new / "config.json").read_text())
    assert config["params"]["lr"] == 0.003
    assert "digits" in clone.run("dvc", "metrics", "show")
    assert "imc-swav.json" in clone.run("dvc", "metrics", "diff")
    assert "runs@imc-swav" in clone.run("dvc", "dag")
    assert "up to date" in clone.run("dvc", "status")
    clone.run("git", "checkout", "-q", "params")
    clone.run("dvc", "repro")
    assert cells(clone) == before, "the old parameters have their old numbers back, nothing is trained again"


def test_other_pixels_are_other_runs_for_dvc_too(finished: Project, tmp_path) -> None:
    """The normalisation is a parameter that comes from the data set's entry."""
    clone = finished.clone(tmp_path / "clone")
    before = {method: clone.runs(method) for method in ("drc", "kmeans")}
    clone.edit("params/datasets.yaml", lambda body: body["digits"]["normalisation"].update(std=[0.4]))
    output = clone.run("dvc", "repro", "runs@drc", "runs@kmeans")
    assert "Running stage 'runs@drc'" in output
    (new,) = clone.runs("drc") - before["drc"]
    assert (clone.folder / "results/runs/drc/digits" / new / "metrics.json").is_file()
    assert clone.runs("kmeans") == before["kmeans"], "pixels as they are"


def test_the_audit_answers_on_a_fresh_clone(finished: Project, tmp_path) -> None:
    clone = finished.clone(tmp_path / "clone")
    output = clone.dica("audit", *CELL)
    assert "matches" in output
    assert "rebuild: mv results/runs/drc" in output
    assert "weights.safetensors: not here" in output
    assert "is as recorded" in output, "dvc.lock agrees"
    answer = json.loads(clone.dica("audit", *CELL, "--json"))
    assert answer["code"] == 0
    assert "0 cells" not in clone.dica("audit", "--all")


def test_the_audit_notices_tampering(finished: Project, tmp_path) -> None:
    clone = finished.clone(tmp_path / "clone")
    folder = run_folder(clone, "drc")

    def spoil(name: str, change, code: int, expected: str) -> None:
        content = (folder / name).read_bytes()
        change(folder / name)
        output = clone.audit(*CELL, code=code)
        assert expected in output, output
        assert clone.audit("--all", code=code)
        (folder / name).write_bytes(content)

    def flip(path: Path) -> None:
        with np.load(path) as stored:
            arrays = dict(stored)
        arrays["train_assignment"][:200] = 0
        np.savez_compressed(path, **arrays)

    spoil("predictions.npz", flip, 3, "predictions.npz: changed")
    spoil("config.json", lambda p: p.write_text(p.read_text().replace('"epochs": 1', '"epochs": 2')), 3, "identity")
    spoil("metrics.json", lambda p: p.write_text(p.read_text().replace('"acc": 0.', '"acc": 0.1')), 3, "recomputed")
    spoil("predictions.npz", Path.unlink, 4, "missing")
    spoil("run.json", Path.unlink, 4, "missing")
    assert "matches" in clone.audit(*CELL)


def test_the_audit_names_changed_code_and_changed_parameters(finished: Project, tmp_path) -> None:
    clone = finished.clone(tmp_path / "clone")
    with open(clone.folder / "src/dica/losses/drc.py", "a") as file:
        file.write("# another comment\n")
    output = clone.audit(*CELL)
    assert "code changed since: src/dica/losses/drc.py; the golden trace" in output
    clone.edit("params/drc.yaml", lambda body: body["datasets"]["digits"].update(lr=0.5))
    assert "now ask for other runs" in clone.dica("audit", *CELL, code=3)


def test_the_audit_helps_those_who_mistype(finished: Project) -> None:
    assert "kmeans/digits/acc" in finished.audit("dica", "table-1", "kmeens/digits/acc", code=2)
    assert "dica table-1" in finished.audit("dica", "table-9", "x/y/z", code=2)
    assert "--all" in finished.audit(code=2)


def test_a_failed_run_is_shown_with_its_reason_and_stops_nothing_else(finished: Project, tmp_path) -> None:
    project = finished.copy(tmp_path / "project")
    shutil.rmtree(project.folder / "results/runs/kmeans")
    project.edit("params/drc.yaml", lambda body: body["datasets"]["digits"].update(lr=1e30))
    project.commit("a learning rate that fails")
    project.snakemake("light")
    assert cells(project)["drc/digits/acc"]["verdict"] == "not run"
    project.snakemake("--keep-going", code=1)
    project.snakemake("light")
    row = cells(project)["drc/digits/acc"]
    assert row["verdict"] == "failed"
    assert "not finite" in row["reason"]
    assert cells(project)["kmeans/digits/acc"]["value"]
    assert "not finite" in project.dica("status")
    assert "failed" in project.dica("audit", *CELL, code=4)


def test_images_that_cannot_be_prepared_cost_nobody_their_labels(finished: Project, tmp_path) -> None:
    clone = finished.clone(tmp_path / "clone")
    clone.edit("params/datasets.yaml", lambda body: body["digits"].update(fingerprint="0" * 64))
    output = clone.snakemake("data/prepared/digits/manifest.json", "--show-failed-logs", code=1)
    assert "fingerprint" in output
    assert " D " not in clone.run("git", "status", "--porcelain")


def test_the_whole_group_killed_then_one_command_finishes_with_the_same_result(
    finished: Project, small: Project, tmp_path
) -> None:
    project = small.copy(tmp_path / "project")
    head = subprocess.Popen(
        ["snakemake", "--cores", "2", "--quiet"], cwd=project.folder, env=environment(), start_new_session=True
    )
    while head.poll() is None and not list(project.folder.glob("results/state/*/lock")):
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(head.pid, signal.SIGKILL)
    head.wait()
    project.run("snakemake", "--unlock")
    project.snakemake()
    for method in ("drc", "imc-swav", "kmeans"):
        ours, theirs = run_folder(project, method), run_folder(finished, method)
        assert sha256_file(ours / "predictions.npz") == sha256_file(theirs / "predictions.npz")


@pytest.mark.validators
def test_weights_travel_by_a_remote_of_dvc_that_is_a_folder(finished: Project, tmp_path) -> None:
    """Pushed here, pulled into a fresh clone: the audit vouches for them and they sort new images."""
    project = finished.copy(tmp_path / "project")
    project.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    project.run("dvc", "add", "results/models")
    project.commit("weights")
    project.run("dvc", "push", "results/models.dvc")
    clone = project.clone(tmp_path / "clone")
    clone.run("dvc", "pull", "results/models.dvc")
    assert re.search(r"ok +weights\.safetensors", clone.dica("audit", *CELL))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "new.png")
    clone.dica("predict", str(run_folder(clone, "drc")), str(tmp_path / "new.png"), "--out", str(tmp_path / "new.csv"))
    assert len((tmp_path / "new.csv").read_text().splitlines()) == 2
    validators.note("DVC", "a remote that is a folder: push, clone, pull, predict", True, metadata.version("dvc"))
