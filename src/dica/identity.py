"""What a run is called, and the list of all runs that the archive asks for.

The id is a hash of everything that decides the result (method, parameters with the method's `revision`, data set and
its declared fingerprint, seed, determinism level) and of nothing else: no date, no machine, no source text.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dica import artefacts as declared
from dica.config import load_datasets, resolve
from dica.data.catalog import data_id
from dica.files import atomic_write_text, canonical_json, sha256_bytes

IDENTITY_KEYS = ("method", "params", "dataset", "data_id", "seed", "determinism")


def run_id(config: dict) -> str:
    """Return the 12 hex digits that name a run; `config` needs the `IDENTITY_KEYS`, more keys are ignored."""
    return sha256_bytes(canonical_json({key: config[key] for key in IDENTITY_KEYS}).encode())[:12]


def run_config(method: str, variant: str, dataset: str, seed: int, profile: dict, root: Path) -> dict:
    """Return the complete config of one run, as ``config.json`` holds it.

    The id ignores the variant's name: two names for the same parameters are the same run.
    """
    config = {
        "method": method,
        "variant": variant,
        "dataset": dataset,
        "data_id": data_id(load_datasets(root)[dataset]) if dataset in load_datasets(root) else "",
        "seed": seed,
        "determinism": profile["determinism"],
        "params": resolve(method, variant, dataset, profile, root),
    }
    return {"id": run_id(config), **config}


def run_folder(config: dict, results: str) -> str:
    """Return the folder of a run, relative to the project root."""
    return f"{results}/runs/{config['method']}/{config['dataset']}/s{config['seed']}-{config['id']}"


def rebuild_command(folders: list[str], option: str = "") -> str:
    """Return the shell command that trains the runs in `folders` anew; a finished run has to be removed first.

    Parameters
    ----------
    option
        How the profile is named to Snakemake, with a leading blank; empty for the archive's own.
    """
    command = f"snakemake --cores all --resources gpu=1{option}"
    if not folders:
        return command
    return f"rm -r {' '.join(folders)} && {command} -- {' '.join(f'{folder}/metrics.json' for folder in folders)}"


def make_plan(profile: dict, root: Path) -> dict:
    """Return every run that the profile's artefacts need, each once, in a fixed order."""
    runs: dict[str, dict] = {}
    for artefact in declared.load_artefacts(root, profile["artefacts"]):
        for method, variant, dataset, seed in declared.needs(artefact):
            config = run_config(method, variant, dataset, seed, profile, root)
            known = {"path": run_folder(config, profile["results"]), "variants": [], "needed_by": []}
            run = runs.setdefault(config["id"], {**config, **known})
            for key, value in (("variants", variant), ("needed_by", artefact.address)):
                if value not in run[key]:
                    run[key].append(value)
    ordered = sorted(runs.values(), key=lambda run: (run["method"], run["dataset"], run["variant"], run["seed"]))
    return {"profile": profile["name"], "runs": ordered}


def write_plan(plan: dict, path: Path) -> bool:
    """Write the plan if its content differs from what is there; return whether it did.

    The time stamp of an unchanged plan stays as it is: every table depends on this file.
    """
    text = plan_text(plan)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    atomic_write_text(path, text)
    return True


def plan_text(plan: dict) -> str:
    """Return the plan as JSON with one line a run, which keeps diffs readable."""
    lines: Iterable[str] = (canonical_json(run) for run in plan["runs"])
    return f'{{"profile": "{plan["profile"]}", "runs": [\n' + ",\n".join(lines) + "\n]}\n"
