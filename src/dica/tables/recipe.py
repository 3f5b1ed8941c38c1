"""How a recipe here differs from the paper's: from the parameters of the runs and the defaults that the papers give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dica.plan.artefacts import Artefact, planned
from dica.plan.declared import Row

# What the data set decides, and what the notes on the protocol already say.
NOT_OF_THE_RECIPE = (
    *("num_clusters", "normalisation", "revision", "source", "top5", "train_split", "eval_split", "epochs"),
    *("epoch_batches", "precision"),
)
ARCHIVE = "dica"  # its own tables; the papers' tables take the papers' values
LONGEST = 12  # differences that are listed one by one


def recipe_notes(artefact: Artefact, plan: dict[str, Any]) -> list[str]:
    """Return one sentence a row: what its recipe changes of the paper's, each key with both values.

    Only of the archive's own tables and of tables with other data than the paper's; elsewhere a row's name says it.
    """
    if artefact.paper != ARCHIVE and not artefact.substitute:
        return []
    notes: dict[str, list[Row]] = {}
    for row in artefact.rows:
        found = list(dict.fromkeys(_said(run, plan) for run in _first_runs(artefact, row, plan)))
        if any(found):
            notes.setdefault(" / ".join(text or "the paper's values" for text in found), []).append(row)
    called = {text: ", ".join(dict.fromkeys(artefact.names_of(rows))) for text, rows in notes.items()}
    return [f"{names}: not as printed: {text}." for text, names in called.items()]


def _first_runs(artefact: Artefact, row: Row, plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for column in artefact.columns:
        yield from planned(plan, artefact, row, column.key)[:1]  # seeds share their parameters


def _said(run: dict[str, Any], plan: dict[str, Any]) -> str:
    defaults = plan.get("defaults", {}).get(run["method"])
    if defaults is None:
        return ""
    found = differences(run["params"], defaults)
    more = f" and {len(found) - LONGEST} more" if len(found) > LONGEST else ""
    return ", ".join(found[:LONGEST]) + more


def differences(params: dict[str, Any], defaults: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the keys in which parameters differ from the paper's, as `key here (paper)`; lists and views by name only.

    Examples
    --------
    >>> differences({"lr": 0.1, "optimizer": {"name": "adam"}, "epochs": 3}, {"lr": 0.2, "optimizer": {"name": "sgd"}})
    ['lr 0.1 (0.2)', 'optimizer.name adam (sgd)']
    """
    found = []
    for key in sorted({*params, *defaults} - set(NOT_OF_THE_RECIPE if not prefix else ())):
        here, there = params.get(key), defaults.get(key)
        name = f"{prefix}{key}"
        if here == there:
            continue
        if key == "views":
            found.append("other views")
        elif isinstance(here, dict) and isinstance(there, dict):
            found += differences(here, there, f"{name}.")
        elif isinstance(here, dict | list) or isinstance(there, dict | list):
            found.append(f"other {name}")
        else:
            found.append(f"{name} {_value(here)} ({_value(there)})")
    return found


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
