"""What a plot is given: the rows and data sets it shows, with the runs, looks, scores and analyses behind them."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dica.data.paths import labels_file
from dica.data.prepared import class_names
from dica.files import UserError, load_arrays, read_json
from dica.plan.artefacts import Artefact, Column, Row, analysis_path, method_behind, planned
from dica.plan.planned import Run
from dica.runs.files import PREDICTIONS, RECORD, TRACE
from dica.scores import metrics
from dica.tables.cells import published_number

SHORTEST = 60  # characters of a list in a note before it is cut


@dataclass(frozen=True)
class RowOnData:
    """One row of a figure on one data set."""

    row: Row
    column: Column
    label: str
    runs: tuple[Run, ...]  # finished, by seed
    planned: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Panel:
    """A plot's share of a declared figure.

    Attributes
    ----------
    kind : the analysis that the plot reads, or None
    options : what the declaration says to this plot
    """

    artefact: Artefact
    plan: dict[str, Any]
    runs: dict[str, Run]
    root: Path
    results: str
    rows: tuple[Row, ...]
    options: dict[str, Any]
    kind: str | None = None
    _read: dict = field(default_factory=dict, repr=False)

    def part(self, options: dict[str, Any], kind: str | None) -> Panel:
        """Return the panel of one part of the figure; `options.rows` names its rows (all without)."""
        options = dict(options)
        keys = options.pop("rows", [row.key for row in self.rows])
        rows = {row.key: row for row in self.rows}
        unknown = [key for key in keys if key not in rows]
        if unknown:
            raise self.error(f"rows: no row {unknown[0]!r}; there are: {', '.join(rows)}")
        return replace(self, rows=tuple(rows[key] for key in keys), options=options, kind=kind)

    def error(self, message: str) -> UserError:
        """Return an error about this figure's declaration."""
        where = f"params/artefacts/{self.artefact.paper}.yaml: artefacts.{self.artefact.name}"
        return UserError(f"{where}: options: {message}")

    def option(self, name: str, default: Any = None, allowed: tuple | None = None) -> Any:
        """Return an option of the declaration, checked."""
        value = self.options.get(name, default)
        if allowed and value not in allowed:
            raise self.error(f"{name} is {value!r}, allowed: {', '.join(map(str, allowed))}")
        return value

    def check_options(self, *known: str) -> None:
        """Refuse options that the plot does not know."""
        unknown = sorted(set(self.options) - {"title", *known})
        if unknown:
            raise self.error(f"{unknown[0]!r} is not an option of this plot; it has: {', '.join(sorted(known))}")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics to show: `options.metrics`, or those of the figure."""
        return tuple(self.option("metrics", self.artefact.metrics))

    @cached_property
    def places(self) -> list[RowOnData]:
        """Every row on every data set where something of it is to be run, rows first."""
        columns = [c for c in self.artefact.columns if any(method_behind(row, c) for row in self.rows)]
        places = []
        for row in self.rows:
            for column in columns:
                if method_behind(row, column):
                    asked = tuple(planned(self.plan, self.artefact, row, column.key))
                    runs = tuple(run for entry in asked if (run := self.runs[entry["id"]]).metrics is not None)
                    label = row.label if len(columns) == 1 else f"{row.label}, {column.label}"
                    places.append(RowOnData(row, column, label, runs, asked))
        return places

    @property
    def columns(self) -> list[Column]:
        """The data sets of this panel."""
        return list({place.column.key: place.column for place in self.places}.values())

    @property
    def done(self) -> list[RowOnData]:
        """The places with a finished run (with an analysed one, where the plot reads an analysis)."""
        return [p for p in self.places if p.runs and (self.kind is None or self.analysis(p) is not None)]

    @property
    def missing(self) -> str:
        """One sentence on what is asked for and not there yet, or an empty text."""
        not_run = [place.label for place in self.places if not place.runs]
        runs = [p.label for p in self.places if p.runs and self.kind and self.analysis(p) is None]
        texts = [f"Not run yet: {_listed(not_run)}."] if not_run else []
        return " ".join([*texts, f"Run, but not analysed yet: {_listed(runs)}."] if runs else texts)

    def file(self, name: str, run: Run) -> dict[str, np.ndarray] | None:
        """Return the arrays of a file in a run's folder, or None where the run has none."""
        return self._arrays(self.root / run.path / name)

    def _arrays(self, path: Path) -> dict[str, np.ndarray] | None:
        if path not in self._read:
            self._read[path] = load_arrays(path) if path.is_file() else None
        return self._read[path]

    def analysis(self, place: RowOnData) -> dict[str, np.ndarray] | None:
        """Return the analysis of the first seed, or None if it is not made or is of other weights than the run's."""
        run = place.runs[0]
        found = self._arrays(self.root / analysis_path(self.results, self.kind, run.path)) if self.kind else None
        record = read_json(self.root / run.path / RECORD)
        return found if found is not None and str(found["of"]) == record["files"][PREDICTIONS] else None

    def analysed(self, place: RowOnData) -> dict[str, np.ndarray]:
        """Return the analysis of a place that `done` names."""
        found = self.analysis(place)
        if found is None:
            raise UserError(f"{place.runs[0].path}: its analysis {self.kind} is not made; run `snakemake light`")
        return found

    def labels(self, dataset: str) -> dict[str, np.ndarray]:
        """Return the true classes of the labelled splits."""
        found = self._arrays(self.root / labels_file(dataset))
        if found is None:
            raise UserError(f"{labels_file(dataset)}: is not there; run `python -m dica.data prepare {dataset}`")
        return found

    def classes(self, dataset: str) -> list[str]:
        """Return the names of the classes; their numbers where the data set names none."""
        count = max(int(values.max()) for values in self.labels(dataset).values() if values.size) + 1
        return class_names(self.root, dataset, count)

    def looks(self, run: Run) -> Looks | None:
        """Return what was noted while a run trained, or None."""
        found = self.file(TRACE, run)
        if found is None:
            return None
        splits = [name.removesuffix("_index") for name in found if name.endswith("_index")]
        trace, labels = found, self.labels(run.plan["dataset"])

        def joined(what: str) -> np.ndarray:
            return np.concatenate([trace[f"{split}_{what}"] for split in splits], axis=1)

        true = np.concatenate([labels[split][found[f"{split}_index"]] for split in splits])
        supervised = bool(run.plan["params"].get("supervised", False))
        known = true >= 0  # images without a label are watched, too, and say nothing here
        assignment, confidence = (joined(what)[:, known] for what in ("assignment", "confidence"))
        seconds = found["seconds"] if "seconds" in found else self._look_seconds(run, len(found["epoch"]))
        return Looks(found["epoch"], seconds, assignment, confidence, true[known], supervised)

    def _look_seconds(self, run: Run, count: int) -> np.ndarray:
        """Return the seconds of training before each look; older traces hold them themselves."""
        path = self.root / run.path / RECORD
        seconds = read_json(path).get("look_seconds")
        if not isinstance(seconds, list) or len(seconds) != count:
            raise UserError(f"{path}: look_seconds: needs one number for each of the {count} looks of trace.npz")
        return np.array(seconds, dtype=np.float64)

    def published(
        self, place: RowOnData | None, row: Row, column: Column, metric: str
    ) -> tuple[float, float | None] | None:
        """Return the printed number of a row and its printed spread, as fractions, or None."""
        number = published_number(self.artefact, row, column, metric, self.root)
        if number is None or not number.value:
            return None
        return float(number.value), float(number.std) if number.std else None


