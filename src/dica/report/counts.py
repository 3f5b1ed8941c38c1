"""How many clusters? What runs say of a range of numbers, and a recommendation (`dica cluster --k 5:20`)."""

from __future__ import annotations

import base64
import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from dica.data.paths import OWN_PREFIX
from dica.figures import to_bytes
from dica.figures.counts import draw_counts
from dica.files import atomic_write_bytes, atomic_write_text, load_arrays, write_json
from dica.plan.own import analysis_file, own_runs
from dica.plan.plan import make_plan
from dica.scores.unlabelled import MEANING, Counted, compare_counts, recommend
from dica.tables.rendering import environment

COLUMNS = ("k", "agreement", "spread", "silhouette", "evenness")


def write_counts(profile: dict[str, Any], root: Path) -> list[Path]:
    """Write how-many.csv, the figure, how-many.json and the page; returns the files."""
    runs = own_runs(profile, make_plan(profile, root))
    low, _ = profile["runs"]["counts"]
    arrays = [load_arrays(analysis_file(profile, "counts", run, root)) for run in runs]
    found = compare_counts(
        arrays[0]["k"], [one["assignment"] for one in arrays], [one["silhouette"] for one in arrays], low
    )
    best = recommend(found)
    figure, words = draw_counts(found, best)
    pictures = {kind: to_bytes(figure, kind, words) for kind in ("svg", "png")}
    plt.close(figure)
    folder = root / profile["results"]
    for kind, data in pictures.items():
        atomic_write_bytes(folder / f"how-many.{kind}", data)
    atomic_write_text(folder / "how-many.csv", counts_csv(found))
    write_json(folder / "how-many.json", asdict(best))
    page = environment().get_template("counts.html.j2")
    text = page.render(
        title=f"{profile['runs']['dataset'].removeprefix(OWN_PREFIX)}: how many clusters?",
        method=profile["runs"]["method"],
        seeds=len(runs),
        images=arrays[0]["assignment"].shape[1],
        best=best,
        rows=[dict(zip(COLUMNS, values, strict=True)) for values in _columns(found)],
        figure=f"data:image/png;base64,{base64.b64encode(pictures['png']).decode()}",
        words=words,
        meaning=MEANING,
    )
    atomic_write_text(folder / "how-many.html", text)
    return [folder / f"how-many.{kind}" for kind in ("html", "csv", "svg", "png", "json")]


def _columns(found: Counted) -> list[tuple]:
    return list(zip(*(getattr(found, name).tolist() for name in COLUMNS), strict=True))


def counts_csv(found: Counted) -> str:
    """Return one line for each number of clusters."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for k, *values in _columns(found):
        writer.writerow((k, *(f"{value:.4f}" for value in values)))
    return out.getvalue()
