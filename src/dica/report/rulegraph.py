"""The graph of the workflow's rules, asked of Snakemake and drawn in layers: up to date by construction."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from grandalf.graphs import Edge, Graph, Vertex, edge_core, vertex_core
from grandalf.layouts import SugiyamaLayout
from grandalf.routing import EdgeViewer

from dica.files import UserError
from dica.plan.made import TOLD
from dica.tables.rendering import environment

SOURCES = ("Snakefile", "workflow", "params", "src", TOLD)
LETTER, HEIGHT, GAP, LAYER_GAP = 7.4, 28, 16, 26  # pixels: width of a letter, height of a box, distances

Arrows = list[tuple[str, str]]


def arrows(root: Path) -> Arrows:
    """Return the arrows between rules (from, to), sorted, when nothing has been made yet.

    Snakemake is asked in a copy of the workflow without data and results, so that every rule has something to do and
    the answer is the same on every machine.

    Raises
    ------
    UserError
        If Snakemake cannot read the workflow; its last lines are in the message.
    """
    with tempfile.TemporaryDirectory(prefix="dica-rules-") as folder:
        for name in SOURCES:
            copy = shutil.copytree if (root / name).is_dir() else shutil.copy2
            (Path(folder) / name).parent.mkdir(exist_ok=True)
            copy(root / name, Path(folder) / name)
        for declared in Path(folder).glob("params/artefacts/*.yaml"):  # more seeds are more jobs, but no other rules
            declared.write_text(re.sub(r"\bseeds: \d+", "seeds: 1", declared.read_text(encoding="utf-8")), "utf-8")
        command = [sys.executable, "-m", "snakemake", "--rulegraph", "mermaid-js", "--", "all"]
        settings = {name: value for name, value in os.environ.items() if not name.startswith("SNAKEMAKE_")}
        done = subprocess.run(command, cwd=folder, env=settings, text=True, capture_output=True)
    if done.returncode:
        raise UserError(f"snakemake --rulegraph failed: {' '.join(done.stderr.split()[-60:])}")
    return parse(done.stdout)


def parse(mermaid: str) -> Arrows:
    """Return the arrows of a Mermaid flow chart by the names of its boxes."""
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", mermaid))
    return sorted({(names[start], names[end]) for start, end in re.findall(r"(id\d+) --> (id\d+)", mermaid)})


def mermaid(pairs: Arrows) -> str:
    """Return a plain Mermaid flow chart, as a README shows it."""
    return "\n".join(["```mermaid", "flowchart LR", *(f"    {start} --> {end}" for start, end in pairs), "```"])


class _Box:
    """Size and, after the layout, centre of a vertex, as grandalf wants it."""

    def __init__(self, name: str) -> None:
        self.w, self.h = LETTER * len(name) + 18, HEIGHT
        self.xy = (0.0, 0.0)


def _route(edge: Edge, points: list[tuple[float, float]]) -> None:
    """Lead an arrow, given by centres, from the foot of a box to the head of another, upright past layers between."""
    (x0, y0), *between, (x1, y1) = points
    passed = [(x, y + side * HEIGHT / 2) for x, y in between for side in (-1, 1)]
    points[:] = [(x0, y0 + HEIGHT / 2), *passed, (x1, y1 - HEIGHT / 2)]


@dataclass(frozen=True)
class Drawn:
    """A box: centre, size and name."""

    x: float
    y: float
    w: float
    h: float
    name: str


@contextlib.contextmanager
def _numbering() -> Iterator[None]:
    """Let grandalf's sets hold vertices and edges in the order of their first use.

    By itself it follows their addresses in memory, so that the same graph comes out in one of several ways.
    """
    counter = itertools.count()

    def number(self: vertex_core | edge_core) -> int:
        if "number" not in self.__dict__:
            self.number = next(counter)
        return self.number

    before = vertex_core.__hash__, edge_core.__hash__
    vertex_core.__hash__ = edge_core.__hash__ = number
    try:
        yield
    finally:
        vertex_core.__hash__, edge_core.__hash__ = before


@_numbering()
def svg(pairs: Arrows) -> str:
    """Return the graph as SVG, top to bottom, in the colour of the text around it; ↻ marks a rule that needs itself.

    Raises
    ------
    UserError
        If there is no arrow, or the graph is not in one piece.
    """
    loops = {start for start, end in pairs if start == end}
    names = sorted({name for pair in pairs for name in pair})
    vertices = {name: Vertex(f"{name} ↻" if name in loops else name) for name in names}
    edges = [Edge(vertices[start], vertices[end]) for start, end in pairs if start != end]
    pieces = Graph(list(vertices.values()), edges).C
    if len(pieces) != 1:
        raise UserError(f"the graph of the rules has {len(pieces)} pieces; every rule must lead to `all`")
    for vertex in vertices.values():
        vertex.view = _Box(vertex.data)
    for edge in edges:
        edge.view = EdgeViewer()
    layout = SugiyamaLayout(pieces[0])
    layout.xspace, layout.yspace, layout.route_edge = GAP, LAYER_GAP, _route
    layout.init_all()
    layout.draw()
    boxes = []
    for vertex in vertices.values():
        x, y = vertex.view.xy
        boxes.append(Drawn(x, y, vertex.view.w, vertex.view.h, vertex.data))
    lines = [edge.view._pts for edge in edges]  # the only place where grandalf keeps a route
    return _render(boxes, lines, pairs)


def redrawn(drawn: str) -> str:
    """Return the SVG of the arrows that a drawn graph names in words: the same, if nothing in it was changed."""
    words = re.search(r"Graph of the rules: ([^<\"]*)\.", drawn)
    pairs = [tuple(pair.split(" leads to ")) for pair in words[1].split("; ")] if words else []
    try:
        return svg(pairs) if all(len(pair) == 2 for pair in pairs) else ""
    except (UserError, IndexError, KeyError):
        return ""


def _render(boxes: Sequence[Drawn], lines: Sequence[Sequence[tuple[float, float]]], pairs: Arrows) -> str:
    xs = [x for line in lines for x, _ in line] + [box.x + side * box.w / 2 for box in boxes for side in (-1, 1)]
    ys = [box.y + side * box.h / 2 for box in boxes for side in (-1, 1)]
    margin = 6
    view = (min(xs) - margin, min(ys) - margin, max(xs) - min(xs) + 2 * margin, max(ys) - min(ys) + 2 * margin)
    spoken = "; ".join(f"{start} leads to {end}" for start, end in pairs)
    context = {"boxes": boxes, "lines": lines, "view": view, "spoken": f"Graph of the rules: {spoken}."}
    return environment().get_template("rules.svg.html.j2").render(context)
