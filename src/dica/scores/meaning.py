"""Measurements behind docs/numbers.md: what an accuracy owes to chance, to a rule of choice, to seeds, to few images.

Each function returns the rows of one table of that page; `workflow/scripts/meaning.py` writes them.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from dica.files import read_json
from dica.runs.files import CONFIG, METRICS
from dica.scores.chance import chance, equal_sizes
from dica.scores.metrics import accuracy, ari

SETTINGS = (  # images, classes, clusters: CIFAR-10, a small set, many clusters on few and on many images
    (60_000, 10, 10),
    (10_000, 10, 10),
    (1_797, 10, 10),
    (1_000, 10, 10),
    (1_000, 10, 100),
    (1_000, 100, 100),
    (10_000, 100, 100),
)
QUALITIES = (75, 50, 10)
SIZES, SUBSETS = (500, 2000, 3000), 10
BLOCK = 500
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Choice:
    """What a rule that takes the lowest loss gives, among all that it could have taken.

    `rank` counts from 1, the highest score; `correlation` is Spearman's, of loss with score: a rule that works has -1.
    """

    score: float
    mean: float
    lowest: float
    highest: float
    rank: int
    correlation: float


def choice(losses: Sequence[float], scores: Sequence[float]) -> Choice:
    """Return what taking the lowest of some losses does to the scores that go with them.

    Examples
    --------
    >>> choice([3.0, 1.0, 2.0], [0.9, 0.5, 0.7]).rank
    3
    """
    values = np.asarray(scores, dtype=np.float64)
    taken = float(values[int(np.argmin(losses))])
    same = len(set(losses)) == 1 or len(set(values.tolist())) == 1
    rho = float("nan") if same else float(spearmanr(losses, values).statistic)
    rank = 1 + int((values > taken).sum())
    return Choice(taken, float(values.mean()), float(values.min()), float(values.max()), rank, rho)


def choice_row(what: str, losses: Sequence[float], scores: Sequence[float]) -> dict[str, Any]:
    """Return one row of a table of choices."""
    found = choice(losses, scores)
    return {
        "what": what,
        "tried": len(scores),
        "ACC, mean": f"{found.mean:.4f}",
        "lowest": f"{found.lowest:.4f}",
        "highest": f"{found.highest:.4f}",
        "of the lowest loss": f"{found.score:.4f}",
        "its rank": found.rank,
        "rank correlation of loss and ACC": f"{found.correlation:+.2f}",
    }


def levels() -> Rows:
    """Return what random labels reach; see `dica.scores.chance`."""
    rows = []
    for images, classes, clusters in SETTINGS:
        found = chance(equal_sizes(images, classes), equal_sizes(images, clusters))
        rows.append(
            {
                "images": f"{images:,}",
                "classes": classes,
                "clusters": clusters,
                "ACC": f"{found['acc'].mean:.4f} ± {found['acc'].sd:.4f}",
                "NMI": f"{found['nmi'].mean:.3f}",
                "ARI": f"0 ± {found['ari'].sd:.4f}",
            }
        )
    return rows


def partition(points: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, float]:
    """Return clusters (n,) and inertia of one start of K-means, by one thread: several would not repeat to the bit."""
    with threadpool_limits(1, user_api="openmp"):
        model = KMeans(k, n_init=1, random_state=seed).fit(points)
    return model.labels_, float(model.inertia_)


def restarts(what: str, points: np.ndarray, classes: np.ndarray, starts: int) -> dict[str, Any]:
    """Return what the rule `lowest inertia` chooses among single starts of K-means."""
    found = [partition(points, len(np.unique(classes)), seed) for seed in range(starts)]
    return choice_row(what, [inertia for _, inertia in found], [accuracy(classes, labels) for labels, _ in found])


def of_heads(what: str, found: dict[str, np.ndarray], classes: np.ndarray) -> dict[str, Any]:
    """Return what the rule `lowest loss` chooses among the cluster heads of a run (analysis `heads`)."""
    scores = [accuracy(classes, assignment) for assignment in found["assignment"]]
    return choice_row(what, found["loss"].tolist(), scores)


def chosen(root: Path) -> Rows:
    """Return what the rule `lowest loss` chose in runs with several heads, a row for each group of runs."""
    runs = []
    for path in sorted((root / "results/runs").glob(f"*/*/*/{METRICS}")):
        if (scores := read_json(path)).get("heads", {"count": 0})["count"] > 1:
            config = read_json(path.with_name(CONFIG))
            runs.append((f"{config['method']}, {config['variant']}, {config['dataset']}", scores))
    rows = []
    for what in sorted({name for name, _ in runs}):
        found = [(m["headline"]["acc"], m["heads"]) for name, m in runs if name == what]
        taken, means, best = (
            np.array(column)
            for column in zip(*((acc, h["mean"]["acc"], h["oracle"]["acc"]) for acc, h in found), strict=True)
        )
        rows.append(
            {
                "runs of": what,
                "runs": len(found),
                "heads": found[0][1]["count"],
                "ACC, mean": f"{means.mean():.4f}",
                "of the lowest loss": f"{taken.mean():.4f}",
                "of the best by labels": f"{best.mean():.4f}",
                "above the mean": f"{(taken > means).sum()} of {len(found)}",
                "the best": f"{(taken >= best).sum()} of {len(found)}",
            }
        )
    return rows


def each_standardised(points: np.ndarray) -> np.ndarray:
    """Return each row with mean 0 and standard deviation 1."""
    return (points - points.mean(axis=1, keepdims=True)) / points.std(axis=1, keepdims=True).clip(1e-8)


def recompressed(images: np.ndarray, quality: int) -> np.ndarray:
    """Return uint8 images (n, H, W, 3) as they come back from JPEG."""
    out = np.empty_like(images)
    for row, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        out[row] = np.asarray(Image.open(buffer))
    return out


def jpeg(images: np.ndarray, classes: np.ndarray) -> Rows:
    """Return what JPEG does to K-means on pixels, beside what another seed does."""
    k = len(np.unique(classes))
    first, _ = partition(_points(images), k, 0)
    rows = [{"what": "as they are, seed 0", "ACC": f"{accuracy(classes, first):.4f}", "ARI with the first line": "1"}]
    others = {f"seed {seed}": (images, seed) for seed in (1, 2, 3)}
    others |= {f"JPEG of quality {quality}, seed 0": (recompressed(images, quality), 0) for quality in QUALITIES}
    for what, (pixels, seed) in others.items():
        labels, _ = partition(_points(pixels), k, seed)
        alike = f"{ari(first, labels):.2f}"
        rows.append({"what": what, "ACC": f"{accuracy(classes, labels):.4f}", "ARI with the first line": alike})
    return rows


def subsets(points: np.ndarray, classes: np.ndarray) -> Rows:
    """Return the mean accuracy of K-means on random subsets: it is higher on few images, as chance is."""
    k, rows = len(np.unique(classes)), []
    for size in (*SIZES, len(points)):
        found = []
        for seed in range(SUBSETS):
            chosen = np.random.default_rng(seed).permutation(len(points))[:size]
            found.append(accuracy(classes[chosen], partition(points[chosen], k, seed)[0]))
        level = chance(equal_sizes(size, k), equal_sizes(size, k))["acc"].mean
        rows.append(
            {"images": f"{size:,}", "ACC, mean of 10": f"{np.mean(found):.4f}", "random labels": f"{level:.4f}"}
        )
    return rows


def neighbours(what: str, points: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """Return how often an image's nearest other one is of its class, and how unevenly images are nearest ones."""
    squares = np.einsum("nd,nd->n", points, points)
    nearest: np.ndarray = np.empty(len(points), np.int64)
    for start in range(0, len(points), BLOCK):
        distance = squares - 2 * points[start : start + BLOCK] @ points.T
        rows = np.arange(len(distance))
        distance[rows, start + rows] = np.inf
        nearest[start : start + BLOCK] = distance.argmin(axis=1)
    times = np.bincount(nearest, minlength=len(points))
    return {
        "distance": what,
        "nearest of the same class": f"{(classes[nearest] == classes).mean():.3f}",
        "nearest of most others": int(times.max()),
        "nearest of none": f"{(times == 0).sum():,}",
    }


