"""Count the arithmetic of the runs that the profiles plan, for `dica estimate` and `dica status`.

    python workflow/scripts/counts.py          # what is not counted yet
    python workflow/scripts/counts.py --all    # everything anew, after a change of a method's arithmetic

Writes src/dica/plan/counts.json, an entry for every shape of a step (`dica.plan.counted.shape_key`): of a method with
the parameters that it has, on images of some size. It takes about a second each.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dica.data.splits import DataInfo
from dica.data.whole import MODE
from dica.engine.count import Counter
from dica.files import UserError, atomic_write_text, canonical_json, project_root, read_json
from dica.plan.counted import COUNTS, images_of, shape_key
from dica.plan.parameters import load_datasets, load_profile
from dica.plan.plan import make_plan
from dica.scripting import run_script

PROFILES = ("archive", "demo", "sampler")
SAVE_EVERY = 5  # entries


def main() -> None:
    """Count, and keep what is counted already."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="count anew what is counted already")
    given = parser.parse_args()
    root = project_root(Path(__file__))
    wanted, sources = shapes(root)
    known = {} if given.all or not COUNTS.is_file() else read_json(COUNTS)
    found = {key: known[key] for key in wanted if key in known}
    missing = [key for key in wanted if key not in found]
    for number, key in enumerate(missing, start=1):
        found[key] = entry(wanted[key], root, sources)
        print(f"{number} of {len(missing)}: {found[key]}", file=sys.stderr, flush=True)
        if number % SAVE_EVERY == 0:
            write(found)
    write(found)


def shapes(root: Path) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return a planned run for every shape of a step, and all planned runs by id.

    First those that others are told by until they are counted: one of each method on each data set, `full` if it is.
    """
    datasets, runs = load_datasets(root), {}
    for name in PROFILES:
        profile = load_profile(root / "params" / f"{name}.yaml", root)
        runs |= {run["id"]: run for run in make_plan(profile, root)["runs"]}
    ordered = sorted(runs.values(), key=lambda run: run["variant"] != "full")
    leading: dict[tuple[str, str], dict[str, Any]] = {}
    for run in ordered:
        leading.setdefault((run["method"], run["dataset"]), run)
    wanted: dict[str, dict[str, Any]] = {}
    for run in (*leading.values(), *ordered):
        wanted.setdefault(shape_key(run, datasets[run["dataset"]]), run)
    return wanted, runs


def entry(run: dict[str, Any], root: Path, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the count of a run's shape, with four digits."""
    facts, source = load_datasets(root)[run["dataset"]], run["params"].get("source")
    whole = facts["prepare"].get("mode") == MODE
    info = DataInfo(facts["channels"], facts["image_size"], facts["splits"], whole)
    try:
        count = Counter(run, info, runs[source["id"]] if source else None).count()
    except Exception as error:
        name = f"{run['method']} ({run['variant']}) on {run['dataset']}"
        raise UserError(f"{name} cannot be counted: {type(error).__name__}: {error}") from error
    numbers = {name: float(f"{getattr(count, name):.4g}") for name in ("once", "epoch", "launches")}
    told = {name: run[name] for name in ("method", "variant", "dataset")}
    return {**told, "images": images_of(facts), **numbers}


def write(found: dict[str, dict[str, Any]]) -> None:
    """Write the counts, one a line, ordered by what they are of."""
    names = ("method", "dataset", "variant")
    ordered = sorted(found.items(), key=lambda item: ([item[1][name] for name in names], item[0]))
    lines = ",\n".join(f"{canonical_json(key)}: {canonical_json(value)}" for key, value in ordered)
    atomic_write_text(COUNTS, f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    sys.exit(run_script(main))
