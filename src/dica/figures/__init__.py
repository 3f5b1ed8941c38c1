"""Figures of declared artefacts, drawn from stored runs and analyses; nothing here imports torch.

A figure is one plot, or several panels of them (`plot: panels`). Each plot is a function of a `Panel` (what it shows)
and a figure to draw on; it returns what is seen in words, which is the alternative text of the picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from dica.artefacts import PLOTS, Artefact
from dica.figures import clusters, curves, numbers, pictures
from dica.figures.curves import loss_parts, read_history
from dica.figures.panel import Panel, note
from dica.figures.style import STYLE, Canvas, resize, say
from dica.files import UserError, atomic_write_bytes
from dica.tables import load_runs

__all__ = ["draw", "loss_parts", "read_history", "to_bytes", "write_figures"]


def panels(panel: Panel, figure: Canvas) -> str:
    """Several plots side by side. Options: `panels` (each `plot`, `title`, its rows and options), `columns`, `size`."""
    panel.check_options("panels", "columns", "size")
    parts = panel.option("panels", [])
    across = min(panel.option("columns", 2), len(parts))
    down = -(-len(parts) // across)
    width, height = panel.option("size", [4.4, 3.9])
    resize(figure, width * across, height * down)
    words = []
    for k, (spec, place) in enumerate(zip(parts, figure.subfigures(down, across, squeeze=False).flat, strict=False)):
        title = f"({chr(ord('a') + k)}) {spec.get('title', '')}".rstrip()
        place.suptitle(title, x=0.02, ha="left", fontsize=10)
        words.append(f"{title}: {_draw_panel(panel, spec, place)}")
    return " ".join(words)


def _draw_panel(whole: Panel, spec: dict[str, Any], figure: Canvas) -> str:
    name = spec.get("plot")
    if name not in DRAW or name == "panels":
        raise whole.error(f"panels: no plot {name!r}; there are: {', '.join(sorted(DRAW))}")
    options = {key: value for key, value in spec.items() if key not in ("plot", "title")}
    return _fill(whole.part(options, PLOTS[name]), name, figure)


def _fill(panel: Panel, name: str, figure: Canvas) -> str:
    """Draw one plot, or say why there is nothing to draw."""
    if panel.places and not panel.done and name not in COMPLETE:
        say(figure, panel.missing)
        return panel.missing
    return DRAW[name](panel, figure)


DRAW: dict[str, Callable[[Panel, Canvas], str]] = {
    "curves": curves.curves,
    "progress": curves.progress,
    "seeds": numbers.seeds,
    "bars": numbers.bars,
    "sweep": numbers.sweep,
    "tsne": clusters.tsne,
    "stages": clusters.stages,
    "bcubed": clusters.bcubed,
    "variance": clusters.variance,
    "largest": clusters.largest,
    "assignments": clusters.assignments,
    "confusion": clusters.confusion,
    "jsd": clusters.jsd,
    "surfaces": clusters.surfaces,
    "cases": pictures.cases,
    "neighbours": pictures.neighbours,
    "gradcam": pictures.gradcam,
    "labelled": pictures.labelled,
    "indices": pictures.indices,
    "panels": panels,
}
COMPLETE = ("curves", "seeds", "bars", "panels")  # they show what is missing themselves, or leave it to their panels
if set(DRAW) != set(PLOTS):
    raise RuntimeError(f"dica.artefacts.PLOTS and dica.figures.DRAW differ: {sorted(set(DRAW) ^ set(PLOTS))}")


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
    runs = {run.plan["id"]: run for run in load_runs(plan, root, results)}
    panel = Panel(artefact, plan, runs, root, results, artefact.rows, artefact.options, PLOTS[artefact.plot])
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(6, 2), layout="constrained")
        words = _fill(panel, artefact.plot, figure)
        if panel.missing not in words:
            words = f"{words} {panel.missing}"
            note(figure, panel.missing, width=int(figure.get_figwidth() * 15))
    return figure, words


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
