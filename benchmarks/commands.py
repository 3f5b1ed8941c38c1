"""What the commands that a person waits for cost against an earlier build: ``python benchmarks/commands.py``.

Both builds run in turns on this machine, and what counts is processor time, that of all processes of a command: what
else the machine does disturbs both alike. The earlier build is a commit of this repository, unpacked beside this one;
both read their own parameters and results. `--long` adds trainings, the demo, `snakemake light` in a fresh clone, and
all that it makes, forced (an hour); and, where DICA_MIRROR has CIFAR-10 (JPEG), the memory of trainings on it. Writes
results/commands.csv; what is not measured this time stays there.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from common import RESULTS, ROOT, Told, ratio
from plan import make_project

from dica.files import INTERRUPTED

THEN = "1f63d37"  # the build that the targets of docs/performance.md are set against
RUNS = 900
TRAINED = ("crlc", "drc", "imc-swav", "tcc")  # the variant `short` of these on the digits is one run in both builds
MEASURED = "cifar10-jpeg"  # where memory is: 60,000 images, by the recipe of its small sibling
PLAIN = """
rule all:
    input: expand("done/{kind}-{run}.json", kind=["scored"], run=range(%d))
rule train:
    output: "done/trained-{run}.json"
    shell: "touch {output}"
rule evaluate:
    input: "done/trained-{run}.json"
    output: "done/scored-{run}.json"
    shell: "touch {output}"
"""
ENVIRONMENT = {"PYTHONPATH": "src", "OMP_NUM_THREADS": "1"}
IN_A_CLONE, PEAK = "snakemake light in a fresh clone", "peak memory"
BESIDE = "snakemake -n (then) against a Snakefile of as many plain jobs (now)"
LIGHT = ["snakemake", "--cores", "1", "--quiet", "rules", "--forcerun", "table", "figure", "--", "light"]
CLONED = ["snakemake", "--cores", "1", "--quiet", "rules", "--", "light"]
DEMO = ["snakemake", "--cores", "1", "--configfile", "params/demo.yaml", "--quiet", "rules"]


def commands(folder: Path, out: str) -> dict[str, list[str]]:
    """Return what is timed in the checkout `folder`, by what a person calls it."""
    run = sorted((folder / "results/runs/kmeans/digits").glob("s0-*"))[0].relative_to(folder)
    scored = ["--config", f"{run}/config.json", "--predictions", f"{run}/predictions.npz"]
    scored += ["--labels", "data/labels/digits.npz", "--out", f"{out}/metrics.json"]
    table = ["--plan", "results/plan.json", "--artefact", "dica", "table-1", "--out", out]
    return {
        "what a training imports": [sys.executable, "-c", "import dica.train"],
        "score a run": [sys.executable, "workflow/scripts/evaluate.py", *scored],
        "make one table": [sys.executable, "workflow/scripts/tables.py", *table],
        "dica show dica table-1": [sys.executable, "-m", "dica.cli", "show", "dica", "table-1"],
        "snakemake -n light": ["snakemake", "--cores", "1", "-n", "--quiet", "rules", "--", "light"],
        "dica status": [sys.executable, "-m", "dica.cli", "status"],  # after it, as in a folder that is worked in
    }


def training(method: str, folder: Path, out: str) -> list[str]:
    """Return the command that trains the first seed of a method's variant `short` on the digits again."""
    for path in sorted((folder / "results/runs" / method / "digits").glob("s0-*/config.json")):
        if json.loads(path.read_text())["variant"] == "short":
            run = ["--config", str(path), "--data", "data/prepared/digits", "--out", f"{out}/{method}-{folder.name}"]
            return [sys.executable, "-m", "dica.train", *run]
    raise SystemExit(f"{folder}: has no run of {method} (short) on the digits")


def peak(method: str, folder: Path, out: str) -> float:
    """Return the most memory, in MB, that a training of a method on `MEASURED` has in its first half minute."""
    small = sorted((folder / "results/runs" / method / f"{MEASURED}-small").glob("s0-*/config.json"))
    config = next(found for path in small if (found := json.loads(path.read_text()))["variant"] == "full")
    manifest = json.loads((folder / f"data/prepared/{MEASURED}/manifest.json").read_text())
    config |= {"dataset": MEASURED, "data_id": manifest["data_id"]}
    del config["id"]
    Path(f"{out}/config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "dica.train", "--config", f"{out}/config.json"]
    command += ["--data", f"data/prepared/{MEASURED}", "--out", f"{out}/peak"]
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, **ENVIRONMENT}, stderr=subprocess.DEVNULL)
    time.sleep(30)
    status = Path(f"/proc/{process.pid}/status").read_text()  # what `wait4` tells counts in what started the process
    process.terminate()
    process.wait()
    shutil.rmtree(f"{out}/peak", ignore_errors=True)
    if process.returncode != INTERRUPTED:
        raise SystemExit(f"a training of {method} on {MEASURED} in {folder}: exit {process.returncode}")
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024


