"""Declarations of all papers: complete, found among the printed numbers, and shown on other data."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from scipy.stats import ttest_rel

import factory
from dica.files import UserError
from dica.plan import published
from dica.plan.artefacts import PRINTED_NAMES, load_artefacts, method_behind, needs, planned
from dica.plan.parameters import load_datasets, load_profile
from dica.scores import stats
from dica.tables import cells as tables
from dica.tables import facts as computed
from dica.tables import rendering

PAPERS = ("drc", "dccm", "crlc", "tcc", "imc-swav")
# Rows of params/published/results.csv that no table shows, by their column `table`.
ELSEWHERE = {"prose": "said in the running text", "Figure": "belongs to a figure"}


def of_kind(root, kind, papers=PAPERS):
    """Return the papers' own tables or figures; those of a lower rung are derived from them."""
    return [artefact for artefact in load_artefacts(root, list(papers)) if artefact.kind == kind and not artefact.rung]


@pytest.fixture(scope="module")
def everything(tmp_path_factory, root):
    """A project with a few made-up runs of every kind of row, its plan, the papers' tables and their cells."""
    project = factory.make_project(tmp_path_factory.mktemp("papers"), root)
    artefacts = of_kind(project, "table")
    plan = factory.make_plan(artefacts)
    shown = {
        ("crlc-semi", "cifar10"): 0.7,
        ("dccm", "cifar10"): 0.5,
        ("probe", "cifar10"): 0.8,
        ("imc-swav", "cifar10"): 0.88,
        ("crlc", "cifar10"): 0.6,
    }
    for k, entry in enumerate(run for run in plan["runs"] if (run["method"], run["dataset"]) in shown):
        if entry["seed"] < 3:
            factory.write_run(project, entry, shown[entry["method"], entry["dataset"]] + 0.004 * (k % 5), epochs=2)
    return project, plan, artefacts, tables.cells(plan, project, "results", artefacts)


@pytest.fixture(scope="module")
def texts(everything):
    _, plan, artefacts, frame = everything
    return {artefact.address: rendering.printed(artefact, frame, plan) for artefact in artefacts}


def test_a_note_names_the_group_of_a_row_where_another_group_has_its_name(root):
    artefact = next(found for found in load_artefacts(root, ["crlc"]) if found.address == "crlc table-5")
    train, both = artefact.rows[:2], artefact.rows[2:]
    assert artefact.names_of(train) == ["C-head only (Training split)", "CRLC (Training split)"]
    assert artefact.names_of(both[1:]) == ["CRLC (Training and test split)"]
    assert artefact.names_of([*train, *both]) == [row.label for row in (*train, *both)]


# --- completeness ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["table", "figure"])
def test_every_artefact_of_the_papers_is_declared(root, kind):
    with open(root / "params/published/artefacts.csv", newline="", encoding="utf-8") as file:
        listed = {f"{row['paper']} {row['artefact_id']}" for row in csv.DictReader(file) if row["kind"] == kind}
    assert {artefact.address for artefact in of_kind(root, kind)} == listed


def test_every_printed_number_stands_in_a_declared_table(root):
    """A row forgotten in the YAML would silently drop a line of the paper's table."""
    facts = ("paper", "table", "setting", "method", "dataset", "metric", "statistic")
    rows = [row for row in published.load_published(root) if row["table"].split(" ")[0] not in ELSEWHERE]
    shown = set()
    for artefact in of_kind(root, "table"):
        for row in artefact.rows if artefact.layout in ("grid", "significance") else ():
            for column in artefact.columns:
                for metric in artefact.metrics_of(column):
                    name = PRINTED_NAMES.get(metric, metric)
                    name = row.published_metrics.get(metric, name if not row.published_metrics else "")
                    setting = row.setting or column.setting
                    wanted = (artefact.paper, row.published_table, row.published_method, column.published_dataset, name)
                    for entry in published.of_table(root, "results.csv", *wanted[:2]):
                        same = tuple(entry[key] for key in ("paper", "table", "method", "dataset", "metric")) == wanted
                        found = published.find(rows, *wanted, row.statistic, setting) if same else None
                        if found and entry["statistic"] == found.statistic and setting in ("", entry["setting"]):
                            shown.add(tuple(entry[key] for key in facts))
    assert {tuple(row[key] for key in facts) for row in rows} - shown == set()


