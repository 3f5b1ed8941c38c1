"""How many clusters? Agreement between seeds, silhouette and evenness of sizes over the number of clusters."""

from __future__ import annotations

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from dica.figures.style import STYLE, colour, grid, integer_axis
from dica.scores.unlabelled import MEANING, Counted, Recommendation

PANELS = (("agreement", "agreement"), ("silhouette", "silhouette"), ("entropy", "evenness"))


def draw_counts(found: Counted, best: Recommendation) -> tuple[Figure, str]:
    """Draw what runs say of numbers of clusters, and return it with what it shows in words."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(8.4, 2.8), layout="constrained")
        for axes, (name, field) in zip(grid(figure, 1, len(PANELS))[0], PANELS, strict=True):
            values = getattr(found, field)
            axes.axvspan(best.low - 0.5, best.high + 0.5, color=colour(4), alpha=0.18, linewidth=0)
            axes.axvline(best.k, color=colour(1), linewidth=1)
            axes.plot(found.k, values, color=colour(0), marker="o", markersize=3)
            if field == "agreement":
                axes.fill_between(found.k, values - found.spread, values + found.spread, color=colour(0), alpha=0.2)
            axes.set(title=MEANING[name][0], xlabel="number of clusters K")
            integer_axis(axes)
    words = (
        f"Agreement between seeds, silhouette and evenness of sizes for {found.k[0]} to {found.k[-1]} clusters. "
        f"{best.reason}"
    )
    return figure, words
