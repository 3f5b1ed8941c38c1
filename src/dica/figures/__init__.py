"""Figures of declared artefacts, drawn from stored runs and analyses; nothing here imports torch.

A figure is one plot, or several panels of them (`plot: panels`). Each plot is a function of a `Panel` (what it shows)
and a figure to draw on; it returns what is seen in words, which is the alternative text of the picture.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["MPLBACKEND"] = "Agg"  # before matplotlib reads it: a notebook leaves the name of one that is not here

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import PIL
from matplotlib import ft2font
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dica.figures import clusters, curves, numbers, pictures
from dica.figures.curves import loss_parts, read_history
from dica.figures.panel import Panel
from dica.figures.style import FRACTION, STYLE, Canvas, resize, say
from dica.files import UserError, atomic_write_bytes, sha256_bytes
from dica.plan.artefacts import PLOTS, Artefact
from dica.plan.planned import has_something, load_runs, needed_by, scored_runs

__all__ = [
    "draw",
    "drawn_with",
    "loss_parts",
    "read_history",
    "runs_behind",
    "sealed",
    "share_ranges",
    "to_bytes",
    "write_figures",
]

KINDS = ("svg", "png")  # drawn in this order: a second drawing may lay out a little differently
NO_SEAL = f"sha256:{'0' * 64}"


def panels(panel: Panel, figure: Canvas) -> str:
    """Several plots side by side. Options: `panels` (each `plot`, `title`, its rows and options), `columns`, `size`."""
    parts = panel.option("panels", [])
    across = min(panel.option("columns", 2), len(parts))
    down = -(-len(parts) // across)
    width, height = panel.option("size", [4.4, 3.9])
    resize(figure, width * across, height * down)
    words = []
    places: Any = figure.subfigures(down, across, squeeze=False)
    for k, (spec, place) in enumerate(zip(parts, places.flat, strict=False)):
        name = spec["plot"]
        part = panel.part({key: value for key, value in spec.items() if key not in ("plot", "title")}, PLOTS[name])
        title = f"({chr(ord('a') + k)}) {spec.get('title', '')}".rstrip()
        if len(panel.columns) > 1 and len(part.columns) == 1:  # the panels are of different data sets: say of which
            title = f"{title}, {part.columns[0].label}"
        place.suptitle(title, x=0.02, ha="left", fontsize=10)
        words.append(f"{title}: {_fill(part, name, place)}")
    for plot in LINES:  # each by itself: beside curves that start at chance the ends of a sweep would all look alike
        drawn = [place.axes for spec, place in zip(parts, places.flat, strict=False) if spec["plot"] == plot]
        share_ranges([axes for some in drawn for axes in some])
    return " ".join(words)


def share_ranges(drawn: list[Axes]) -> None:
    """Give axes of the same metric one range, and of x, too, where it is the same thing: to be compared by eye."""
    of_metric: dict[str, list[Axes]] = {}
    over_same: dict[tuple[str, str], list[Axes]] = {}
    for axes in drawn:
        if FRACTION in axes.get_ylabel():
            of_metric.setdefault(axes.get_ylabel(), []).append(axes)
            over_same.setdefault((axes.get_xlabel(), axes.get_ylabel()), []).append(axes)
    for group in of_metric.values():
        low, high = zip(*(axes.get_ylim() for axes in group), strict=True)
        for axes in group:
            axes.set_ylim(min(low), max(high))
    for group in over_same.values():
        low, high = zip(*(axes.get_xlim() for axes in group), strict=True)
        for axes in group:
            axes.set_xlim(min(low), max(high))


def _fill(panel: Panel, name: str, figure: Canvas) -> str:
    """Draw one plot, or say why there is nothing to draw."""
    plot, options = DRAW[name]
    panel.check_options(*options)
    if panel.places and not panel.done and name not in COMPLETE:
        say(figure, panel.missing)
        return panel.missing
    return plot(panel, figure)


# Each plot with the options that a declaration may give it.
DRAW: dict[str, tuple[Callable[[Panel, Canvas], str], tuple[str, ...]]] = {
    "curves": (curves.curves, ()),
    "progress": (curves.progress, ("x", "metrics", "history", "information", "reference")),
    "seeds": (numbers.seeds, ("metrics", "columns")),
    "bars": (numbers.bars, ("metrics", "x_label")),
    "sweep": (numbers.sweep, ("x", "x_label", "log", "series", "series_label", "metrics")),
    "tsne": (clusters.tsne, ("layers",)),
    "stages": (clusters.stages, ()),
    "bcubed": (clusters.bcubed, ()),
    "variance": (clusters.variance, ()),
    "largest": (clusters.largest, ()),
    "assignments": (clusters.assignments, ("looks",)),
    "confusion": (clusters.confusion, ()),
    "jsd": (clusters.jsd, ()),
    "surfaces": (clusters.surfaces, ("critics",)),
    "cases": (pictures.cases, ("classes", "kinds", "each")),
    "neighbours": (pictures.neighbours, ()),
    "gradcam": (pictures.gradcam, ()),
    "labelled": (pictures.labelled, ()),
    "indices": (pictures.indices, ()),
    "panels": (panels, ("panels", "columns", "size")),
}
NAMES_MISSING = ("curves", "seeds", "bars")  # these plots name what is missing in its place
LINES = ("progress", "sweep")  # over one axis
COMPLETE = (*NAMES_MISSING, "panels")  # these are drawn even if nothing is there
if set(DRAW) != set(PLOTS):
    raise RuntimeError(f"dica.plan.artefacts.PLOTS and dica.figures.DRAW differ: {sorted(set(DRAW) ^ set(PLOTS))}")


def draw(artefact: Artefact, plan: dict[str, Any], root: Path, results: str) -> tuple[Figure, str]:
    """Draw a declared figure and return it with what it shows in words.

    Runs and analyses that do not exist yet are left out and named under the figure.

    Raises
    ------
    UserError
        If the declaration has an option or row that its plot does not know.
    """
    if not artefact.regenerated:
        raise UserError(f"{artefact.address}: not regenerated: {artefact.reason}")
    own = needed_by(plan, [artefact.address])
    runs = {run.plan["id"]: run for run in load_runs(own, root, results)}
    plot = str(artefact.plot)
    panel = Panel(artefact, plan, runs, root, results, artefact.rows, artefact.options, PLOTS[plot])
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(6, 2), layout="constrained")
        words = _fill(panel, plot, figure)
        if panel.missing and panel.missing not in words and plot not in NAMES_MISSING:
            width, height = figure.get_size_inches()
            plt.close(figure)
            figure = _with_footnote(panel.missing, width, height, lambda body: _fill(panel, plot, body))
            words = f"{words} {panel.missing}"
        if artefact.rung:
            where = artefact.title.partition(":")[0]
            figure.suptitle(where, fontsize=9, x=0.01, ha="left")
            words = f"{where}. {words}"
    return figure, words


def _with_footnote(text: str, width: float, height: float, fill: Callable[[Canvas], object]) -> Figure:
    """Return a figure that `fill` draws on, with a small text below."""
    lines = textwrap.wrap(text, int(width * 14))
    room = 0.12 + 0.14 * len(lines)
    figure = plt.figure(figsize=(width, height + room), layout="constrained")
    body, foot = figure.subfigures(2, 1, height_ratios=[height, room])
    fill(body)
    foot.text(0.01, 0.95, "\n".join(lines), va="top", fontsize=7.5, color="#444444")
    return figure


def runs_behind(artefact: Artefact, plan: dict[str, Any], root: Path) -> list[str]:
    """Return the ids of the finished runs that a figure shows, in the order of the plan."""
    return [run["id"] for run in scored_runs(plan, root, artefact.address)]


def to_bytes(figure: Figure, kind: str, text: str = "", runs: Sequence[str] = ()) -> bytes:
    """Return the file of a figure (`svg` or `png`) with its words and its runs' ids; equal figures give equal bytes."""
    out = io.BytesIO()
    drawn = {"Creator": f"dica with {drawn_with()}", "Relation": NO_SEAL}
    own: dict[str, Any] = {"Date": None, **drawn} if kind == "svg" else {"Software": "dica"}
    metadata = own | ({"Description": text} if text else {})
    metadata |= {"Source": f"runs {' '.join(runs)}"} if runs else {}
    with plt.rc_context(STYLE):
        figure.savefig(out, format=kind, metadata=metadata)
    return out.getvalue()


