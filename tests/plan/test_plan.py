"""Run ids: what changes them, what must not, and the plan they make up."""

from __future__ import annotations

import os
import random
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

import edits
from dica.data import catalog
from dica.files import UserError, read_json
from dica.plan import parameters as config
from dica.plan import plan as identity


@pytest.fixture
def profile(root: Path) -> dict:
    return config.load_profile(root / "params/archive.yaml", root)


def test_runs_on_large_data_are_planned_in_the_fast_form_and_exact_ones_are_a_word_away(root: Path, profile) -> None:
    def form(dataset: str, method: str = "imc-swav", **large: object) -> tuple[str, str | None]:
        changed = {**profile, "large": {**profile["large"], **large}}
        config = identity.run_config(method, "full", dataset, 0, changed, root)
        return config["determinism"], config["params"].get("precision")

    assert form("cifar10") == form("stl10") == form("cifar10", "dccm") == ("fast", "bfloat16")
    assert form("cifar10", determinism="strict", precision="float32") == ("strict", "float32")
    assert form("cifar10-jpeg") == form("digits") == ("seeded", "float32")
    assert form("cifar10", "kmeans") == ("seeded", None), "a fit knows no other form"
    plain = {key: value for key, value in profile.items() if key != "large"}
    ids = [identity.run_config("tcc", "full", "digits", 0, body, root)["id"] for body in (plain, profile)]
    assert ids[0] == ids[1]


def test_a_data_set_that_is_not_large_must_be_known(root: Path, profile: dict) -> None:
    body = {**profile, "large": {**profile["large"], "except": ["digit"]}}
    with pytest.raises(UserError, match=r"large.except: unknown data set 'digit'.*did you mean digits"):
        config.validate_profile(body, "a", root)


def test_everything_that_decides_a_result_is_in_the_id(root: Path, profile: dict) -> None:
    base = identity.run_config("drc", "full", "digits", 0, profile, root)
    strict = {**profile, "determinism": "strict"}
    longer = {**profile, "overrides": {"drc": {"epochs": 7}}}
    others = [
        identity.run_config("drc", "full", "digits", 1, profile, root),
        identity.run_config("drc", "full", "digits", 0, strict, root),
        identity.run_config("drc", "full", "digits", 0, longer, root),
        identity.run_config("drc", "full", "cifar10", 0, profile, root),
        identity.run_config("drc", "without-af", "digits", 0, profile, root),
        identity.run_config("imc-swav", "full", "digits", 0, profile, root),
    ]
    for key, value in [("data_id", "other"), ("params", {**base["params"], "revision": 99})]:
        changed = {**base, key: value}
        others.append({**changed, "id": identity.run_id(changed)})
    ids = [base["id"], *(other["id"] for other in others)]
    assert len(set(ids)) == len(ids)


def test_names_and_key_order_are_not_in_the_id(root: Path, profile: dict) -> None:
    base = identity.run_config("drc", "full", "digits", 0, profile, root)
    renamed = {**dict(reversed(base.items())), "variant": "another name for the same parameters"}
    assert identity.run_id(renamed) == base["id"]


def test_ids_are_what_they_were(root: Path, profile: dict) -> None:
    """The hash itself must never change: every stored result is found by it."""
    fixed = {"method": "m", "params": {"b": 1.5, "a": [1, None]}, "dataset": "d", "data_id": "f", "seed": 0}
    assert identity.run_id({**fixed, "determinism": "seeded"}) == "974247757408"


def test_runs_that_two_artefacts_share_are_planned_once(root: Path, profile: dict) -> None:
    plan = identity.make_plan(profile, root)
    ids = [run["id"] for run in plan["runs"]]
    assert len(set(ids)) == len(ids)
    wanted = ("drc", "digits", 0, "full")
    names = ("method", "dataset", "seed", "variant")
    (shared,) = (run for run in plan["runs"] if tuple(run[name] for name in names) == wanted)
    assert {"dica table-1", "dica figure-1", "dica figure-2", "drc figure-3-digits"} <= set(shared["needed_by"])


def test_the_recorded_runs_of_a_method_change_with_what_they_build_on(
    root: Path, profile: dict, tmp_path: Path
) -> None:
    def written(**overrides: dict) -> dict:
        changed = {**profile, "overrides": overrides}
        run = identity.run_config("kmeans", "on-drc", "digits", 0, changed, root)
        other = identity.run_config("kmeans", "full", "cifar10", 0, changed, root)
        runs = [{**body, "path": identity.run_folder(body, "results")} for body in (run, other)]
        identity.write_recorded({"runs": runs}, ["drc", "kmeans"], ["digits"], tmp_path)
        return {name: read_json(tmp_path / f"{name}.json") for name in ("drc", "kmeans")}

    before = written()
    assert before["drc"] == []
    assert [Path(path).parts[:4] for path in before["kmeans"]] == [("results", "runs", "kmeans", "digits")]
    assert written(**{"imc-swav": {"epochs": 7}}) == before
    assert written(drc={"epochs": 7}) != before


