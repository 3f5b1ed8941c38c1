"""How long planning takes against the number of runs: ``python benchmarks/plan.py``.

A temporary copy of the project gets one table with so many runs (all variants of all methods on several data sets).
Measured are `snakemake -n` of a project without results ("plan") and of one whose runs, scores and pages are all there
("no-op"). Writes results/plan.csv and results/plan.svg.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from common import RESULTS, ROOT, Told, plot

SIZES = (100, 1_000, 10_000)
DATASETS = ("cifar10", "cifar20", "cifar100", "stl10", "imagenet10", "imagenet-dogs", "tiny-imagenet", "digits")


def make_project(folder: Path, runs: int) -> int:
    """Copy what planning reads to `folder`, declare a table that needs about `runs` runs, and return how many it is."""
    from dica.plan import parameters as config
    from dica.plan import plan as identity

    for name in ("params", "workflow", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "docs").mkdir()
    for name in ("Snakefile", "environment.yml", "docs/numbers.md"):
        shutil.copy(ROOT / name, folder / name)
    rows = [
        {"key": f"row-{method}-{variant}", "label": f"{method} {variant}", "method": method, "variant": variant}
        for method in config.method_names(ROOT)
        for variant in config.load_method(method, ROOT)["variants"]
        if variant.replace("-", "").isalnum()  # what the schema of the tables lets a row name
        and "source" not in config.load_method(method, ROOT)["defaults"]  # plans other runs besides
    ]
    seeds = math.ceil(runs / (len(rows) * len(DATASETS)))
    rows = rows[: max(1, round(runs / (len(DATASETS) * seeds)))]
    table = {"kind": "table", "title": "Many runs", "seeds": seeds, "metrics": ["acc"], "scale": "percent"}
    table |= {"datasets": list(DATASETS), "rows": rows}
    declared = {"paper": "many", "title": "Many runs", "artefacts": {"table-1": table}}
    profile = config.load_profile(ROOT / "params/archive.yaml", ROOT)
    profile |= {"artefacts": ["many"], "recorded_datasets": ["digits"], "methods": config.method_names(ROOT)}
    (folder / "params/artefacts/many.yaml").write_text(yaml.safe_dump(declared))
    (folder / "params/archive.yaml").write_text(yaml.safe_dump(profile))
    return len(identity.make_plan(config.load_profile(folder / "params/archive.yaml", folder), folder)["runs"])


def pretend_done(folder: Path) -> None:
    """Leave behind what a finished archive has: the files of every run, its score, tables, report; all of it empty."""
    from dica.plan import parameters as config
    from dica.plan import plan as identity

    plan = identity.make_plan(config.load_profile(folder / "params/archive.yaml", folder), folder)
    names = ("config.json", "history.csv", "predictions.npz", "run.json", "trace.npz")
    files = [f"data/labels/{dataset}.npz" for dataset in DATASETS]
    files += [f"{run['path']}/{name}" for run in plan["runs"] for name in names]
    files += [f"{run['path']}/metrics.json" for run in plan["runs"]]  # after what they are made of
    _touch(folder, files)
    # The outputs of the light rules, as Snakemake itself lists them.
    summary = snakemake(folder, "--summary")
    _touch(folder, [line.split("\t")[0] for line in summary.splitlines() if line.startswith("results/")])


def _touch(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def snakemake(folder: Path, *arguments: str) -> str:
    """Run Snakemake in `folder` and return what it prints."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout + done.stderr


def timed(folder: Path) -> tuple[float, int]:
    """Return the seconds of a dry run and how many trainings it lists."""
    begin = time.perf_counter()
    output = snakemake(folder, "-n", "--quiet", "rules")
    seconds = time.perf_counter() - begin
    planned = re.search(r"^train +(\d+)$", output, re.MULTILINE)
    return seconds, int(planned[1]) if planned else 0


def measure(size: int, repeats: int) -> list[dict]:
    """Return the medians for a project of about `size` runs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = make_project(folder, size)
        plans = [timed(folder) for _ in range(repeats)]
        if plans[0][1] != runs:
            raise SystemExit(f"{plans[0][1]} trainings were planned, not {runs}")
        rows = [_row("plan", runs, [seconds for seconds, _ in plans])]
        pretend_done(folder)
        repeated = [timed(folder) for _ in range(repeats)]
        if repeated[0][1]:
            raise SystemExit(f"{repeated[0][1]} trainings were planned where all is there")
        return [*rows, _row("no-op", runs, [seconds for seconds, _ in repeated])]


def _row(what: str, runs: int, seconds: list[float]) -> dict:
    middle = sorted(seconds)[len(seconds) // 2]
    spread = f"{min(seconds):.1f}-{max(seconds):.1f}"
    return {"what": what, "runs": runs, "seconds": f"{middle:.2f}", "range": spread, "repeats": len(seconds)}


def draw(axes, rows: list[dict]) -> None:
    """Draw seconds against runs."""
    for what, marker in (("plan", "o"), ("no-op", "s")):
        points = [(row["runs"], float(row["seconds"])) for row in rows if row["what"] == what]
        axes.loglog(*zip(*points, strict=True), marker=marker, label=f"snakemake -n, {what}")
    axes.set(xlabel="runs in the plan", ylabel="seconds")
    axes.legend(frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of runs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    told = Told("plan", args.out)
    for size in args.sizes:
        told.add(*measure(size, args.repeats if size < 10_000 else 1))
    with contextlib.suppress(ImportError):
        plot(told, draw)


if __name__ == "__main__":
    main()
