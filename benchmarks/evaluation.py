"""How long scoring takes: ``python benchmarks/evaluation.py``.

Predictions and labels of 1,000 to 100,000 images, 10 and 200 clusters, scored from files to metrics.json as the rule
`evaluate` does. Writes results/evaluation.csv and results/evaluation.svg.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from common import RESULTS, Told, interleaved, plot

from dica.scores.evaluation import evaluate_files

SIZES = (1_000, 10_000, 100_000)
CLUSTERS = (10, 200)


def make_files(folder: Path, count: int, clusters: int) -> Path:
    """Write labels and predictions that are right two times in three."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, clusters, count)
    assignment = np.where(draw.random(count) < 2 / 3, labels, draw.integers(0, clusters, count)).astype(np.int16)
    folder.mkdir()
    np.savez(folder / "labels.npz", train=labels, test=labels[:0])
    np.savez(folder / "predictions.npz", train_assignment=assignment, num_clusters=np.int32(clusters))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of images")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        tasks = {}
        for count in args.sizes:
            for clusters in CLUSTERS:
                folder = make_files(Path(name) / f"{count}-{clusters}", count, clusters)
                files = (folder / "predictions.npz", folder / "labels.npz", folder / "metrics.json")
                tasks[count, clusters] = partial(evaluate_files, *files, "train")
        seconds = interleaved(tasks, args.repeats)
    told = Told("evaluation", args.out)
    for (count, clusters), values in seconds.items():
        middle, span = sorted(values)[len(values) // 2], f"{min(values):.3f}-{max(values):.3f}"
        row = {"images": count, "clusters": clusters, "seconds": f"{middle:.3f}", "range": span}
        told.add({**row, "repeats": len(values)})
    with contextlib.suppress(ImportError):
        plot(told, draw)


def draw(axes, rows: list[dict]) -> None:
    """Draw seconds against images, a line a number of clusters."""
    for clusters in CLUSTERS:
        points = [(row["images"], float(row["seconds"])) for row in rows if row["clusters"] == clusters]
        axes.loglog(*zip(*points, strict=True), marker="o", label=f"{clusters} clusters")
    axes.set(xlabel="images", ylabel="seconds")
    axes.legend(frameon=False)


if __name__ == "__main__":
    main()