def test_every_printed_count_stands_in_a_declared_table(root):
    shown = {
        (artefact.paper, column.published_dataset)
        for artefact in of_kind(root, "table")
        if artefact.layout == "datasets"
        for column in artefact.columns
    }
    prose = {"drc"}  # no table of data sets: its counts are said in the text
    assert {key for key in published.load_counts(root) if key[0] not in prose} == shown


def test_rows_of_our_methods_are_run(root):
    own = {"drc", "dccm", "crlc", "tcc", "imc-swav", "kmeans"}
    copied = [
        f"{artefact.address} {row.key}"
        for artefact in of_kind(root, "table")
        if artefact.layout == "grid"
        for row in artefact.rows
        if row.published_method in own and not (row.method or row.runs)
    ]
    assert copied == []


# --- loader ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("table-1", {"status": "not-regenerated"}, "status not-regenerated and reason belong together"),
        ("table-1", {"reason": "nothing is measured"}, "status not-regenerated and reason belong together"),
        ("table-1", {"rows": None}, "lacks the key 'rows'"),
        ("table-1", {"layout": "significance", "rows": None}, "lacks the key 'published_table'"),
        ("table-1", {"layout": "matrix"}, "'matrix' is not one of: grid, datasets"),
        ("figure-1", {"plot": "cruves"}, "plot: no plot 'cruves'; there are: "),
        ("figure-1", {"plot": None}, "lacks the key 'plot'"),
        ("figure-1", {"options": {"panels": False}}, "options.panels: False is not of type 'array'"),
        ("figure-1", {"options": {"panels": [3]}}, "options.panels.0: 3 is not of type 'object'"),
        (
            "figure-1",
            {"options": {"panels": [{"plot": "bars", "rows": "drc"}]}},
            "options.panels.0.rows: 'drc' is not of type 'array'",
        ),
        ("figure-1", {"options": {"size": 4}}, "options.size: 4 is not of type 'array'"),
        ("figure-1", {"options": {"columns": 0}}, "options.columns"),
        ("figure-1", {"options": {"networks": ["conv-8"]}}, "options.networks"),
        ("figure-1", {"plot": "panels"}, "'panels' needs `options: {panels: [...]}`"),
        ("figure-1", {"plot": "panels", "options": {"panels": [{"plot": "cruves"}]}}, "0.plot: no plot 'cruves'"),
        ("figure-1", {"plot": "panels", "options": {"panels": [{"plot": "panels"}]}}, "0.plot: no plot 'panels'"),
        ("table-1", {"datasets": ["digits", {"dataset": "digits", "setting": "a=1"}, "digits"]}, "'digits' is there"),
    ],
)
def test_a_bad_declaration_is_one_clear_error(root, tmp_path, name, change, message):
    project = factory.make_project(tmp_path, root)
    path = project / "params/artefacts/dica.yaml"
    body = yaml.safe_load(path.read_text())
    spec = {**body["artefacts"][name], **change}
    body["artefacts"][name] = {key: value for key, value in spec.items() if value is not None}
    path.write_text(yaml.safe_dump(body))
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load_artefacts(project, ["dica"])
    assert f"params/artefacts/dica.yaml: artefacts.{name}" in str(caught.value)


def test_what_is_not_regenerated_needs_a_reason_and_no_runs(root, tmp_path):
    project = factory.make_project(tmp_path, root)
    path = project / "params/artefacts/dica.yaml"
    body = yaml.safe_load(path.read_text())
    drawing = {"kind": "figure", "title": "A drawing", "status": "not-regenerated", "reason": "schematic: no data"}
    body["artefacts"] = {"figure-9": drawing}
    path.write_text(yaml.safe_dump(body))
    (artefact,) = load_artefacts(project, ["dica"])
    assert not artefact.regenerated
    assert needs(artefact) == []


