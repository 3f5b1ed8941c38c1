"""Figures that show images: successes and failures, neighbours, heat maps, labelled subsets."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from dica.figures.panel import Panel, RowOnData
from dica.figures.style import Canvas, blank, colour, grid, resize
from dica.files import UserError, read_json
from dica.runs.files import RECORD

RIGHT, WRONG = colour(2), colour(1)
CASES = ("success", "false negative", "false positive")
OTHER = {"false negative": "predicted", "false positive": "true"}  # the class over a failure


def unpack(found: dict[str, np.ndarray]) -> np.ndarray:
    """Return the thumbnails (n, side, side, 3) of an analysis: one JPEG sheet, a tile an image."""
    sheet = matplotlib.image.imread(io.BytesIO(found["sheet"].tobytes()), format="jpg")
    side, count = int(found["side"]), int(found["count"])
    sheet = sheet if sheet.ndim == 3 else np.repeat(sheet[:, :, None], 3, axis=2)
    across, down = sheet.shape[1] // side, sheet.shape[0] // side
    tiles = sheet.reshape(down, side, across, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    return tiles[:count]


def montage(
    axes: Axes,
    tiles: dict[tuple[int, int], np.ndarray],
    titles: dict,
    frames: dict,
    row_labels: Sequence[str] = (),
    columns: int = 0,
) -> None:
    """Draw equal tiles at (row, column) in one picture, with a title above and a frame around some of them.

    A labelled row without a tile says so; room is left for at least `columns` tiles in a row.
    One axes for all: a hundred small ones take matplotlib's layout many seconds.
    """
    rows = max([len(row_labels), *(row + 1 for row, _ in tiles)])
    columns = max([columns, *(column + 1 for _, column in tiles)])
    high, wide = 1.3, 1.08  # of a cell, in tiles: room for the title and a gap
    blank(axes)
    for (row, column), tile in tiles.items():
        left, top = column * wide, row * high
        axes.imshow(tile, extent=(left, left + 1, top + 1, top), interpolation="nearest")
        if (row, column) in frames:
            axes.add_patch(
                Rectangle((left, top), 1, 1, fill=False, edgecolor=frames[row, column], linewidth=2, clip_on=False)
            )
        if titles.get((row, column)):
            axes.text(left + 0.5, top - 0.05, titles[row, column], ha="center", va="bottom", fontsize=6.5)
    for row in set(range(len(row_labels))) - {row for row, _ in tiles}:
        axes.text(0.5, row * high + 0.5, "none", ha="center", va="center", fontsize=8)
    axes.set(xlim=(-0.05, columns * wide), ylim=(rows * high - 0.2, -0.3), aspect="equal")
    axes.set_yticks([row * high + 0.5 for row in range(len(row_labels))], row_labels, fontsize=8)
    axes.tick_params(length=0)


def cases(panel: Panel, figure: Canvas) -> str:
    """Most confident successes, false negatives and false positives of some classes.

    Options: `classes` (how many, 4), `kinds` (of success, false negative, false positive), `each` (images a kind, 4).
    """
    place = panel.done[0]
    found, names = panel.analysed(place), panel.classes(place.column.dataset)
    kinds, pictures = panel.option("kinds", list(CASES)), unpack(found)
    classes = found["class"][: panel.option("classes", 4)]
    each = min(panel.option("each", 4), found["index"].shape[2])
    resize(figure, 0.9 + 0.8 * each * len(kinds), 1.0 + 0.97 * len(classes))
    all_axes, spoken = grid(figure, 1, len(kinds))[0], []
    for axes, kind in zip(all_axes, kinds, strict=True):
        number, tiles, titles = CASES.index(kind), {}, {}
        for row, slot in np.argwhere(found["tile"][: len(classes), number, :each] >= 0):
            tiles[row, slot] = pictures[found["tile"][row, number, slot]]
            other = int(found["other"][row, number, slot])
            titles[row, slot] = "" if kind == "success" else names[other] if other >= 0 else "no class"
        tint = RIGHT if kind == "success" else WRONG
        axes.set_title(kind)
        labels = [names[k] if axes is all_axes[0] else "" for k in classes]
        montage(axes, tiles, titles, dict.fromkeys(tiles, tint), labels, each)
        spoken += [f"{names[k]}: {sum(place[0] == row for place in tiles)} {kind}" for row, k in enumerate(classes)]
    other_classes = ", ".join(f"{OTHER[kind]} for a {kind}" for kind in kinds if kind in OTHER)
    above = f"; over a failure its other class ({other_classes})" if other_classes else ""
    return f"{place.label}, most confident images, a class a row{above}. Shown: {', '.join(spoken)}."


def neighbours(panel: Panel, figure: Canvas) -> str:
    """Confident right and wrong images, each with its nearest neighbours in feature space."""
    place = panel.done[0]
    found, names = panel.analysed(place), panel.classes(place.column.dataset)
    queries, count = found["index"].shape
    pictures = unpack(found)
    right = found["predicted"][:, 0] == found["label"][:, 0]
    cells = [(row, slot) for row in range(queries) for slot in range(count)]
    tiles = {cell: pictures[k] for k, cell in enumerate(cells)}
    titles = {cell: names[int(found["label"][cell])] for cell in cells}
    frames = {(row, 0): RIGHT if right[row] else WRONG for row in range(queries)}
    guesses = [names[k] if k >= 0 else "no class" for k in map(int, found["predicted"][:, 0])]
    resize(figure, 1.0 + 0.95 * count, 0.4 + 1.1 * queries)
    montage(figure.subplots(), tiles, titles, frames, [f"→ {guess}" for guess in guesses])
    agree = float((found["label"][:, 1:] == found["label"][:, :1]).mean())
    return (
        f"{place.label}: left, {int(right.sum())} images clustered right and {int((~right).sum())} wrong with high "
        f"confidence (arrow: predicted class); then their {count - 1} nearest neighbours, titled by true class; "
        f"{agree:.0%} of these share the image's class."
    )


def gradcam(panel: Panel, figure: Canvas) -> str:
    """Images beside the places that spoke for their cluster (Grad-CAM), right ones above, wrong ones below."""
    place = panel.done[0]
    found, names = panel.analysed(place), panel.classes(place.column.dataset)
    pictures, right = unpack(found), found["label"] == found["predicted"]
    tiles, titles, frames = {}, {}, {}
    for row, group in enumerate(group for group in (np.flatnonzero(right), np.flatnonzero(~right)) if len(group)):
        for slot, k in enumerate(group):
            cell, below = (2 * row, slot), (2 * row + 1, slot)
            guess = names[int(found["predicted"][k])] if found["predicted"][k] >= 0 else "no class"
            tiles[cell], tiles[below] = pictures[k], _heated(pictures[k], found["map"][k])
            titles[cell] = f"{names[int(found['label'][k])]} → {guess}"
            frames[cell] = RIGHT if right[k] else WRONG
    resize(figure, 1.0 + 1.1 * max(cell[1] + 1 for cell in tiles), 0.3 + 1.3 * max(cell[0] + 1 for cell in tiles))
    montage(figure.subplots(), tiles, titles, frames)
    return (
        f"{place.label}: {int(right.sum())} images clustered right (green frame) and {int((~right).sum())} wrong "
        "(orange), true class → predicted; below each, brighter places spoke more for the predicted cluster."
    )


def _heated(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return a picture (s, s, 3) under a heat map of any size, stretched over it."""
    side = max(64, picture.shape[0])
    stretched = Image.fromarray(heat.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    shown = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST), dtype=np.float64)
    colours = matplotlib.colormaps["inferno"](np.clip(np.asarray(stretched), 0, 1))[..., :3] * 255
    return (0.4 * shown + 0.6 * colours).round().astype(np.uint8)


