"""Artefacts at a lower rung: what they are called, what they run, and what a bad block says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dica.files import UserError
from dica.plan.artefacts import load_artefacts
from dica.plan.parameters import load_profile
from dica.plan.plan import make_plan

DECLARED = "params/artefacts/drc.yaml"


def test_a_lower_rung_says_so_in_its_title_and_has_no_published_numbers(root: Path) -> None:
    lower = {a.address: a for a in load_artefacts(root, ["drc", "dccm", "crlc", "tcc", "imc-swav"]) if a.rung}
    table = lower["drc table-2-digits"]
    assert table.title == "On the digits, short runs, not the paper's data: Effect of the two contrastive losses"
    assert [(row.key, row.variant, row.seeds) for row in table.rows] == [
        ("drc", "short", 5), ("drc-without-af", "without-af", 5), ("drc-without-ap", "without-ap", 5)]  # fmt: skip
    for artefact in lower.values():
        assert artefact.name.endswith(f"-{artefact.rung}")
        assert "not the paper's data" in artefact.title
        assert not any(row.published_method for row in artefact.rows)
        assert not any("acc_top5" in artefact.metrics_of(column) for column in artefact.columns), "runs do not store it"
    assert not [a for a in load_artefacts(root, ["drc"], {"dataset": "digits", "seeds": 1}) if a.rung]


def test_its_runs_take_the_overrides_and_share_the_ids_of_equal_runs(root: Path) -> None:
    plan = make_plan(load_profile(root / "params/archive.yaml", root), root)
    mine = [run for run in plan["runs"] if "drc table-2-digits" in run["needed_by"]]
    assert {run["params"]["epochs"] for run in mine} == {20}
    shared = [run for run in mine if "dica table-4" in run["needed_by"]]
    assert sorted(run["seed"] for run in shared) == [0, 1, 2, 3, 4]
    assert {run["variant"] for run in shared} == {"short"}
    full = [run for run in plan["runs"] if (run["method"], run["variant"], run["dataset"]) == ("drc", "full", "digits")]
    assert {run["params"]["epochs"] for run in full} == {200}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "digit"}, "dataset: no 'digit'"),
        ({"artefacts": {"table-9": []}}, "no 'table-9' that is regenerated"),
        ({"artefacts": {"figure-1": []}}, "no 'figure-1' that is regenerated"),
        ({"artefacts": {"table-2": ["drc-best"]}}, "no row 'drc-best'"),
        ({"recipes": {"drv": {"overrides": {}}}}, "no method 'drv'"),
        ({"recipes": {"drc": {"overrides": {"epoch": 2}}}}, "epoch"),
        ({"more_seeds": {"table-1": {"drc": 9}}}, "'table-1' is not among the block's artefacts"),
        ({"more_seeds": {"table-2": {"drv": 9}}}, "more_seeds.table-2: no row 'drv'"),
        ({"words": {"CIFAR-11": ""}}, "words: 'CIFAR-11' stands in no title and no label"),
        ({"recipes": {"drc": {"variants": {"full": "shorter"}, "overrides": {}}}}, "no variant 'shorter'"),
        ({"recipes": {"drc": {"variants": {"fulll": "short"}, "overrides": {}}}}, "no variant 'fulll'"),
        ({"datasets": {"table-1": {"cifar10": "digits"}}}, "datasets: 'table-1' is not among the block's artefacts"),
        ({"datasets": {"table-2": {"cifar11": "digits"}}}, "datasets.table-2: no 'cifar11'"),
        ({"datasets": {"table-2": {"cifar10": "digit"}}}, "datasets.table-2: no 'digit' in its place"),
    ],
)
def test_a_bad_block_is_one_line_that_names_file_and_key(copied_params: Path, change: dict, message: str) -> None:
    body = yaml.safe_load((copied_params / DECLARED).read_text())
    body["lower"][1].update(change)
    (copied_params / DECLARED).write_text(yaml.safe_dump(body))
    with pytest.raises(UserError, match=message) as error:
        load_artefacts(copied_params, ["drc"])
    assert f"{DECLARED}: lower" in str(error.value)
    assert "\n" not in str(error.value)


def test_labels_say_what_was_run_there(root: Path) -> None:
    (figure,) = (a for a in load_artefacts(root, ["crlc"]) if a.name == "figure-11-digits")
    assert [row.label for row in figure.rows[:4]] == [f"CRLC-semi, {n} labels" for n in (10, 20, 40, 250)]
    assert "CIFAR" not in figure.title


def test_a_row_may_have_more_seeds_than_its_block(copied_params: Path) -> None:
    body = yaml.safe_load((copied_params / DECLARED).read_text())
    body["lower"][1]["more_seeds"] = {"table-2": {"drc": 9}}
    (copied_params / DECLARED).write_text(yaml.safe_dump(body))
    tables = {a.name: a for a in load_artefacts(copied_params, ["drc"])}
    assert [row.seeds for row in tables["table-2-digits"].rows] == [9, 5, 5]
    assert {row.seeds for row in tables["table-3-digits"].rows} == {5}


def test_words_reach_titles_labels_and_headings(root: Path) -> None:
    (table,) = (a for a in load_artefacts(root, ["crlc"]) if a.name == "table-8-digits")
    assert {column.group for column in table.columns} == {"Labelled images"}
    assert "CIFAR" not in table.title + "".join(row.label for row in table.rows)


def test_several_data_sets_may_stand_in_the_place_of_several(root: Path) -> None:
    (figure,) = (a for a in load_artefacts(root, ["imc-swav"]) if a.name == "figure-3-digits")
    sizes = [f"digits-n{n}" for n in (36, 54, 72, 90, 108, 126)]
    assert [column.dataset for column in figure.columns] == [*sizes, "digits"]
    assert {row.key: (list(row.datasets), row.seeds) for row in figure.rows} == {
        "confusion": (["digits"], 1), "gradcam": (["digits"], 1), "images": ([*sizes, "digits"], 8)}  # fmt: skip


def test_a_row_that_has_none_of_the_data_sets_goes(copied_params: Path) -> None:
    where = copied_params / "params/artefacts/imc-swav.yaml"
    body = yaml.safe_load(where.read_text())
    (block,) = (block for block in body["lower"] if "figure-3" in block["artefacts"])
    block["datasets"]["figure-3"] = {"stl10": "digits"}
    del block["more_seeds"]
    where.write_text(yaml.safe_dump(body))
    (figure,) = (a for a in load_artefacts(copied_params, ["imc-swav"]) if a.name == "figure-3-digits")
    assert [row.key for row in figure.rows] == ["gradcam"]
    assert [panel["plot"] for panel in figure.options["panels"]] == ["gradcam"]


def test_variants_of_other_images_stand_for_those_of_the_paper(root: Path) -> None:
    (table,) = (a for a in load_artefacts(root, ["imc-swav"]) if a.name == "table-4-digits")
    assert [(row.label, row.variant, row.runs["probe_acc"]["variant"]) for row in table.rows] == [
        ("2x8", "short-without-low-crops", "short-without-low-crops"),
        ("2x8 + 2x6", "short", "short-2-low-crops"),
        ("2x8 + 4x6", "short-4-low-crops", "short-4-low-crops"),
        ("2x8 + 6x6", "short-6-low-crops", "short-6-low-crops"),
    ]


def test_panels_lose_the_rows_that_are_left_out(root: Path) -> None:
    (figure,) = (a for a in load_artefacts(root, ["imc-swav"]) if a.name == "figure-4-digits")
    keys = {row.key for row in figure.rows}
    labels = {row.key: row.label for row in figure.rows}
    assert labels["2x28-6x18"] == "2×8 + 6×6", "what the crops are there, as the block's words say"
    assert [panel["title"] for panel in figure.options["panels"]] == ["Prototypes", "Crops"]
    assert all(set(panel["rows"]) <= keys for panel in figure.options["panels"])
