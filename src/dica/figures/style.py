"""How every figure looks: colours that anyone can tell apart, one marker each, small helpers for axes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from dica.tables.words import METRIC_LABELS

# Okabe and Ito's colours, told apart with any colour vision; each also has a marker of its own.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# What has a colour of its own in all figures: the papers' methods, and the metrics that are drawn side by side.
OWN = {
    **{"drc": 0, "dccm": 1, "crlc": 2, "tcc": 3, "imc-swav": 4},
    **{"acc": 0, "nmi": 1, "ari": 2},
}
# Ten classes: the same seven, then three greys that differ in lightness. More classes repeat them.
CLASS_COLOURS = (*COLOURS, "#F0E442", "#7F7F7F", "#8C5109")
STYLE = {
    "svg.hashsalt": "dica",
    "svg.fonttype": "none",  # text stays text: searchable and small
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",  # the layout does not see how far pictures of fixed aspect push their labels
    "savefig.pad_inches": 0.08,
    "lines.linewidth": 1.6,
}
FRACTION = "fraction of 1"
ABOVE = 3  # of means; lines and marks of seeds have 2, so that they cover no mean
Canvas = Figure | SubFigure


def resize(figure: Canvas, width: float, height: float) -> None:
    """Set the size in inches of a figure that stands alone; a panel of another keeps its share."""
    if isinstance(figure, Figure):
        figure.set_size_inches(width, height)


def grid(figure: Canvas, rows: int, columns: int, **options: Any) -> Any:
    """Return axes, an array (rows, columns)."""
    return figure.subplots(rows, columns, squeeze=False, **options)


def blank(axes: Axes) -> None:
    """Turn axes into a plain area for a picture or a text."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def say(figure: Canvas, text: str) -> None:
    """Fill a panel that has nothing to show with the reason."""
    axes = figure.subplots()
    blank(axes)
    axes.text(0.02, 0.5, textwrap.fill(text, 60), va="center", transform=axes.transAxes)


def metric_label(name: str) -> str:
    """Return a metric, or a column of a history, as figures call it."""
    return METRIC_LABELS.get(name, name)


def tints(names: Sequence[str]) -> list[int]:
    """Return the number of the colour and marker of each method (or metric), its own or one that no other here has.

    A method that comes several times, as variants or on several data sets, leaves all to their position.
    """
    if len(set(names)) < len(names):
        return list(range(len(names)))
    rest = [k for k in (6, 5, *range(5), *range(7, 7 + len(names))) if k not in {OWN.get(name) for name in names}]
    return [OWN[name] if name in OWN else rest.pop(0) for name in names]


def colour(k: int) -> str:
    return COLOURS[k % len(COLOURS)]


def marker(k: int) -> str:
    return MARKERS[k % len(MARKERS)]


def integer_axis(axes: Axes, which: str = "x") -> None:
    """Let an axis of counts have whole numbers only."""
    getattr(axes, f"{which}axis").get_major_locator().set_params(integer=True)


def legend_below(figure: Canvas, handles: Sequence, columns: int = 4, **options: object) -> None:
    """Put a legend under everything, where it covers no data, in at most `columns` and as many as are wide enough."""
    for ncols in range(max(1, min(columns, len(handles))), 0, -1):
        legend = figure.legend(handles=list(handles), loc="outside lower center", ncols=ncols, **options)
        if ncols == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def line(k: int, label: str, **options: object) -> plt.Line2D:
    """Return a legend entry of the k-th colour and marker."""
    return plt.Line2D([], [], **{"color": colour(k), "marker": marker(k), "label": label, "markersize": 5, **options})
