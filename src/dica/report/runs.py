"""What the report shows of runs: parameters, curves, confusion matrix, provenance and the commands behind them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from dica.data.paths import labels_file
from dica.data.prepared import class_names
from dica.files import canonical_json, load_arrays, read_json
from dica.plan.plan import rebuild_command
from dica.plan.planned import Run
from dica.runs.files import HISTORY, METRICS, PREDICTIONS, RECORD, TRACE
from dica.runs.record import collapse_note
from dica.scores import evaluation, metrics
from dica.scores.oracle import followed
from dica.tables import layout
from dica.tables.links import runs_page

POINTS = 120  # of a curve; more cannot be seen at its size
TABLE_CLASSES = 20  # confusion matrices of more classes are an image
LONGEST = 300  # letters of a value of the method's record


def groups_of(
    frame: pd.DataFrame, plan: dict[str, Any], runs: Sequence[Run], root: Path
) -> dict[str, list[dict[str, Any]]]:
    """Return by method the runs by data set and variant, each group with what its seeds share.

    Parameters
    ----------
    frame
        Cells, as from `tables.cells`.
    plan, runs, root
        The plan, its runs as from `tables.load_runs`, and the project root.
    """
    members: dict[tuple[str, str, str], list[Run]] = {}  # by setting: its seeds may be planned under two names of it
    for run in runs:
        params = run.plan["params"]
        below = params.get("source") or {}
        setting = canonical_json({**params, "source": [below.get("method"), below.get("variant")]})
        members.setdefault((run.plan["method"], run.plan["dataset"], setting), []).append(run)
    alike: dict[tuple[str, str, str], list[list[Run]]] = {}  # a table may change what a variant of its name is
    for group in members.values():
        alike.setdefault(_place(group), []).append(group)
    audits = _audit_commands(frame, plan)
    finished = {run.plan["id"]: run for run in runs if run.metrics is not None}
    truths: dict[str, Truth | None] = {}
    groups: dict[str, list[dict[str, Any]]] = {}
    for group in sorted(members.values(), key=_full_first):
        method, dataset, variant = place = _place(group)
        if dataset not in truths:
            truths[dataset] = Truth.load(root, dataset)
        names = dict.fromkeys(name for run in group for name in run.plan.get("variants", [variant]))
        others = alike[place]
        anchor = layout.group_id(method, variant, dataset)
        groups.setdefault(method, []).append(
            {
                "anchor": anchor if group is others[0] else f"{anchor}-{group[0].plan['id']}",
                "aliases": [layout.group_id(method, name, dataset) for name in names if name != variant]
                + [layout.group_with(run.plan["id"]) for run in group if run.metrics is not None],
                "variants": list(names),
                "apart": _apart(group, others),
                "dataset": dataset,
                "planned": len(group),
                "seeds": [run.plan["seed"] for run in group],
                "failures": [(run.plan["seed"], run.plan["id"], run.failure) for run in group if run.failure],
                "runs": [_run(run, plan, root, truths[dataset], finished) for run in group if run.metrics is not None],
                "params": flatten(group[0].plan["params"]),
                "epochs": group[0].plan["params"].get("epochs"),
                "held_out": group[0].plan["params"].get("held_out"),
                "needed_by": sorted({address for run in group for address in run.plan["needed_by"]}),
                "audit": next((audits[run.path] for run in group if run.path in audits), ""),
                "build": _build_command(group, plan),
            }
        )
    return groups


def _place(group: Sequence[Run]) -> tuple[str, str, str]:
    """Return method, data set and variant of a group; the variant is that of its first run."""
    return group[0].plan["method"], group[0].plan["dataset"], group[0].plan["variant"]


def _full_first(group: Sequence[Run]) -> tuple:
    method, dataset, variant = _place(group)
    return method, dataset, variant != "full", variant


def _apart(group: Sequence[Run], others: Sequence[Sequence[Run]]) -> str:
    """Return what tells a group from those of the same variant, as `epochs 20`; empty where there is no other."""
    settings = [dict(flatten(runs[0].plan["params"])) for runs in others]
    own = dict(flatten(group[0].plan["params"]))
    return ", ".join(
        f"{key} {text}"
        for key, text in own.items()
        if key != "source.id" and any(text != their.get(key) for their in settings)
    )


def _audit_commands(frame: pd.DataFrame, plan: dict[str, Any]) -> dict[str, str]:
    """Return the command that traces a cell of each run folder: the first cell that shows it."""
    commands: dict[str, str] = {}
    for cell in frame[frame["n"] > 0].itertuples(index=False):
        address = f"{cell.paper} {cell.artefact} {cell.row}/{cell.column}/{cell.metric}"
        for path in cell.runs.split():
            commands.setdefault(path, layout.audit_command(address, plan))
    return commands


def _build_command(group: Sequence[Run], plan: dict[str, Any]) -> str:
    """Return the command that trains what is missing of a group, or an empty text."""
    missing = [f"{run.path}/{METRICS}" for run in group if run.metrics is None]
    option = layout.profile_option(plan, "--configfile")
    return f"snakemake --cores all --resources gpu=1{option} -- {' '.join(missing)}" if missing else ""


def _run(run: Run, plan: dict[str, Any], root: Path, truth: Truth | None, finished: dict[str, Run]) -> dict[str, Any]:
    folder = root / run.path
    record = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    params = run.plan["params"]
    by_identity = bool(params.get("supervised"))
    source = (params.get("source") or {}).get("id", "")
    return {
        "id": run.plan["id"],
        "seed": run.plan["seed"],
        "path": run.path,
        "metrics": run.metrics,
        "headline": run.scored["headline"],
        "collapsed": collapse_note(run.scored["headline"]),
        "device": device_of(record),
        "seconds": record.get("seconds"),
        "time": duration(record.get("seconds")),
        "facts": _facts(record),
        "record": [(key, shortened(text)) for key, text in flatten(record.get("method_record") or {})],
        "source": source,
        "source_link": f"{runs_page(finished[source].plan['method'])}#run-{source}" if source in finished else "",
        "files": sorted(record.get("files", {}).items()),
        "curves": curves(folder, truth, by_identity),
        "confusion": truth and confusion(folder / PREDICTIONS, truth, run.scored["evaluated_on"], by_identity),
        "rebuild": rebuild_command([run.path], layout.profile_option(plan, "--configfile")),
    }


def device_of(record: dict[str, Any]) -> str:
    """Return what a run was trained on, as `cpu AMD EPYC, 1 thread`."""
    device = record.get("device", {})
    text = " ".join(str(device[key]) for key in ("type", "name") if device.get(key))
    threads = device.get("threads")
    return (f"{text}, {threads} thread{'s' if threads != 1 else ''}" if threads else text) or "not recorded"


def commit_of(record: dict[str, Any]) -> str:
    """Return the commit a run was trained with, and whether there were changes beside it."""
    commit = record.get("commit") or "none: not a Git checkout"
    if record.get("dirty_sha256"):
        commit += f" with uncommitted changes ({record['dirty_sha256'][:12]})"
    return commit


def _facts(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what run.json says about the code and the machine, as label and text."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(record.get("versions", {}).items()))
    facts = [
        ("commit", commit_of(record)),
        ("device", device_of(record)),
        ("started", record.get("started")),
        ("finished", record.get("finished")),
        ("versions", versions),
        ("platform", record.get("host_platform")),
        ("images per second", record.get("images_per_second")),
        ("peak memory, MB", record.get("peak_memory_mb")),
        ("resumed", record.get("resumed")),
        ("data fingerprint", record.get("data", {}).get("fingerprint")),
    ]
    return [(name, f"{value:,.0f}" if isinstance(value, float) else str(value)) for name, value in facts if value]


def duration(seconds: float | None) -> str:
    """Return a time as `1 h 02 min`, `3 min 20 s` or `12.3 s`."""
    if seconds is None:
        return "not recorded"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def flatten(params: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested parameters as sorted (dotted key, text) pairs; lists are one line of JSON each."""
    pairs = []
    for key, value in sorted(params.items()):
        if isinstance(value, dict) and value:
            pairs += flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value if isinstance(value, str) else canonical_json(value)))
    return pairs


