"""Commands of `dica data`: questions about prepared data sets. `dica.cli.__main__` adds them to the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dica.cli import completion
from dica.cli.runs import AsJson, console
from dica.data.paths import labels_file, prepared_folder
from dica.files import project_root, write_csv

LIMIT = 7.0  # grey levels; on CIFAR-10 nearly all pairs below it show one thing
COLUMNS = ("split", "position", "other_split", "other_position", "distance", "same_class")

app = typer.Typer(help="Questions about a prepared data set.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Questions about a prepared data set."""


@app.command()
def duplicates(
    dataset: Annotated[str, typer.Argument(help="Prepared data set.", autocompletion=completion.datasets)],
    limit: Annotated[float, typer.Option(help="Grey levels that two 8 by 8 thumbnails may differ by.")] = LIMIT,
    out: Annotated[Path | None, typer.Option(help="Folder for pairs.csv and pairs.png.")] = None,
    as_json: AsJson = False,
) -> None:
    """List images that are nearly the same, within and across the splits, with a contact sheet."""
    import numpy as np

    from dica.data.catalog import entry
    from dica.data.duplicates import near_duplicates, write_sheet
    from dica.data.prepared import load_manifest

    root = project_root()
    folder = root / prepared_folder(dataset)
    if not folder.is_dir():
        entry(root, dataset)  # a wrong name is not a data set that waits to be prepared
    pairs = near_duplicates(folder, limit)
    labels = root / labels_file(dataset)
    classes = dict(np.load(labels, allow_pickle=False)) if labels.is_file() else {}
    rows = []
    for pair in pairs:
        (split, row), (other_split, other_row) = pair.one, pair.other
        known = [classes[name][place] for name, place in (pair.one, pair.other) if len(classes.get(name, ()))]
        same = "" if len(known) < 2 or min(known) < 0 else "yes" if known[0] == known[1] else "no"
        rows.append([split, row, other_split, other_row, f"{pair.distance:.2f}", same])
    across = [pair for pair in pairs if pair.one[0] != pair.other[0]]
    judged = [row[5] for row in rows if row[5]]
    images = {place for pair in pairs for place in (pair.one, pair.other)}
    total = sum(split["shape"][0] for split in load_manifest(folder)["splits"].values())
    facts = {
        "dataset": dataset,
        "limit": limit,
        "images": total,
        "images_with_a_near_copy": len(images),
        "pairs": len(pairs),
        "pairs_across_splits": len(across),
        "pairs_of_one_class": judged.count("yes") if judged else None,
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_csv([dict(zip(COLUMNS, row, strict=True)) for row in rows], COLUMNS, out / "pairs.csv")
        write_sheet(folder, pairs, out / "pairs.png")
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    console.print(f"{dataset}: {len(images)} of {total} images have a near copy (thumbnails within {limit:g} levels)")
    of_class = f", {judged.count('yes')} of {len(judged)} of one class" if judged else ""
    console.print(f"{len(pairs)} pairs, {len(across)} of them across the splits{of_class}")
    if out is not None:
        console.print(f"wrote {out / 'pairs.csv'} and {out / 'pairs.png'}")
