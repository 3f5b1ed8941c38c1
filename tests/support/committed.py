"""A small committed project (two seeds of two methods on digits, in Git), and ways to edit its files."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np

import factory
from dica.audit.auditor import Auditor, CellAudit
from dica.cli.audit import audit_everything
from dica.data.prepared import fingerprint, labels_digest
from dica.figures import write_figures
from dica.files import sha256_file, write_json, write_npz
from dica.plan import plan as identity
from dica.plan import planned
from dica.plan.parameters import load_profile
from dica.scores import evaluation
from dica.tables import cells as tables
from dica.tables.inputs import write_inputs
from dica.tables.rendering import write_tables
from editable import edit_yaml

CELL = ("dica", "table-1", "drc/digits/acc")


CELL_DECLARED = "params/artefacts/dica.yaml"


IDENTITY = ("-c", "user.name=test", "-c", "user.email=test")


def edit_json(path: Path, change) -> None:
    body = json.loads(path.read_text())
    change(body)
    write_json(path, body)


def edit_cells(root: Path, change, cell: str = CELL[2]) -> None:
    """Change one row of cells.csv; `change` gets it and all rows."""
    path = root / "results/tables/cells.csv"
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    (row,) = [
        row
        for row in rows
        if (row["artefact"], "/".join((row["row"], row["column"], row["metric"]))) == (CELL[1], cell)
    ]
    change(row, rows)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, tables.CELL_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def build_tables(root: Path) -> None:
    plan = planned.load_plan(root / "results/plan.json")
    declared = planned.artefacts_of(plan, root)
    frame = tables.cells(plan, root, "results", declared)
    tables.write_cells(frame, root / "results/tables/cells.csv")
    write_inputs(declared, plan, root, root / "results/tables/inputs.csv")
    write_tables(declared, frame, plan, root / "results/tables")


def draw_figures(root: Path) -> None:
    plan = planned.load_plan(root / "results/plan.json")
    write_figures(planned.artefacts_of(plan, root), plan, root, "results", root / "results/figures")


def evaluate(root: Path, folder: Path) -> None:
    labels = root / "data/labels/digits.npz"
    evaluation.evaluate_files(folder / "predictions.npz", labels, folder / "metrics.json", "all")


def write_labels(root: Path) -> None:
    """Write labels with their record, and pin the fingerprint that follows."""
    train = (np.arange(120) % 10).astype(np.int16)
    write_npz(root / "data/labels/digits.npz", {"train": train})
    record = {"shape": [120, 8, 8, 1], "pixels_sha256": "a" * 64, "labels_sha256": labels_digest(train)}
    classes = [str(k) for k in range(10)]
    print_ = fingerprint({"train": record}, classes)
    body = {"fingerprint": print_, "classes": classes, "splits": {"train": record}}
    write_json(root / "data/labels/digits.json", body)
    edit_yaml(root / "params/datasets.yaml", lambda entries: entries["digits"].update(fingerprint=print_))


def write_run(root: Path, entry: dict, correct: float) -> None:
    folder = factory.write_run(root, entry, correct)
    weights = root / "results/models" / Path(*folder.parts[-3:]) / "weights.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    head = git(root, "rev-parse", "HEAD").strip()

    def complete(record: dict) -> None:
        record.update(variant=entry["variant"], determinism=entry["determinism"], commit=head)
        record["sources"] = {"src/dica/train.py": sha256_file(root / "src/dica/train.py")}
        record["files"]["weights.safetensors"] = sha256_file(weights)

    edit_json(folder / "run.json", complete)


def make_archive(project: Path, root: Path) -> Path:
    """Two seeds of two methods on digits, and a published table on data that nobody has; all of it in Git."""
    for part in ("params", "workflow/schemas"):
        shutil.copytree(root / part, project / part)
    (project / "docs").mkdir()
    shutil.copy(root / "docs/numbers.md", project / "docs")  # what a page of the report is made of
    (project / "src/dica").mkdir(parents=True)
    (project / "src/dica/train.py").write_text("# the code\n")
    (project / "Snakefile").write_text("")
    (project / ".gitignore").write_text("results/models/\n")
    for command in (("init", "-q", "--template="), ("add", "src"), ("commit", "-qm", "code")):
        git(project, *command)
    write_labels(project)

    def two_methods(body: dict) -> None:
        for name, artefact in list(body["artefacts"].items()):
            rows = [row for row in artefact["rows"] if row.get("method") in (None, "kmeans", "drc")]
            for row in rows:
                row.pop("seeds", None)
            artefact.update(seeds=2, rows=rows)
            if not rows:  # of other methods alone
                del body["artefacts"][name]

    edit_yaml(project / "params/artefacts/dica.yaml", two_methods)
    edit_yaml(
        project / "params/artefacts/drc.yaml",
        lambda body: body["artefacts"]["table-1"].update(
            datasets=["cifar10"],
            metrics=["acc"],
            rows=[
                {"label": "Copied", "key": "copied", "published_method": "dac"},
                *body["artefacts"]["table-1"]["rows"],
            ],
        ),
    )
    edit_yaml(project / "params/archive.yaml", lambda body: body.update(artefacts=["dica table-1", "drc table-1"]))
    profile = load_profile(project / "params/archive.yaml", project)
    plan = identity.make_plan(profile, project)
    identity.write_plan(plan, project / "results/plan.json")
    for method, correct in (("kmeans", 0.6), ("drc", 0.8)):
        for run in factory.select(plan, method, "digits"):
            write_run(project, run, correct)
    build_tables(project)
    for command in (("add", "-A"), ("commit", "-qm", "results"), ("gc", "-q")):
        git(project, *command)
    return project


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *IDENTITY, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def run_folder(root: Path, method: str = "drc", seed: int = 0) -> Path:
    (folder,) = (root / "results/runs" / method / "digits").glob(f"s{seed}-*")
    return folder


def audit(root: Path, cell: str = CELL[2], artefact: tuple[str, str] = CELL[:2]) -> CellAudit:
    auditor = Auditor(root)
    return auditor.audit(auditor.find(*artefact, cell))


def said(result: CellAudit, ok: bool | None = False) -> str:
    return "\n".join(f"{finding.what}: {finding.detail}" for finding in result.all_findings if finding.ok is ok)


def worst(root: Path) -> int:
    """The code that `dica audit --all` ends with."""
    return audit_everything(Auditor(root), as_json=False)
