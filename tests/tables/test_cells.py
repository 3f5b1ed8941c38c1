"""From declarations and run folders to cells."""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
import shutil
import sys
from itertools import product

import numpy as np
import pandas as pd
import pytest

import factory
from dica.files import IntegrityError, UserError, load_arrays, read_json, write_json, write_npz
from dica.plan.artefacts import load_artefacts, method_behind, planned
from dica.plan.parameters import load_profile
from dica.plan.plan import make_plan
from dica.plan.planned import artefacts_of
from dica.report import rulegraph
from dica.scores.evaluation import evaluate_files
from dica.scores.significance import Partitions
from dica.scores.stats import VERDICTS
from dica.tables import cells as tables
from dica.tables import layout, rendering
from dica.tables.words import notes, protocol_notes
from factory import select, write_failure, write_run


def cell(frame, address):
    """Return the one cell of an audit address."""
    paper, artefact, place = address.split(" ")
    wanted = dict(zip(("row", "dataset", "metric"), place.split("/"), strict=True), paper=paper, artefact=artefact)
    chosen = frame[(frame[list(wanted)] == list(wanted.values())).all(axis=1)]
    assert len(chosen) == 1, address
    return chosen.iloc[0]


def test_cells_hold_what_the_runs_say(example, frame):
    project, plan, _ = example
    entries = select(plan, "drc", "digits")
    values = [read_json(project / e["path"] / "metrics.json")["headline"]["acc"] for e in entries]
    got = cell(frame, "dica table-1 drc/digits/acc")
    assert got["value"] == pytest.approx(sum(values) / 3, abs=1e-9)
    assert got["best"] == pytest.approx(max(values), abs=1e-9)
    assert got["n"] == got["seeds_planned"] == 3
    assert got["runs"].split() == [entry["path"] for entry in entries]
    assert got["verdict"] == "not comparable"
    assert got["reason"] == "no published number for this data set"


def test_verdicts_of_the_example(frame):
    assert set(frame["verdict"]) <= set(VERDICTS)
    agreeing = cell(frame, "dica table-2 imc-swav/cifar10-jpeg/acc")
    assert (agreeing["verdict"], agreeing["published"], agreeing["published_std"]) == ("agrees", "0.891", "0.005")
    assert agreeing["protocol"].endswith("paper: trained on train, evaluated on test, 500 epochs")
    assert cell(frame, "dica table-2 drc/cifar10-jpeg/acc")["verdict"] == "worse"
    assert cell(frame, "drc table-1 drc-best/cifar10/acc")["verdict"] == "agrees"
    assert cell(frame, "drc table-1 drc/cifar20/acc")["verdict"] == "not run"
    assert cell(frame, "imc-swav table-2 adc/cifar10/acc")["verdict"] == "published only"
    failed = cell(frame, "drc table-1 drc/stl10/acc")
    assert (failed["verdict"], failed["reason"]) == ("failed", "loss is not finite at epoch 3 <step 17>")
    single = cell(frame, "imc-swav table-2 imc-swav/cifar10/acc")
    assert single["verdict"] == "not comparable"
    assert single["reason"] == "only one seed: no spread, so no interval; 1 of 15 seeds"


def test_an_error_is_better_where_it_is_lower(project):
    (artefact,) = load_artefacts(project, ["crlc table-3"])
    plan = factory.make_plan([artefact])
    for variant, correct in (("per-class-1", 0.9), ("per-class-2", 0.1)):
        mine = [run for run in plan["runs"] if (run["method"], run["variant"]) == ("crlc-semi", variant)]
        for k, entry in enumerate(mine):
            write_run(project, entry, correct + 0.01 * k)
    rows = tables.cells(plan, project, "results", [artefact])
    found = {row.column: row for row in rows[rows["row"] == "crlc-semi"].itertuples()}
    low, high = found["cifar10-labels-10"], found["cifar10-labels-20"]
    assert low.value < float(low.published)
    assert high.value > float(high.published)
    assert (low.verdict, high.verdict) == ("better", "worse")
    text = rendering.render(artefact, rows, plan)
    (ours,) = [line for line in text["md"].splitlines() if line.startswith("| ↳ here") and "±" in line]
    assert " better |" in ours.split("±")[1]
    assert " worse |" in ours.split("±")[2]
    assert r"$\succ$" in text["tex"]


