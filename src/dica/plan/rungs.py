"""Artefacts on other data than the paper's: a profile's `substitute`, and the lower rungs that a paper's file declares.

A rung is a scale at which something was measured: `paper` (its data and budget), `scaled` (real images, a declared
smaller budget), `digits`. What is of a lower rung says so in its title and never stands beside a published number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dica.files import UserError
from dica.plan.declared import Artefact, Column, Row, column_key
from dica.plan.parameters import load_datasets, load_method, method_names, validate
from dica.validation import hint

RUNGS = {"paper": "the paper's data and budget", "scaled": "real images, a smaller budget", "digits": "the digits"}


def with_at_most(artefact: Artefact, seeds: int) -> Artefact:
    """Return an artefact that asks for no more than so many seeds."""
    rows = tuple(replace(row, seeds=min(row.seeds, seeds)) for row in artefact.rows)
    return replace(artefact, seeds=min(artefact.seeds, seeds), rows=rows)


def on_other_data(artefact: Artefact, dataset: str, seeds: int, datasets: dict[str, str] | None = None) -> Artefact:
    """Return an artefact as it looks on another data set than the paper's.

    Of its columns those of the first data set stay (several where they differ in their setting), now for `dataset`; or
    those of the keys of `datasets`, each now for what stands there. Published numbers are left out: they are of other
    images.
    """
    instead = datasets or {artefact.columns[0].dataset: dataset}
    columns = [_on_dataset(column, instead[column.dataset]) for column in artefact.columns if column.dataset in instead]
    fewer = with_at_most(artefact, seeds)
    return replace(
        fewer,
        title=f"{artefact.title}, on other data: {dataset}",
        note=f"A sample of this {artefact.kind} on the data set {dataset}, not the paper's data: no published number "
        "can be compared.",
        columns=tuple({column.key: column for column in columns}.values()),
        rows=tuple(
            replace(_with_stand_in(row), datasets=_instead(row, datasets))
            for row in fewer.rows
            if (row.method or row.runs) and not (datasets and row.datasets and not _instead(row, datasets))
        ),
        protocol={},
        substitute=dataset,
    )


def _instead(row: Row, datasets: dict[str, str] | None) -> tuple[str, ...]:
    """Return on which data sets alone a row is run in the place of its own."""
    return tuple(dict.fromkeys(datasets[name] for name in row.datasets if name in datasets)) if datasets else ()


def _with_stand_in(row: Row) -> Row:
    """Return a row without printed numbers, and with the method that is run where its own needs the paper's data."""
    bare = replace(row, published_method=None, protocol={}, note="", incomparable="")
    if row.stand_in is None:
        return bare
    method, variant = row.stand_in["method"], row.stand_in.get("variant", "full")
    return replace(bare, method=method, variant=variant, note=f"{row.label}: {method} stands in for {row.method}.")


def _on_dataset(column: Column, dataset: str) -> Column:
    label = f"{dataset}, {column.label}" if column.setting else dataset
    key = column_key(dataset, column.setting)
    return replace(column, key=key, dataset=dataset, published_dataset="", label=label, note="", protocol={})


def lowered(declared: dict[str, Artefact], lower: dict[str, Any], where: str, root: Path) -> dict[str, Artefact]:
    """Return what a block `lower` of a paper's file adds: its artefacts at that rung, by name (``table-2-digits``).

    Raises
    ------
    UserError
        For an unknown artefact, row, method, variant or data set; the message begins with `where`.
    """
    _check_recipes(lower, where, root)
    found = {}
    said = lower.get("words", {})
    for name, skipped in lower["artefacts"].items():
        if name not in declared or declared[name].rung or not declared[name].regenerated:
            known = [known for known, artefact in declared.items() if artefact.regenerated and not artefact.rung]
            raise UserError(f"{where}.artefacts: no {name!r} that is regenerated; {hint(name, known)}")
        _require_rows(skipped, declared[name], f"{where}.artefacts.{name}")
        made = _at_rung(_said_otherwise(declared[name], said), skipped, lower)
        found[made.name] = made
    texts = [text for name in lower["artefacts"] for text in _texts(declared[name])]
    for old in said:
        if not any(old in text for text in texts):
            raise UserError(f"{where}.words: {old!r} stands in no title and no label of the block's artefacts")
    _check_datasets(lower, declared, where, root)
    _check_more_seeds(lower, {name: found[f"{name}-{lower['rung']}"] for name in lower["artefacts"]}, where)
    return found


def _texts(artefact: Artefact) -> list[str]:
    """Return what `words` of a lower rung may change: titles, labels of rows, headings over columns."""
    panels = [panel["title"] for panel in artefact.options.get("panels", []) if "title" in panel]
    groups = [column.group for column in artefact.columns]
    return [artefact.title, *(row.label for row in artefact.rows), *groups, *panels]


def _said_otherwise(artefact: Artefact, words: dict[str, str]) -> Artefact:
    """Return an artefact whose titles, labels and headings have other words, such as another number of labels."""

    def other(text: str) -> str:
        for old, new in words.items():
            text = text.replace(old, new)
        return text

    options = artefact.options
    if "panels" in options:
        panels = [
            {**panel, "title": other(panel["title"])} if "title" in panel else panel for panel in options["panels"]
        ]
        options = {**options, "panels": panels}
    rows = tuple(replace(row, label=other(row.label)) for row in artefact.rows)
    columns = tuple(replace(column, group=other(column.group)) for column in artefact.columns)
    return replace(artefact, title=other(artefact.title), rows=rows, columns=columns, options=options)