def without_copies(
    what: str, stored: dict[str, np.ndarray], classes: dict[str, np.ndarray], copies: Collection[tuple[str, int]]
) -> dict[str, Any]:
    """Return the accuracy of a run on all images and on those that are no near copy of another one.

    Parameters
    ----------
    stored, classes
        Arrays of predictions.npz and of the label file.
    copies
        (split, position) of the images to leave out.
    """
    splits = sorted(split for split in classes if len(classes[split]))
    kept = np.concatenate([np.ones(len(classes[split]), bool) for split in splits])
    starts = dict(zip(splits, np.cumsum([0, *(len(classes[split]) for split in splits)]), strict=False))
    kept[[starts[split] + row for split, row in copies]] = False
    true, pred = (
        np.concatenate(arrays)
        for arrays in zip(*((classes[split], stored[f"{split}_assignment"]) for split in splits), strict=True)
    )
    return {
        "run": what,
        "images": f"{len(true):,}",
        "ACC": f"{accuracy(true, pred):.4f}",
        "without near copies": f"{int(kept.sum()):,}",
        "ACC there": f"{accuracy(true[kept], pred[kept]):.4f}",
    }


def _points(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255


def of_images(images: np.ndarray, classes: np.ndarray, starts: int) -> dict[str, Rows]:
    """Return the tables `restarts`, `jpeg`, `subsets` and `neighbours` of uint8 images (n, H, W, 3)."""
    points = _points(images)
    alone = each_standardised(points)
    centred = points - points.mean(axis=1, keepdims=True)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-8)
    return {
        "restarts": [
            restarts("pixels", points, classes, starts),
            restarts("each image standardised", alone, classes, starts),
        ],
        "jpeg": jpeg(images, classes),
        "subsets": subsets(points, classes),
        "neighbours": [
            neighbours("pixels", points, classes),
            neighbours("cosine, each image centred", centred, classes),
        ],
    }
