"""`dica cluster`: from a folder or an archive of images to clusters that can be looked at.

It writes parameter files, then runs the workflow's own rules, so that identity, resume and audit are those of any run.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.markup import escape

from dica.cli.progress import heed_interrupts, watch
from dica.cli.runs import console, gpu_names
from dica.data.paths import OWN_PREFIX, prepared_folder
from dica.files import UserError, no_empty_folders, plain_cell, project_root, read_json, write_json

UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
SHOWN = 20  # names of images that are listed
TRIES = 100  # to take a lock that others take and remove
SEVERAL = 3  # seeds by which numbers of clusters are compared


def cluster(
    source: Annotated[Path, typer.Argument(help="Folder or archive of images, or features as .npy of shape (n, d).")],
    k: Annotated[str, typer.Option("--k", help="Number of clusters, or a range to choose from, such as 5:20.")],
    method: Annotated[
        str,
        typer.Option(
            help="crlc, drc, imc-swav, kmeans or tcc; of features ac, crlc-two-stage, kmeans, sc or scan-neighbours."
        ),
    ] = "",
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Passes over the images (default: as the budget allows).", show_default=False),
    ] = None,
    budget: Annotated[str, typer.Option(help="Time for all seeds, such as 20min (default: minutes a seed).")] = "",
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Runs that differ in their seed (default: 1; 3 for a range).", show_default=False),
    ] = None,
    name: Annotated[str, typer.Option(help="What to call the images (default: the folder's name).")] = "",
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Folders in it are no classes, only order.")] = False,
    skip: Annotated[bool, typer.Option("--skip-unreadable", help="Leave damaged images out and name them.")] = False,
    follow: Annotated[bool, typer.Option("--follow-links", help="Read linked folders too.")] = False,
    links: Annotated[bool, typer.Option("--links", help="Also make a folder of links for each cluster.")] = False,
) -> None:
    """Sort images without labels into clusters, and make a page to look at them.

    Run it again: what is done stays, what was interrupted goes on.
    """
    from dica.data import own

    root, source = project_root(), source.expanduser()
    name = name or own.default_name(source)
    own.check_name(name)
    wanted = {"method": method, "epochs": epochs or 0, "seconds": _seconds(budget), **_numbers(k, seeds)}
    wanted |= {"labels": not no_labels, "skip": skip, "follow": follow}
    if links and not source.is_dir():
        raise UserError("--links: needs a folder of images; links cannot point into an archive or a table of features")
    _require_one_length(root, method, epochs, budget)
    with _alone(root, name) as lock:
        profile = _declare(root, name, source, wanted)
        _run(root, name, profile, lock)
        _finish(root, profile, source, links)


def _require_one_length(root: Path, method: str, epochs: int | None, budget: str) -> None:
    """Refuse two lengths of a training, and one of a method that has none."""
    from dica.plan.parameters import load_method, method_names

    if epochs and budget:
        raise UserError("--epochs and --budget: give one of them")
    given = "--epochs" if epochs else "--budget" if budget else ""
    if given and method in method_names(root) and "epochs" not in load_method(method, root)["defaults"]:
        raise UserError(f"{given}: {method} is not trained in epochs; leave it out")


def _numbers(k: str, seeds: int | None) -> dict[str, Any]:
    """Return `k` and, for a range, `counts`; and the number of seeds."""
    from dica.plan.own import MOST_COUNTS

    found = re.fullmatch(r"(\d+)(?::(\d+))?", k.strip())
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 2 <= low <= high or high > 1000:
        raise UserError(f"--k: {k!r} must be a number from 2 on, such as 10, or a range, such as 5:20")
    if low == high:
        return {"k": high, "seeds": seeds or 1}
    if high > MOST_COUNTS:
        raise UserError(f"--k: {k}: a range may go up to {MOST_COUNTS}; each number costs time")
    if seeds == 1:
        raise UserError("--seeds: a range is compared by the agreement between seeds; needs 2 or more")
    return {"k": high, "counts": [low, high], "seeds": seeds or SEVERAL}


def _seconds(budget: str) -> float:
    """Return a time such as `20min`, `1.5h` or `90s` in seconds; 0 for none."""
    if not budget:
        return 0.0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", budget.strip().lower())
    if not found or found[2] not in UNITS or not float(found[1]):
        raise UserError(f"--budget: {budget!r} must be a time such as 20min, 1.5h or 90s")
    return float(found[1]) * UNITS[found[2]]


@contextlib.contextmanager
def _alone(root: Path, name: str) -> Iterator[IO[str]]:
    """Hold the lock of these images: one command at a time works on them, and no stale lock ever stops the next one.

    A command that comes to nothing leaves neither lock nor folder.
    """
    folder = root / "results" / "own" / name
    path = folder / ".lock"
    with no_empty_folders(root / "results", folder.parent, folder), contextlib.ExitStack() as stack:
        for left in reversed(range(TRIES)):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(open(path, "a"))
                _take(lock, path)
                break
            except (FileNotFoundError, FileExistsError):  # another command has ended and removed it just now
                if not left:
                    raise
        try:
            yield lock
        finally:
            if list(folder.glob("*")) == [path]:  # still held, and nothing was begun that needs it
                path.unlink()


def _take(lock: IO[str], path: Path) -> None:
    """Take a lock whose file lies at `path`.

    Raises
    ------
    UserError
        If another command has it.
    FileNotFoundError
        If its file is not the one any more that others would open.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{path.parent}: {_holder(path)} these images; wait, or give --name") from None
    if not os.path.samestat(os.fstat(lock.fileno()), path.stat()):
        raise FileNotFoundError(errno.ENOENT, "removed again and again", str(path))
    _sign(lock, os.getpid())