def test_a_metric_may_come_from_other_runs(everything):
    _, plan, artefacts, frame = everything
    (table,) = [artefact for artefact in artefacts if artefact.address == "dccm table-5"]
    row, columns = table.rows[-1], {column.key: column for column in table.columns}
    assert method_behind(row, columns["cifar10"], "acc") == ("dccm", "full")
    assert method_behind(row, columns["cifar10"], "probe_acc") == ("probe", "dccm-conv")
    assert {run["method"] for run in planned(plan, table, row, "cifar100", "probe_acc")} == {"probe"}
    assert table.metrics_of(columns["cifar100"]) == ("probe_acc",)
    cells = frame[(frame["paper"] == "dccm") & (frame["artefact"] == "table-5") & (frame["row"] == "dccm")]
    probe = cells[(cells["column"] == "cifar10") & (cells["metric"] == "probe_acc")].iloc[0]
    assert "/probe/" in probe["runs"]
    assert probe["published"] == "0.818"


def test_the_variant_of_a_row_may_depend_on_the_setting_of_a_column(everything):
    _, _, artefacts, frame = everything
    cells = frame[(frame["artefact"] == "table-8") & (frame["row"] == "crlc-semi") & (frame["dataset"] == "cifar10")]
    found = {row.column: (row.variant, row.published) for row in cells.itertuples()}
    assert found["cifar10-labels-40"] == ("per-class-4", "0.1987")
    assert found["cifar10-labels-250"] == ("per-class-25", "0.1353")
    (table,) = [artefact for artefact in artefacts if artefact.address == "crlc table-8"]
    assert len({column.key for column in table.columns}) == 8


# --- other data ------------------------------------------------------------------------------------------------


def test_every_table_can_be_shown_on_other_data(root):
    for artefact in load_artefacts(root, list(PAPERS), {"dataset": "digits", "seeds": 2}):
        if artefact.kind == "table" and artefact.layout == "grid":
            wanted = needs(artefact)
            assert {dataset for _, _, dataset, _ in wanted} == {"digits"}, artefact.address
            assert max(seed for *_, seed in wanted) == 1
            assert all(row.published_method is None for row in artefact.rows)
            assert "digits" in artefact.title
            assert "not the paper's data" in artefact.note
    (semi,) = load_artefacts(root, ["crlc table-3"], {"dataset": "digits", "seeds": 1})
    assert [column.key for column in semi.columns] == ["digits-labels-10", "digits-labels-20", "digits-labels-40"]
    (stages,) = load_artefacts(root, ["crlc table-2"], {"dataset": "digits", "seeds": 1})
    assert stages.rows[0].method == "simclr", "the stand-in of the weights that only ImageNet has"


def test_a_profile_with_fewer_seeds_shows_the_same_on_the_same_images(root):
    (whole,), (few,) = (load_artefacts(root, ["dica table-1"], substitute) for substitute in (None, {"seeds": 2}))
    assert max(row.seeds for row in whole.rows) > 2
    assert {row.seeds for row in few.rows} == {few.seeds} == {2}
    assert [(row.key, row.note) for row in few.rows] == [(row.key, row.note) for row in whole.rows]
    assert (few.title, few.columns, few.substitute) == (whole.title, whole.columns, "")


def test_an_unknown_data_set_is_named_where_it_stands(root, tmp_path):
    body = yaml.safe_load((root / "params/sampler.yaml").read_text())
    body["substitute"]["dataset"] = "numerals"
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(body))
    with pytest.raises(UserError, match=r"substitute\.dataset: unknown data set 'numerals'; there are: cifar10"):
        load_profile(tmp_path / "profile.yaml", root)