def test_only_runs_of_the_plan_count(project):
    """Old parameters' results, still on disk, must not enter a table."""
    (artefact,) = load_artefacts(project, ["dica table-1"])
    plan = factory.make_plan([artefact])
    for entry in plan["runs"]:
        write_run(project, entry, 0.8)
    before = tables.cells(plan, project, "results", [artefact])
    edited = json.loads(json.dumps(plan).replace(plan["runs"][0]["id"], "0" * 12))
    after = tables.cells(edited, project, "results", [artefact])
    assert (before.loc[0, "n"], after.loc[0, "n"]) == (3, 2)
    assert after.loc[0, "reason"].endswith("2 of 3 seeds")


def test_other_artefacts_seeds_do_not_enter(project):
    (artefact,) = load_artefacts(project, ["dica table-1"])
    plan = factory.make_plan([artefact])
    foreign = {**plan["runs"][0], "id": "f" * 12, "seed": 2, "needed_by": ["drc table-9"]}
    plan["runs"].append(foreign)
    assert len(planned(plan, artefact, artefact.rows[0], "digits")) == 3


def test_two_variant_names_of_equal_parameters(project):
    (artefact,) = load_artefacts(project, ["dica table-1"])
    plan = factory.make_plan([artefact])
    for entry in plan["runs"]:
        entry.update(variant="batch-256", variants=["batch-256", "full"])
    assert len(planned(plan, artefact, artefact.rows[0], "digits")) == 3


def test_partly_failed_cells_say_so(project):
    (artefact,) = load_artefacts(project, ["dica table-2"])
    plan = factory.make_plan([artefact])
    first, second, third = select(plan, "kmeans", "cifar10-jpeg")
    write_run(project, first, 0.13)
    write_run(project, second, 0.14)
    write_failure(project, third, "out of memory")
    got = cell(tables.cells(plan, project, "results", [artefact]), "dica table-2 kmeans/cifar10-jpeg/acc")
    assert got["n"] == 2
    assert got["reason"].endswith("2 of 3 seeds; out of memory")
    text = rendering.render(artefact, tables.cells(plan, project, "results", [artefact]), plan)["md"]
    assert "<sup>1</sup> 2 of 3 seeds; out of memory" in text


def test_collapsed_runs_are_named_below_the_table(project):
    (artefact,) = load_artefacts(project, ["dica table-2"])
    plan = factory.make_plan([artefact])
    runs = select(plan, "kmeans", "cifar10-jpeg")
    for entry in runs[:2]:
        write_run(project, entry, 0.13)
    path = project / runs[1]["path"] / "metrics.json"
    found = read_json(path)
    found["headline"]["largest_cluster_share"] = 1.0
    write_json(path, found)
    cells = tables.cells(plan, project, "results", [artefact])
    note = f"seed 1 collapsed: all images in 1 of {found['headline']['num_clusters']} clusters"
    assert cell(cells, "dica table-2 kmeans/cifar10-jpeg/acc")["reason"].endswith(f"; {note}; 2 of 3 seeds")
    text = rendering.render(artefact, cells, plan)["md"]
    assert f"</sup> {note}" in text
    assert text.count("collapsed") == 1, "the cells of a run share the footnote"


def test_unlike_protocols_are_not_compared(project):
    (artefact,) = load_artefacts(project, ["dica table-2"])
    plan = factory.make_plan([artefact])
    for entry in select(plan, "imc-swav", "cifar10-jpeg"):
        entry["params"].update(eval_split="all")
        write_run(project, entry, 0.88)
    got = cell(tables.cells(plan, project, "results", [artefact]), "dica table-2 imc-swav/cifar10-jpeg/acc")
    assert (got["verdict"], got["reason"]) == ("not comparable", "evaluated on all here, on test in the paper")


def test_a_paper_s_epochs_are_not_said_of_what_has_none(root):
    """K-means has no epochs, and no paper says how long it trains a probe."""
    for artefact in load_artefacts(root, ["drc", "dccm", "crlc", "tcc", "imc-swav"]):
        for row, column in product(artefact.rows, artefact.columns):
            for metric in artefact.metrics_of(column):
                method, variant = method_behind(row, column, metric) or ("", "")
                if method in ("probe", "pretrained", "ac", "nmf", "sc") or (method, variant) == ("kmeans", "full"):
                    assert artefact.protocol_of(row, column, metric).get("epochs") is None, (artefact.address, row.key)


