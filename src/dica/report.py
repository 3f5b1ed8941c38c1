"""The report: one static, self-contained HTML page with every table, figure and run of a plan."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from markupsafe import Markup

from dica import figures, layout
from dica.artefacts import Artefact, planned
from dica.files import atomic_write_text, canonical_json, read_json
from dica.identity import rebuild_command
from dica.stats import VERDICTS
from dica.tables import Run, load_runs

TITLE = "Deep image clustering archive"
METRICS = ("acc", "nmi", "ari")


def write_report(
    artefacts: Sequence[Artefact], frame: pd.DataFrame, plan: dict[str, Any], root: Path, results: str, out: Path
) -> None:
    """Write the page.

    Parameters
    ----------
    artefacts
        What is shown, in order.
    frame
        Cells, as from `tables.cells`.
    plan, root, results
        The plan, the project root and the results root relative to it.
    out
        The HTML file.
    """
    runs = load_runs(plan, root, results)
    context = {
        "title": TITLE + ("" if plan["profile"] == "archive" else f" ({plan['profile']})"),
        "counts": counts(frame),
        "run_counts": run_counts(runs),
        "sections": [_section(artefact, frame, plan, root, results) for artefact in artefacts],
        "groups": run_groups(artefacts, plan, runs, root),
        "metrics": METRICS,
        "metric_labels": layout.METRIC_LABELS,
    }
    atomic_write_text(out, layout.environment().get_template("report.html.j2").render(context))


def counts(frame: pd.DataFrame) -> dict[str, int]:
    """Return the number of cells by verdict, in the order of `VERDICTS`."""
    found = frame["verdict"].value_counts()
    return {mark: int(found.get(mark, 0)) for mark in VERDICTS}


def run_counts(runs: Sequence[Run]) -> dict[str, int]:
    """Return how many runs are planned, finished, failed and absent."""
    finished = sum(run.metrics is not None for run in runs)
    failed = sum(run.failure is not None for run in runs)
    return {"planned": len(runs), "finished": finished, "failed": failed, "not run": len(runs) - finished - failed}


def _section(artefact: Artefact, frame: pd.DataFrame, plan: dict[str, Any], root: Path, results: str) -> dict[str, Any]:
    anchor = f"{artefact.paper}-{artefact.name}"
    section = {"anchor": anchor, "artefact": artefact, "table": "", "image": "", "text": "", "notes": []}
    if artefact.kind == "table":
        section["table"] = Markup(layout.render(artefact, frame, plan)["html"])
    else:
        figure, section["text"] = figures.draw(artefact, plan, root, results)
        data = base64.b64encode(figures.to_bytes(figure, "svg")).decode()
        plt.close(figure)
        section["image"] = f"data:image/svg+xml;base64,{data}"
        section["notes"] = layout.protocol_notes(artefact, plan)
    return section


def run_groups(
    artefacts: Sequence[Artefact], plan: dict[str, Any], runs: Sequence[Run], root: Path
) -> list[dict[str, Any]]:
    """Return the runs by method, variant and data set, each group with what its seeds share."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        key = (run.plan["method"], run.plan["variant"], run.plan["dataset"])
        groups.setdefault(key, []).append(run)
    audits = _audit_commands(artefacts, plan)
    return [
        {
            "anchor": layout.group_id(*key),
            "method": key[0],
            "variant": key[1],
            "dataset": key[2],
            "planned": len(members),
            "failures": [(run.plan["seed"], run.plan["id"], run.failure) for run in members if run.failure],
            "runs": [_run(run, plan, root) for run in members if run.metrics is not None],
            "params": flatten(members[0].plan["params"]),
            "needed_by": members[0].plan["needed_by"],
            "audit": audits.get(members[0].plan["id"], ""),
        }
        for key, members in sorted(groups.items())
    ]