def test_substituted_tables_compare_nothing(everything, root):
    artefacts = load_artefacts(root, ["imc-swav table-4"], {"dataset": "digits", "seeds": 2})
    project = everything[0]
    plan = factory.make_plan(artefacts, "results/other")
    for entry in plan["runs"]:
        factory.write_run(project, entry, 0.8, epochs=2)
    frame = tables.cells(plan, project, "results/other", artefacts)
    assert set(frame["verdict"]) == {"not comparable"}
    assert set(frame["reason"]) == {"on digits, other data than the paper's"}
    ratios = frame[frame["metric"] == "time_ratio"]["value"]
    assert list(ratios) == [1.0] * 4, "every made-up run took as long"
    text = rendering.render(artefacts[0], frame, plan)["md"]
    assert "on other data: digits" in text.splitlines()[0]
    assert "0.787" not in text, "a printed number"


# --- printed numbers -------------------------------------------------------------------------------------------


def test_find_knows_settings_and_bounds(root):
    rows = published.load_published(root)
    assert published.find(rows, "drc", "Table 4", "drc", "cifar10", "acc", "mean", "batch_size=64").value == "0.684"
    bound = published.find(rows, "dccm", "Table 5", "deepcluster", "cifar10", "acc", "mean")
    assert (bound.value, bound.statistic) == ("0.3", "upper-bound")
    with pytest.raises(UserError, match="several single acc of drc on cifar10"):
        published.find(rows, "drc", "Table 4", "drc", "cifar10", "acc", "mean")
    with pytest.raises(UserError, match="has no setting 'batch=64'"):
        published.find(rows, "drc", "Table 4", "drc", "cifar10", "acc", "mean", "batch=64")


# --- numbers that rest on no run -------------------------------------------------------------------------------


def test_printed_counts_are_those_of_params(everything):
    *_, frame = everything
    counts = frame[frame["metric"].isin(["train_images", "test_images", "extra_images", "clusters", "image_size"])]
    assert set(counts[counts["published"] != ""]["verdict"]) == {"equal"}
    assert len(counts[counts["verdict"] == "equal"]) == 88


def test_another_count_differs(root, tmp_path):
    project = factory.make_project(tmp_path, root)
    path = project / "params/datasets.yaml"
    path.write_text(path.read_text().replace("train: 5000, test: 8000", "train: 5001, test: 8000", 1))
    load_datasets.cache_clear()
    artefacts = load_artefacts(project, ["crlc table-4"])
    plan = factory.make_plan(artefacts)
    frame = tables.cells(plan, project, "results", artefacts)
    row = frame[(frame["column"] == "stl10") & (frame["metric"] == "train_images")].iloc[0]
    assert (row["verdict"], row["published"], row["value"]) == ("differs", "5000", 5001)
    assert "5,000 (here 5,001) differs" in rendering.render(artefacts[0], frame, plan)["md"]


def test_significance_is_the_smaller_tail_of_a_paired_t_test():
    ours, theirs = [0.9, 0.5, 0.8, 0.7], [0.8, 0.45, 0.82, 0.6]
    expected = ttest_rel(ours, theirs, alternative="greater").pvalue
    assert stats.significance(ours, theirs) == pytest.approx(expected, rel=1e-12)
    assert stats.significance(theirs, ours) == pytest.approx(expected, rel=1e-12)
    assert stats.significance([0.5, 0.6], [0.5, 0.6]) == 0.5
    assert stats.significance([0.75, 0.5], [0.5, 0.25]) == 0.0
    with pytest.raises(ValueError, match="at least two"):
        stats.significance([0.5], [0.6])


def test_which_printed_p_values_follow_from_the_printed_table(everything):
    *_, frame = everything
    found = frame[(frame["paper"] == "tcc") & (frame["artefact"] == "table-6") & (frame["verdict"] == "equal")]
    pairs = {tuple(sorted(pair)) for pair in zip(found["row"], found["column"], strict=True)}
    mmdc, gat, cc = "mmdc", "gatcluster", "cc"
    assert pairs == {(gat, mmdc), (cc, mmdc), ("idfd", mmdc), (cc, gat), (gat, "idfd"), (cc, "idfd")}