def _check_datasets(lower: dict[str, Any], declared: dict[str, Artefact], where: str, root: Path) -> None:
    for name, instead in lower.get("datasets", {}).items():
        if name not in lower["artefacts"]:
            raise UserError(f"{where}.datasets: {name!r} is not among the block's artefacts")
        columns = [column.dataset for column in declared[name].columns]
        for place, names, known in (("", instead, columns), (" in its place", instead.values(), load_datasets(root))):
            if unknown := [data for data in names if data not in known]:
                raise UserError(f"{where}.datasets.{name}: no {unknown[0]!r}{place}; {hint(unknown[0], known)}")


def _check_more_seeds(lower: dict[str, Any], made: dict[str, Artefact], where: str) -> None:
    for name, rows in lower.get("more_seeds", {}).items():
        if name not in made:
            raise UserError(f"{where}.more_seeds: {name!r} is not among the block's artefacts; {hint(name, made)}")
        _require_rows(rows, made[name], f"{where}.more_seeds.{name}")


def _require_rows(named: Iterable[str], artefact: Artefact, where: str) -> None:
    keys = [row.key for row in artefact.rows]
    if unknown := [key for key in named if key not in keys]:
        raise UserError(f"{where}: no row {unknown[0]!r}; {hint(unknown[0], keys)}")


def _at_rung(artefact: Artefact, skipped: list[str], lower: dict[str, Any]) -> Artefact:
    """Return an artefact at a lower rung, its full recipes under the names that they have there."""
    recipes, rung, seeds = lower["recipes"], lower["rung"], lower["seeds"]
    kept = replace(artefact, rows=tuple(row for row in artefact.rows if row.key not in skipped))
    other = on_other_data(kept, lower["dataset"], seeds, lower.get("datasets", {}).get(artefact.name))
    own = {row.key: row.seeds for row in artefact.rows}
    more = lower.get("more_seeds", {}).get(artefact.name, {})
    rows = [
        replace(
            row,
            seeds=1 if own[row.key] == 1 < artefact.seeds else more.get(row.key, seeds),  # 1: nothing is drawn there
            variant=_variant(recipes, row.method, row.variant),
            runs={
                metric: {**run, "variant": _variant(recipes, run["method"], run.get("variant", "full"))}
                for metric, run in row.runs.items()
            },
        )
        for row in other.rows
    ]
    budget = ", short runs" if recipes else ""
    return replace(
        other,
        name=f"{artefact.name}-{rung}",
        title=f"On {RUNGS[rung] if rung == 'digits' else lower['dataset']}{budget}, not the paper's data: "
        f"{artefact.title}",
        note=f"What {artefact.paper}'s {artefact.name.replace('-', ' ')} compares, measured on other data"
        f"{' with a smaller budget' if recipes else ''}: no published number can be compared."
        f"{' ' + lower['note'] if 'note' in lower else ''}",
        seeds=seeds,
        metrics=_stored(artefact.metrics),
        columns=tuple(replace(column, metrics=_stored(column.metrics)) for column in other.columns),
        rows=tuple(rows),
        options=_without_rows(artefact.options, own.keys() - {row.key for row in rows}),
        rung=rung,
        overrides={method: recipe["overrides"] for method, recipe in recipes.items()},
    )


def _variant(recipes: dict[str, Any], method: str | None, variant: str) -> str:
    return recipes.get(method or "", {}).get("variants", {}).get(variant, variant)


def _stored(metrics: tuple[str, ...]) -> tuple[str, ...]:
    """Return the metrics without top-5 accuracy: of few classes it says little, and these runs do not store it."""
    return tuple(metric for metric in metrics if metric != "acc_top5")


def _without_rows(options: dict[str, Any], skipped: Collection[str]) -> dict[str, Any]:
    """Return the options of a figure whose panels do without some rows; a panel that had no other one goes."""
    if "panels" not in options:
        return options
    panels = []
    for panel in options["panels"]:
        if "rows" not in panel:
            panels.append(panel)
        elif left := [key for key in panel["rows"] if key not in skipped]:
            panels.append({**panel, "rows": left})
    return {**options, "panels": panels}


def _check_recipes(lower: dict[str, Any], where: str, root: Path) -> None:
    known = load_datasets(root)
    if lower["dataset"] not in known:
        raise UserError(f"{where}.dataset: no {lower['dataset']!r}; {hint(lower['dataset'], known)}")
    for method, recipe in lower["recipes"].items():
        if method not in method_names(root):
            raise UserError(f"{where}.recipes: no method {method!r}; {hint(method, method_names(root))}")
        validate(recipe["overrides"], method, f"{where}.recipes.{method}.overrides", root, partial=True)
        known = load_method(method, root)["variants"]
        for name in [name for pair in recipe.get("variants", {}).items() for name in pair]:
            if name not in known:
                raise UserError(f"{where}.recipes.{method}.variants: no variant {name!r}; {hint(name, known)}")
