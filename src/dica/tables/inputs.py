"""What a table or figure takes from params/: the files, and one digest of all that it takes.

``tables/inputs.csv`` keeps the digests of what the tables were made of, so that a later edit shows even where no cell
prints it; committed, it tells an edit that an artefact feels from one that it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dica.files import canonical_json, read_csv, sha256_bytes, write_csv
from dica.plan.artefacts import Artefact
from dica.plan.parameters import load_datasets
from dica.plan.published import load_counts, of_table
from dica.tables.facts import NETWORK_LISTINGS, listing

NAME, COLUMNS = "inputs.csv", ("artefact", "sha256")


def files_of(artefact: Artefact, plan: dict[str, Any], root: Path) -> list[str]:
    """Return the files under params/ that an artefact reads, relative to the project root."""
    runs = [run for run in plan["runs"] if artefact.address in run["needed_by"]]
    entries = [load_datasets(root).get(column.dataset, {}) for column in artefact.columns]
    return list(
        dict.fromkeys(
            [
                f"params/{plan['profile']}.yaml",
                f"params/artefacts/{artefact.paper}.yaml",
                f"params/published/{artefact.published_file}",
                *(["params/published/datasets.csv"] if artefact.layout == "datasets" else []),
                *(NETWORK_LISTINGS if artefact.layout == "architecture" else []),
                "params/datasets.yaml",
                *(entry["class_list"] for entry in entries if "class_list" in entry),
                *(f"params/{run['method']}.yaml" for run in runs),
            ]
        )
    )


def digest_of(artefact: Artefact, plan: dict[str, Any], root: Path) -> str:
    """Return the SHA-256 of all that an artefact takes from params/; what it does not read changes nothing."""
    places = {(row.published_paper, row.published_table) for row in artefact.rows if row.published_method}
    if artefact.layout == "significance":
        places.add((artefact.paper, artefact.options["table"]))
    datasets = {column.dataset for column in artefact.columns}
    taken: dict[str, Any] = {
        "declaration": asdict(artefact),
        "published": [of_table(root, artefact.published_file, *place) for place in sorted(places)],
        "datasets": {name: entry for name, entry in load_datasets(root).items() if name in datasets},
        "runs": sorted(run["id"] for run in plan["runs"] if artefact.address in run["needed_by"]),
    }
    if artefact.layout == "datasets":
        taken["counts"] = [row for (paper, _), row in sorted(load_counts(root).items()) if paper == artefact.paper]
    if artefact.layout == "architecture":
        networks = set(artefact.options["networks"].values())
        taken["layers"] = [
            sorted((*key, text) for key, text in listing(root, file).items() if key[0] in networks)
            for file in NETWORK_LISTINGS
        ]
    return sha256_bytes(canonical_json(taken).encode())


def write_inputs(artefacts: Sequence[Artefact], plan: dict[str, Any], root: Path, path: Path) -> None:
    """Write the digests of what the regenerated artefacts take from params/."""
    shown = [artefact for artefact in artefacts if artefact.regenerated]
    rows = [{"artefact": artefact.address, "sha256": digest_of(artefact, plan, root)} for artefact in shown]
    write_csv(rows, COLUMNS, path)


def read_inputs(path: Path | str) -> dict[str, str]:
    """Return the stored digests by artefact."""
    return {row["artefact"]: row["sha256"] for row in read_csv(path, COLUMNS)}
