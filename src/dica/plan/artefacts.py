"""The declared tables and figures (params/artefacts/<paper>.yaml): what is shown decides what is run.

Imports nothing heavy: Snakemake reads these declarations each time it parses the workflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dica.files import UserError
from dica.plan.declared import Artefact, Column, Row, column_key
from dica.plan.names import Names
from dica.plan.parameters import load_yaml, paper_names, validate
from dica.plan.rungs import lowered, on_other_data, with_at_most

Need = tuple[str, str, str, int]

# Plot names of figures -> the analysis (`python -m dica.analyse KIND`) that a plot needs of every run, or None.
PLOTS: dict[str, str | None] = {
    "assignments": None,
    "bars": None,
    "bcubed": "stages",
    "cases": "cases",
    "confusion": None,
    "curves": None,
    "gradcam": "gradcam",
    "indices": None,
    "jsd": "jsd",
    "labelled": "labelled",
    "largest": None,
    "neighbours": "neighbours",
    "panels": None,
    "progress": None,
    "seeds": None,
    "stages": "stages",
    "surfaces": None,
    "sweep": None,
    "tsne": "embedding",
    "variance": "stages",
}

# What each kind of table must declare. `grid`: rows of methods, columns of data sets. `datasets`: printed counts beside
# ours. `significance`: p values between rows. `architecture`: layers of networks.
LAYOUTS: dict[str, tuple[str, ...]] = {
    "grid": ("seeds", "metrics", "datasets", "rows"),
    "datasets": ("metrics", "datasets"),
    "significance": ("published_table", "rows"),
    "architecture": ("datasets", "rows"),
}

ONLY_METRIC = {"significance": ("p_value",), "architecture": ("layer",)}

# Our metrics whose printed numbers or whose entry in metrics.json have another name.
PRINTED_NAMES = {"nmi_geometric": "nmi", "acc_top5": "acc5", "probe_acc": "sup_acc", "time_ratio": "ratio"}
HEADLINE_NAMES = {"probe_acc": "acc"}


def method_behind(row: Row, column: Column, metric: str | None = None) -> tuple[str, str] | None:
    """Return method and variant of the runs behind a cell, or None where nothing is run.

    Parameters
    ----------
    metric
        None asks for the row's own method.
    """
    if row.datasets and column.dataset not in row.datasets:
        return None
    if metric in row.runs:
        return row.runs[metric]["method"], row.runs[metric].get("variant", "full")
    if row.method is None or metric == "probe_acc" or (metric and row.metrics and metric not in row.metrics):
        return None
    if row.variants and column.setting not in row.variants:
        return None
    return row.method, row.variants[column.setting] if row.variants else row.variant


def headline_name(metric: str) -> str:
    """Return the entry of metrics.json that a table's metric shows: a probe's accuracy is its run's `acc`."""
    return HEADLINE_NAMES.get(metric, metric)


def load_artefacts(root: Path, names: Sequence[str], substitute: dict[str, Any] | None = None) -> list[Artefact]:
    """Load what is declared for the named papers, in the order given.

    Parameters
    ----------
    root
        Project root.
    names
        Papers (`drc`: everything of it) or single artefacts (`drc table-1`).
    substitute
        A profile's `{seeds}`: at most so many are asked for; with a `dataset` everything is shown on that one
        instead, see `on_other_data`.

    Raises
    ------
    UserError
        With the file, the key and what is allowed, for an unknown name or a bad declaration.
    """
    chosen: list[Artefact] = []
    for entry in names:
        paper, _, name = entry.partition(" ")
        declared = _load_paper(root, paper)
        if name and name not in declared:
            raise UserError(f"params/artefacts/{paper}.yaml: artefacts: no {name!r}; there are: {', '.join(declared)}")
        chosen += [declared[name]] if name else declared.values()
    once = {artefact.address: artefact for artefact in chosen}.values()
    if substitute and "dataset" not in substitute:
        return [with_at_most(artefact, substitute["seeds"]) for artefact in once]
    if substitute:
        own = [artefact for artefact in once if not artefact.rung]
        return [on_other_data(artefact, **substitute) if needs(artefact) else artefact for artefact in own]
    return list(once)


