"""Ways to make a small committed archive lie, each with the check that notices it and what that check rests on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from committed import CELL, edit_cells, edit_json, edit_yaml, run_folder
from dica.files import write_npz
from edits import (
    better_predictions,
    column,
    commit_without,
    commit_without_a_seed,
    committed,
    dataset,
    declared,
    easier_labels,
    edit_published,
    foreign_runs,
    hide,
    hide_by_filter,
    hide_by_replacing,
    hide_by_time,
    other_weights,
    record,
    remove_run,
    replace,
    then_light,
)

PRINTED = ("drc", "table-1", "drc/cifar10/acc")
TABLE = "results/tables/dica/table-1"
FIGURE = "results/figures/dica/figure-2"


@dataclass(frozen=True)
class Tampering:
    """What is done to a committed archive, and what must be said of it."""

    what: str
    check: str
    rests_on: str
    do: Callable[[Path], object]
    code: int = 3
    cell: tuple[str, str, str] | None = CELL  # None: noticed beside the cells


RUN = "hashes in run.json and the run's id"
GIT, MADE = "Git", "plan, params/ and metrics, from which it is made again"
LABELS, IDS = "the fingerprint in the run's id", "the ids, which hash the parameters"
DRAWN = "runs and analyses, from which it is drawn again"
T = Tampering
PARAMS = [
    T(
        "a printed number, then light",
        "params",
        GIT,
        then_light(edit_published(lambda r: r.update(value="0.111"))),
        cell=PRINTED,
    ),
    T(
        "a printed number, no more",
        "params",
        "inputs.csv",
        edit_published(lambda r: r.update(value="0.111")),
        cell=PRINTED,
    ),
    T(
        "a printed number's note, then light",
        "params",
        GIT,
        then_light(edit_published(lambda r: r.update(note="x"))),
        cell=PRINTED,
    ),
    T(
        "a printed spread, then light",
        "params",
        GIT,
        then_light(edit_published(lambda r: r.update(std="0.5"))),
        cell=PRINTED,
    ),
    T("fewer seeds asked for, then light", "params", GIT, then_light(declared(lambda a: a.update(seeds=1)))),
    T("a row's label, then light", "params", GIT, then_light(declared(lambda a: a["rows"][1].update(label="Best")))),
    T(
        "the best seed instead of the mean, then light",
        "params",
        GIT,
        then_light(declared(lambda a: a["rows"][1].update(statistic="best", key="drc"))),
    ),
    T("a table's title, then light", "params", GIT, then_light(declared(lambda a: a.update(title="Better")))),
    T("a table's note, then light", "params", GIT, then_light(declared(lambda a: a.update(note="Better")))),
    T(
        "the protocol of the printed numbers, then light",
        "params",
        GIT,
        then_light(
            declared(
                lambda a: a.update(protocol={"trained_on": "train", "evaluated_on": "test"}),
                "params/artefacts/drc.yaml",
            )
        ),
        cell=PRINTED,
    ),
    T("a data set's note, then light", "params", GIT, then_light(dataset("digits", lambda d: d.update(note="easy")))),
    T("a data set's label, then light", "params", GIT, then_light(dataset("digits", lambda d: d.update(label="Dots")))),
    T(
        "a method's parameters, then light",
        "params",
        GIT,
        then_light(lambda root: edit_yaml(root / "params/drc.yaml", lambda b: b["datasets"]["digits"].update(lr=0.5))),
    ),
    T(
        "a method's parameters, no more",
        "parameters",
        IDS,
        lambda root: edit_yaml(root / "params/drc.yaml", lambda b: b["datasets"]["digits"].update(lr=0.5)),
    ),
]
RUNS = [
    T("a run's folder removed", "run.json", "the plan", remove_run, 4),
    T("a run's folder removed, then light", "seeds", "the plan", then_light(remove_run), 4),
    T(
        "all seeds removed, then light",
        "git",
        GIT,
        then_light(lambda root: [remove_run(root, seed) for seed in (0, 1)]),
        4,
    ),
    T("a seed removed and that committed", "seeds", "the plan", commit_without_a_seed, 4),
    T("predictions made equal to the labels, all made to agree", "git", GIT, better_predictions),
    T("labels made equal to the predictions, all made to agree", "labels", LABELS, easier_labels),
    T("the history", "history.csv", RUN, lambda root: (run_folder(root) / "history.csv").write_text("epoch\n1\n")),
    T(
        "the predictions",
        "predictions.npz",
        RUN,
        lambda root: (run_folder(root) / "predictions.npz").write_bytes(b"PK"),
    ),
    T(
        "the predictions removed",
        "predictions.npz",
        RUN,
        lambda root: (run_folder(root) / "predictions.npz").unlink(),
        4,
    ),
    T(
        "a trace that no record names",
        "run.json",
        RUN,
        lambda root: (run_folder(root) / "trace.npz").write_bytes(b"looks"),
    ),
    T("the weights, where they are", "weights.safetensors", RUN, other_weights),
    T("the parameters in config.json", "identity", IDS, record("config.json", lambda b: b["params"].update(lr=1))),
    T("the seed in config.json", "identity", IDS, record("config.json", lambda b: b.update(seed=9))),
    T("the data in config.json", "identity", IDS, record("config.json", lambda b: b.update(data_id="0" * 12))),
    T("the seed in run.json", "identity", "config.json", record("run.json", lambda b: b.update(seed=7))),
    T("the variant in run.json", "identity", "config.json", record("run.json", lambda b: b.update(variant="x"))),
    T("the method in run.json", "identity", "config.json", record("run.json", lambda b: b.update(method="kmeans"))),
    T(
        "no digests in run.json",
        "run.json",
        "the files that each run has",
        record("run.json", lambda b: b.update(files={})),
    ),
    T(
        "a digest in run.json",
        "config.json",
        RUN,
        record("run.json", lambda b: b["files"].update({"config.json": "0" * 64})),
    ),
    T(
        "no source digests in run.json",
        "code",
        "the files that each run has",
        record("run.json", lambda b: b.update(sources={})),
    ),
    T("the commit in run.json", "git", GIT, record("run.json", lambda b: b.update(commit="f" * 40))),
    T(
        "the code in run.json, committed",
        "commit",
        "the code at the commit that run.json names",
        committed(record("run.json", lambda b: b["sources"].update({"src/dica/train.py": "0" * 64}))),
    ),
    T("the device in run.json", "git", GIT, record("run.json", lambda b: b["device"].update(name="faster"))),
    T("the time in run.json", "git", GIT, record("run.json", lambda b: b.update(seconds=1.0))),
    T("the date in run.json", "git", GIT, record("run.json", lambda b: b.update(started="2020-01-01T00:00:00Z"))),
    T("uncommitted code hidden in run.json", "git", GIT, record("run.json", lambda b: b.update(dirty_sha256="f" * 64))),
    T(
        "the accuracy in metrics.json",
        "acc",
        "predictions and labels",
        record("metrics.json", lambda b: b["headline"].update(acc=1.0)),
    ),
    T(
        "another number in metrics.json",
        "metrics.json",
        "predictions and labels",
        record("metrics.json", lambda b: b["headline"].update(nmi=1.0)),
    ),
    T(
        "the split in metrics.json",
        "metrics.json",
        "predictions and labels",
        record("metrics.json", lambda b: b.update(evaluated_on="test")),
    ),
    T(
        "the run in metrics.json",
        "metrics.json",
        "the run's id",
        record("metrics.json", lambda b: b.update(id="0" * 12)),
    ),
    T("a record hidden by assume-unchanged", "git", GIT, hide("--assume-unchanged")),
    T("a record hidden by skip-worktree", "git", GIT, hide("--skip-worktree")),
    T("a record hidden by a filter in .git", "git", GIT, hide_by_filter),
    T("a record hidden by a commit that stands for another", "git", GIT, hide_by_replacing),
    T("a record of the same size and time", "git", GIT, hide_by_time),
    T(
        "the record of the labels",
        "labels",
        LABELS,
        lambda root: edit_json(root / "data/labels/digits.json", lambda b: b.update(classes=["x"])),
    ),
]
CELLS = [
    *(
        T(f"{name} in a row of cells.csv", "cells.csv", MADE, column(name, value))
        for name, value in (
            ("value", "0.99"),
            ("spread", "0.001"),
            ("best", "0.99"),
            ("n", "7"),
            ("seeds_planned", "1"),
            ("runs", ""),
            ("label", "Ours"),
            ("statistic", "best"),
            ("published", "0.5"),
            ("protocol", "x"),
            ("verdict", "agrees"),
            ("reason", "close enough"),
        )
    ),
    T("a row of another method's runs", "cells.csv", MADE, lambda root: edit_cells(root, foreign_runs)),
    T("a row left out", "cells.csv", MADE, lambda root: edit_cells(root, lambda row, rows: rows.remove(row))),
    T("a row twice", "cells.csv", MADE, lambda root: edit_cells(root, lambda row, rows: rows.append(dict(row)))),
    *(
        T(
            f"a number in the printed {kind}",
            "printed table",
            MADE,
            lambda root, kind=kind: replace(root, f"{TABLE}.{kind}", "0.8", "0.9"),
        )
        for kind in ("md", "tex", "html", "csv")
    ),
    T("a printed table removed", "printed table", MADE, lambda root: (root / f"{TABLE}.md").unlink(), 4),
    T(
        "a digest in inputs.csv",
        "params",
        "params/",
        lambda root: replace(root, "results/tables/inputs.csv", "dica table-1,", "dica table-1,0"),
    ),
    T(
        "a row left out of inputs.csv",
        "params",
        GIT,
        lambda root: replace(root, "results/tables/inputs.csv", "dica table-1,", "dica table-x,"),
    ),
    T(
        "parameters in plan.json",
        "plan.json",
        IDS,
        lambda root: edit_json(root / "results/plan.json", lambda b: b["runs"][0]["params"].update(revision=9)),
    ),
    T(
        "a run's place in plan.json",
        "plan.json",
        IDS,
        lambda root: edit_json(root / "results/plan.json", lambda b: b["runs"][0].update(path="results/runs/x")),
    ),
    T(
        "a run hidden from its table in plan.json",
        "parameters",
        "params/",
        lambda root: edit_json(
            root / "results/plan.json", lambda b: [r["needed_by"].clear() for r in b["runs"] if r["method"] == "drc"]
        ),
    ),
]
BESIDE = [
    T(
        "a curve of a figure",
        "dica figure-2",
        DRAWN,
        lambda root: replace(root, f"{FIGURE}.svg", '<path d="M ', '<path d="M 1'),
    ),
    T(
        "a number in a figure's words",
        "dica figure-2",
        DRAWN,
        lambda root: replace(root, f"{FIGURE}.svg", ": 0.", ": 1."),
    ),
    T(
        "the runs that a figure names",
        "dica figure-2",
        DRAWN,
        lambda root: replace(root, f"{FIGURE}.svg", "<dc:source>runs ", "<dc:source>runs 0"),
    ),
    T(
        "a figure's PNG",
        "dica figure-2",
        "its digest in the SVG",
        lambda root: replace(root, f"{FIGURE}.png", "IDAT", "IDAt"),
    ),
    T("a figure removed", "dica figure-2", "the plan", lambda root: (root / f"{FIGURE}.png").unlink(), 4),
    T(
        "an interval",
        "statistics/intervals.csv",
        "runs, from which it is made again",
        lambda root: replace(root, "results/tables/statistics/intervals.csv", "0.8", "0.9"),
    ),
    T(
        "a p value",
        "statistics/pairs.csv",
        "runs, from which it is made again",
        lambda root: replace(root, "results/tables/statistics/pairs.csv", "mcnemar", "sign test"),
    ),
    T(
        "the stability",
        "statistics/stability.csv",
        "runs, from which it is made again",
        lambda root: replace(root, "results/tables/statistics/stability.csv", "0.", "1."),
    ),
    T(
        "a bound of the printed numbers",
        "consistency.csv",
        "params/ and runs",
        lambda root: replace(root, "results/tables/consistency.csv", "possible", "proved"),
    ),
    T(
        "a summary for dvc metrics",
        "metrics/drc.json",
        "runs, from which it is made again",
        lambda root: replace(root, "results/metrics/drc.json", "0.8", "0.9"),
    ),
    *(
        T(
            f"a number in the report's {page}",
            f"report/{page}",
            "runs, from which it is made again",
            lambda root, page=page: replace(root, f"results/report/{page}", "0.8", "0.9"),
        )
        for page in ("dica.html", "runs-drc.html")
    ),
    T(
        "a page of the report removed",
        "report/claims.html",
        "runs, from which it is made again",
        lambda root: (root / "results/report/claims.html").unlink(),
        4,
    ),
    *(
        T(f"{what} removed and that committed", check, "Git's history", commit_without(*names), 4)
        for what, check, names in (
            ("the whole report", "report/index.html", ["report/*"]),
            ("the p values", "statistics/pairs.csv", ["tables/statistics/pairs.csv"]),
        )
    ),
    T(
        "a page added to the report",
        "report/ours.html",
        "the pages that the workflow makes",
        lambda root: (root / "results/report/ours.html").write_text("<p>Ours is best."),
    ),
    T(
        "the graph of the rules",
        "report/rules.svg",
        "its own words, from which it is drawn again",
        lambda root: replace(root, "results/report/rules.svg", "<polyline", "<polygon"),
    ),
    T(
        "the graph of the rules removed, and a page changed",
        "report/rules.svg",
        "the pages, which are not written without it",
        lambda root: [
            (root / "results/report/rules.svg").unlink(),
            replace(root, "results/report/dica.html", "0.8", "0.9"),
        ],
        4,
    ),
    T(
        "a list for dvc repro",
        "plans/drc.json",
        "params/",
        lambda root: (root / "results/plans/drc.json").write_text("[]\n"),
    ),
    T(
        "a table in README",
        "README dica table-1",
        "the printed table",
        lambda root: replace(root, "README.md", "0.8", "0.9"),
    ),
    T(
        "an analysis of other predictions",
        "cases/drc/digits/",
        "the digest of predictions in it",
        lambda root: write_npz(next((root / "results/analyses").rglob("*.npz")), {"of": np.array("0" * 64)}),
    ),
]
EVERY = [*PARAMS, *RUNS, *CELLS, *BESIDE]
