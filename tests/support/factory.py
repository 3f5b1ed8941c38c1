"""Synthetic projects for tests: real declarations, a plan for them, and run folders with made-up results."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import shutil
from functools import cache
from pathlib import Path

import numpy as np

from dica.files import atomic_write_text, load_arrays, sha256_file, write_json, write_npz
from dica.plan.artefacts import Artefact, load_artefacts, needs, paper_names
from dica.plan.parameters import resolve
from dica.scores import evaluation
from editable import edit_yaml

PARAMS = {
    "kmeans": {"train_split": "all", "eval_split": "all", "restarts": 10, "revision": 1},
    "drc": {
        "train_split": "all",
        "eval_split": "all",
        "epochs": 30,
        "lr": 1e-4,
        "views": {"original": [{"op": "resize", "size": 40}]},
        "revision": 1,
    },
    "imc-swav": {"train_split": "train", "eval_split": "test", "epochs": 40, "lr": 5e-4, "revision": 1},
    **{key: {"train_split": "train", "eval_split": "test", "supervised": True} for key in ("probe", "crlc-semi")},
}
OTHERS = {"train_split": "all", "eval_split": "all", "epochs": 10, "revision": 1}
LOSS_PARTS = {"kmeans": [], "drc": ["l_af", "l_ap", "l_cr", "over_loss", "over_l_af"], "imc-swav": ["swap", "cluster"]}
CLASSES, TRAIN, TEST = 10, 900, 300
ARROWS = [  # of a graph of rules
    *(("fetch", "prepare"), ("prepare", "train"), ("train", "train"), ("train", "page")),
    *(("prepare", "page"), ("page", "all")),
]


def make_project(root: Path, checkout: Path) -> Path:
    """Copy the declarations of `checkout` into `root` and add labels of every data set they name."""
    for part in ("params", "workflow/schemas"):
        shutil.copytree(checkout / part, root / part)
    (root / "docs").mkdir()
    shutil.copy(checkout / "docs/numbers.md", root / "docs")

    # The archive's own tables with the three methods that have parameters above, so that examples stay small.
    def three_methods(body: dict) -> None:
        for spec in body["artefacts"].values():
            spec["seeds"] = min(spec["seeds"], 3)
            spec["rows"] = [row for row in spec["rows"] if row["method"] in ("kmeans", "drc", "imc-swav")]
            for row in spec["rows"]:
                row.pop("seeds", None)

    edit_yaml(root / "params/artefacts/dica.yaml", three_methods)
    for path in (root / "params/artefacts").glob("*.yaml"):  # nor the same artefacts at lower rungs, with more seeds
        text = path.read_text()
        if "\nlower:\n" in text:
            head, tail = text.split("\nlower:\n")
            path.write_text(f"{head}\nartefacts:\n{tail.partition(chr(10) + 'artefacts:' + chr(10))[2]}")
    for artefact in load_artefacts(root, paper_names(root)):
        for column in artefact.columns:
            path = root / "data" / "labels" / f"{column.dataset}.npz"
            if not path.is_file():
                test = 0 if column.dataset == "digits" else TEST
                splits = {"train": np.arange(TRAIN) % CLASSES, "test": np.arange(test) % CLASSES}
                write_npz(path, {name: values.astype(np.int16) for name, values in splits.items()})
    return root


@cache
def _declared(method: str, variant: str, dataset: str) -> dict:
    """Return the parameters that params/ declares: figures read what they sweep from them."""
    return resolve(method, variant, dataset, {"overrides": {}}, Path(__file__).resolve().parents[2])


def make_plan(artefacts: list[Artefact], results: str = "results") -> dict:
    """Return the plan of some artefacts in the format of results/plan.json."""
    runs: dict[str, dict] = {}
    for artefact in artefacts:
        for method, variant, dataset, seed in needs(artefact):
            params = {**_declared(method, variant, dataset), **PARAMS.get(method, OTHERS)}
            if dataset == "digits":
                params.update(train_split="all", eval_split="all")
            identity = hashlib.sha256(f"{method}{variant}{dataset}{seed}".encode()).hexdigest()[:12]
            entry = runs.setdefault(
                identity,
                {
                    "id": identity,
                    "method": method,
                    "variant": variant,
                    "dataset": dataset,
                    "data_id": "d" * 12,
                    "seed": seed,
                    "determinism": "seeded",
                    "params": params,
                    "path": f"{results}/runs/{method}/{dataset}/s{seed}-{identity}",
                    "needed_by": [],
                },
            )
            if artefact.address not in entry["needed_by"]:
                entry["needed_by"].append(artefact.address)
    addresses = [artefact.address for artefact in artefacts]
    return {"profile": "archive", "artefacts": addresses, "on_gpu": [], "runs": list(runs.values())}


def select(plan: dict, method: str, dataset: str) -> list[dict]:
    """Return the planned runs of one method's full variant on one data set."""
    wanted = (method, "full", dataset)
    return [run for run in plan["runs"] if (run["method"], run["variant"], run["dataset"]) == wanted]