def _load_paper(root: Path, paper: str) -> dict[str, Artefact]:
    if paper not in paper_names(root):
        raise UserError(f"params/artefacts: no paper {paper!r}; there are: {', '.join(paper_names(root))}")
    where = f"params/artefacts/{paper}.yaml"
    body = load_yaml(root / where)
    validate(body, "artefacts", where, root)
    if body["paper"] != paper:
        raise UserError(f"{where}: paper: is {body['paper']!r}, must equal the file name {paper!r}")
    found = {name: _artefact(body, name, where) for name in body["artefacts"]}
    known = Names(root)
    for name, spec in body["artefacts"].items():
        known.require(spec, f"{where}: artefacts.{name}")
    lower: dict[str, Artefact] = {}
    for block in body.get("lower", []):
        lower |= lowered(found, block, f"{where}: lower", root)
    return {key: made for name in found for key, made in [(name, found[name]), *_beside(name, lower)]}


def _beside(name: str, lower: dict[str, Artefact]) -> list[tuple[str, Artefact]]:
    """Return what there is of an artefact at lower rungs."""
    return [(key, made) for key, made in lower.items() if key == f"{name}-{made.rung}"]


def _artefact(body: dict, name: str, where: str) -> Artefact:
    spec = body["artefacts"][name]
    layout = spec.get("layout", "grid")
    _check(spec, name, layout, f"{where}: artefacts.{name}")
    rows = [_row(row, spec, body["paper"]) for row in spec.get("rows", [])]
    columns = [_column(column) for column in spec.get("datasets", [])]
    if layout == "datasets":  # one row of counts, which the page shows as a column
        rows = [_row({"label": "Images", "key": "images", "published_method": "images"}, spec, body["paper"])]
    if layout == "significance":
        columns = [Column(row.key, row.key, "all", row.label, setting=f"vs={row.published_method}") for row in rows]
    for what, keys in (("rows", [r.key for r in rows]), ("datasets", [c.key for c in columns])):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise UserError(f"{where}: artefacts.{name}.{what}: {twice[0]!r} is there twice; give each row a key")
    return Artefact(
        paper=body["paper"],
        paper_title=body["title"],
        name=name,
        kind=spec["kind"],
        title=spec["title"],
        layout=layout,
        plot=spec.get("plot"),
        options=spec.get("options", {}),
        reason=spec.get("reason", ""),
        published_file=body.get("published", "results.csv"),
        seeds=spec.get("seeds", 1),
        metrics=ONLY_METRIC.get(layout) or tuple(spec.get("metrics", ["acc"])),
        scale=spec.get("scale", "fraction"),
        columns=tuple(columns),
        rows=tuple(rows),
        protocol={**body.get("protocol", {}), **spec.get("protocol", {})},
        note=spec.get("note", ""),
        tflop=spec.get("tflop"),
    )


def _check(spec: dict, name: str, layout: str, where: str) -> None:
    """Refuse a declaration that lacks what its kind needs, or has what it cannot use."""
    if name.split("-")[0] != spec["kind"]:
        raise UserError(f"{where}: kind is {spec['kind']!r}; a {name.split('-')[0]} is expected")
    if ("reason" in spec) != (spec.get("status") == "not-regenerated"):
        raise UserError(f"{where}: status not-regenerated and reason belong together")
    if "reason" in spec:
        return
    needed = LAYOUTS[layout]
    if spec["kind"] == "figure":
        needed = ("plot", "seeds", "datasets") if "rows" in spec else ("plot",)
    lacking = [key for key in needed if key not in spec]
    if lacking:
        raise UserError(f"{where}: lacks the key {lacking[0]!r}")
    if spec["kind"] == "figure":
        _check_plot(spec, where)


def _check_plot(spec: dict[str, Any], where: str) -> None:
    """Refuse a plot that is not there, also as one of several panels."""
    asked = [("plot", spec["plot"], list(PLOTS))]
    if spec["plot"] == "panels":
        panels = spec.get("options", {}).get("panels")
        if not panels:
            raise UserError(f"{where}: plot: 'panels' needs `options: {{panels: [...]}}`")
        alone = [name for name in PLOTS if name != "panels"]
        asked += [(f"options.panels.{k}.plot", panel.get("plot"), alone) for k, panel in enumerate(panels)]
    for key, plot, known in asked:
        if plot not in known:
            raise UserError(f"{where}: {key}: no plot {plot!r}; there are: {', '.join(known)}")


