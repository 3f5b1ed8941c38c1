"""A folder of small pictures with classes that anyone can see, and a run on them, for the tests of `dica cluster`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from dica.data import own
from dica.files import write_json
from dica.plan import recipes
from dica.plan.own import make_profile, profile_path, write_yaml
from dica.plan.parameters import load_datasets, load_profile
from dica.plan.plan import make_plan

ROOT = Path(__file__).resolve().parents[2]


def picture_folder(folder: Path, count: int = 48, side: int = 8, classes: int = 4) -> Path:
    """Write grey noise with a bright bar whose place is the class; the name ends with it."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for k in range(count):
        pixels = draw.integers(0, 60, (side, side), dtype=np.uint8)
        start = k % classes * side // classes
        pixels[:, start : start + side // classes] += 180
        Image.fromarray(pixels).save(folder / f"{k:03d}_{k % classes}.png")
    return folder


def copy_params(root: Path) -> Path:
    """Make a folder a project with the archive's parameters."""
    for name in ("params", "workflow/schemas"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("own"))
    (root / "Snakefile").touch()
    return root


def planned_run(
    root: Path,
    folder: Path,
    method: str,
    name: str = "pics",
    k: int = 4,
    seeds: int = 1,
    epochs: int = 2,
    skip: bool = False,
) -> list[dict]:
    """Declare pictures as `dica cluster` does, write the profile, and return the planned runs."""
    found = own.look(folder, skip=skip)
    own.declare(root, name, folder, found, recipes.prepared_side(found, False), k)
    load_datasets.cache_clear()
    recipe = recipes.with_epochs(recipes.draft(method, found, k, False, root), epochs, found.count, root)
    path = root / profile_path(name)
    write_yaml(path, "A test.", make_profile(name, {"method": method, "seeds": seeds}, recipe.overrides))
    profile = load_profile(path, root)
    runs = make_plan(profile, root)["runs"]
    for run in runs:
        write_json(root / run["path"] / "config.json", run)
    return runs


def train_arguments(root: Path, run: dict) -> list[str]:
    """The command line that trains a planned run where the workflow would."""
    folder, name = root / run["path"], run["path"]
    models = root / name.replace("/runs/", "/models/")
    data = root / "data/prepared" / run["dataset"]
    state = root / "state" / run["id"]
    told = {"--config": folder / "config.json", "--data": data, "--out": folder, "--models": models, "--state": state}
    return [*(str(part) for pair in told.items() for part in pair), "--device", "cpu"]
