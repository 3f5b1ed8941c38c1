"""Clusters themselves: embeddings, who is where, how sure, and how well pairs are linked."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dica.figures.panel import Panel, RowOnData
from dica.figures.style import (
    CLASS_COLOURS,
    MARKERS,
    Canvas,
    colour,
    grid,
    integer_axis,
    legend_below,
    line,
    marker,
    resize,
    say,
)
from dica.files import load_arrays
from dica.runs.files import PREDICTIONS
from dica.scores import evaluation, metrics

LAYER_NAMES = {
    "probability": "assignment probability",
    "assignment": "assignment feature",
    "backbone": "features",
    "projection": "projected features",
    "embedding": "features",
    "conv": "convolutional features",
}
LINKED = 0.95  # DCCM's threshold for an edge of the pseudo-graph


def tsne(panel: Panel, figure: Canvas) -> str:
    """t-SNE of what a trained model gives, coloured by true class.

    Option `layers`: which outputs, one axes each, all methods of one beside each other; several have letters.
    """
    layers = panel.option("layers", ["backbone"])
    shown = [(place, layer) for layer in layers for place in panel.done]
    down = -(-len(shown) // 4)
    across = -(-len(shown) // down)
    resize(figure, 3.1 * across, 0.7 + 2.9 * down)
    all_axes = grid(figure, down, across)
    for k, (axes, (place, layer)) in enumerate(zip(all_axes.flat, shown, strict=False)):
        found = panel.analysed(place)
        if f"xy_{layer}" not in found:
            raise panel.error(f"layers: {place.label} has no layer {layer!r}")
        scatter(axes, found[f"xy_{layer}"], found["label"])
        title = f"{place.label}: {LAYER_NAMES.get(layer, layer)}" if len(shown) > 1 else place.label
        axes.set_title(f"({chr(ord('a') + k)}) {title}" if len(layers) > 1 else title, loc="left")
    for axes in all_axes.flat[len(shown) :]:
        axes.axis("off")
    _class_legend(panel, figure, panel.done[0])
    counts = ", ".join(f"{place.label} {len(panel.analysed(place)['label']):,}" for place in panel.done)
    return f"t-SNE to two dimensions (axes without unit), a point an image, coloured by true class. Images: {counts}."


def scatter(axes: Axes, points: np.ndarray, label: np.ndarray) -> None:
    """Draw an embedding (n, 2), a colour a class; markers differ from class to class, too."""
    size = 60 / np.sqrt(len(points)) + 1.5
    for k in np.unique(label):
        chosen = points[label == k].astype(np.float64)
        axes.plot(*chosen.T, linestyle="", marker=MARKERS[k % len(MARKERS)], markersize=size, rasterized=True,
                  color=CLASS_COLOURS[k % len(CLASS_COLOURS)], markeredgewidth=0, alpha=0.75)  # fmt: skip
    axes.set_xlabel("t-SNE 1", fontsize=7.5)
    axes.set_ylabel("t-SNE 2", fontsize=7.5)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)


def _class_legend(panel: Panel, figure: Canvas, place: RowOnData) -> None:
    names = panel.classes(place.column.dataset)
    if len(names) > 20:
        return
    handles = [
        Line2D(
            [], [], linestyle="", marker=MARKERS[k % len(MARKERS)], color=CLASS_COLOURS[k % len(CLASS_COLOURS)], label=n
        )
        for k, n in enumerate(names)
    ]
    legend_below(figure, handles, columns=10 if max(map(len, names)) < 4 else 5, title="true class")


def stages(panel: Panel, figure: Canvas) -> str:
    """t-SNE of the watched images' features before, in the middle and at the end of training."""
    places = panel.done
    width = max(len(panel.analysed(place)["epoch"]) for place in places)
    resize(figure, 3.0 * width, 0.7 + 2.9 * len(places))
    all_axes = grid(figure, len(places), width)
    for row, place in zip(all_axes, places, strict=True):
        found = panel.analysed(place)
        for axes, epoch, points in zip(row, found["epoch"], found["xy"], strict=False):
            scatter(axes, points, found["label"])
            axes.set_title(f"{place.label}: {_epochs(epoch)}", loc="left")
    _class_legend(panel, figure, places[0])
    listed = "; ".join(f"{p.label} after {_spoken_epochs(panel.analysed(p)['epoch'])} epochs" for p in places)
    return f"t-SNE of features, a point an image, coloured by true class: {listed}."


def _epochs(count: Any) -> str:
    return "before training" if count == 0 else f"epoch {count}"


def _spoken_epochs(epochs: np.ndarray) -> str:
    return ", ".join(str(int(epoch)) for epoch in epochs)


