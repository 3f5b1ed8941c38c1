"""What tables say in words: the names of metrics, and the notes on the protocol below a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dica.plan.artefacts import Artefact, planned
from dica.plan.counted import TOLERANCE
from dica.plan.declared import Row
from dica.tables.recipe import recipe_notes

METRIC_LABELS = {
    **{"acc": "ACC", "nmi": "NMI", "nmi_geometric": "NMI", "ari": "ARI", "acc_top5": "ACC top-5", "error": "Error"},
    **{"probe_acc": "Probe ACC", "time_ratio": "Time ratio", "p_value": "p"},
    **{"train_images": "Training images", "test_images": "Test images", "extra_images": "Extra images"},
    **{"clusters": "Clusters", "image_size": "Image size", "layer": "Layer"},
}
SPLIT_WORDS = {
    "all": "all labelled images",
    "train": "the training split",
    "test": "the test split",
    "train+unlabeled": "the training and unlabelled images",
    "all+unlabeled": "all labelled and unlabelled images",
}


def notes(artefact: Artefact, plan: dict[str, Any]) -> list[str]:
    """Return what a reader must know of the protocol: the paper's, the columns', and the epochs used here."""
    notes = [artefact.note] if artefact.note else []
    facts = artefact.protocol if artefact.layout == "grid" else {}
    if facts.get("trained_on"):
        notes.append(f"Paper: {_split_words(facts)}.")
    notes += [facts["note"]] if facts.get("note") else []
    notes += [f"{column.label}: {column.note}" for column in artefact.columns if column.note]
    notes += dict.fromkeys(_of_row(row) for row in artefact.rows if row.note)
    notes += [
        f"{row.label}: the authors' code chooses with labels ({chosen}); here the last epoch counts."
        for row in artefact.rows
        if (chosen := row.protocol.get("selection")) and row.published_method
    ]
    notes += [_budget(artefact.tflop)] if artefact.tflop else []
    return [*notes, *protocol_notes(artefact, plan), *recipe_notes(artefact, plan)]


def _of_row(row: Row) -> str:
    """Return a row's note with the row's name before it, unless the note has it (or the word it begins with)."""
    first = re.split(r"[ ,(]", row.label)[0]
    return row.note if re.search(rf"\b{re.escape(first)}\b", row.note) else f"{row.label}: {row.note}"


def _budget(tflop: float) -> str:
    return (
        f"Each run that trains has {tflop:,g} TFLOP of counted arithmetic, within {TOLERANCE:.0%}: products and "
        "convolutions of networks, heads and views, forward and backward, and predictions."
    )


def _split_words(facts: dict[str, Any]) -> str:
    trained, evaluated = (SPLIT_WORDS.get(facts.get(key, ""), "") for key in ("trained_on", "evaluated_on"))
    if trained == evaluated or not evaluated:
        return f"trained {'and evaluated ' if evaluated else ''}on {trained}"
    return f"trained on {trained}, evaluated on {evaluated}"


def protocol_notes(artefact: Artefact, plan: dict[str, Any]) -> list[str]:
    """Return one sentence a method: the images and epochs of our runs, beside the paper's epochs."""
    said: dict[str, list[tuple[Row, str | None]]] = {}  # what holds, and the rows and metrics it holds for
    for row, metric in [(line, name) for line in artefact.rows for name in (None, *line.runs)]:
        parts: dict[str, list[str]] = {}
        for column in artefact.columns:
            if metric and metric not in artefact.metrics_of(column):
                continue
            for run in planned(plan, artefact, row, column.key, metric)[:1]:  # seeds share their parameters
                paper = artefact.protocol_of(row, column, metric)
                label = f"{column.group} {column.label}".strip()
                parts.setdefault(_used(run["params"], paper.get("epochs")), []).append(label)
        text = next(iter(parts), "")
        if len(parts) > 1:
            text = "; ".join(f"{each} ({', '.join(labels)})" for each, labels in parts.items())
        said.setdefault(text, []).append((row, metric))
    return [f"{_listed(_names(artefact, places))} here: {text}." for text, places in said.items() if text]


def _names(artefact: Artefact, places: Sequence[tuple[Row, str | None]]) -> list[str]:
    """Return what rows are called in a note: no word on the statistic, the metric where the note is on that alone."""
    names = artefact.names_of([row for row, _ in places])
    names = [re.sub(r" \((mean|best|avg±)\)(?= \(|$)", "", name, flags=re.IGNORECASE) for name in names]
    of = [f" ({METRIC_LABELS[metric]})" if metric and row.method else "" for row, metric in places]
    return [name + more for name, more in zip(names, of, strict=True)]


def _listed(names: Sequence[str]) -> str:
    """Return names once each, with semicolons between where they have commas of their own."""
    return ("; " if any("," in name for name in names) else ", ").join(dict.fromkeys(names))


def _used(params: dict[str, Any], paper_epochs: int | None) -> str:
    text = _split_words({"trained_on": params.get("train_split"), "evaluated_on": params.get("eval_split")})
    if held_out := params.get("held_out"):
        words = SPLIT_WORDS.get(params.get("train_split", ""), "the images")
        text = f"trained on {1 - held_out:.0%} of {words}, evaluated on the other {held_out:.0%}"
    if params.get("epochs"):
        text += f", {params['epochs']} epochs"
        text += f" of {params['epoch_batches']} batches of {params['batch_size']}" if "epoch_batches" in params else ""
        text += f" (paper: {paper_epochs})" if paper_epochs else ""
    if params.get("precision", "float32") != "float32":
        text += f", in {params['precision']}"
    return text