def shortened(text: str) -> str:
    """Return a text that fits the page; what is left out is counted."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text) - LONGEST} more letters in run.json)"


# --- curves ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """A curve in a box of 300 x 90, with what is written at its axes and what is read aloud."""

    name: str
    points: str
    low: str
    high: str
    first: str
    last: str
    spoken: str


def curve(xs: Sequence[float], ys: Sequence[float], name: str) -> Curve | None:
    """Return one curve over epochs, thinned to `POINTS` points; None with fewer than two numbers. `xs` ascend."""
    pairs = [(x, y) for x, y in zip(xs, ys, strict=True) if np.isfinite(y)]
    if len(pairs) < 2:
        return None
    kept = np.unique(np.linspace(0, len(pairs) - 1, POINTS).round().astype(int))
    low, high = min(y for _, y in pairs), max(y for _, y in pairs)
    (x0, y0), (x1, y1) = pairs[0], pairs[-1]
    x_scale, y_scale = 300 / (x1 - x0), 90 / ((high - low) or 1)
    places = [(x_scale * (pairs[k][0] - x0), 90 - y_scale * (pairs[k][1] - low)) for k in kept]
    points = " ".join(f"{x:.0f},{y:.0f}" for x, y in places)
    spoken = f"{name} by epoch, from {y0:.4g} in epoch {x0:g} to {y1:.4g} in epoch {x1:g}"
    return Curve(name, points, f"{low:.4g}", f"{high:.4g}", f"{x0:g}", f"{x1:g}", spoken)


def curves(folder: Path, truth: Truth | None, by_identity: bool) -> list[Curve]:
    """Return the curves of a run: ACC while it trained (trace.npz), then every part of its loss (history.csv)."""
    from dica import figures  # matplotlib: imported once a run with a history is shown

    found = []
    if truth is not None and (folder / TRACE).is_file():
        found.append(curve(*trace_accuracy(folder / TRACE, truth, by_identity), "ACC of the observed images"))
    if (folder / HISTORY).is_file():
        history = figures.read_history(folder / HISTORY)
        found += [curve(history["epoch"], history[name], name) for name in figures.loss_parts(history)]
    return [drawn for drawn in found if drawn]


# --- labels ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """Labels of a data set by split (-1 = none), and the names of its classes."""

    labels: dict[str, np.ndarray]
    classes: tuple[str, ...]

    @classmethod
    def load(cls, root: Path, dataset: str) -> Truth | None:
        """Read data/labels/<dataset>; None where the data set has not been prepared."""
        path = root / labels_file(dataset)
        if not path.is_file():
            return None
        labels = {split: values for split, values in load_arrays(path).items() if len(values)}
        count = 1 + max(int(values.max()) for values in labels.values())
        return cls(labels, tuple(class_names(root, dataset, count)))


def trace_accuracy(path: Path, truth: Truth, by_identity: bool) -> tuple[list[float], list[float]]:
    """Return the epochs of a trace and the accuracy of the images it follows (both splits together)."""
    trace = load_arrays(path)
    true, assigned = followed(trace, truth.labels)
    if not len(true):
        return [], []
    scores = [float((row == true).mean()) if by_identity else metrics.accuracy(true, row) for row in assigned]
    return [float(epoch) for epoch in trace["epoch"]], scores


def confusion(predictions: Path, truth: Truth, evaluated_on: str, by_identity: bool) -> dict[str, Any] | None:
    """Return the confusion matrix of a run: classes in rows, clusters in the order of their classes in columns.

    Surplus clusters come last (see `metrics.confusion`). None where the predictions are not here.

    Returns
    -------
    dict
        `clusters` (their numbers), `rows` of (class, [(count, share of the class)]), and `image`: a PNG as data URI
        in place of the rows where there are more than `TABLE_CLASSES` classes or clusters.
    """
    if not predictions.is_file():
        return None
    stored = load_arrays(predictions)
    scored = evaluation.scored_partition(stored, truth.labels, evaluated_on)
    found = metrics.confusion(*scored, len(truth.classes), int(stored["num_clusters"].item()), by_identity)
    order = found.order
    counts = found.counts[order].T
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if max(counts.shape) > TABLE_CLASSES:
        return {"shape": counts.shape, "image": _heat_image(shares), "clusters": order, "rows": []}
    rows = [
        (name, [(int(count), round(float(share), 2)) for count, share in zip(*pair, strict=True)])
        for name, *pair in zip(truth.classes, counts, shares, strict=True)
    ]
    return {"shape": counts.shape, "image": "", "clusters": order, "rows": rows}


def _heat_image(shares: np.ndarray) -> str:
    """Return shares in [0, 1] as a PNG of one pixel each, white to dark blue, as a data URI."""
    colours = 255 - shares[..., None] * (255 - np.array([11, 87, 164]))
    out = io.BytesIO()
    Image.fromarray(colours.round().astype(np.uint8)).save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
