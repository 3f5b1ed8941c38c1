"""Curves over training: parts of the loss (history.csv) and metrics of the watched images (trace.npz)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dica.figures.panel import Panel, RowOnData, seeds_shown
from dica.figures.style import (
    ABOVE,
    FRACTION,
    Canvas,
    colour,
    grid,
    integer_axis,
    legend_below,
    line,
    marker,
    metric_label,
    resize,
    tints,
)
from dica.files import UserError, read_csv
from dica.plan.counted import counted_work
from dica.plan.parameters import load_datasets
from dica.runs.files import HISTORY
from dica.scores.stats import mean

PANELS = 4  # side by side
PARTS = "What the parts are: the glossary of the report."
NOT_LOSSES = ("epoch", "step", "lr", "phase", "seconds", "images_per_second")
TIMES = {
    **{"epoch": "epoch", "seconds": "training time (s)", "step": "training step"},
    "tflop": "counted arithmetic of training (TFLOP)",
}


def read_history(path: Path | str) -> dict[str, list[float]]:
    """Return the columns of a history.csv, averaged within each epoch (`epoch` ascending).

    Empty cells are left out of the mean; a column without any number is dropped.

    Raises
    ------
    UserError
        If the file is missing, lacks the column `epoch` or holds something that is no number.
    """
    path = Path(path)
    rows = read_csv(path)
    try:
        names = [name for name in (rows[0] if rows else {}) if name != "phase"]
        epochs = sorted({int(row["epoch"]) for row in rows})
        sums: dict[str, dict[int, list[float]]] = {name: {} for name in names if name != "epoch"}
        for row in rows:
            for name in sums:
                if row[name]:
                    sums[name].setdefault(int(row["epoch"]), []).append(float(row[name]))
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: not a history ({error})") from None
    nan = float("nan")
    columns = {
        name: [mean(values[epoch]) if epoch in values else nan for epoch in epochs]
        for name, values in sums.items()
        if values
    }
    return {"epoch": [float(epoch) for epoch in epochs], **columns}


def loss_parts(history: dict[str, list[float]]) -> list[str]:
    """Return the names of the loss columns, the total first; those before it, of another head or turn, come last."""
    names = [name for name in history if name not in NOT_LOSSES]
    total = names.index("loss") if "loss" in names else 0
    return names[total:] + names[:total]


def curves(panel: Panel, figure: Canvas) -> str:
    """A block of axes for each method and data set, one for each part of its loss."""
    blocks = []
    for k, place in zip(_tints(panel.places), panel.places, strict=True):
        histories = [read_history(panel.root / run.path / HISTORY) for run in place.runs]
        blocks.append((place.label, histories, colour(k)))
    lines = [  # of at most PANELS axes each, the first below the title; a block without runs keeps one to say so
        ("" if start else title, histories, tint, names[start : start + PANELS])
        for title, histories, tint in blocks
        for names in [loss_parts(histories[0]) if histories else []]
        for start in range(0, max(1, len(names)), PANELS)
    ]
    width = max(1, *(len(names) for *_, names in lines))
    resize(figure, 1.2 + 2.3 * width, 2.1 * len(lines))
    for all_axes, (title, histories, tint, names) in zip(grid(figure, len(lines), width), lines, strict=True):
        for axes, name in zip(all_axes, names, strict=False):
            _curve_panel(axes, histories, name, tint)
            axes.set_title(f"{title}\n{name}" if title and axes is all_axes[0] else name, loc="left")
        for axes in all_axes[len(names) :]:
            axes.axis("off")
        if not names:
            all_axes[0].text(0, 0.5, f"{title}: not run yet", transform=all_axes[0].transAxes)
    figure.supylabel("loss, share or entropy (nat)", fontsize=9)
    counts = {title: len(histories) for title, histories, _ in blocks}
    several = "Thin lines: seeds; thick line: their mean. " if max(counts.values()) > 1 else ""
    return f"{several}{seeds_shown(counts)} {PARTS}"


def _curve_panel(axes: Axes, histories: list[dict[str, list[float]]], name: str, tint: str) -> None:
    having = [(history["epoch"], history[name]) for history in histories if name in history]
    _seeds_and_mean(axes, having, tint)
    axes.set_xlabel("epoch")
    integer_axis(axes)


def _seeds_and_mean(axes: Axes, lines: Sequence[tuple[list[float], list[float]]], tint: str, mark: str = "") -> None:
    """Draw thin lines (x, y) and, above the thin ones of all rows, their mean as far as all of them go."""
    style: dict[str, Any] = {"marker": mark, "markersize": 4} if mark else {}
    if len(lines) == 1:
        axes.plot(*lines[0], color=tint, linewidth=1.8, zorder=ABOVE, **style)
        return
    for x, y in lines:
        axes.plot(x, y, color=tint, linewidth=0.8, alpha=0.45)
    axes.plot(*mean_line(lines), color=tint, linewidth=2, zorder=ABOVE, **style)


def mean_line(lines: Sequence[tuple[list[float], list[float]]]) -> tuple[list[float], list[float]]:
    """Return x and y of the mean of several lines (x, y), x ascending, over the stretch that all of them have.

    At the x of the line that ends first; the others are read between their points.
    """
    first, last = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    ends_first = min((x for x, _ in lines), key=lambda x: x[-1])
    shared = [place for place in ends_first if first <= place <= last]
    return shared, [mean([float(np.interp(place, x, y)) for x, y in lines]) for place in shared]


def progress(panel: Panel, figure: Canvas) -> str:
    """A metric of the watched images against epoch, time or step; one colour a method or setting.

    Against arithmetic (`x: tflop`) a run that was not watched has one mark, its number on all images at the end.

    Options: `x` (epoch, seconds, step, tflop), `metrics`, `history` (columns of history.csv instead, one axes each),
    `information` (with `history`: log M - loss, what InfoNCE's bound says, M from the param named).
    """
    x = panel.option("x", "epoch", tuple(TIMES))
    names = panel.option("history") or panel.metrics
    resize(figure, 1.4 + 3.6 * len(names), 3.8)
    spoken: list[str] = []
    drawn: dict[int, int] = {}  # number of a place -> its seeds
    places = dict(zip(_tints(panel.places), panel.places, strict=True))  # whether or not all have runs
    for axes, name in zip(grid(figure, 1, len(names))[0], names, strict=True):
        for k, place in places.items():
            lines = [found for run in place.runs if (found := _line(panel, run, name, x))]
            if lines:
                _seeds_and_mean(axes, lines, colour(k), marker(k))
                spoken.append(_last(panel, place, name, lines))
                drawn[k] = len(lines)
        _reference(panel, axes, name)
        axes.set_xlabel(TIMES[x])
        axes.set_ylabel(_quantity(panel, name))
        if x not in ("seconds", "tflop"):
            integer_axis(axes)
    if not spoken:
        return "None of these runs was watched while it trained."
    shown = {k: place.label for k, place in places.items() if k in drawn}
    legend_below(figure, [line(k, label) for k, label in shown.items()], columns=3 if len(names) == 1 else 5)
    several = max(drawn.values()) > 1
    kinds = "Thin lines: seeds; marked line: their mean, as far as all go. " if several else ""
    kinds += seeds_shown({label: drawn[k] for k, label in shown.items()})
    if x == "tflop":
        kinds += " Lines: of the watched images. A mark alone: of all images, clusters found once at the end."
    unseen = ", ".join(place.label for k, place in places.items() if place.runs and k not in drawn)
    unwatched = f" Not watched while training: {unseen}." if unseen else ""
    end = "At the end (mean of the seeds, each at its own end)" if several and x == "seconds" else "At the end"
    return f"{kinds} {end}: {', '.join(spoken)}.{unwatched}"


def _tints(places: Sequence[RowOnData]) -> list[int]:
    return tints([str(place.row.method) for place in places])


def _line(panel: Panel, run, name: str, x: str) -> tuple[list[float], list[float]] | None:
    """Return x and y of one run, or None where nothing was noted."""
    if panel.option("history"):
        history = read_history(panel.root / run.path / HISTORY)
        if name not in history:
            return None
        parameter = panel.option("information")
        m = run.plan["params"][parameter] + 1 if parameter else None
        return history[x], [math.log(m) - value if m else value for value in history[name]]
    looks = panel.looks(run)
    if looks is None:
        return ([_training_tflop(panel, run)], [run.value(name)]) if x == "tflop" else None
    return _times(panel, run, looks, x), looks.score(name)


def _training_tflop(panel: Panel, run) -> float:
    """Return the counted arithmetic of a run's epochs, in 10^12 operations; 0 where nothing is trained."""
    if "epochs" not in run.plan["params"]:
        return 0.0
    work = counted_work(run.plan, load_datasets(panel.root)[run.plan["dataset"]])
    if work is None or not work.exact:
        raise UserError(f"{run.path}: its arithmetic was not counted; run python workflow/scripts/counts.py")
    return work.training / 1e12


def _times(panel: Panel, run, looks, x: str) -> list[float]:
    if x == "tflop":
        each = _training_tflop(panel, run) / run.plan["params"]["epochs"]
        return [each * int(epoch) for epoch in looks.epoch]
    if x == "step":
        history = read_history(panel.root / run.path / HISTORY)
        steps = {0: 0.0, **dict(zip(map(int, history["epoch"]), history["step"], strict=True))}
        return [steps[int(epoch)] for epoch in looks.epoch]
    return [float(value) for value in getattr(looks, x)]


def _quantity(panel: Panel, name: str) -> str:
    if panel.option("information"):
        return f"log M − {name} (nat)"
    if panel.option("history"):
        return f"{name} (nat)"
    return f"{metric_label(name)} ({FRACTION})"


def _reference(panel: Panel, axes: Axes, name: str) -> None:
    """Draw printed final values as dashed lines: of the rows that have one for this metric."""
    if panel.option("history") or not panel.option("reference", False):
        return
    for row in panel.artefact.rows:
        if row.published_method:
            column = panel.artefact.columns[0]
            found = panel.published(None, row, column, name)
            if found:
                axes.axhline(found[0], color="#666666", linestyle=(0, (4, 3)), linewidth=1)
                place = axes.get_yaxis_transform()
                axes.text(0.02, found[0], f"{row.label}, printed", transform=place, fontsize=7.5, va="bottom")


def _last(panel: Panel, place: RowOnData, name: str, lines: list) -> str:
    digits = ".4g" if panel.option("history") else ".3f"
    quantity = _quantity(panel, name).split(" (")[0]
    return f"{place.label} {quantity} {mean([y[-1] for _, y in lines]):{digits}}"
