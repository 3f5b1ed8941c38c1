"""Edits of a small committed archive: of its parameters, runs, cells and Git."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from committed import (
    CELL_DECLARED,
    build_tables,
    edit_cells,
    edit_json,
    edit_yaml,
    evaluate,
    git,
    run_folder,
)
from dica.files import load_arrays, sha256_file, write_npz
from dica.plan import plan as identity
from dica.plan.parameters import load_profile

PUBLISHED = "params/published/results.csv"


def replace(root: Path, name: str, old: str, new: str, count: int = 1) -> None:
    path = root / name
    data = path.read_bytes()
    assert old.encode() in data, f"{name} has no {old}"
    path.write_bytes(data.replace(old.encode(), new.encode(), count))


def light(root: Path) -> None:
    """Make plan and tables again, as `snakemake light` does."""
    plan = identity.make_plan(load_profile(root / "params/archive.yaml", root), root)
    identity.write_plan(plan, root / "results/plan.json")
    build_tables(root)


def then_light(edit: Callable[[Path], object]) -> Callable[[Path], None]:
    def both(root: Path) -> None:
        edit(root)
        light(root)

    return both


def edit_published(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Return an edit of the printed number of DRC on CIFAR-10."""

    def edit(root: Path) -> None:
        path = root / PUBLISHED
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        wanted = {"paper": "drc", "table": "Table 1", "method": "drc", "dataset": "cifar10", "metric": "acc"}
        mine = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
        assert mine
        for row in mine:
            if change(row) == "drop":
                rows.remove(row)
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    return edit


def declared(change: Callable[[dict], object], name: str = CELL_DECLARED) -> Callable[[Path], None]:
    table = "table-1"
    return lambda root: edit_yaml(root / name, lambda body: change(body["artefacts"][table]))


def dataset(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    return lambda root: edit_yaml(root / "params/datasets.yaml", lambda body: change(body[name]))


def record(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    return lambda root: edit_json(run_folder(root) / name, change)


def column(name: str, value: str) -> Callable[[Path], None]:
    return lambda root: edit_cells(root, lambda row, rows: row.update({name: value}))


def remove_run(root: Path, seed: int = 0) -> None:
    shutil.rmtree(run_folder(root, seed=seed))


def committed(edit: Callable[[Path], object]) -> Callable[[Path], None]:
    def both(root: Path) -> None:
        edit(root)
        git(root, "commit", "-qam", "forged")

    return both


def hide(flag: str) -> Callable[[Path], None]:
    """Return an edit of a run's record that Git is told not to look at."""

    def edit(root: Path) -> None:
        path = run_folder(root) / "run.json"
        git(root, "update-index", flag, str(path.relative_to(root)))
        edit_json(path, lambda body: body.update(commit="f" * 40))

    return edit


def hide_by_filter(root: Path) -> None:
    """Change a run's record and tell Git a filter that turns it back."""
    path = run_folder(root) / "run.json"
    (root / ".git/info").mkdir(exist_ok=True)
    (root / ".git/info/attributes").write_text("*.json filter=back\n")
    git(root, "config", "filter.back.clean", "git cat-file blob HEAD:%f")
    edit_json(path, lambda body: body.update(commit="f" * 40))


def hide_by_replacing(root: Path) -> None:
    """Commit a changed record and let that commit stand for the one before."""
    before = git(root, "rev-parse", "HEAD")
    edit_json(run_folder(root) / "run.json", lambda body: body.update(commit="f" * 40))
    git(root, "commit", "-qam", "forged")
    git(root, "update-ref", f"refs/replace/{before.strip()}", "HEAD")
    git(root, "update-ref", "HEAD", before.strip())


def hide_by_time(root: Path) -> None:
    """Change a run's record without a change of its size, and set its time back."""
    path = run_folder(root) / "run.json"
    before = path.stat()
    replace(root, str(path.relative_to(root)), "x86 <test>", "x87 <test>")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def better_predictions(root: Path) -> None:
    """Put the labels in the place of the predictions, and let record, metrics, cells and tables follow."""
    folder = run_folder(root)
    train = load_arrays(root / "data/labels/digits.npz")["train"]
    write_npz(folder / "predictions.npz", {"num_clusters": np.int64(10), "train_assignment": train})
    files = {"predictions.npz": sha256_file(folder / "predictions.npz")}
    edit_json(folder / "run.json", lambda body: body["files"].update(files))
    evaluate(root, folder)
    build_tables(root)


def easier_labels(root: Path) -> None:
    arrays = load_arrays(run_folder(root) / "predictions.npz")
    write_npz(root / "data/labels/digits.npz", {"train": arrays["train_assignment"]})
    for method in ("drc", "kmeans"):
        for seed in (0, 1):
            evaluate(root, run_folder(root, method, seed))
    build_tables(root)


def foreign_runs(row: dict, rows: list[dict]) -> None:
    other = next(r for r in rows if (r["row"], r["dataset"], r["metric"]) == ("kmeans", "digits", "acc"))
    row.update({name: other[name] for name in ("runs", "value", "spread", "best")})


def other_weights(root: Path) -> None:
    for path in (root / "results/models").rglob("*.safetensors"):
        path.write_bytes(b"others")


def commit_without(*names: str) -> Callable[[Path], None]:
    """Return an edit that removes what `names` match in results/ and commits that."""

    def edit(root: Path) -> None:
        git(root, "rm", "-q", *(f"results/{name}" for name in names))
        git(root, "commit", "-qm", "fewer")

    return edit


def commit_without_a_seed(root: Path) -> None:
    remove_run(root)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "fewer")
    light(root)
