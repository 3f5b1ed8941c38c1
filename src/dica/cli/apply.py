"""`dica predict` and `dica export`: use a trained run on images that it has never seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dica.cli.own import run_door
from dica.cli.runs import console
from dica.files import UserError, project_root, read_json
from dica.runs.files import CONFIG, models_of

RunName = Annotated[str, typer.Argument(help="Folder of a run, or the name of images that `dica cluster` knows.")]


def predict(
    run: RunName,
    images: Annotated[Path, typer.Argument(help="Folder or archive of new images, or one file.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write (default: NEW-assignments.csv).", show_default=False)
    ] = None,
    skip: Annotated[bool, typer.Option("--skip-unreadable", help="Leave damaged images out and name them.")] = False,
    follow: Annotated[bool, typer.Option("--follow-links", help="Read linked folders too.")] = False,
) -> None:
    """Sort new images into the clusters of a trained run, by its weights."""
    from dica.data.own import default_name

    root = project_root()
    folder, models = find_run(root, run)
    out = out or Path(f"{default_name(images)}-assignments.csv")
    told = ["--images", str(images.expanduser().resolve()), "--out", str(out.resolve())]
    told += [*(["--skip-unreadable"] if skip else []), *(["--follow-links"] if follow else [])]
    said = run_door(root, ["-m", "dica.own.apply", "predict", "--run", str(folder), "--models", str(models), *told])
    *remarks, count = said.strip().splitlines()
    for remark in remarks:
        console.print(escape(remark))
    console.print(f"{count} images in {escape(str(out))}")


def export(
    run: RunName,
    out: Annotated[Path, typer.Argument(help="File to write: NAME.safetensors, NAME.pt2 or NAME.onnx.")],
) -> None:
    """Write the network of a trained run for use elsewhere, with what has to be done to an image first.

    docs/own-images.md has twelve lines that load each kind: .pt2 with torch alone, .onnx with onnxruntime alone.
    """
    root = project_root()
    folder, models = find_run(root, run)
    told = ["--run", str(folder), "--models", str(models), "--out", str(out.resolve())]
    run_door(root, ["-m", "dica.own.apply", "export", *told])
    console.print(f"wrote {escape(str(out))}, and {escape(str(out.with_suffix('.json')))} with its preprocessing")


def find_run(root: Path, name: str) -> tuple[Path, Path]:
    """Return the folder of a run's records and that of its weights.

    Raises
    ------
    UserError
        If there is no such run.
    """
    from dica.plan.own import results_folder

    scores = root / results_folder(name) / "scores.json"
    if not scores.is_file() and scores.with_name("how-many.json").is_file():
        raise UserError(
            f"{name}: of these images only numbers of clusters were compared; first run `dica cluster … --name {name} "
            "--k N` with the one that you choose"
        )
    if scores.is_file():
        folder = root / read_json(scores)["shown"]
    else:
        folder = Path(name) if Path(name).is_absolute() or Path(name).is_dir() else root / name
    folder = folder.resolve()
    if not (folder / CONFIG).is_file():
        raise UserError(f"{name}: no run there (no config.json), nor images of this name in results/own")
    parts = folder.parts
    if len(parts) < 5 or parts[-4] != "runs":
        raise UserError(
            f"{folder}: a run lies in …/runs/<method>/<data set>/<seed>-<id>, its weights beside in models/"
        )
    return folder, models_of(folder)