@dataclass(frozen=True)
class Looks:
    """What was seen of a subset of the images at some epochs: `assignment` and `confidence` are (T, n)."""

    epoch: np.ndarray
    seconds: np.ndarray
    assignment: np.ndarray
    confidence: np.ndarray
    true: np.ndarray
    supervised: bool

    def score(self, metric: str) -> list[float]:
        """Return a metric at every look; with labels in training, clusters are classes."""
        score = {"acc": metrics.accuracy, "nmi": metrics.nmi, "ari": metrics.ari, "error": _error}
        if metric not in score:
            raise UserError(f"metric {metric!r} is not known during training; there are: {', '.join(score)}")
        if self.supervised and metric in ("acc", "error"):
            hits = [float((guess == self.true).mean()) for guess in self.assignment]
            return [1 - hit for hit in hits] if metric == "error" else hits
        return [score[metric](self.true, guess) for guess in self.assignment]


def _error(true: np.ndarray, guess: np.ndarray) -> float:
    return 1 - metrics.accuracy(true, guess)


def seeds_shown(counts: dict[str, int], word: str = "for") -> str:
    """Say how many seeds are shown; where their numbers differ, `word` joins each to the names that have it."""
    groups: dict[int, list[str]] = {}
    for name, count in counts.items():
        groups.setdefault(count, []).append(name)
    if len(groups) == 1:
        (count,), each = groups, " each" if len(counts) > 1 else ""
        return f"One seed{each}." if count == 1 else f"Seeds shown: {count}{each}."
    most = max(groups, key=lambda count: len(groups[count]))
    few = len(groups[most]) < 3
    said = [f"{count} {word} {', '.join(names)}" for count, names in groups.items() if few or count != most]
    said += [] if few else [f"{most} {word} the others"]
    return f"Seeds shown: {'; '.join(said)}."


def _listed(labels: list[str]) -> str:
    text = ", ".join(dict.fromkeys(labels))
    return textwrap.shorten(text, 4 * SHORTEST, placeholder=" …")
