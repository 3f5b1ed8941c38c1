"""What a run is called, and the list of all runs that the archive asks for.

The id is a hash of everything that decides the result (method, parameters with the method's `revision`, data set and
its declared fingerprint, seed, determinism level) and of nothing else: no date, no machine, no source text.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import dica
from dica.data.catalog import data_id
from dica.files import UserError, atomic_write_text, canonical_json, read_json, sha256_bytes, sha256_file
from dica.plan import artefacts as declared
from dica.plan.declared import Artefact
from dica.plan.parameters import form_of, load_datasets, load_method, merge, resolve
from dica.runs.files import METRICS
from dica.runs.ids import run_id

KEPT = "state/plan.json"  # below the results: of what plan.json was made
OWN_RUNS = "own clusters"  # what needs the runs that a profile names itself, as artefacts are addressed


def run_config(method: str, variant: str, dataset: str, seed: int, profile: dict, root: Path) -> dict:
    """Return the complete config of one run, as ``config.json`` holds it.

    The id ignores the variant's name: two names for the same parameters are the same run. A run that builds on another
    has that one's id among its parameters, so it is a new run when anything below it changes.
    """
    decides = {key: profile[key] for key in ("overrides", "large") if key in profile}
    params = dict(_resolved(method, variant, dataset, canonical_json(decides), root))
    if source := params.get("source"):
        below = run_config(source["method"], source["variant"], dataset, seed, profile, root)
        params["source"] = {**source, "id": below["id"]}
    level, _ = form_of(profile, method, variant, dataset)
    config = {
        "method": method,
        "variant": variant,
        "dataset": dataset,
        "data_id": data_id(load_datasets(root)[dataset]) if dataset in load_datasets(root) else "",
        "seed": seed,
        "determinism": level if "precision" in params else profile["determinism"],
        "params": params,
    }
    return {"id": run_id(config), **config}


@cache
def _resolved(method: str, variant: str, dataset: str, decides: str, root: Path) -> dict:
    """Return what all seeds of a cell share; a plan asks for it once a seed, and checking it is most of its time."""
    return resolve(method, variant, dataset, json.loads(decides), root)


def run_folder(config: dict, results: str) -> str:
    """Return the folder of a run, relative to the project root."""
    return f"{results}/runs/{config['method']}/{config['dataset']}/s{config['seed']}-{config['id']}"


def source_folder(config: dict, results: str) -> str:
    """Return the folder of the run that a run builds on, relative to the project root; empty if there is none."""
    source = config["params"].get("source")
    return run_folder({**config, **source}, results) if source else ""


def id_pattern(chosen: list[str], others: list[str]) -> str:
    """Return a regular expression that matches every id of `chosen` and none of `others`.

    It is written with the shortest prefixes that tell the two apart, because Snakemake scans the text of a wildcard's
    constraint for every file of every job: with all ids spelt out, planning time would grow as their square.
    """
    if not chosen:
        return "none"
    if not others:
        return "[0-9a-f]{12}"
    inside, outside = _prefixes(chosen, others), _prefixes(others, chosen)
    if len(inside) <= len(outside):
        return f"(?:{'|'.join(inside)})[0-9a-f]*"
    return f"(?!{'|'.join(outside)})[0-9a-f]{{12}}"


def _prefixes(chosen: list[str], others: list[str], prefix: str = "") -> list[str]:
    """Return the shortest prefixes of ids of `chosen` that no id of `others` has."""
    if not chosen:
        return []
    if not others:
        return [prefix]
    place, found = len(prefix), []
    for digit in sorted({name[place] for name in chosen}):
        mine, theirs = ([name for name in names if name[place] == digit] for names in (chosen, others))
        found += _prefixes(mine, theirs, prefix + digit)
    return found


def rebuild_command(folders: list[str], option: str = "", root: Path | None = None) -> str:
    """Return the shell command that trains the runs in `folders` anew; a finished run has to be moved away first.

    Parameters
    ----------
    folders
        Folders of runs that the plan asks for, relative to the project root.
    option
        How the profile is named to Snakemake, with a leading blank; empty for the archive's own.
    root
        Project root; with it, only the folders that are there are moved.
    """
    command = f"snakemake --cores all --resources gpu=1{option}"
    if not folders:
        return command
    there = [folder for folder in folders if root is None or (root / folder).is_dir()]
    moves = [f"mv {folder} {folder}.old" for folder in there]
    return " && ".join([*moves, f"{command} -- {' '.join(f'{folder}/{METRICS}' for folder in folders)}"])


def make_plan(profile: dict, root: Path) -> dict:
    """Return every run that the profile asks for, and those that they build on, each once, in a fixed order."""
    runs: dict[str, dict] = {}
    shown = declared.load_artefacts(root, profile["artefacts"], profile.get("substitute"))
    wanted = [
        (artefact.address, need, _with_overrides(profile, artefact))
        for artefact in shown
        for need in declared.needs(artefact)
    ]
    if own := profile.get("runs"):
        wanted += [(OWN_RUNS, (own["method"], "full", own["dataset"], seed), profile) for seed in range(own["seeds"])]
    for address, need, changed in wanted:
        for config in _with_sources(*need, changed, root):
            known = {"path": run_folder(config, profile["results"]), "variants": [], "needed_by": []}
            run = runs.setdefault(config["id"], {**config, **known})
            for key, value in (("variants", config["variant"]), ("needed_by", address)):
                if value not in run[key]:
                    run[key].append(value)
    ordered = sorted(runs.values(), key=lambda run: (run["method"], run["dataset"], run["variant"], run["seed"]))
    methods = {name: load_method(name, root) for name in sorted({run["method"] for run in ordered})}
    plan = {
        "profile": profile["name"],
        "artefacts": [artefact.address for artefact in shown],
        "defaults": {name: method["defaults"] for name, method in methods.items()},
        "on_gpu": [name for name, method in methods.items() if method["resources"]["gpu"]],
        "runs": ordered,
    }
    return {**plan, "substitute": profile["substitute"]} if "substitute" in profile else plan


def inputs_of_plan(profile: dict, root: Path) -> str:
    """Return the digest of all that a profile's plan is made of: parameters, schemas, code."""
    package = Path(dica.__file__).parent
    of_project = [*root.glob("params/**/*"), *root.glob("workflow/schemas/*")]
    files = [(root, path) for path in of_project] + [(package, path) for path in package.rglob("*.py")]
    found = {path.relative_to(base).as_posix(): sha256_file(path) for base, path in files if path.is_file()}
    return sha256_bytes(canonical_json([profile, found]).encode())