def _sign(lock: IO[str], *processes: int) -> None:
    """Write down who works under a lock: this command, and the leader of the group of the workflow's processes."""
    lock.seek(0)
    lock.truncate()
    lock.write(" ".join(map(str, processes)))
    lock.flush()


def _holder(path: Path) -> str:
    """Return who has a lock, as far as that is known, and what it does."""
    processes = [int(word) for word in path.read_text(errors="replace").split() if word.isdecimal()]
    if processes and Path(f"/proc/{processes[0]}").exists():
        return f"another dica command (process {processes[0]}) works on"
    if len(processes) > 1:
        stop = f"kill -INT -- -{processes[1]}"
        return f"what a dica command that was killed has started still works (`{stop}` stops it) on"
    return "another dica command works on"


def _declare(root: Path, name: str, source: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Write data-set entry and profile, unless those of the last time are of the same images and the same wish."""
    from dica.data import own
    from dica.plan import recipes
    from dica.plan.own import make_profile, profile_path, read_request, write_yaml
    from dica.plan.parameters import load_datasets, load_profile

    before, gpu = read_request(root, name), bool(gpu_names())
    place = str(source.resolve())
    if before and before["source"] != place:
        raise UserError(f"{name!r} is the name of {before['source']} already; give these images another --name")
    found = own.look(source, wanted["labels"], wanted["skip"], wanted["follow"])
    _tell_images(source, found)
    method = wanted["method"] or ("kmeans" if found.features else recipes.DEFAULT)
    recipes.check_method(method, bool(found.features))
    own.require_enough(wanted["k"], found.count)
    side = recipes.prepared_side(found, gpu)
    request = {"source": place, "listing": found.listing, "side": side, "gpu": gpu, "wanted": wanted}
    path = root / profile_path(name)
    if path.is_file() and {key: before.get(key) for key in request} == request and _prepared(root, name):
        _tell_left_out(root, name)
        console.print(f"recipe, as before: {escape(before['told'])}")
        return load_profile(path, root)
    same = {**request, "prepare": found.prepare}
    if not (all(before.get(key) == same[key] for key in ("listing", "side", "prepare")) and _prepared(root, name)):
        console.print(f"reading all {'rows' if found.features else 'images'} …")
        own.declare(root, name, source, found, side, wanted["k"], enough=True)
    load_datasets.cache_clear()
    if wanted["skip"]:
        found = replace(found, splits=load_datasets(root)[f"{OWN_PREFIX}{name}"]["splits"])
        _tell_left_out(root, name)
        own.require_enough(wanted["k"], found.count)
    runs = {"method": method, "seeds": wanted["seeds"]} | {key: wanted[key] for key in ("counts",) if key in wanted}
    recipe = recipes.draft(method, found, wanted["k"], gpu, root)
    recipe, told = _fit(root, name, recipe, runs, wanted, found.count)
    told = f"{method}: {recipe.reason}; {told}"
    console.print(f"recipe: {escape(told)}")
    profile = make_profile(name, runs, recipe.overrides)
    write_yaml(path, f"Written by `dica cluster`.\n{told}", profile)
    write_json(path.with_name("request.json"), {**same, "told": told})
    return load_profile(path, root)


def _tell_left_out(root: Path, name: str) -> None:
    """Name the damaged images that are left out."""
    from dica.data.own import left_out

    if images := left_out(root, name):
        shown = ", ".join(image["name"] for image in images[:SHOWN]) + (", …" if len(images) > SHOWN else "")
        console.print(escape(f"{len(images)} images that cannot be read are left out: {shown}"))


def _prepared(root: Path, name: str) -> bool:
    from dica.data import catalog
    from dica.data.prepared import is_current

    entry = catalog.load(root).get(f"{OWN_PREFIX}{name}")
    return entry is not None and is_current(root, entry)


def _tell_images(source: Path, found: Any) -> None:
    counts = ", ".join(f"{number} in {split}" for split, number in found.splits.items())
    several = f" ({counts})" if len(found.splits) > 1 else ""
    what = f"rows of {found.features} numbers" if found.features else "images"
    console.print(f"[bold]{escape(str(source))}[/]: {found.count} {what}{several}")
    if found.remark:
        console.print(escape(found.remark))
    if found.classes:
        shown = ", ".join(found.classes[:5]) + (", …" if len(found.classes) > 5 else "")
        console.print(
            f"its {len(found.classes)} folders ({escape(shown)}) count as labels: results are scored against them,"
            " and no method sees them"
        )


def _spoken(minutes: float) -> str:
    return f"{minutes:.1f} minutes" if minutes >= 1 else f"{60 * minutes:.0f} seconds"


def _fit(
    root: Path, name: str, recipe: Any, runs: dict[str, Any], wanted: dict[str, Any], count: int
) -> tuple[Any, str]:
    """Return the recipe with its epochs, and in words what it will cost; a short trial on this machine tells."""
    from dica.plan import recipes

    seeds, gpu = runs["seeds"], bool(gpu_names())
    if recipe.method in recipes.FITTED:
        return recipe, f"{seeds} run(s) of seconds to a few minutes"
    cores = len(os.sched_getaffinity(0))
    rounds = seeds if gpu else -(-seeds // min(seeds, cores))  # runs of a CPU go side by side, one a core
    found = _trial(root, name, recipe, runs)
    limit = wanted["seconds"] / rounds if wanted["seconds"] else 60 * recipes.MINUTES["gpu" if gpu else "cpu"]
    epochs = wanted["epochs"] or recipes.epochs_in(limit, found["seconds_per_epoch"])
    minutes = epochs * found["seconds_per_epoch"] * rounds / 60
    told = (
        f"{epochs} epochs, {seeds} run(s), about {_spoken(minutes)} on {found['device']} if that is idle, "
        f"and {found['peak_memory_mb'] / 1024:.1f} GB of memory a run, measured just now"
    )
    return recipes.with_epochs(recipe, epochs, count, root), told


def _trial(root: Path, name: str, recipe: Any, runs: dict[str, Any]) -> dict[str, Any]:
    """Return what `dica.own.measure` says of the first run; it needs torch, which this process never imports."""
    from dica.plan.own import make_profile
    from dica.plan.plan import run_config

    profile = make_profile(name, runs, recipe.overrides)
    dataset = profile["runs"]["dataset"]
    config = root / profile["results"] / "state" / "trial.json"
    write_json(config, run_config(recipe.method, "full", dataset, 0, profile, root))
    command = ["-m", "dica.own.measure", "--config", str(config), "--data", str(root / prepared_folder(dataset))]
    return json.loads(run_door(root, command))


def run_door(root: Path, arguments: list[str]) -> str:
    """Run one of the package's commands that need torch, and return what it prints.

    Raises
    ------
    UserError
        With its own message where it fails with one.
    """
    done = subprocess.run([sys.executable, *arguments], env=door_environment(root), text=True, capture_output=True)
    if done.returncode:
        raise UserError(_said(done.stderr) or f"exit code {done.returncode}")
    return done.stdout


def _said(text: str) -> str:
    """Return all of an error that a command has printed, without what came before it; of a traceback its last line."""
    text = f"\n{text.strip()}"
    _, begun, message = text.partition("\nerror: ")
    return message if begun else text.splitlines()[-1]


def door_environment(root: Path) -> dict[str, str]:
    """Return the environment in which a process takes the package of this checkout."""
    paths = [str(root / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _run(root: Path, name: str, profile: dict[str, Any], lock: IO[str]) -> None:
    """Run the workflow until page and table are there."""
    from dica.plan.own import own_outputs, own_runs, profile_path
    from dica.plan.plan import make_plan
    from dica.runs.files import failure_reason

    runs, results = own_runs(profile, make_plan(profile, root)), profile["results"]
    log = root / results / "logs" / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    targets = [f"{results}/{name}" for name in own_outputs(profile)]
    cores = len(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores)]
    command += ["--configfile", str(profile_path(name)), "--rerun-incomplete", "--keep-going", "--nolock"]
    command += [
        "--resources",
        f"gpu={len(gpu_names()) or cores}",
        "--",
        *targets,
    ]  # without a GPU each run takes a core
    with open(log, "w") as out:
        process = subprocess.Popen(
            command,
            cwd=root,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=heed_interrupts,
            pass_fds=(lock.fileno(),),
        )
        _sign(lock, os.getpid(), process.pid)
        code = watch(process, runs, root / results / "logs" / "train")
    if not code:
        if "Nothing to be done" in log.read_text(encoding="utf-8", errors="replace"):
            console.print("nothing to do: all of it is there")
        return
    for run in runs:
        if reason := failure_reason(root / results / "state" / run["id"]):
            raise UserError(f"{run['path']}: {reason} (log: {log})")
    raise UserError(f"the workflow stopped; its log says why: {log}")


def _finish(root: Path, profile: dict[str, Any], source: Path, links: bool) -> None:
    from dica.plan.own import own_outputs

    folder, files = root / profile["results"], own_outputs(profile)
    if "counts" in profile["runs"]:
        console.print(escape(read_json(folder / "how-many.json")["reason"]))
    else:
        scores = read_json(folder / "scores.json")
        if scores["agreement"]:
            mean = sum(scores["agreement"]) / len(scores["agreement"])
            console.print(f"seeds agree by {mean:.3f} (ARI; 1: the same clusters, 0: chance)")
        for row in scores["runs"]:
            if "acc" in row:
                console.print(f"seed {row['seed']} against the folders: ACC {row['acc']:.3f}, NMI {row['nmi']:.3f}")
        what, new = ("features", "FILE.npy") if source.suffix == ".npy" else ("images", "FOLDER")
        console.print(f"new {what}: dica predict {escape(scores['shown'])} {new}")
        if links:
            _link(folder, source)
            files = [*files, "clusters"]
    console.print("[bold]look at[/]")
    for file in files:
        console.print(f"  {escape(os.path.relpath(folder / file))}")


def _link(folder: Path, source: Path) -> None:
    """Make clusters/<number>/<file> links to the images, in the folders that they have; earlier ones are replaced."""
    target = folder / "clusters"
    for old in sorted(target.rglob("*"), reverse=True):
        if old.is_symlink():
            old.unlink()
        elif old.is_dir() and not any(old.iterdir()):  # what somebody else has put there stays
            old.rmdir()
    with open(folder / "assignments.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            name = plain_cell(row["file"])
            link = target / row["cluster"] / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((source / name).resolve())