def _audit_commands(artefacts: Sequence[Artefact], plan: dict[str, Any]) -> dict[str, str]:
    """Return the command that traces a cell of each run: the first table cell that uses it."""
    commands: dict[str, str] = {}
    for artefact in artefacts:
        if artefact.kind == "table" and artefact.regenerated:
            for row in artefact.rows:
                for column in artefact.columns:
                    address = f"{artefact.address} {row.key}/{column.key}/{artefact.metrics_of(column)[0]}"
                    for entry in planned(plan, artefact, row, column.key):
                        commands.setdefault(entry["id"], layout.audit_command(address, plan))
    return commands


def _run(run: Run, plan: dict[str, Any], root: Path) -> dict[str, Any]:
    folder = root / run.path
    record = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    device = record.get("device", {})
    option = layout.profile_option(plan, "--configfile")
    return {
        "id": run.plan["id"],
        "seed": run.plan["seed"],
        "path": run.path,
        "metrics": run.metrics,
        "headline": run.metrics["headline"],
        "device": " ".join(str(device[key]) for key in ("type", "name") if device.get(key)) or "not recorded",
        "time": duration(record.get("seconds")),
        "facts": _facts(record),
        "files": sorted(record.get("files", {}).items()),
        "curve": _curve(folder),
        "rebuild": rebuild_command([run.path], option),
    }


def _facts(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what run.json says about the code and the machine, as label and text."""
    commit = record.get("commit") or "none: not a Git checkout"
    if record.get("dirty_sha256"):
        commit += f" with uncommitted changes ({record['dirty_sha256'][:12]})"
    versions = ", ".join(f"{name} {version}" for name, version in sorted(record.get("versions", {}).items()))
    facts = [
        ("commit", commit),
        ("versions", versions),
        ("platform", record.get("host_platform")),
        ("images per second", record.get("images_per_second")),
        ("peak memory, MB", record.get("peak_memory_mb")),
        ("resumed", record.get("resumed")),
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


def _curve(folder: Path) -> Markup:
    """Return the total loss by epoch as a small inline SVG, or nothing where there is no curve."""
    if not (folder / "history.csv").is_file():
        return Markup("")
    history = figures.read_history(folder / "history.csv")
    names = figures.loss_parts(history)
    if not names or len(history["epoch"]) < 2:
        return Markup("")
    return sparkline(history["epoch"], history[names[0]], names[0])


def sparkline(xs: Sequence[float], ys: Sequence[float], name: str) -> Markup:
    """Return one curve as inline SVG with the ends of both axes written out; `xs` ascend."""
    left, right, top, bottom = 58, 340, 14, 104
    low, high = min(ys), max(ys)
    x_scale = (right - left) / (xs[-1] - xs[0])
    y_scale = (bottom - top) / ((high - low) or 1.0)
    points = " ".join(
        f"{left + (x - xs[0]) * x_scale:.1f},{bottom - (y - low) * y_scale:.1f}" for x, y in zip(xs, ys, strict=True)
    )
    spoken = f"{name} by epoch, from {ys[0]:.4g} in epoch {xs[0]:g} to {ys[-1]:.4g} in epoch {xs[-1]:g}"
    return Markup(
        '<svg class="curve" viewBox="0 0 350 130" role="img" aria-label="{spoken}">'
        '<path d="M{left} {top}V{bottom}H{right}" class="axis"/><polyline points="{points}"/>'
        '<text x="{label}" y="{top_text}" text-anchor="end">{high}</text>'
        '<text x="{label}" y="{bottom}" text-anchor="end">{low}</text>'
        '<text x="{left}" y="122">{first}</text><text x="{right}" y="122" text-anchor="end">{last}</text>'
        '<text x="199" y="122" text-anchor="middle">epoch</text><text x="64" y="12">{name}</text></svg>'
    ).format(
        spoken=spoken, points=points, name=name, left=left, right=right, top=top, bottom=bottom, label=left - 6,
        top_text=top + 8, high=f"{high:.4g}", low=f"{low:.4g}", first=f"{xs[0]:g}", last=f"{xs[-1]:g}",
    )  # fmt: skip