def current_plan(profile: dict, root: Path, inputs: str = "") -> dict:
    """Return what `make_plan` does, from plan.json where it was made of what there is now.

    Parameters
    ----------
    inputs
        What `inputs_of_plan` returns, where it is known already.
    """
    folder = root / profile["results"]
    try:
        data = (folder / "plan.json").read_bytes()
    except OSError:
        return make_plan(profile, root)
    inputs = inputs or inputs_of_plan(profile, root)
    with contextlib.suppress(UserError):  # none was kept, or it is damaged
        if read_json(folder / KEPT) == {"inputs": inputs, "plan": sha256_bytes(data)}:
            return json.loads(data)
    plan = make_plan(profile, root)
    if _text(plan).encode() == data:
        with contextlib.suppress(OSError):  # whoever may only read makes it each time
            keep_plan(plan, folder / "plan.json", inputs)
    return plan


def keep_plan(plan: dict, path: Path, inputs: str) -> None:
    """Write the plan, and beside it what it was made of, for `current_plan`."""
    write_plan(plan, path)
    write_if_changed(path.parent / KEPT, canonical_json({"inputs": inputs, "plan": sha256_file(path)}))


def _with_overrides(profile: dict, artefact: Artefact) -> dict:
    """Return a profile with the parameters that an artefact changes for its runs."""
    return {**profile, "overrides": merge(artefact.overrides, profile["overrides"])} if artefact.overrides else profile


def _with_sources(method: str, variant: str, dataset: str, seed: int, profile: dict, root: Path) -> Iterator[dict]:
    """Yield the config of a run, then of the run that it builds on, and so on."""
    name = {"method": method, "variant": variant}
    while name:
        config = run_config(name["method"], name["variant"], dataset, seed, profile, root)
        yield config
        name = config["params"].get("source")


def write_if_changed(path: Path, text: str) -> bool:
    """Write `text` if that is not what the file holds; return whether it was. An unchanged file keeps its time."""
    if path.is_file() and path.read_bytes() == text.encode():
        return False
    atomic_write_text(path, text)
    return True


def methods_of(profile: dict, plan: dict) -> list[str]:
    """Return the methods that a profile names, of `all` those that its plan has runs of."""
    named = profile["methods"]
    return sorted({run["method"] for run in plan["runs"]}) if named == "all" else named


def write_recorded(plan: dict, methods: list[str], datasets: list[str], folder: Path) -> None:
    """Write for each method which of its runs `dvc repro` brings up to date, as far as that differs from what is there.

    DVC starts a method's stage when its file changes, that is also when a run changes that one of its runs builds on.
    """
    for method in methods:
        mine = [run for run in plan["runs"] if run["method"] == method and run["dataset"] in datasets]
        text = "".join(f'  "{run["path"]}",\n' for run in mine).rstrip(",\n")
        write_if_changed(folder / f"{method}.json", f"[\n{text}\n]\n" if mine else "[]\n")


def write_plan(plan: dict, path: Path) -> bool:
    """Write the plan as JSON with one line a run, if it differs; see `write_if_changed`."""
    return write_if_changed(path, _text(plan))


def _text(plan: dict) -> str:
    head = canonical_json({key: value for key, value in plan.items() if key != "runs"})
    lines = ",\n".join(canonical_json(run) for run in plan["runs"])
    return f'{head[:-1]}, "runs": [\n{lines}\n]}}\n'