def write_run(root: Path, entry: dict, correct: float, epochs: int = 12) -> Path:
    """Write the complete folder of one planned run whose accuracy is about `correct`."""
    folder = root / entry["path"]
    keys = ("id", "method", "variant", "dataset", "data_id", "seed", "determinism", "params")
    write_json(folder / "config.json", {key: entry[key] for key in keys})
    rng = np.random.default_rng(int(entry["id"], 16))
    labels = load_arrays(root / "data" / "labels" / f"{entry['dataset']}.npz")
    arrays = {"num_clusters": np.int64(CLASSES)}
    for split, true in labels.items():
        if true.size:
            kept = rng.random(true.size) < correct
            guess = np.where(kept, true, rng.integers(0, CLASSES, true.size))
            shift = 0 if entry["params"].get("supervised") else 3
            arrays[f"{split}_assignment"] = ((guess + shift) % CLASSES).astype(np.int16)
            if entry["params"].get("top5"):
                arrays[f"{split}_top5"] = (arrays[f"{split}_assignment"][:, None] + np.arange(5)) % CLASSES
            arrays[f"{split}_confidence"] = rng.random(true.size).astype(np.float16)
    write_npz(folder / "predictions.npz", arrays)
    write_history(folder / "history.csv", LOSS_PARTS.get(entry["method"], ["loss_a", "loss_b"]), epochs, rng)
    write_json(folder / "run.json", run_record(folder, entry))
    evaluation.evaluate_files(
        folder / "predictions.npz",
        root / "data" / "labels" / f"{entry['dataset']}.npz",
        folder / "metrics.json",
        entry["params"]["eval_split"],
        entry["params"].get("supervised", False),
    )
    return folder


def write_history(path: Path, parts: list[str], epochs: int, rng: np.random.Generator) -> None:
    """Write falling losses, one line an epoch."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["epoch", "step", "loss", *parts, "lr"])
    for epoch in range(1, epochs + 1):
        values = [(k + 1) * 2 * math.exp(-epoch / epochs * 2) + 0.3 * rng.random() for k in range(len(parts))]
        total = sum(values) if parts else 10.0 / epoch
        writer.writerow([epoch, epoch * 10, *(f"{value:.6f}" for value in [total, *values]), 0.0001])
    atomic_write_text(path, out.getvalue())


def run_record(folder: Path, entry: dict) -> dict:
    """Return a run.json with every field the archive writes."""
    files = ("config.json", "history.csv", "predictions.npz")
    return {
        "id": entry["id"],
        "method": entry["method"],
        "dataset": entry["dataset"],
        "seed": entry["seed"],
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty_sha256": None,
        "sources": {"src/dica/train.py": "a" * 64},
        "versions": {"python": "3.11.2", "torch": "2.13.0"},
        "device": {"type": "cpu", "name": "x86 <test>"},
        "host_platform": "Linux-6",
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:05:05+00:00",
        "seconds": 60.0,
        "images_per_second": 1234.5,
        "peak_memory_mb": 321.0,
        "resumed": 0,
        "files": {name: sha256_file(folder / name) for name in files},
    }


def write_failure(root: Path, entry: dict, reason: str, results: str = "results") -> None:
    """Record that a planned run failed."""
    write_json(root / results / "state" / entry["id"] / "failed.json", {"reason": reason})


def example_project(root: Path, checkout: Path) -> tuple[Path, dict, list[Artefact]]:
    """Return a project in which some cells agree, some do not, one failed and most were never run."""
    make_project(root, checkout)
    artefacts = load_artefacts(root, ["dica", "drc", "imc-swav"])
    plan = make_plan(artefacts)
    write_json(root / "results" / "plan.json", plan)
    levels = {
        ("kmeans", "digits"): 0.77,
        ("drc", "digits"): 0.80,
        ("imc-swav", "digits"): 0.88,
        ("kmeans", "cifar10-jpeg"): 0.14,
        ("drc", "cifar10-jpeg"): 0.45,
        ("imc-swav", "cifar10-jpeg"): 0.88,
        ("kmeans", "cifar10"): 0.14,
        ("drc", "cifar10"): 0.69,
    }
    for (method, dataset), correct in levels.items():
        for k, entry in enumerate(select(plan, method, dataset)):
            write_run(root, entry, correct + 0.004 * (k % 3))
    for entry in select(plan, "drc", "stl10"):
        write_failure(root, entry, "loss is not finite at epoch 3 <step 17>")
    write_run(root, select(plan, "imc-swav", "cifar10")[0], 0.9)
    return root, plan, artefacts
