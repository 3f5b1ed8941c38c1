"""Whether stored figures are what the stored runs and analyses give: what `dica audit --all` says of them.

Both files are drawn again: the SVG must have the same bytes, the PNG, whose SHA-256 the SVG holds, the same pixels.
Other versions of the libraries may set a line elsewhere, so that with those only the words are compared, which hold the
numbers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dica.audit.runs import OUTSIDE_GIT
from dica.data.paths import labels_file
from dica.figures import KINDS, draw, drawn_with, runs_behind, sealed, to_bytes
from dica.figures.style import plt
from dica.files import UserError, sha256_bytes
from dica.plan.artefacts import Artefact
from dica.plan.planned import scored_runs
from dica.runs.files import RECORD
from dica.runs.read import Finding, read_record
from dica.tables.drawn import said

if TYPE_CHECKING:  # dica.figures chooses matplotlib's backend before matplotlib is imported
    from matplotlib.figure import Figure


def check_figure(artefact: Artefact, plan: dict[str, Any], root: Path, results: str) -> Finding:
    """Tell whether the files of a declared figure are those that a plan's runs give.

    Parameters
    ----------
    plan
        The plan, with runs of usable metrics only.
    root, results
        Project root and results root relative to it.
    """
    folder = root / results / "figures" / artefact.paper
    paths = {kind: folder / f"{artefact.name}.{kind}" for kind in KINDS}
    if absent := [path.name for path in paths.values() if not path.is_file()]:
        return Finding(artefact.address, False, f"missing: {', '.join(absent)}", missing=True)
    if absent := _absent(artefact, plan, root):
        return Finding(artefact.address, False, f"cannot be drawn again without {', '.join(absent)}", missing=True)
    svg, png = (paths[kind].read_bytes() for kind in ("svg", "png"))
    try:
        figure, words = draw(artefact, plan, root, results)
    except (UserError, KeyError, ValueError, TypeError, IndexError, OverflowError, MemoryError) as error:
        return Finding(artefact.address, False, f"cannot be drawn again: {error}")
    runs = runs_behind(artefact, plan, root)
    try:
        again = partial(_drawn_again, figure, words, runs)
        return Finding(artefact.address, *_compare(svg, png, words, runs, again))
    finally:
        plt.close(figure)


def _absent(artefact: Artefact, plan: dict[str, Any], root: Path) -> list[str]:
    """Return the files behind a figure that are not here though they were."""
    runs = scored_runs(plan, root, artefact.address)
    wanted = [labels_file(dataset) for dataset in dict.fromkeys(run["dataset"] for run in runs)]
    for run in runs:
        record, _ = read_record(root / run["path"] / RECORD, {"files": dict})
        names = [RECORD, *(name for name in (record or {"files": ()})["files"] if name not in OUTSIDE_GIT)]
        wanted += [f"{run['path']}/{name}" for name in names]
    return [name for name in wanted if not (root / name).is_file()]


def _drawn_again(figure: Figure, words: str, runs: Sequence[str]) -> list[bytes]:
    return [to_bytes(figure, kind, words, runs) for kind in KINDS]


def _compare(
    svg: bytes, png: bytes, words: str, runs: Sequence[str], again: Callable[[], list[bytes]]
) -> tuple[bool | None, str]:
    """Return what a comparison of stored files with what the runs give says, and a remark."""
    stored = said(svg)
    if not (stored.drawn_with and stored.seal and stored.words):
        return False, "the SVG does not say what drew it; build it again"
    if stored.seal != sha256_bytes(png):
        return False, "the PNG is not the one that was drawn with the SVG; build both again"
    if stored.words != words:
        return False, "says other numbers than the runs give; build it again"
    if stored.runs != tuple(runs):
        return False, f"names the runs {' '.join(stored.runs) or 'none'}, not those that it shows; build it again"
    if stored.drawn_with != drawn_with():
        return None, f"its words are those that the runs give; drawn with {stored.drawn_with}, it was not drawn again"
    new_svg, new_png = again()
    if sealed(new_svg, png) != svg or not _same_picture(png, new_png):
        return False, "differs from what the runs give; build it again"
    return True, "is what the runs give"


def _same_picture(one: bytes, other: bytes) -> bool:
    """Compare pixels, not files: these also depend on the library that packs them."""
    try:
        first, second = (np.asarray(Image.open(io.BytesIO(data))) for data in (one, other))
    except (OSError, ValueError):
        return False
    return np.array_equal(first, second)
