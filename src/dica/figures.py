"""Figures from stored histories and metrics: loss parts by epoch, and a metric of every seed."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dica.artefacts import Artefact, Row, planned
from dica.files import UserError, atomic_write_bytes
from dica.layout import METRIC_LABELS
from dica.stats import mean, t_interval
from dica.tables import load_runs

# Okabe and Ito's colours, told apart with any colour vision; each also has a marker of its own.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = {
    "svg.hashsalt": "dica",
    "svg.fonttype": "none",  # text stays text: searchable and small
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "lines.linewidth": 1.6,
}
PANELS = 4  # side by side
NOT_LOSSES = ("epoch", "step", "lr", "phase", "seconds", "images_per_second")


def read_history(path: Path | str) -> dict[str, list[float]]:
    """Return the columns of a history.csv, averaged within each epoch (`epoch` ascending).

    Empty cells are left out of the mean; a column without any number is dropped.

    Raises
    ------
    UserError
        If the file is missing, lacks the column `epoch` or holds something that is no number.
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        names = [name for name in (rows[0] if rows else {}) if name not in ("step", "phase")]
        epochs = sorted({int(row["epoch"]) for row in rows})
        sums: dict[str, dict[int, list[float]]] = {name: {} for name in names if name != "epoch"}
        for row in rows:
            for name in sums:
                if row[name]:
                    sums[name].setdefault(int(row["epoch"]), []).append(float(row[name]))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a history ({error})") from None
    nan = float("nan")
    columns = {
        name: [mean(values[epoch]) if epoch in values else nan for epoch in epochs]
        for name, values in sums.items()
        if values
    }
    return {"epoch": [float(epoch) for epoch in epochs], **columns}


def loss_parts(history: dict[str, list[float]]) -> list[str]:
    """Return the names of the loss columns, the total first."""
    return [name for name in history if name not in NOT_LOSSES]


def draw(artefact: Artefact, plan: dict[str, Any], root: Path, results: str) -> tuple[Figure, str]:
    """Draw a declared figure and return it with what it shows in words.

    Runs that do not exist yet are left out and named in the figure.
    """
    runs = {run.plan["id"]: run for run in load_runs(plan, root, results)}
    found = {
        (row.key, column.key): [
            run for entry in planned(plan, artefact, row, column.key) if (run := runs[entry["id"]]).metrics is not None
        ]
        for row in artefact.rows
        for column in artefact.columns
    }
    with plt.rc_context(STYLE):
        return {"curves": _curves, "seeds": _seeds}[artefact.plot](artefact, found, root)


def _curves(artefact: Artefact, found: dict, root: Path) -> tuple[Figure, str]:
    """A block of panels for each method and data set, one panel for each part of its loss."""
    blocks = []
    for k, row in enumerate(artefact.rows):
        for column in artefact.columns:
            histories = [read_history(root / run.path / "history.csv") for run in found[row.key, column.key]]
            title = row.label if len(artefact.columns) == 1 else f"{row.label}, {column.label}"
            blocks.append((title, histories, COLOURS[k % len(COLOURS)]))
    lines = [  # of at most PANELS panels each; a block without runs keeps one line to say so
        (title, histories, colour, names[start : start + PANELS])
        for title, histories, colour in blocks
        for names in [loss_parts(histories[0]) if histories else []]
        for start in range(0, max(1, len(names)), PANELS)
    ]
    width = max(1, *(len(names) for *_, names in lines))
    size = (1.2 + 2.3 * width, 2.1 * len(lines))
    figure, grid = plt.subplots(len(lines), width, figsize=size, squeeze=False, layout="constrained")
    for panels, (title, histories, colour, names) in zip(grid, lines, strict=True):
        for axes, name in zip(panels, names, strict=False):
            _curve_panel(axes, histories, name, colour)
            axes.set_title(f"{title}: {name}", loc="left")
        for axes in panels[len(names) :]:
            axes.axis("off")
        if not names:
            panels[0].text(0, 0.5, f"{title}: not run yet", transform=panels[0].transAxes)
    figure.supylabel("loss (no unit)", fontsize=9)
    counts = ", ".join(f"{title} {len(histories)}" for title, histories, _ in blocks)
    return figure, f"Thin lines: seeds; thick line: their mean. Seeds shown: {counts}."


