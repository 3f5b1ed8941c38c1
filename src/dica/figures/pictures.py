"""Figures that show images: successes and failures, neighbours, heat maps, labelled subsets."""

from __future__ import annotations

import io
import textwrap

import matplotlib.image
import numpy as np
from matplotlib.axes import Axes

from dica.figures.panel import Panel, Place
from dica.figures.style import Canvas, blank, colour, grid, resize
from dica.files import UserError, read_json

RIGHT, WRONG = colour(2), colour(1)
CASES = ("success", "false negative", "false positive")


def unpack(found: dict[str, np.ndarray]) -> np.ndarray:
    """Return the thumbnails (n, side, side, 3) of an analysis: one JPEG sheet, a tile an image."""
    sheet = matplotlib.image.imread(io.BytesIO(found["sheet"].tobytes()), format="jpg")
    side, count = int(found["side"]), int(found["count"])
    sheet = sheet if sheet.ndim == 3 else np.repeat(sheet[:, :, None], 3, axis=2)
    across, down = sheet.shape[1] // side, sheet.shape[0] // side
    tiles = sheet.reshape(down, side, across, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    return tiles[:count]


def _tile(axes: Axes, image: np.ndarray, text: str = "", frame: str | None = None) -> None:
    blank(axes)
    axes.imshow(image, interpolation="nearest")
    if text:
        axes.set_title(text, fontsize=6.5, pad=2)
    if frame:
        for spine in axes.spines.values():
            spine.set(visible=True, color=frame, linewidth=2)


def cases(panel: Panel, figure: Canvas) -> str:
    """Most confident successes, false negatives and false positives of some classes.

    Options: `classes` (how many, 4), `kinds` (of success, false negative, false positive), `each` (images a kind, 6).
    """
    panel.check_options("classes", "kinds", "each")
    place = panel.done[0]
    found, names = panel.analysis(place), panel.classes(place.column.dataset)
    kinds = panel.option("kinds", list(CASES))
    tiles = unpack(found)
    classes = found["class"][: panel.option("classes", 4)]
    each = min(panel.option("each", 4), found["index"].shape[2])
    resize(figure, 0.9 + 0.78 * each * len(kinds), 0.5 + 0.95 * len(classes))
    blocks = figure.subfigures(1, len(kinds), squeeze=False)[0]
    spoken = []
    for block, kind in zip(blocks, kinds, strict=True):
        block.suptitle(kind, fontsize=9)
        number = CASES.index(kind)
        for row, (k, all_axes) in enumerate(zip(classes, grid(block, len(classes), each), strict=True)):
            for slot, axes in enumerate(all_axes):
                blank(axes)
                tile = int(found["tile"][row, number, slot])
                if tile >= 0:
                    other = int(found["other"][row, number, slot])
                    text = "" if kind == "success" else names[other] if other >= 0 else "no class"
                    _tile(axes, tiles[tile], text, RIGHT if kind == "success" else WRONG)
            all_axes[0].set_ylabel(names[k] if kind == kinds[0] else "", rotation=0, ha="right", va="center")
            counts = (found["tile"][row, number] >= 0).sum()
            spoken.append(f"{names[k]}: {counts} {kind}")
    return (
        f"{place.label}, most confident images of a class each row; over a failure its other class (predicted for a false "
        f"negative, true for a false positive). Shown: {', '.join(spoken)}."
    )


def neighbours(panel: Panel, figure: Canvas) -> str:
    """Confident right and wrong images, each with its nearest neighbours in feature space."""
    panel.check_options()
    place = panel.done[0]
    found, names = panel.analysis(place), panel.classes(place.column.dataset)
    tiles = unpack(found).reshape(*found["index"].shape, int(found["side"]), int(found["side"]), 3)
    queries, count = found["index"].shape
    resize(figure, 1.0 + 0.95 * count, 0.4 + 1.05 * queries)
    right = found["predicted"][:, 0] == found["label"][:, 0]
    for row, all_axes in enumerate(grid(figure, queries, count)):
        for slot, axes in enumerate(all_axes):
            label = names[int(found["label"][row, slot])]
            frame = (RIGHT if right[row] else WRONG) if slot == 0 else None
            _tile(axes, tiles[row, slot], label, frame)
        guess = int(found["predicted"][row, 0])
        all_axes[0].set_ylabel(f"→ {names[guess] if guess >= 0 else 'no class'}", rotation=0, ha="right", va="center", fontsize=7.5)
    agree = float((found["label"][:, 1:] == found["label"][:, :1]).mean())
    return (
        f"{place.label}: left, {int(right.sum())} images clustered right and {int((~right).sum())} wrong with high confidence "
        f"(arrow: predicted class); then their {count - 1} nearest neighbours, titled by true class; {agree:.0%} of these "
        "share the image's class."
    )


def gradcam(panel: Panel, figure: Canvas) -> str:
    """Images beside the places that spoke for their cluster (Grad-CAM), right ones above, wrong ones below."""
    panel.check_options()
    place = panel.done[0]
    found, names = panel.analysis(place), panel.classes(place.column.dataset)
    tiles, right = unpack(found), found["label"] == found["predicted"]
    order = np.argsort(~right, kind="stable")
    half = -(-len(order) // 2)
    resize(figure, 1.7 * half, 4.2)
    all_axes = grid(figure, 4, half)
    for axes in all_axes.flat:
        blank(axes)
    for position, k in enumerate(order):
        row, slot = divmod(position, half)
        frame = RIGHT if right[k] else WRONG
        guess = names[int(found["predicted"][k])] if found["predicted"][k] >= 0 else "no class"
        _tile(all_axes[2 * row, slot], tiles[k], f"{names[int(found['label'][k])]} → {guess}", frame)
        below = all_axes[2 * row + 1, slot]
        _tile(below, tiles[k])
        side = tiles.shape[1]
        below.imshow(found["map"][k].astype(np.float64), cmap="inferno", alpha=0.6, vmin=0, vmax=1,
                     extent=(-0.5, side - 0.5, side - 0.5, -0.5), interpolation="bilinear")  # fmt: skip
    return (
        f"{place.label}: {int(right.sum())} images clustered right (green frame) and {int((~right).sum())} wrong (orange), true "
        "class → predicted; below each, brighter places spoke more for the predicted cluster."
    )


def labelled(panel: Panel, figure: Canvas) -> str:
    """The labelled images that a semi-supervised run was given, a row a class."""
    panel.check_options()
    place = panel.done[0]
    found, names = panel.analysis(place), panel.classes(place.column.dataset)
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
        axes.set_yticks([row * (side + gap) + side / 2 for row in range(len(some))], [names[k] for k in some], fontsize=7)
        axes.tick_params(length=0)
    return f"{place.label}: the {len(tiles)} labelled training images of seed {place.runs[0].plan['seed']}, a row a class."


def _labels_of(panel: Panel, place: Place) -> dict:
    path = panel.root / place.runs[0].path / "run.json"
    record = read_json(path).get("method_record", {})
    if "labelled" not in record:
        raise UserError(f"{path}: has no method_record.labelled, which {panel.artefact.address} shows")
    return record


def indices(panel: Panel, figure: Canvas) -> str:
    """Positions in the training split of the labelled images, by class."""
    panel.check_options()
    place = next(place for place in panel.places if place.runs)
    record, names = _labels_of(panel, place), panel.classes(place.column.dataset)
    by_class: dict[int, list[int]] = {}
    for position, k in zip(record["labelled"], record["classes"], strict=True):
        by_class.setdefault(int(k), []).append(int(position))
    lines = [f"{names[k]}: " + ", ".join(map(str, sorted(by_class[k]))) for k in sorted(by_class)]
    groups = 1 if len(lines) <= 20 else 3
    height = -(-len(lines) // groups)
    resize(figure, 3.6 * groups + 1.2 * (groups == 1), 0.5 + 0.17 * height)
    axes = figure.subplots()
    blank(axes)
    for group in range(groups):
        text = "\n".join(textwrap.shorten(line, 90) for line in lines[group * height : (group + 1) * height])
        axes.text(group / groups, 1, text, va="top", fontsize=7.5, family="DejaVu Sans Mono", transform=axes.transAxes, linespacing=1.4)
    return f"{place.label}, seed {place.runs[0].plan['seed']}, positions in the training split, from 0: " + "; ".join(lines) + "."