def test_notes_tell_of_probes_and_of_images_held_out(root):
    """Runs behind a single metric are said apart; a probe that keeps images back is not scored on all."""
    plan = make_plan(load_profile(root / "params/sampler.yaml", root), root)
    artefacts = {artefact.address: artefact for artefact in artefacts_of(plan, root)}
    notes = protocol_notes(artefacts["dccm table-5"], plan)
    probe = "trained on 70% of the training split, evaluated on the other 30%, 40 epochs."
    rows = "RotNet (Probe ACC), DeepCluster (Probe ACC), DAC (Probe ACC), DCCM (ours) (Probe ACC)"
    assert f"{rows} here: {probe}" in notes
    (note,) = protocol_notes(artefacts["dccm table-6"], plan)
    assert note.startswith("V1, nearest positive + random negative; V2")
    assert note.endswith(probe)
    (dccm,) = load_artefacts(root, ["dccm table-2"])
    empty = {**plan, "artefacts": [dccm.address], "runs": []}
    frame = tables.cells(empty, root, "results", [dccm])
    assert "NMI is normalised by the geometric mean" in rendering.render(dccm, frame, empty)["md"]


def test_a_budget_and_what_it_is_spent_on_are_told(root):
    (artefact,) = load_artefacts(root, ["dica table-14"])
    plan = make_plan({**load_profile(root / "params/archive.yaml", root), "artefacts": [artefact.address]}, root)
    params = next(run["params"] for run in plan["runs"] if run["method"] == "simclr")
    told = notes(artefact, plan)
    (budget,) = [note for note in told if "counted arithmetic" in note]
    assert budget.startswith(f"Each run that trains has {artefact.tflop:g} TFLOP of counted arithmetic, within 2%")
    (spent,) = [note for note in told if note.startswith("SimCLR and K-means here:")]
    assert f"{params['epochs']} epochs of {params['epoch_batches']} batches of 128" in spent
    bare = dataclasses.replace(artefact, tflop=None)
    assert not [note for note in notes(bare, plan) if "counted arithmetic" in note]


def test_a_note_of_a_row_names_its_row(root):
    (artefact,) = load_artefacts(root, ["dica table-5"])
    told = notes(artefact, {"runs": []})
    assert "IMC-SwAV: Two views like the others; its low-resolution crops are left out." in told
    (baselines,) = load_artefacts(root, ["tcc table-2"])
    (own,) = [note for note in notes(baselines, {"runs": []}) if "neighbours, not the cited linkage" in note]
    assert own.startswith("AC here: Ward's"), "a note that names it is left as it is"


def test_all_and_train_are_the_same_without_a_test_split():
    ours, theirs = {"trained_on": "train", "evaluated_on": "train"}, {"trained_on": "all", "evaluated_on": "all"}
    assert tables.protocol_difference(ours, theirs, has_test=False) == ""
    assert "trained on train here" in tables.protocol_difference(ours, theirs, has_test=True)
    assert tables.protocol_difference(ours, {}, has_test=True) == "", "what a paper does not state is not compared"


def test_metrics_of_another_run_are_refused(project):
    (artefact,) = load_artefacts(project, ["dica table-1"])
    plan = factory.make_plan([artefact])
    first, second = plan["runs"][:2]
    shutil.copytree(write_run(project, first, 0.8), project / second["path"])
    with pytest.raises(IntegrityError, match=f"is of run {first['id']}"):
        tables.cells(plan, project, "results", [artefact])


def test_cells_file_round_trip_and_equal_bytes(example, frame, tmp_path):
    project, plan, artefacts = example
    tables.write_cells(frame, tmp_path / "cells.csv")
    again = tables.read_cells(tmp_path / "cells.csv")
    assert tables.cells_text(again) == (tmp_path / "cells.csv").read_text()
    assert tables.cells_text(tables.cells(plan, project, "results", artefacts)) == tables.cells_text(frame)
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="other columns"):
        tables.read_cells(tmp_path / "bad.csv")


def test_summary_is_numbers_only(example):
    project, plan, _ = example
    summary = tables.summarise("drc", plan, project, "results")
    assert list(summary) == ["cifar10", "cifar10-jpeg", "digits"]
    full = summary["digits"]["full"]
    assert full["n"] == 3
    assert set(full["acc"]) == {"mean", "std"}
    assert 0.8 < full["acc"]["mean"] < 0.9
    assert list(tables.summarise("drc", plan, project, "results", ["digits"])) == ["digits"]
    assert tables.summarise("unknown", plan, project, "results") == {}