def _curve_panel(axes: Axes, histories: list[dict[str, list[float]]], name: str, colour: str) -> None:
    having = [history for history in histories if name in history]
    for history in having:
        axes.plot(history["epoch"], history[name], color=colour, linewidth=0.8, alpha=0.45)
    shortest = min(having, key=lambda history: len(history["epoch"]))["epoch"]
    centre = [mean([history[name][k] for history in having]) for k in range(len(shortest))]
    axes.plot(shortest, centre, color=colour, linewidth=2)
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)


def _seeds(artefact: Artefact, found: dict, root: Path) -> tuple[Figure, str]:
    """A dot for each seed, with the mean and its 95 % interval, one panel for each data set and metric."""
    panels = [(column, metric) for column in artefact.columns for metric in artefact.metrics]
    size = (1.6 + max(2.4, 1.25 * len(artefact.rows)) * len(panels), 3.2)
    figure, grid = plt.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
    spoken = []
    for axes, (column, metric) in zip(grid[0], panels, strict=True):
        for k, row in enumerate(artefact.rows):
            values = [run.value(metric) for run in found[row.key, column.key]]
            _seed_column(axes, k, values)
            spoken.append(_spoken(row, column.label, metric, values))
        axes.set_xticks(range(len(artefact.rows)), [row.label for row in artefact.rows])
        axes.set_xlim(-0.6, len(artefact.rows) - 0.4)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel(f"{METRIC_LABELS[metric]} (fraction of 1)")
        axes.set_title(column.label, loc="left")
        axes.margins(y=0.12)
    handles = [
        plt.Line2D([], [], color="#555555", marker="o", linestyle="", markerfacecolor="none", label="one seed"),
        plt.Line2D([], [], color="#555555", marker="_", markersize=11, markeredgewidth=2, linestyle="", label="mean"),
        plt.Line2D([], [], color="#555555", linewidth=1.2, label="95 % interval of the mean"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure, " ".join(spoken)


def _seed_column(axes: Axes, place: int, values: list[float]) -> None:
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    if not values:
        axes.text(place, 0.5, "not run", ha="center", va="center", transform=axes.get_xaxis_transform())
        return
    shift = [0.09 * (k - (len(values) - 1) / 2) / max(1, len(values) / 4) for k in range(len(values))]
    places = [place - 0.12 + dx for dx in shift]
    axes.plot(places, values, marker, color=colour, markerfacecolor="none", markersize=5, linestyle="")
    centre = mean(values)
    axes.plot([place + 0.2], [centre], "_", color=colour, markersize=14, markeredgewidth=2.4)
    if len(values) > 1:
        low, high = t_interval(values)
        axes.plot([place + 0.2] * 2, [low, high], color=colour, linewidth=1.2)


def _spoken(row: Row, dataset: str, metric: str, values: list[float]) -> str:
    if not values:
        return f"{row.label} on {dataset}: not run."
    listed = ", ".join(f"{value:.3f}" for value in values)
    return f"{row.label} on {dataset}, {METRIC_LABELS[metric]} by seed: {listed} (mean {mean(values):.3f})."


def to_bytes(figure: Figure, kind: str) -> bytes:
    """Return the file of a figure (`svg` or `png`); equal figures give equal bytes."""
    out = io.BytesIO()
    metadata = {"svg": {"Date": None, "Creator": "dica"}, "png": {"Software": "dica"}}[kind]
    with plt.rc_context(STYLE):
        figure.savefig(out, format=kind, metadata=metadata)
    return out.getvalue()


def write_figures(
    artefacts: Sequence[Artefact], plan: dict[str, Any], root: Path, results: str, folder: Path | str
) -> list[Path]:
    """Write `<folder>/<paper>/<artefact>.{svg,png}` for every declared figure and return the paths."""
    written = []
    for artefact in artefacts:
        if artefact.kind != "figure" or not artefact.regenerated:
            continue
        figure, _ = draw(artefact, plan, root, results)
        for kind in ("svg", "png"):
            path = Path(folder) / artefact.paper / f"{artefact.name}.{kind}"
            atomic_write_bytes(path, to_bytes(figure, kind))
            written.append(path)
        plt.close(figure)
    return written
