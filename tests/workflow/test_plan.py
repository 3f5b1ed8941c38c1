"""Dry runs: what would be run, without any data on disk."""

from __future__ import annotations

import json

import pytest

from project import Project, children_seconds, steps

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def whole(checkout: Project, tmp_path_factory) -> Project:
    """A copy of the whole archive: planning writes files, and the checkout of all tests stays as it is."""
    return checkout.copy(tmp_path_factory.mktemp("whole") / "project")


def test_the_full_archive_is_planned_without_data(whole: Project) -> None:
    started = children_seconds()
    output = whole.snakemake("-n")
    seconds = children_seconds() - started
    plan = json.loads((whole.folder / "results/plan.json").read_text())
    assert seconds < 5 + 0.016 * len(plan["runs"]), "a Snakefile written by hand with as many jobs takes 0.01 a run"
    planned = steps(output)
    assert planned["train"] == planned["evaluate"] == len(plan["runs"])
    assert planned["prepare"] == planned["fetch"] == len({run["dataset"] for run in plan["runs"]})


@pytest.mark.parametrize("target", ["light", "deposit", "one run", "one table", "one figure"])
def test_each_target_can_be_asked_for_alone(small: Project, target: str) -> None:
    """The rules are the archive's, the plan is small; CI plans all targets of the archive."""
    small.snakemake("-n", "light")
    plan = json.loads((small.folder / "results/plan.json").read_text())
    files = {
        "one run": f"{plan['runs'][0]['path']}/metrics.json",
        "one table": "results/tables/dica/table-1.md",
        "one figure": "results/figures/dica/figure-2.png",
    }
    planned = steps(small.snakemake("-n", files.get(target, target)))
    if target == "one run":
        assert planned["train"] == planned["evaluate"] == 1
    elif target == "one table":
        assert planned["train"] == sum("dica table-1" in run["needed_by"] for run in plan["runs"])
    elif target == "deposit":
        assert planned == {"deposit": 1, "total": 1}, "a deposit packs what is there"
    elif target == "light":
        assert not {"fetch", "train", "analyse"} & set(planned)
        assert planned["cells"] == planned["page"] == 1, "tables without anything to show are not printed"
    else:
        assert planned["train"] > 1


@pytest.mark.parametrize("method", ["conda", "apptainer"])
def test_other_ways_to_the_software_are_refused_in_one_line(whole: Project, method: str) -> None:
    assert "--sdm is of no use here" in whole.snakemake("-n", "--sdm", method, code=1)


def test_the_demo_asks_for_nothing_but_digits(whole: Project) -> None:
    planned = steps(whole.snakemake("-n", "--configfile", "params/demo.yaml"))
    assert planned["prepare"] == 1
    plan = json.loads((whole.folder / "results/demo/plan.json").read_text())
    assert {run["dataset"] for run in plan["runs"]} == {"digits"}
    assert planned["train"] == len(plan["runs"])


def test_a_mistake_in_a_parameter_file_is_one_clear_error(checkout: Project, tmp_path) -> None:
    project = checkout.copy(tmp_path / "project")
    project.edit("params/drc.yaml", lambda body: body["defaults"].update(epoch=3))
    output = project.snakemake("-n", code=1)
    assert "params/drc.yaml: defaults: unknown key 'epoch'; allowed: " in output
    assert "Traceback" not in output


def test_a_run_on_another_run_waits_for_its_weights(small: Project, tmp_path) -> None:
    project = small.copy(tmp_path / "project")

    def on_features(body: dict) -> None:
        body["artefacts"]["table-1"]["rows"] = [{"label": "K", "method": "kmeans", "variant": "on-drc"}]

    project.edit("params/artefacts/dica.yaml", on_features)
    target = "results/tables/dica/table-1.md"
    planned = steps(project.snakemake("-n", target))
    assert planned["train"] == 2
    runs = json.loads((project.folder / "results/plan.json").read_text())["runs"]
    (above,) = [run for run in runs if run["variant"] == "on-drc"]
    below = next(run for run in runs if run["id"] == above["params"]["source"]["id"])
    for name in ("config.json", "history.csv", "predictions.npz", "run.json"):
        file = project.folder / below["path"] / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    scores = f"{above['path']}/metrics.json"
    output = project.snakemake("-n", scores, code=1)
    assert f"builds on {below['path']}, whose weights are not here: put results/models/drc/digits/" in output
    weights = project.folder / below["path"].replace("results/runs", "results/models") / "weights.safetensors"
    # A table has the others, and is not passed over where it lies on the disk already.
    for _ in range(2):
        output = project.snakemake("-n", target)
        lacking = f"(1 of the runs, such as {above['path']}, for want of {weights.relative_to(project.folder)})"
        assert f"left out: what builds on finished runs whose weights are not here {lacking}: put them back" in output
        planned = steps(output)
        assert "train" not in planned
        assert planned["table"] == 1
        table = project.folder / target
        table.parent.mkdir(parents=True, exist_ok=True)
        table.touch()
    table.unlink()
    weights.parent.mkdir(parents=True)
    weights.touch()
    output = project.snakemake("-n", "-p", target)
    assert steps(output)["train"] == 1
    assert f"--source {below['path']} --source-models {weights.parent.relative_to(project.folder)}" in output
