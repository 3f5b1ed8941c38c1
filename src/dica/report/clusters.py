"""The clusters of a user's own images: assignments.csv, scores.json and a page to look at them (`dica cluster`)."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from dica.data.own import left_out
from dica.data.paths import OWN_PREFIX, prepared_folder
from dica.data.prepared import image_names
from dica.data.thumbnails import Thumbnails, jpeg
from dica.figures.style import CLASS_COLOURS
from dica.files import atomic_write_text, load_arrays, read_json, write_json
from dica.plan.own import analysis_file, own_runs
from dica.plan.parameters import load_datasets
from dica.plan.plan import make_plan
from dica.report.runs import Truth, confusion
from dica.runs.files import METRICS, PREDICTIONS
from dica.scores import evaluation, metrics
from dica.scores.assignments import assignments_csv
from dica.scores.chance import ami_of
from dica.scores.unlabelled import MEANING, agreement, seed_agreement
from dica.tables.rendering import environment

SIDE = 96  # of a thumbnail on the page
SURE, UNSURE, FEW_SURE, FEW_UNSURE, MANY = 12, 6, 6, 3, 30  # images a cluster; fewer where there are many clusters
DISPUTED = 24
BINS = 20  # of the histogram of confidences
MAP_SIZE, MAP_SIDE, MAP_MARGIN = (1280, 880), 26, 20  # pixels


@dataclass(frozen=True)
class Clustering:
    """What the runs of one profile say of the images; arrays are over the images that are scored, splits end to end."""

    profile: dict[str, Any]
    root: Path
    runs: list[dict[str, Any]]

    @classmethod
    def load(cls, profile: dict[str, Any], root: Path) -> Clustering:
        """Return what the finished runs of a profile say."""
        return cls(profile, root, own_runs(profile, make_plan(profile, root)))

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.profile["runs"]["dataset"]

    @property
    def k(self) -> int:
        """Number of clusters."""
        return int(self.runs[0]["params"]["num_clusters"])

    @cached_property
    def prepared(self) -> Path:
        """Folder of the prepared images."""
        return self.root / prepared_folder(self.dataset)

    @cached_property
    def stored(self) -> list[dict[str, np.ndarray]]:
        """Predictions of each run."""
        return [load_arrays(self.root / run["path"] / PREDICTIONS) for run in self.runs]

    @cached_property
    def splits(self) -> list[str]:
        """The splits that are predicted."""
        return [split for split in evaluation.SPLITS if f"{split}_assignment" in self.stored[0]]

    def arrays(self, what: str) -> list[np.ndarray]:
        """Return `assignment` or `confidence` of each run."""
        return [np.concatenate([stored[f"{split}_{what}"] for split in self.splits]) for stored in self.stored]

    @cached_property
    def outlooks(self) -> list[dict[str, np.ndarray]]:
        """The analysis `outlook` of each run."""
        return [load_arrays(analysis_file(self.profile, "outlook", run, self.root)) for run in self.runs]

    @cached_property
    def names(self) -> list[str]:
        """File name of each image."""
        return [name for split in self.splits for name in image_names(self.prepared, split)]

    @cached_property
    def chosen(self) -> int:
        """Which run is shown: the one that agrees best with the others, the first of equals."""
        found = self.arrays("assignment")
        return int(np.argmax([sum(agreement([mine, other])[0] for other in found) for mine in found]))

    @cached_property
    def shared(self) -> np.ndarray:
        """For each image the share of the other runs that agree with the one that is shown; NaN with one run."""
        found = self.arrays("assignment")
        ordered = [found[self.chosen], *(one for k, one in enumerate(found) if k != self.chosen)]
        return seed_agreement([one.astype(np.int64) for one in ordered], self.k)

    @cached_property
    def truth(self) -> Truth | None:
        """Labels, where the images have any."""
        found = Truth.load(self.root, self.dataset)
        known = found and any((found.labels[split] >= 0).any() for split in self.splits if split in found.labels)
        return found if known else None


def write_clusters(profile: dict[str, Any], root: Path) -> list[Path]:
    """Write what came of the runs that a profile names itself; returns the files."""
    found, folder = Clustering.load(profile, root), root / profile["results"]
    atomic_write_text(folder / "assignments.csv", table(found))
    write_json(folder / "scores.json", scores(found))
    atomic_write_text(folder / "index.html", render(found))
    return [folder / name for name in ("assignments.csv", "scores.json", "index.html")]


def table(found: Clustering) -> str:
    """Return assignments.csv of the run that is shown."""
    assignment, confidence = (found.arrays(what)[found.chosen] for what in ("assignment", "confidence"))
    outlook = found.outlooks[found.chosen]
    return assignments_csv(
        found.names, assignment, confidence, outlook["second"], outlook["second_confidence"], found.shared
    )


def scores(found: Clustering) -> dict[str, Any]:
    """Return all numbers: those that need no labels of each run, the agreement between runs, and those with labels."""
    rows: list[dict[str, Any]] = []
    for run, outlook in zip(found.runs, found.outlooks, strict=True):
        headline = read_json(found.root / run["path"] / METRICS)["headline"]
        silhouette = float(np.mean(outlook["silhouette"]))
        assignment, confidence = (found.arrays(what)[len(rows)] for what in ("assignment", "confidence"))
        inside = metrics.unlabelled(assignment, confidence, found.k)
        rows.append(
            {
                "seed": run["seed"],
                "run": run["path"],
                "entropy": inside["cluster_entropy"] / math.log(found.k),
                "confidence": inside["mean_confidence"],
                "silhouette": None if math.isnan(silhouette) else silhouette,
                "largest_cluster_share": inside["largest_cluster_share"],
                "used_clusters": inside["used_clusters"],
                **({"ami": _ami(found, found.truth, len(rows))} if found.truth and "acc" in headline else {}),
                **{name: headline[name] for name in ("acc", "nmi", "ari") if name in headline},
            }
        )
    return {
        "images": len(found.names),
        "clusters": found.k,
        "shown": found.runs[found.chosen]["path"],
        "runs": rows,
        "agreement": agreement(found.arrays("assignment")),
    }


def _ami(found: Clustering, truth: Truth, number: int) -> float:
    """Return the mutual information of folders and clusters of a run, corrected for chance."""
    split = found.runs[number]["params"]["eval_split"]
    true, pred = evaluation.scored_partition(found.stored[number], truth.labels, split)
    return ami_of(metrics.contingency(true[true >= 0], pred[true >= 0]))


def render(found: Clustering) -> str:
    """Return the page."""
    name = found.dataset.removeprefix(OWN_PREFIX)
    run = found.runs[found.chosen]
    pictures = _Pictures(found)
    truth, labels = found.truth, None
    if truth:
        predictions = found.root / run["path"] / PREDICTIONS
        labels = confusion(predictions, truth, run["params"]["eval_split"], by_identity=False)
    return (
        environment()
        .get_template("clusters.html.j2")
        .render(
            title=f"{name}: {len(found.names)} images in {found.k} clusters",
            name=name,
            run=run,
            method=run["method"],
            left_out=left_out(found.root, name),
            scores=scores(found),
            meaning=MEANING,
            clusters=_clusters(found, pictures),
            bars=_histogram(found.arrays("confidence")[found.chosen]),
            map=pictures.map(),
            disputed=_disputed(found, pictures),
            confusion=labels,
        )
    )


class _Pictures:
    """Thumbnails as data URIs, each made once."""

    def __init__(self, found: Clustering) -> None:
        entry = load_datasets(found.root)[found.dataset]
        self.found = found
        self.thumbnails = Thumbnails(found.prepared, entry, found.root, found.splits, found.names)
        self.made: dict[int, str] = {}

    def load(self, rows: list[int]) -> None:
        """Make the pictures of many rows at once: an archive is read only once for all of them."""
        fresh = [row for row in rows if row not in self.made]
        for row, image in self.thumbnails.of(fresh, SIDE).items():
            self.made[row] = _uri(jpeg(image))

    def of(self, row: int) -> dict[str, Any]:
        """Return what the page shows of one image."""
        found = self.found
        confidence = float(found.arrays("confidence")[found.chosen][row])
        cluster = int(found.arrays("assignment")[found.chosen][row])
        return {"uri": self.made[row], "name": found.names[row], "confidence": confidence, "cluster": cluster}

    def map(self) -> str:
        """Return the map of an outlook with thumbnails in the colours of their clusters."""
        outlook, cluster = self.found.outlooks[self.found.chosen], self.found.arrays("assignment")[self.found.chosen]
        rows = [int(row) for row in outlook["mapped"]]
        xy: np.ndarray = outlook["xy"].astype(np.float64)
        span = np.maximum(np.ptp(xy, axis=0), 1e-9)
        place = (xy - xy.min(axis=0)) / span * (np.array(MAP_SIZE) - MAP_SIDE - 2 * MAP_MARGIN) + MAP_MARGIN
        sheet = Image.new("RGB", MAP_SIZE, "white")
        draw = ImageDraw.Draw(sheet)
        images = self.thumbnails.of(rows, min(MAP_SIDE, self.thumbnails.side))
        for row, (x, y) in zip(rows, place.round().astype(int).tolist(), strict=True):
            tile = images[row].resize((MAP_SIDE - 4, MAP_SIDE - 4), Image.Resampling.NEAREST)
            draw.rectangle((x, y, x + MAP_SIDE - 1, y + MAP_SIDE - 1), fill=_colour(int(cluster[row])))
            sheet.paste(tile, (x + 2, y + 2))
        return _uri(jpeg(sheet))


def _colour(cluster: int) -> str:
    return CLASS_COLOURS[cluster % len(CLASS_COLOURS)]


def _uri(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _clusters(found: Clustering, pictures: _Pictures) -> list[dict[str, Any]]:
    """Return the contact sheets: of each cluster the most and the least certain images, largest cluster first."""
    assignment, confidence = (found.arrays(what)[found.chosen] for what in ("assignment", "confidence"))
    sure, unsure = (SURE, UNSURE) if found.k <= MANY else (FEW_SURE, FEW_UNSURE)
    order = np.argsort(-confidence.astype(np.float64), kind="stable")
    sheets = []
    for k in range(found.k):
        rows = order[assignment[order] == k].tolist()
        sheets.append({"number": k, "size": len(rows), "sure": rows[:sure], "unsure": rows[sure:][::-1][:unsure]})
    pictures.load([row for sheet in sheets for what in ("sure", "unsure") for row in sheet[what]])
    for sheet in sheets:
        sheet |= {what: [pictures.of(row) for row in sheet[what]] for what in ("sure", "unsure")}
        sheet |= {"share": sheet["size"] / len(assignment), "colour": _colour(sheet["number"])}
        mine = confidence[assignment == sheet["number"]]
        sheet["confidence"] = float(mine.astype(np.float64).mean()) if len(mine) else 0.0
    return sorted(sheets, key=lambda sheet: (-sheet["size"], sheet["number"]))


def _disputed(found: Clustering, pictures: _Pictures) -> list[dict[str, Any]]:
    """Return the images that the fewest seeds agree on, and that the network is least sure of."""
    if len(found.runs) < 2:
        return []
    confidence: np.ndarray = found.arrays("confidence")[found.chosen].astype(np.float64)
    order = [int(row) for row in np.lexsort((confidence, found.shared)) if found.shared[row] < 1][:DISPUTED]
    pictures.load(order)
    return [{**pictures.of(row), "shared": float(found.shared[row])} for row in order]


def _histogram(confidence: np.ndarray) -> list[dict[str, float]]:
    counts, edges = np.histogram(confidence.astype(np.float64), BINS, (0, 1))
    most = max(int(counts.max()), 1)
    return [
        {"count": int(n), "height": 100 * n / most, "from": a, "to": b}
        for n, a, b in zip(counts, edges[:-1], edges[1:], strict=True)
    ]