def labelled(panel: Panel, figure: Canvas) -> str:
    """The labelled images that a semi-supervised run was given, a row a class."""
    place = panel.done[0]
    found, names = panel.analysed(place), panel.classes(place.column.dataset)
    tiles, label = unpack(found), found["label"]
    each = int(np.bincount(label).max())
    groups = 1 if len(names) <= 20 else 5  # many classes: several side by side
    lines = -(-len(names) // groups)
    resize(figure, 1.2 + 0.45 * each * groups + 0.8 * (groups - 1), 0.3 + 0.45 * lines)
    side, gap = tiles.shape[1], max(1, tiles.shape[1] // 16)
    for block, start in zip(figure.subfigures(1, groups, squeeze=False)[0], range(0, len(names), lines), strict=True):
        some = range(start, min(start + lines, len(names)))
        sheet = np.full((lines * (side + gap), each * (side + gap), 3), 255, dtype=np.uint8)
        for row, k in enumerate(some):
            for slot, tile in enumerate(tiles[label == k]):
                y, x = row * (side + gap), slot * (side + gap)
                sheet[y : y + side, x : x + side] = tile
        axes = block.subplots()
        blank(axes)
        axes.imshow(sheet, interpolation="nearest")
        axes.set_yticks(
            [row * (side + gap) + side / 2 for row in range(len(some))], [names[k] for k in some], fontsize=7
        )
        axes.tick_params(length=0)
    return (
        f"{place.label}: the {len(tiles)} labelled training images of seed {place.runs[0].plan['seed']}, a row a class."
    )


def _labels_of(panel: Panel, place: RowOnData) -> dict:
    path = panel.root / place.runs[0].path / RECORD
    record = read_json(path).get("method_record", {})
    if "labelled" not in record:
        raise UserError(f"{path}: has no method_record.labelled, which {panel.artefact.address} shows")
    return record


def indices(panel: Panel, figure: Canvas) -> str:
    """Positions in the training split of the labelled images, by class."""
    place = next(place for place in panel.places if place.runs)
    record, names = _labels_of(panel, place), panel.classes(place.column.dataset)
    by_class: dict[int, list[int]] = {}
    for position, k in zip(record["labelled"], record["classes"], strict=True):
        by_class.setdefault(int(k), []).append(int(position))
    lines = [f"{names[k]}: " + ", ".join(map(str, sorted(by_class[k]))) for k in sorted(by_class)]
    groups = 1 if len(lines) <= 20 else 3
    height = -(-len(lines) // groups)
    lines = [textwrap.shorten(line, 90) for line in lines]
    resize(figure, groups * (0.4 + 0.066 * max(map(len, lines))), 0.25 + 0.152 * height)
    axes = figure.subplots()
    blank(axes)
    for group in range(groups):
        text = "\n".join(lines[group * height : (group + 1) * height])
        style: dict[str, Any] = {"fontsize": 7.5, "family": "DejaVu Sans Mono", "linespacing": 1.4}
        axes.text(group / groups, 1, text, va="top", transform=axes.transAxes, **style)
    return (
        f"{place.label}, seed {place.runs[0].plan['seed']}, positions in the training split, from 0: "
        + "; ".join(lines)
        + "."
    )
