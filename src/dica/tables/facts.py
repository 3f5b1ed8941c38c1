"""Table cells that rest on no run: counts of data sets, p values between printed numbers, layers of networks.

Each is set beside what the paper prints and is `equal` to it or `differs`, numbers at the digits printed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from dica.files import UserError, read_csv
from dica.plan import published as printed
from dica.plan.artefacts import Artefact, Column, Row
from dica.plan.parameters import load_datasets, load_method, merge
from dica.scores.stats import significance

NETWORK_LISTINGS = ("params/published/networks.csv", "params/networks.csv")  # the paper's layers, and ours
COUNTED = {"all": ("train", "test"), "train": ("train",), "train+unlabeled": ("train", "unlabeled")}


def computed(artefact: Artefact, row: Row, column: Column, metric: str, root: Path) -> tuple[float | None, str, str]:
    """Return our number of a cell, the printed one as text ("" = none) and its note.

    A count that the paper does not print is left out on our side, too.

    Raises
    ------
    UserError
        If the printed table or `params/datasets.yaml` does not have what the declaration names.
    """
    if artefact.layout == "significance":
        return _p_value(artefact, row, column, root)
    facts = printed.load_counts(root).get((artefact.paper, column.published_dataset))
    if facts is None:
        where = f"params/published/datasets.csv: nothing of {artefact.paper} on {column.published_dataset!r}"
        raise UserError(f"{where}, which {artefact.address} shows")
    text = facts[metric]
    return (count(artefact, column, metric, root) if text else None), text, facts["note"]


def same(value: float, text: str) -> bool:
    """Whether a number is the printed one at the digits printed; of an image size the first side counts."""
    side = text.partition("x")[0]
    return f"{value:.{printed.decimals(side)}f}" == side


def count(artefact: Artefact, column: Column, metric: str, root: Path) -> float:
    """Return what params/ declares of a data set; preparing it fails if the images are not as many."""
    entry = load_datasets(root)[column.dataset]
    if metric == "clusters":
        return entry["num_classes"]
    if metric == "image_size":
        return _input_size(artefact, column, root) or entry["image_size"]
    names = {"train_images": COUNTED[column.counted or "train"], "test_images": ("test",)}.get(metric, ("unlabeled",))
    return sum(entry["splits"].get(name, 0) for name in names)


def _input_size(artefact: Artefact, column: Column, root: Path) -> int | None:
    """Return the side of the images that the paper's method scores, or None where it takes them as they are."""
    method = artefact.options.get("methods", {}).get(column.dataset, artefact.options["method"])
    body = load_method(method, root)
    views = merge(body["defaults"], body["datasets"].get(column.dataset)).get("views", {})
    sizes = [step["size"] for step in views.get("test", []) if "size" in step]
    return sizes[-1] if sizes else None


def _p_value(artefact: Artefact, row: Row, column: Column, root: Path) -> tuple[float | None, str, str]:
    """Return the p value between the printed accuracies of two rows over the data sets that both have."""
    if row.key == column.key:
        return None, "", ""
    method = str(row.published_method)
    rows = printed.of_table(root, artefact.published_file, artefact.paper, row.published_table)
    place = (artefact.paper, row.published_table, method, "all", "p_value", "single")
    number = printed.find(rows, *place, column.setting)
    ours, theirs = (_accuracies(artefact, name, root) for name in (method, column.setting[3:]))
    common = [dataset for dataset in ours if dataset in theirs]
    value = significance([ours[name] for name in common], [theirs[name] for name in common])
    note = "" if len(common) == len(artefact.options["datasets"]) else f"{len(common)} common data sets"
    return value, number.value if number else "", note


@cache
def _printed_accuracies(root: Path, file: str, paper: str, table: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for row in printed.of_table(root, file, paper, table):
        if row["metric"] == "acc":
            found.setdefault(row["method"], {})[row["dataset"]] = float(row["value"])
    return found


def _accuracies(artefact: Artefact, method: str, root: Path) -> dict[str, float]:
    table = _printed_accuracies(root, artefact.published_file, artefact.paper, artefact.options["table"])
    return {name: table[method][name] for name in artefact.options["datasets"] if name in table[method]}


def verdict(value: float | None, text: str) -> str:
    """Return `equal`, `differs`, or `published only` where there is nothing to compare."""
    if value is None or not text:
        return "published only"
    return "equal" if same(value, text) else "differs"


def facts(artefact: Artefact, row: Row, column: Column, metric: str, root: Path, digits: int) -> dict[str, Any]:
    """Return the columns of cells.csv that a computed cell fills."""
    if artefact.layout == "architecture":
        return _layer(artefact, row, column, root)
    value, text, note = computed(artefact, row, column, metric, root)
    return {
        "value": None if value is None else round(value, digits),
        "published": text,
        "published_statistic": "single" if text else "",
        "published_note": note,
        "verdict": verdict(value, text),
    }


def _layer(artefact: Artefact, row: Row, column: Column, root: Path) -> dict[str, Any]:
    """Return a printed layer, and in `reason` ours (params/networks.csv, made from the modules) if it is another."""
    network = artefact.options["networks"][column.dataset]
    text = listing(root, NETWORK_LISTINGS[0]).get((network, row.key), "")
    ours = listing(root, NETWORK_LISTINGS[1]).get((network, row.key), "")
    if not text and not ours:
        return {"verdict": "published only"}
    mark = "equal" if ours == text else "differs"
    return {"published": text, "verdict": mark, "reason": "" if ours == text else f"here: {ours or 'no such layer'}"}


@cache
def listing(root: Path, file: str) -> dict[tuple[str, str], str]:
    """Return the layers of networks by (network, layer)."""
    rows = read_csv(root / file, ("network", "layer", "text"))
    return {(row["network"], row["layer"]): row["text"] for row in rows}