def bcubed(panel: Panel, figure: Canvas) -> str:
    """BCubed precision against recall of the graph of linked pairs, by threshold; a curve an epoch, a dot at .95."""
    place = panel.done[0]
    found = panel.analysed(place)
    resize(figure, 4.8, 4.3)
    axes = figure.subplots()
    thresholds = found["threshold"]
    at = int(np.argmin(np.abs(thresholds - LINKED)))
    spoken = []
    for k, epoch in enumerate(found["epoch"]):
        recall, precision = found["recall"][k], found["precision"][k]
        axes.plot(recall, precision, color=colour(k))
        axes.plot(recall[at], precision[at], color=colour(k), marker=marker(k), markersize=8, markeredgecolor="white")
        spoken.append(f"{_epochs(epoch)} precision {precision[at]:.3f}, recall {recall[at]:.3f}")
    axes.set(xlabel="BCubed recall (fraction of 1)", ylabel="BCubed precision (fraction of 1)")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    legend_below(figure, [line(k, _epochs(epoch)) for k, epoch in enumerate(found["epoch"])])
    return f"{place.label}, a curve over thresholds of the cosine; at {LINKED}: " + "; ".join(spoken) + "."


def variance(panel: Panel, figure: Canvas) -> str:
    """Variance of the assignment probabilities within and between true classes, a pair of bars a method."""
    places = panel.done
    resize(figure, 3.0 + 1.3 * len(places), 3.6)
    axes = figure.subplots()
    spoken = []
    for k, name in enumerate(("intra", "inter")):
        values = [float(panel.analysed(place)[name][-1]) for place in places]
        positions = [position + 0.38 * (k - 0.5) for position in range(len(places))]
        drawn = axes.bar(positions, values, width=0.34, color=colour(k), label=f"{name}-class")
        axes.bar_label(drawn, fmt="%.3f", fontsize=8)
        spoken += [f"{place.label} {name}-class {value:.3f}" for place, value in zip(places, values, strict=True)]
    axes.set_xticks(range(len(places)), [place.label for place in places])
    axes.set_xlim(-0.7, len(places) - 0.3)
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.15)
    axes.set_ylabel("variance of probabilities (no unit)")
    legend_below(figure, axes.containers)
    return "Variance of the assignment probabilities: " + ", ".join(spoken) + "."


def largest(panel: Panel, figure: Canvas) -> str:
    """Histogram of the largest probability of the watched images, before training and at the end, in nine bins."""
    found = next(((p, seen) for p in panel.places if p.runs and (seen := panel.looks(p.runs[0]))), None)
    if found is None:
        return _unwatched(figure)
    place, looks = found
    resize(figure, 4.8, 3.7)
    axes = figure.subplots()
    bins, spoken = np.linspace(0.1, 1.0, 10), []
    for k, at in enumerate((0, -1)):
        share = np.histogram(np.clip(looks.confidence[at].astype(np.float64), 0.1, 1), bins)[0] / looks.true.size
        axes.bar(bins[:-1] + 0.03 + 0.04 * k, share, width=0.038, color=colour(k), label=_epochs(looks.epoch[at]))
        spoken.append(f"{_epochs(looks.epoch[at])} {share[-1]:.1%} above 0.9")
    axes.set_xticks(bins, [f"{edge:.1f}" for edge in bins])
    axes.grid(axis="x", visible=False)
    axes.set(xlabel="largest probability of an image", ylabel="share of images (fraction of 1)")
    legend_below(figure, axes.containers)
    return f"{place.label}: " + ", ".join(spoken) + "."


def _unwatched(figure: Canvas) -> str:
    text = "These runs were not watched while they trained: they have no trace.npz."
    say(figure, text)
    return text


