"""Recipes for a user's own images: every one is valid, fits the images, and leaves the archive's runs alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dica import methods
from dica.data import own
from dica.data.own import Look
from dica.data.splits import DataInfo
from dica.files import UserError
from dica.plan import recipes
from dica.plan.own import make_profile, own_analyses, own_runs, write_yaml
from dica.plan.parameters import load_datasets, load_profile
from dica.plan.plan import make_plan


def look(count: int = 500, side: int = 200, grey: bool = False) -> Look:
    return Look("folder", {"train": count}, [], side, grey, "")


def test_images_are_brought_to_what_the_device_has_time_for() -> None:
    assert recipes.prepared_side(look(side=8), gpu=False) == 8
    assert recipes.prepared_side(look(side=200), gpu=False) == recipes.CPU_SIDE
    assert recipes.prepared_side(look(side=200), gpu=True) == recipes.GPU_SIDE


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("method", recipes.METHODS)
@pytest.mark.parametrize(("count", "side", "grey"), [(40, 28, True), (3000, 70, False)])
def test_every_recipe_makes_a_network_that_takes_the_images(
    method: str, gpu: bool, count: int, side: int, grey: bool, copied_params: Path, tmp_path: Path
) -> None:
    found = look(count, side, grey)
    recipe = recipes.with_epochs(recipes.draft(method, found, 4, gpu, copied_params), 7, count, copied_params)
    own.write_entry(copied_params, "x", entry(recipes.prepared_side(found, gpu), count))
    profile = make_profile("x", {"method": method, "seeds": 2}, recipe.overrides)
    path = copied_params / "params/own/x/profile.yaml"
    write_yaml(path, "A test.", profile)
    load_datasets.cache_clear()
    runs = make_plan(load_profile(path, copied_params), copied_params)["runs"]
    load_datasets.cache_clear()
    assert [run["seed"] for run in runs] == [0, 1]
    params = runs[0]["params"]
    assert params["num_clusters"] == 4
    assert (params["train_split"], params["eval_split"]) == ("all", "all")
    if method != "kmeans":
        assert params["epochs"] == 7
        assert all(step <= 7 for step in params["schedule"].get("milestones", []))
        assert count >= params["batch_size"]
    if not gpu:  # the papers' networks take their time
        size = recipes.prepared_side(found, gpu)
        network = methods.build(method, params, DataInfo(3, size, {"train": count})).eval()
        with torch.no_grad():
            assert network.predict(torch.zeros(2, 3, size, size, dtype=torch.uint8)).shape == (2, 4)


def entry(side: int, count: int) -> dict:
    return {
        **{"label": "x", "kind": "folder", "licence": "", "citation": "", "channels": 3, "prepare": {}},
        **{"sources": [{"format": "folder", "folder": "/x"}], "num_classes": 4, "image_size": side},
        **{"splits": {"train": count}, "normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3}, "fingerprint": "0" * 64},
    }


def test_small_grey_images_are_not_mirrored(root: Path) -> None:
    signs = recipes.draft("imc-swav", look(side=16, grey=True), 10, False, root)
    assert [step["op"] for step in signs.overrides["views"]["high"]] == ["affine", "color_jitter"]
    assert signs.overrides["views"]["low"][0]["size"] == 12, "twice the 6 of 8 pixels"
    photos = recipes.draft("imc-swav", look(), 10, False, root)
    assert [step.get("size") for step in photos.overrides["views"]["high"]] == [None, 28, None, None]
    assert "mirroring" in photos.reason


def test_epochs_follow_the_budget_and_the_schedule_follows_them(root: Path) -> None:
    assert recipes.epochs_in(100, 2) == 50
    assert recipes.epochs_in(1, 2) == recipes.LEAST_EPOCHS
    assert recipes.epochs_in(1e6, 2) == recipes.MOST_EPOCHS
    draft = recipes.draft("imc-swav", look(), 10, False, root)
    before, after = (draft.overrides, recipes.with_epochs(draft, 150, 500, root).overrides)
    assert (before["epochs"], before["schedule"]["milestones"]) == (15, [5, 9, 12])
    assert (after["epochs"], after["schedule"]["milestones"]) == (150, [50, 90, 120])
    short = recipes.with_epochs(draft, 2, 500, root).overrides
    assert short["prototype_freeze_steps"] <= 2 * 500 // short["batch_size"] // recipes.WARM_PART


def test_a_method_without_a_recipe_is_refused() -> None:
    with pytest.raises(UserError, match=r"--method: no recipe for 'imcswav'; did you mean imc-swav"):
        recipes.check_method("imcswav")


def test_a_profile_needs_artefacts_or_runs(copied_params: Path) -> None:
    profile = make_profile("x", {"method": "kmeans", "seeds": 1}, {})
    path = copied_params / "params/x.yaml"
    write_yaml(path, "", {key: value for key, value in profile.items() if key != "runs"})
    with pytest.raises(UserError, match="artefacts: names nothing to show"):
        load_profile(path, copied_params)


def test_which_analyses_a_profile_needs(copied_params: Path) -> None:
    own.write_entry(copied_params, "x", entry(8, 50))
    load_datasets.cache_clear()
    runs = {"method": "kmeans", "seeds": 2, "counts": [2, 5]}
    for chosen, kind in ((runs, "counts"), ({"method": "kmeans", "seeds": 2}, "outlook")):
        profile = make_profile("x", chosen, {"num_clusters": 5})
        plan = make_plan(profile, copied_params)
        assert [(name, run["seed"]) for name, run in own_analyses(profile, plan)] == [(kind, 0), (kind, 1)]
        assert len(own_runs(profile, plan)) == 2
    load_datasets.cache_clear()
