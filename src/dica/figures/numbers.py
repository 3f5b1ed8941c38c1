"""Final scores: a dot for each seed, bars side by side, and sweeps over a parameter."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from dica.figures.panel import Panel, seeds_shown
from dica.figures.style import (
    ABOVE,
    FRACTION,
    Canvas,
    colour,
    grid,
    legend_below,
    line,
    marker,
    metric_label,
    resize,
    say,
    tints,
)
from dica.plan.artefacts import Column, Row
from dica.scores.stats import mean, t_interval

PRINTED: dict[str, Any] = {"marker": "_", "markersize": 12, "markeredgewidth": 1.6, "linestyle": "", "color": "#777777"}
SPREAD_LEGEND = (
    plt.Line2D([], [], color="#555555", marker="o", linestyle="", markerfacecolor="none", label="one seed"),
    plt.Line2D([], [], color="#555555", marker="_", markersize=11, markeredgewidth=2, linestyle="", label="mean"),
    plt.Line2D([], [], color="#555555", linewidth=1.2, label="95 % interval of the mean"),
)


def seeds(panel: Panel, figure: Canvas) -> str:
    """A dot for each seed, with the mean and its 95 % interval, one axes for each data set and metric."""
    found = {(place.row.key, place.column.key): place for place in panel.places}
    shown = [(column, metric) for column in panel.columns for metric in panel.metrics]
    across = min(panel.option("columns", 6), len(shown))
    down = math.ceil(len(shown) / across)
    resize(figure, max(5.2, 1.6 + max(2.0, 1.25 * len(panel.rows)) * across), 0.6 + 2.7 * down)
    spoken, printed, tint = [], False, _tints(panel)
    all_axes = grid(figure, down, across).flat
    for axes, (column, metric) in zip(all_axes, shown, strict=False):
        for k, row in enumerate(panel.rows):
            place = found.get((row.key, column.key))
            values = [run.value(metric) for run in place.runs] if place else []
            _seed_column(axes, k, values, tint[k], bool(place))
            printed |= _printed_mark(panel, axes, k, row, column, metric)
            spoken.append(_spoken(row.label, column.label, metric, values))
        axes.set_xticks(range(len(panel.rows)), [row.label.replace(", ", ",\n") for row in panel.rows])
        axes.set_xlim(-0.6, len(panel.rows) - 0.4)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel(f"{metric_label(metric)} ({FRACTION})")
        axes.set_title(column.label, loc="left")
        axes.margins(y=0.12)
        if not axes.lines:
            axes.set_ylim(0, 1)
    for axes in list(all_axes):
        axes.axis("off")
    mark = plt.Line2D([], [], **PRINTED, label="printed")
    legend_below(figure, [*SPREAD_LEGEND, mark] if printed else SPREAD_LEGEND, columns=4)
    return " ".join(spoken)


def _tints(panel: Panel) -> list[int]:
    return tints([row.method or row.key for row in panel.rows])


def _seed_column(axes: Axes, position: int, values: list[float], k: int, planned: bool) -> None:
    if not values:
        text = "not run" if planned else "printed\nonly"
        axes.text(position, 0.5, text, ha="center", va="center", transform=axes.get_xaxis_transform(), fontsize=7.5)
        return
    shift = [0.09 * (seed - (len(values) - 1) / 2) / max(1, len(values) / 4) for seed in range(len(values))]
    places = [position - 0.12 + dx for dx in shift]
    tint = colour(k)
    axes.plot(places, values, marker(k), color=tint, markerfacecolor="none", markersize=5, linestyle="")
    axes.plot([position + 0.2], [mean(values)], "_", color=tint, markersize=14, markeredgewidth=2.4)
    if len(values) > 1:
        axes.plot([position + 0.2] * 2, t_interval(values), color=tint, linewidth=1.2)


def _printed_mark(panel: Panel, axes: Axes, position: float, row: Row, column: Column, metric: str) -> bool:
    """Mark the printed number of a row, if there is one."""
    found = panel.published(None, row, column, metric)
    if found:
        axes.plot([position + 0.36], [found[0]], **PRINTED)
    return bool(found)


def _spoken(label: str, dataset: str, metric: str, values: list[float]) -> str:
    if not values:
        return f"{label} on {dataset}: not run."
    listed = ", ".join(f"{value:.3f}" for value in values)
    return f"{label} on {dataset}, {metric_label(metric)} by seed: {listed} (mean {mean(values):.3f})."


def bars(panel: Panel, figure: Canvas) -> str:
    """A bar for each row, ours with its seeds; printed numbers as marks; one axes for each metric and data set."""
    found = {(place.row.key, place.column.key): place for place in panel.places}
    columns = panel.columns or list(panel.artefact.columns)
    resize(figure, 1.4 + (0.7 + 0.55 * len(panel.rows)) * len(columns), 3.6)
    metric = panel.metrics[0]
    spoken, printed, tint = [], False, _tints(panel)
    for axes, column in zip(grid(figure, 1, len(columns), sharey=True)[0], columns, strict=True):
        for k, row in enumerate(panel.rows):
            place = found.get((row.key, column.key))
            values = [run.value(metric) for run in place.runs] if place else []
            if values:
                axes.bar([k], [mean(values)], width=0.62, color=colour(tint[k]), alpha=0.75)
                axes.plot([k] * len(values), values, "o", color="#222222", markerfacecolor="none", markersize=4)
            elif place:
                axes.text(
                    k, 0.02, "not run", rotation=90, ha="center", transform=axes.get_xaxis_transform(), fontsize=7.5
                )
            printed |= _printed_mark(panel, axes, k - 0.36, row, column, metric)
            spoken.append(_spoken(row.label, column.label, metric, values))
        axes.set_xticks(range(len(panel.rows)), [row.label for row in panel.rows], rotation=35, ha="right")
        axes.set_xlim(-0.6, len(panel.rows) - 0.4)
        axes.set_ylim(bottom=0)
        axes.grid(axis="x", visible=False)
        axes.set_title(column.label, loc="left")
        axes.set_xlabel(panel.option("x_label", ""))
    figure.axes[0].set_ylabel(f"{metric_label(metric)} ({FRACTION})")
    handles = [plt.Line2D([], [], color="#222222", marker="o", linestyle="", markerfacecolor="none", label="one seed")]
    legend_below(figure, [*handles, plt.Line2D([], [], **PRINTED, label="printed")] if printed else handles)
    return "Bars: mean of our seeds. " + " ".join(spoken)


def sweep(panel: Panel, figure: Canvas) -> str:
    """Metrics against the value of a parameter, a point a row; with `series`, a line for each value of a second one.

    Options: `x` (path in params, `/` between keys, an operation's name in a list of views; or images_per_class),
    `x_label`, `log`, `series`, `series_label`, `metrics`.
    """
    x_label, series = panel.option("x_label", panel.option("x")), panel.option("series")
    lines: dict[str, dict[float, list[float]]] = {}  # label -> value of x -> a number a seed
    for place in [place for place in panel.places if place.runs]:
        where = _value(panel, panel.option("x"), place)
        second = parameter(panel, place.planned[0]["params"], series) if series else None
        if where is None or (series and second is None):
            continue
        for name in panel.metrics[:1] if series else panel.metrics:
            label = f"{panel.option('series_label', series)} {second:g}" if series else metric_label(name)
            lines.setdefault(label, {})[where] = [run.value(name) for run in place.runs]
    resize(figure, 5.2, 3.9)
    if not lines:  # on a substitute for the paper's data
        say(figure, text := f"None of these runs has the parameter that is varied: {x_label}.")
        return text
    axes = figure.subplots()
    own = range(len(lines)) if series else tints(panel.metrics)
    for k, points in zip(own, lines.values(), strict=True):
        _sweep_line(axes, sorted(points.items()), k)
    if panel.option("log", False):
        axes.set_xscale("log")
    ticks = sorted({x for points in lines.values() for x in points})
    if len(ticks) <= 9:
        axes.set_xticks(ticks, [f"{x:,g}" for x in ticks])
        axes.minorticks_off()
    axes.set_xlabel(x_label)
    alone = series or len(panel.metrics) == 1
    axes.set_ylabel(f"{metric_label(panel.metrics[0]) if alone else 'metric'} ({FRACTION})")
    axes.margins(0.06)
    legend_below(figure, [line(k, label) for k, label in zip(own, lines, strict=True)])
    return _sweep_words(x_label, lines, series)


def _sweep_line(axes: Axes, points: list[tuple[float, list[float]]], k: int) -> None:
    middle = [mean(values) for _, values in points]
    axes.plot([x for x, _ in points], middle, color=colour(k), marker=marker(k), markersize=5, zorder=ABOVE)
    for x, values in points:
        if len(values) > 1:
            axes.plot(
                [x] * len(values), values, "o", color=colour(k), markerfacecolor="none", markersize=3.2, alpha=0.6
            )


def _sweep_words(x_label: str, lines: dict[str, dict[float, list[float]]], series: str | None) -> str:
    texts = [
        f"{label}: " + ", ".join(f"{mean(values):.3f} at {x:,g}" for x, values in sorted(points.items()))
        for label, points in lines.items()
    ]
    counts = {  # without `series` all lines are of the same runs
        f"{label} at {x:,g}" if series else f"{x:,g}": len(values)
        for label, points in lines.items()
        for x, values in sorted(points.items())
    }
    several = "; small circles: seeds" if max(counts.values()) > 1 else ""
    seeds = seeds_shown(counts, "for" if series else "at")
    return f"Means of our seeds by {x_label}{several}. {seeds} {'; '.join(texts)}."


def _value(panel: Panel, path: str, place: Any) -> float | None:
    if path == "images_per_class":
        labels = panel.labels(place.column.dataset)["train"]
        return labels.size / (int(labels.max()) + 1)
    return parameter(panel, place.planned[0]["params"], path)


def parameter(panel: Panel, params: dict, path: str) -> float | None:
    """Return the number under a path such as `backbone/width` or `views/low/random_resized_crop/size`.

    None if there is none and the figure is drawn on a substitute for the paper's data.

    Raises
    ------
    UserError
        If the parameters of a run have no such number.
    """
    value: Any = params
    for part in path.split("/"):
        if isinstance(value, list):
            value = next((step for step in value if step["op"] == part), None)
        else:
            value = value.get(part) if isinstance(value, dict) else None
    if not isinstance(value, bool) and isinstance(value, int | float):
        return value
    if panel.artefact.substitute:  # other data may have other views
        return None
    raise panel.error(f"{path!r} is no number in the parameters of its runs")
