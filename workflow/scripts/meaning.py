"""Measure what docs/numbers.md tells: python workflow/scripts/meaning.py [--images FOLDER] [--heads FILE.npz ...]

`--images` is a prepared CIFAR-10 (JPEG), of which the test split is taken; `--heads` are what `python -m dica.analyse
heads` wrote of runs on the digits, each called METHOD-VARIANT-sSEED.npz. What is not given stays as it was measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from dica.data.paths import labels_file, labels_of_prepared
from dica.data.prepared import open_split
from dica.files import load_arrays, project_root, write_csv
from dica.scores import meaning

FOLDER = "docs/numbers"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="prepared CIFAR-10 (JPEG)")
    parser.add_argument("--starts", type=int, default=30, help="single starts of K-means on its images")
    parser.add_argument("--heads", type=Path, nargs="*", default=[], help="analyses of runs with several heads")
    given = parser.parse_args()
    root = project_root()
    tables = {"levels": meaning.levels()}
    if given.images:
        classes = load_arrays(labels_of_prepared(given.images))["test"]
        images = np.array(open_split(given.images, "test"))
        digits = load_digits()
        tables |= meaning.of_images(images, classes, given.starts)
        for row in tables["restarts"]:
            row["what"] = f"CIFAR-10 (JPEG), {len(images):,} test images, {row['what']}"
        tables["restarts"].append(meaning.restarts("the digits, pixels", digits.data / 16, digits.target, 200))
    if given.heads:
        classes = load_arrays(root / labels_file("digits"))["train"]
        tables["heads"] = [meaning.of_heads(path.stem, load_arrays(path), classes) for path in given.heads]
    for name, rows in tables.items():
        write_csv(rows, list(rows[0]), root / FOLDER / f"{name}.csv")
        print(f"wrote {FOLDER}/{name}.csv")


if __name__ == "__main__":
    main()