def said(command: list[str], folder: Path) -> str:
    """Run a command in a checkout and return what it prints."""
    environment = {**os.environ, **ENVIRONMENT}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def seconds(command: list[str], folder: Path) -> float:
    """Run a command in a checkout and return its processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said(command, folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def unpack(commit: str, folder: Path) -> Path:
    """Write the files of a commit to `folder`."""
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
    compileall.compile_dir(folder / "src", quiet=1)  # or the first command would pay for all
    return folder


def in_a_clone(commit: str) -> Callable[[], float]:
    """Return what times `snakemake light` where nothing but the files of a commit is, all of them new."""

    def run() -> float:
        with tempfile.TemporaryDirectory() as name:
            return seconds(CLONED, unpack(commit, Path(name)))

    return run


def row(what: str, then: Callable[[], float], now: Callable[[], float], repeats: int, unit: str = "CPU s") -> dict:
    """Return the ratio of what `then` and `now` give, of turns in which one followed the other."""
    pairs = [(then(), now()) for _ in range(repeats)]
    middle, least, most = ratio(*(list(side) for side in zip(*pairs, strict=True)))
    before, after = (sorted(side)[repeats // 2] for side in zip(*pairs, strict=True))
    return {
        "what": what,
        "ratio": f"{middle:.2f}",
        "range": f"{least:.2f}-{most:.2f}",
        "then": f"{before:.2f}",
        "now": f"{after:.2f}",
        "unit": unit,
        "repeats": repeats,
    }


def memory(then: Path, now: Path, out: str, repeats: int) -> Iterator[dict]:
    """Measure the ratios of the peaks of trainings by both builds, one after the other."""
    for folder in (then, now):
        for act in ("fetch", "prepare"):
            said([sys.executable, "-m", "dica.data", act, MEASURED], folder)
    for name in TRAINED:
        sides = (partial(peak, name, side, out) for side in (then, now))
        yield row(f"{PEAK}, {name} on CIFAR-10 (JPEG)", *sides, repeats, "MB")


def beside_plain_jobs(folder: Path, runs: int, repeats: int) -> dict:
    """Return the ratio of a dry run of so many planned runs to one of a hand-written Snakefile of as many jobs."""
    project, plain = folder / "project", folder / "plain"
    project.mkdir(), plain.mkdir()
    (plain / "Snakefile").write_text(PLAIN % make_project(project, runs))
    dry = ["snakemake", "--cores", "1", "-n", "--quiet", "rules"]
    return row(BESIDE, lambda: seconds(dry, project), lambda: seconds(dry, plain), repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--then", default=THEN, metavar="COMMIT", help="the earlier build")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--runs", type=int, default=RUNS, help="of the plan that a hand-written Snakefile is set beside"
    )
    parser.add_argument("--only", nargs="+", metavar="WORD", help="what has one of these in its name")
    parser.add_argument("--long", action="store_true", help="the demo and a forced `light`, too")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        now, then = unpack("HEAD", Path(name) / "now"), unpack(args.then, Path(name) / "then")
        out = str(Path(name) / "out")
        Path(out).mkdir()
        theirs, ours = commands(then, out), commands(now, out)
        if args.long:
            for folder, found in ((then, theirs), (now, ours)):
                seconds([sys.executable, "-m", "dica.data", "prepare", "digits"], folder)
                found |= {f"train {name} on the digits": training(name, folder, out) for name in TRAINED}
                found |= {"tables and figures, forced": LIGHT, "the demo": DEMO}

        def timed(what: str, folder: Path) -> Callable[[], float]:
            def run() -> float:
                shutil.rmtree(folder / "results/demo", ignore_errors=True)
                for name in TRAINED:
                    shutil.rmtree(f"{out}/{name}-{folder.name}", ignore_errors=True)
                return seconds((ours if folder == now else theirs)[what], folder)

            return run

        def wanted(what: str) -> bool:
            return not args.only or any(word in what for word in args.only)

        turns = {what: 1 if what == "the demo" else args.repeats for what in ours if wanted(what)}
        told = Told("commands", args.out, keep=bool(args.only) or not args.long)
        for what, count in turns.items():
            told.add(row(what, timed(what, then), timed(what, now), count))
        if args.long and wanted(IN_A_CLONE):
            told.add(row(IN_A_CLONE, in_a_clone(args.then), in_a_clone("HEAD"), 1))
        if args.long and wanted(PEAK) and "DICA_MIRROR" in os.environ:
            for line in memory(then, now, out, args.repeats):
                told.add(line)
        if wanted(BESIDE):
            told.add(beside_plain_jobs(Path(name), args.runs, min(args.repeats, 3)))


if __name__ == "__main__":
    main()