def assignments(panel: Panel, figure: Canvas) -> str:
    """How many of the watched images each cluster holds, at several epochs. Option `looks`: how many (6)."""
    found = next(((p, seen) for p in panel.places if p.runs and (seen := panel.looks(p.runs[0]))), None)
    if found is None:
        return _unwatched(figure)
    place, looks = found
    clusters = int(place.runs[0].plan["params"]["num_clusters"])
    chosen = np.unique(np.linspace(0, len(looks.epoch) - 1, panel.option("looks", 6)).round().astype(int))
    across = min(len(chosen), 3)
    down = -(-len(chosen) // across)
    resize(figure, 0.6 + 2.5 * across, 0.7 + 1.9 * down)
    all_axes = grid(figure, down, across, sharex=True, sharey=True)
    spoken = []
    for axes, at in zip(all_axes.flat, chosen, strict=False):
        count = np.bincount(looks.assignment[at], minlength=clusters)
        axes.bar(range(clusters), count, color=colour(0), width=0.8)
        axes.axhline(looks.true.size / clusters, color=colour(1), linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_title(_epochs(looks.epoch[at]), loc="left")
        axes.grid(axis="x", visible=False)
        spoken.append(f"{_epochs(looks.epoch[at])} {count.min()} to {count.max()}")
    for axes in all_axes.flat[len(chosen) :]:
        axes.axis("off")
    integer_axis(all_axes[0, 0])
    for axes in all_axes[-1]:
        axes.set_xlabel("cluster")
    figure.supylabel("images (number)", fontsize=9)
    legend_below(figure, [Line2D([], [], color=colour(1), linestyle=(0, (4, 3)), label="equal clusters")])
    return f"{place.label}, images a cluster of {looks.true.size:,}: " + ", ".join(spoken) + "."


def confusion(panel: Panel, figure: Canvas) -> str:
    """Scored images by true class and by the class that their cluster stands for, of the first seed.

    A cluster that stands for no class is a column of its own, called by its number.
    """
    place = next(place for place in panel.places if place.runs)
    run = place.runs[0]
    arrays, on = load_arrays(panel.root / run.path / PREDICTIONS), run.scored["evaluated_on"]
    names = panel.classes(place.column.dataset)
    scored = evaluation.scored_partition(arrays, panel.labels(place.column.dataset), on)
    supervised = bool(run.plan["params"].get("supervised"))
    found = metrics.confusion(*scored, len(names), int(arrays["num_clusters"]), supervised)
    table = found.counts[found.order].T
    clusters = [names[found.mapping[k]] if found.mapping[k] >= 0 else f"none ({k})" for k in found.order]
    resize(figure, 5.6, 5.0)
    axes = figure.subplots()
    picture = axes.imshow(table, cmap="Blues", vmin=0)
    if max(table.shape) <= 20:
        for (i, j), count in np.ndenumerate(table):
            axes.text(
                j,
                i,
                f"{count}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if count > table.max() / 2 else "#222222",
            )
        axes.set_xticks(range(len(clusters)), clusters, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="class of the predicted cluster", ylabel="true class")
    axes.grid(False)
    figure.colorbar(picture, ax=axes, label="images (number)", shrink=0.8)
    total = table.sum(axis=1)
    share = np.where(total, found.right / np.maximum(1, total), 1.0)
    worst = int(share.argmin())
    which = "test" if on == "test" else "scored"
    return (
        f"{place.label}, {which} images, seed {run.plan['seed']}: {int(found.right.sum()):,} of {table.sum():,} right; "
        f"fewest in class {names[worst]} ({share[worst]:.1%})."
    )


def jsd(panel: Panel, figure: Canvas) -> str:
    """Jensen-Shannon divergence of every pair of images, between two views, as a matrix."""
    place = panel.done[0]
    matrix: np.ndarray = panel.analysed(place)["jsd"].astype(np.float64)
    same = float(np.diag(matrix).mean())
    other = float(matrix[~np.eye(len(matrix), dtype=bool)].mean())
    resize(figure, 5.2, 4.4)
    axes = figure.subplots()
    picture = axes.imshow(matrix, cmap="viridis", vmin=0, vmax=float(np.log(2)))
    axes.set(xlabel="image, second view", ylabel="image, first view")
    axes.set_title(f"mean {same:.2f} on the diagonal, {other:.2f} off it", loc="left")
    axes.grid(False)
    integer_axis(axes)
    integer_axis(axes, "y")
    figure.colorbar(picture, ax=axes, label="Jensen–Shannon divergence (nat)", shrink=0.85)
    return (
        f"{place.label}: divergence of prototype distributions between two views of {len(matrix)} images; mean "
        f"{same:.3f} for the same image, {other:.3f} for different ones; the largest possible is {np.log(2):.3f}."
    )


CRITICS = {"log_dot": "log of dot product", "dot": "dot product", "neg_l2": "negative L2", "neg_js": "negative JS"}


def critic(name: str, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return a critic of two-class probabilities (p, 1-p) and (q, 1-q) in closed form (CRLC Eq. 9, 13-16)."""
    dot = p * q + (1 - p) * (1 - q)
    if name == "dot":
        return dot
    if name == "log_dot":
        return np.log(dot)
    if name == "neg_l2":
        return -2 * (p - q) ** 2
    middle = (p + q) / 2
    return -(_entropy(middle) - (_entropy(p) + _entropy(q)) / 2)


def _entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


def surfaces(panel: Panel, figure: Canvas) -> str:
    """Critics of two-class probabilities as surfaces over the probability of the first class in either view."""
    names = panel.option("critics", list(CRITICS))
    resize(figure, 3.4 * len(names), 3.6)
    side = np.linspace(0.01, 0.99, 50)
    p: np.ndarray = np.tile(side, (50, 1))
    q = p.T
    for k, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), k + 1, projection="3d")
        axes.plot_surface(p, q, critic(name, p, q), cmap="viridis", linewidth=0, antialiased=False, rasterized=True)
        axes.set(xlabel="p of class 1, view 1", ylabel="p of class 1, view 2")
        axes.set_title(f"{CRITICS[name]}, score" + ("" if name in ("dot", "neg_l2") else " (nat)"), loc="left")
        axes.view_init(elev=28, azim=-128)
        axes.tick_params(labelsize=7)
    return (
        f"Scores of two views' probabilities of one class among two: {', '.join(CRITICS[name] for name in names)}. Dot "
        "product and its logarithm are largest where both views are sure of the same class, the other two wherever "
        "they agree."
    )