def test_a_number_is_compared_at_the_digits_printed():
    assert computed.same(0.01499, "0.01")
    assert not computed.same(0.01501, "0.01")
    assert computed.same(96, "96x96x3")


def test_listed_layers_are_those_of_the_networks(root):
    """`python workflow/scripts/networks.py > params/networks.csv` after a change of the networks."""
    command = [sys.executable, "workflow/scripts/networks.py"]
    done = subprocess.run(command, cwd=root, text=True, capture_output=True, check=True)
    assert done.stdout == (root / "params/networks.csv").read_text()


# --- layout ----------------------------------------------------------------------------------------------------


def test_headings_have_up_to_three_levels(texts):
    semi = texts["crlc table-8"]["md"].splitlines()
    assert semi[2].startswith("| Method | CIFAR10, labelled images 10 | CIFAR10, labelled images 20 |")
    assert "Metric: Error." in texts["crlc table-8"]["md"]
    html = texts["crlc table-8"]["html"]
    assert '<th colspan="4" scope="colgroup" class="group">CIFAR100, labelled images</th>' in html
    assert '<th scope="col">2,500</th>' in html
    shared = texts["dccm table-5"]["html"]
    assert '<th colspan="4" scope="colgroup" class="group">CIFAR-10</th>' in shared
    assert '<th scope="colgroup" class="group">CIFAR-100 (100)</th>' in shared


def test_rows_may_stand_under_a_heading(texts):
    lines = texts["crlc table-5"]["md"].splitlines()
    first, second = (
        lines.index(f"| **{name}** |" + " |" * 9) for name in ("Training split", "Training and test split")
    )
    assert first < second
    assert '<th colspan="10" scope="rowgroup">Training split</th>' in texts["crlc table-5"]["html"]


def test_bounds_and_errors_are_written_and_ranked_as_printed(texts):
    shared = texts["dccm table-5"]["md"]
    assert r"\< 0.3 |" in shared
    assert "**0.623**" in shared
    error = texts["crlc table-8"]["md"]
    assert "**8.87 ± 4.29**" in error, "the smallest error is the best"
    assert "68.58 ± 0.7" in error, "digits as printed"


def test_ours_are_ranked_among_ours(texts):
    lines = [line for line in texts["dccm table-3"]["md"].splitlines() if line.startswith("| ↳ here")]
    for mark in (r"\*\*\d", "<ins>"):  # three metrics, and ties
        assert sum(len(re.findall(mark, line)) for line in lines) >= 3


def test_a_quoted_best_run_is_not_compared(everything):
    *_, frame = everything
    cells = frame[(frame["paper"] == "crlc") & (frame["artefact"] == "table-1") & (frame["row"] == "drc")]
    assert set(cells["verdict"]) == {"not run"}
    (table,) = [artefact for artefact in everything[2] if artefact.address == "crlc table-1"]
    assert next(row for row in table.rows if row.key == "drc").incomparable


def test_every_table_has_rows_of_one_width(texts):
    for address, text in texts.items():
        rows = [line for line in text["md"].splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1, address
        html = text["html"]
        assert html.count("<caption>") == html.count("<table") == 1
        assert all("scope=" in head for head in re.findall(r"<th\b[^>]*>", html))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_all_tables_compile(texts, tmp_path):
    head = "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\n"
    body = "\n\\clearpage\n".join(text["tex"] for text in texts.values())
    (tmp_path / "all.tex").write_text(f"{head}{body}\n\\end{{document}}\n")
    done = subprocess.run(["pdflatex", "-halt-on-error", "all.tex"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-800:]
    assert f"Output written on all.pdf ({len(texts)} pages" in done.stdout
