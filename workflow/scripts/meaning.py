"""Measure what docs/numbers.md tells: python workflow/scripts/meaning.py [--images FOLDER] [--heads FILE.npz ...]

`--images` is a prepared CIFAR-10 (JPEG), of which the test split is taken; `--heads` are what `python -m dica.analyse
heads` wrote of runs on the digits, each called METHOD-VARIANT-sSEED.npz. What is not given stays as it was measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from dica.cli.data import LIMIT
from dica.data.duplicates import near_duplicates
from dica.data.paths import labels_file, labels_of_prepared
from dica.data.prepared import open_split
from dica.files import load_arrays, project_root, read_json, write_csv
from dica.runs.files import CONFIG, PREDICTIONS
from dica.scores import meaning

FOLDER = "docs/numbers"


def told(run: Path) -> str:
    """Return what a run is of."""
    config = read_json(run / CONFIG)
    return f"{config['method']}, {config['variant']}, seed {config['seed']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="prepared CIFAR-10 (JPEG)")
    parser.add_argument("--starts", type=int, default=30, help="single starts of K-means on its images")
    parser.add_argument("--heads", type=Path, nargs="*", default=[], help="analyses of runs with several heads")
    parser.add_argument(
        "--copies", type=Path, nargs="*", default=[], help="runs on those images, scored without copies"
    )
    given = parser.parse_args()
    if given.copies and not given.images:
        parser.error("--copies needs --images, among which copies are looked for")
    root = project_root()
    digits = load_digits()
    starts = meaning.restarts("the digits, pixels", digits.data / 16, digits.target, 200)
    tables = {"levels": meaning.levels(), "digits": [starts], "chosen": meaning.chosen(root)}
    if given.images:
        classes = load_arrays(labels_of_prepared(given.images))["test"]
        images = np.array(open_split(given.images, "test"))
        tables |= meaning.of_images(images, classes, given.starts)
        for row in tables["restarts"]:
            row["what"] = f"CIFAR-10 (JPEG), {len(images):,} test images, {row['what']}"
    if given.copies:
        classes = load_arrays(labels_of_prepared(given.images))
        copies = {pair.other for pair in near_duplicates(given.images, LIMIT)}
        tables["copies"] = [
            meaning.without_copies(told(path), load_arrays(path / PREDICTIONS), classes, copies)
            for path in given.copies
        ]
    if given.heads:
        classes = load_arrays(root / labels_file("digits"))["train"]
        tables["heads"] = [meaning.of_heads(path.stem, load_arrays(path), classes) for path in given.heads]
    for name, rows in tables.items():
        write_csv(rows, list(rows[0]), root / FOLDER / f"{name}.csv")
        print(f"wrote {FOLDER}/{name}.csv")


if __name__ == "__main__":
    main()