def _column(spec: str | dict) -> Column:
    spec = {"dataset": spec} if isinstance(spec, str) else spec
    name, setting = spec["dataset"], spec.get("setting", "")
    return Column(
        key=column_key(name, setting),
        dataset=name,
        published_dataset=spec.get("published_dataset", name),
        label=spec.get("label", name),
        group=spec.get("group", ""),
        setting=setting,
        metrics=tuple(spec.get("metrics", ())),
        counted=spec.get("counted", ""),
        note=spec.get("note", ""),
        protocol=spec.get("protocol", {}),
    )


def _row(spec: dict, artefact: dict, paper: str) -> Row:
    method, variant, statistic = spec.get("method"), spec.get("variant", "full"), spec.get("statistic", "mean")
    parts = [method, variant if variant != "full" else None] if method else [spec.get("published_method")]
    parts.append("best" if statistic == "best" else None)
    return Row(
        key=spec.get("key", "-".join(part for part in parts if part)),
        label=spec["label"],
        method=method,
        variant=variant,
        variants=spec.get("variants", {}),
        runs=spec.get("runs", {}),
        metrics=tuple(spec.get("metrics", ())),
        datasets=tuple(spec.get("datasets", ())),
        statistic=statistic,
        seeds=spec.get("seeds", artefact.get("seeds", 1)),
        published_method=spec.get("published_method"),
        published_paper=spec.get("published_paper", paper),
        published_table=spec.get("published_table", artefact.get("published_table", "")),
        published_metrics=spec.get("published_metrics", {}),
        setting=spec.get("setting", ""),
        protocol=spec.get("protocol", {}),
        group=spec.get("group", ""),
        incomparable=spec.get("incomparable", ""),
        stand_in=spec.get("stand_in"),
        note=spec.get("note", ""),
    )


def needs(artefact: Artefact) -> list[Need]:
    """Return the runs an artefact shows, as (method, variant, dataset, seed), each once."""
    wanted = [
        (*run, column.dataset, seed)
        for row in artefact.rows
        for column in artefact.columns
        for metric in artefact.metrics_of(column)
        if (run := method_behind(row, column, metric))
        for seed in range(row.seeds)
    ]
    return list(dict.fromkeys(wanted))


def planned(
    plan: dict[str, Any], artefact: Artefact, row: Row, column: str, metric: str | None = None
) -> list[dict[str, Any]]:
    """Return the plan's runs behind one row of an artefact under one column (its key), by seed.

    Equal parameters under two variant names are one run, whose plan entry then has both names in `variants`.

    Parameters
    ----------
    metric
        A metric that may come from other runs than the row's own, such as `probe_acc`.
    """
    place = next(known for known in artefact.columns if known.key == column)
    run = method_behind(row, place, metric)
    if run is None:
        return []
    method, variant = run
    mine = [
        entry
        for entry in plan["runs"]
        if entry["method"] == method  # the cheapest first: this is asked for every cell
        and entry["dataset"] == place.dataset
        and variant in entry.get("variants", [entry["variant"]])
        and artefact.address in entry["needed_by"]
        and entry["seed"] < row.seeds
    ]
    return sorted(mine, key=lambda entry: entry["seed"])


def analyses(plan: dict[str, Any], artefact: Artefact) -> list[tuple[str, dict[str, Any]]]:
    """Return what a figure needs beside its runs: kinds of analysis, each with the run (a first seed) to analyse."""
    parts: list[dict[str, Any]] = [{"plot": artefact.plot}]
    if artefact.plot == "panels":
        parts = artefact.options["panels"]
    wanted = {}
    for part in parts:
        kind = PLOTS.get(part["plot"])
        for row in artefact.rows:
            if kind and row.key in part.get("rows", [row.key]):
                for column in artefact.columns:
                    for run in planned(plan, artefact, row, column.key)[:1]:
                        wanted[kind, run["id"]] = (kind, run)
    return list(wanted.values())


def analysis_path(results: str, kind: str, run_path: str) -> str:
    """Return where the analysis of a run lies, relative to the project root."""
    return f"{results}/analyses/{kind}/{'/'.join(Path(run_path).parts[-3:])}.npz"