def drawn_with() -> str:
    """Return the libraries on whose versions the bytes of a figure depend."""
    found = {"matplotlib": matplotlib.__version__, "FreeType": ft2font.__freetype_version__}
    found |= {"numpy": np.__version__, "Pillow": PIL.__version__}
    return ", ".join(f"{name} {version}" for name, version in found.items())


def sealed(svg: bytes, png: bytes) -> bytes:
    """Return an SVG that names the PNG beside it by its SHA-256, so that one of them alone cannot change unnoticed."""
    return svg.replace(NO_SEAL.encode(), f"sha256:{sha256_bytes(png)}".encode(), 1)


def write_figures(
    artefacts: Sequence[Artefact], plan: dict[str, Any], root: Path, results: str, folder: Path | str
) -> list[Path]:
    """Write `<folder>/<paper>/<artefact>.{svg,png}` for every figure that has something to show; return the paths."""
    written = []
    for artefact in artefacts:
        if artefact.kind != "figure" or not has_something(artefact, plan, root):
            continue
        figure, text = draw(artefact, plan, root, results)
        runs = runs_behind(artefact, plan, root)
        files = {kind: to_bytes(figure, kind, text, runs) for kind in KINDS}
        plt.close(figure)
        files["svg"] = sealed(files["svg"], files["png"])
        for kind, data in files.items():
            path = Path(folder) / artefact.paper / f"{artefact.name}.{kind}"
            atomic_write_bytes(path, data)
            written.append(path)
    return written