# --- scripts ---------------------------------------------------------------------------------------------------


@pytest.fixture
def run_script(root, project, monkeypatch, capsys):
    """Run a workflow script inside this process, as `python workflow/scripts/NAME.py ...` in the project."""

    def run(name, *arguments):
        script = str(root / "workflow" / "scripts" / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        monkeypatch.chdir(project)
        with pytest.raises(SystemExit) as done:
            runpy.run_path(script, run_name="__main__")
        return done.value.code, capsys.readouterr().err

    (project / "Snakefile").touch()
    return run


def test_scripts_from_predictions_to_report(project, run_script):
    artefacts = load_artefacts(project, ["dica table-1", "dica figure-1", "dica figure-2"])
    plan = factory.make_plan(artefacts, "results/demo")
    write_json(project / "results/demo/plan.json", plan)
    for entry in plan["runs"]:
        folder = write_run(project, entry, 0.8)
        expected = (folder / "metrics.json").read_bytes()
        (folder / "metrics.json").unlink()
    arguments = [f"--config={folder}/config.json", f"--predictions={folder}/predictions.npz"]
    labels = f"--labels={project}/data/labels/digits.npz"
    code, said = run_script("evaluate", *arguments, labels, f"--out={folder}/metrics.json")
    assert code == 0, said
    assert (folder / "metrics.json").read_bytes() == expected
    demo, steps = "results/demo", ["--plan", "results/demo/plan.json"]
    cells = ["--cells", f"{demo}/tables/cells.csv"]
    (project / "rules.svg").write_text(rulegraph.svg([("train", "all")]))
    for name, *rest in (
        ("cells", "--out", f"{demo}/tables/cells.csv"),
        ("cells", "--method", "imc-swav", "--out", f"{demo}/metrics/imc-swav.json"),
        ("tables", "--artefact", "dica", "table-1", "--out", f"{demo}/tables"),
        ("figures", "--out", f"{demo}/figures"),
        ("report", *cells, "--graph", "rules.svg", "--out", f"{demo}/report"),
    ):
        code, said = run_script(name, *steps, *rest)
        assert code == 0, said
    made = {p.relative_to(project / demo).as_posix() for p in (project / demo).rglob("*") if p.is_file()}
    assert {f"tables/dica/table-1.{kind}" for kind in rendering.FORMATS} <= made
    assert {"figures/dica/figure-1.svg", "figures/dica/figure-2.png", "report/index.html"} <= made
    assert read_json(project / demo / "metrics" / "imc-swav.json")["digits"]["full"]["n"] == 1


def test_scripts_report_mistakes_in_one_line(project, run_script):
    code, said = run_script("cells", "--plan", "results/plan.json", "--out", "x.csv")
    assert (code, said.count("\n")) == (2, 1)
    write_json(project / "results/plan.json", factory.make_plan(load_artefacts(project, ["dica table-1"])))
    plan = ("--plan", "results/plan.json", "--out", "t")
    code, said = run_script("tables", *plan, "--artefact", "drc", "table-1")
    assert code == 2
    assert "plan: does not show 'drc table-1'; it shows: dica table-1" in said


def test_labels_of_the_example_are_read_by_evaluation_only(example):
    project, plan, _ = example
    stored = load_arrays(project / plan["runs"][0]["path"] / "predictions.npz")
    assert not any("label" in name for name in stored)


def test_a_table_of_whole_numbers_reads_the_same_alone_and_among_all(root):
    declared = [artefact for artefact in load_artefacts(root, ["tcc"]) if artefact.kind == "table"]
    plan = {"profile": "archive", "artefacts": [artefact.address for artefact in declared], "runs": []}
    counts = next(artefact for artefact in declared if artefact.layout == "datasets")
    alone = tables.cells_text(tables.cells(plan, root, "results", [counts])).splitlines()
    together = tables.cells_text(tables.cells(plan, root, "results", declared)).splitlines()
    assert len(alone) > 1
    assert set(alone) <= set(together)


def test_a_number_that_random_labels_reach_says_so(tmp_path, root, monkeypatch) -> None:
    """The level stands in columns of its own, and the reason names it only where our interval does not leave it."""
    factory.make_project(tmp_path, root)
    artefacts = load_artefacts(tmp_path, ["dica"])
    plan = factory.make_plan(artefacts)
    for method, correct in (("kmeans", 0.0), ("drc", 0.6)):
        for entry in factory.select(plan, method, "digits"):
            factory.write_run(tmp_path, entry, correct)
    frame = tables.cells(plan, tmp_path, "results", artefacts).set_index(["artefact", "row", "column", "metric"])
    low, high = (frame.loc[("table-1", method, "digits", "acc")] for method in ("kmeans", "drc"))
    assert low["chance"] == high["chance"] > 0.1
    assert 0 < low["chance_spread"] < 0.05
    assert f"no better than random labels ({low['chance']:.3f})" in low["reason"]
    assert "random labels" not in high["reason"]
    assert frame.loc[("table-1", "drc", "digits", "ari"), "chance"] == 0
    assert pd.isna(frame.loc[("table-1", "imc-swav", "digits", "acc"), "chance"]), "of a cell without runs"
    text = rendering.render(artefacts[0], frame.reset_index(), plan)["md"]
    assert re.search(r"\| Chance \| 0\.[1-9]\d* \| 0\.\d+ \| 0\.0+ \|", text)
    assert "Corrected for it" not in text, "a level of .02 is little"
    monkeypatch.setattr(layout, "LEVEL_TO_SAY", 0.01)
    text = rendering.render(artefacts[0], frame.reset_index(), plan)["md"]
    nmi = frame.loc[("table-1", "drc", "digits", "nmi")]
    corrected = (nmi["value"] - nmi["chance"]) / (1 - nmi["chance"])
    assert re.search(rf"random labels reach 0\.02\d of 1.*ours are: K-means -?0\.00\d, DRC.* {corrected:.3f}", text)
    assert "| Chance |" not in rendering.render(artefacts[1], frame.reset_index(), plan)["md"], "nothing is run there"


def test_a_choice_by_labels_is_said_beside_the_verdict(tmp_path, root) -> None:
    """DCCM's code keeps the epoch of best NMI; ours the last one, and the two are not the same kind of number."""
    factory.make_project(tmp_path, root)
    artefacts = [artefact for artefact in load_artefacts(root, ["dccm"]) if artefact.name == "table-2"]
    (artefact,) = artefacts
    plan = factory.make_plan(artefacts)
    entries = [entry for entry in factory.select(plan, "dccm", "cifar10")]
    for entry in entries:
        factory.write_run(tmp_path, entry, 0.6)
    frame = tables.cells(plan, tmp_path, "results", artefacts).set_index(["row", "column", "metric"])
    assert "chosen with labels: the epoch of best NMI" in frame.loc[("dccm", "cifar10", "acc"), "reason"]
    assert not frame.loc["kmeans"]["reason"].str.contains("chosen").any()
    text = rendering.render(artefact, frame.reset_index().assign(row=lambda f: f["row"]), plan)["md"]
    assert "DCCM (ours): the authors' code chooses with labels (the epoch of best NMI)" in text


def test_a_set_without_labels_says_so_and_stops_no_other_cell(project):
    """Scored without labels, its runs have no accuracy: the cells say so, statistics pass them over."""
    artefacts = load_artefacts(project, ["dica table-1"])
    plan = factory.make_plan(artefacts)
    for entry in plan["runs"]:
        write_run(project, entry, 0.8)
    path = project / "data/labels/digits.npz"
    labels = load_arrays(path)
    write_npz(path, {split: np.full_like(values, -1) for split, values in labels.items()})
    for entry in select(plan, "kmeans", "digits"):
        folder = project / entry["path"]
        evaluate_files(folder / "predictions.npz", path, folder / "metrics.json", "all")
    frame = tables.cells(plan, project, "results", artefacts)
    unlabelled = cell(frame, "dica table-1 kmeans/digits/acc")
    assert (unlabelled.verdict, unlabelled.n, unlabelled.chance) == ("no labels", 0, pytest.approx(np.nan, nan_ok=True))
    assert len(unlabelled.runs.split()) == 3, "the audit still answers for them"
    assert cell(frame, "dica table-1 drc/digits/acc").n == 3
    assert "no labels" in rendering.render(artefacts[0], frame, plan)["md"]
    assert tables.summarise("kmeans", plan, project, "results") == {}
    assert ("digits", "kmeans", "full") not in Partitions(plan, project, "results").groups