def test_the_plan_file_is_touched_only_when_it_changes(root: Path, profile: dict, tmp_path: Path) -> None:
    plan, path = identity.make_plan(profile, root), tmp_path / "plan.json"
    assert identity.write_plan(plan, path)
    os.utime(path, (1, 1))
    assert not identity.write_plan(plan, path)
    assert path.stat().st_mtime == 1
    assert identity.write_plan({**plan, "runs": plan["runs"][1:]}, path)


def _kept(root: Path) -> tuple[dict, Path]:
    profile = config.load_profile(root / "params/demo.yaml", root)
    path = root / profile["results"] / "plan.json"
    (path.parent / identity.KEPT).parent.mkdir(parents=True)
    identity.keep_plan(identity.make_plan(profile, root), path, identity.inputs_of_plan(profile, root))
    return profile, path


def test_a_plan_that_is_there_is_read_and_not_made_again(copied_params: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile, path = _kept(copied_params)
    made = identity.make_plan(profile, copied_params)
    with monkeypatch.context() as patch:
        patch.setattr(identity, "make_plan", lambda *_: pytest.fail("was made again"))
        assert identity.current_plan(profile, copied_params) == made == read_json(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda root, plan: edits.replace(root, "params/drc.yaml", "epochs: 500", "epochs: 501"),
        lambda root, plan: (root / "workflow/schemas/drc.schema.yaml").unlink(),
        lambda root, plan: (root / "params/drc.yaml").unlink(),
        lambda root, plan: plan.write_text(plan.read_text().replace('"seed":0', '"seed":1')),
        lambda root, plan: plan.unlink(),
        lambda root, plan: (plan.parent / identity.KEPT).write_text("{"),
        lambda root, plan: (plan.parent / identity.KEPT).write_text("[]"),
        lambda root, plan: (plan.parent / identity.KEPT).unlink(),
    ],
)
def test_a_plan_of_other_inputs_is_made_again(
    change: Callable[[Path, Path], None], copied_params: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, path = _kept(copied_params)
    change(copied_params, path)
    monkeypatch.setattr(identity, "make_plan", lambda *_: {"made": "again", "runs": []})
    assert identity.current_plan(profile, copied_params) == {"made": "again", "runs": []}


@pytest.mark.parametrize("change", [lambda kept: kept.unlink(), lambda kept: kept.write_text("{")])
def test_a_plan_that_lies_there_as_it_was_made_again_is_kept(
    change: Callable[[Path], None], copied_params: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a clone, which has the plan and not what it was made of."""
    profile, path = _kept(copied_params)
    change(path.parent / identity.KEPT)
    made = identity.current_plan(profile, copied_params)
    monkeypatch.setattr(identity, "make_plan", lambda *_: pytest.fail("was made again"))
    assert identity.current_plan(profile, copied_params) == made


def test_where_nothing_can_be_written_a_plan_is_made_each_time(
    copied_params: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, path = _kept(copied_params)
    kept = path.parent / identity.KEPT
    kept.unlink()
    monkeypatch.setattr(tempfile, "mkstemp", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "no")))
    made = identity.make_plan(profile, copied_params)
    assert identity.current_plan(profile, copied_params) == made
    assert not kept.exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_the_pattern_of_unfinished_runs_tells_planned_ids_apart_and_stays_short(share: float) -> None:
    draw = random.Random(0)
    ids = [f"{draw.getrandbits(48):012x}" for _ in range(2000)]
    chosen = [name for name in ids if draw.random() < share]
    others = sorted(set(ids) - set(chosen))
    pattern = identity.id_pattern(chosen, others)
    assert {name for name in ids if re.fullmatch(pattern, name)} == set(chosen)
    assert len(pattern) < 8_000, "all ids spelt out would be 26,000"


def test_a_plan_reads_the_catalogue_of_data_sets_once(copied_params: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking it again for every cell was nine tenths of planning."""
    reads = []
    load = catalog.load
    monkeypatch.setattr(catalog, "load", lambda root: reads.append(root) or load(root))
    identity.make_plan(config.load_profile(copied_params / "params/archive.yaml", copied_params), copied_params)
    assert len(reads) == 1


def test_all_seeds_of_a_cell_are_resolved_once_and_apart(root: Path, profile: dict) -> None:
    one, two = (config.resolve("drc", "full", "digits", profile, root) for _ in range(2))
    one["optimizer"]["name"] = "changed by whoever got it"
    assert two == config.resolve("drc", "full", "digits", profile, root) != one
    other = {**profile, "overrides": {"drc": {"epochs": 7}}}
    assert config.resolve("drc", "full", "digits", other, root)["epochs"] == 7
