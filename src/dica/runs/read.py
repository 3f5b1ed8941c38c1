"""The JSON files of a run, read with a check of the keys and types that they must have."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from dica.files import UserError, read_json

FINITE = 1e15  # no number in a record is as large
TEXT, NUMBER, NOTHING = str, (int, float), type(None)
CONFIG_KEYS = {
    **dict.fromkeys(("id", "method", "variant", "dataset", "data_id", "determinism"), TEXT),
    **{"seed": int, "params": dict},
}
PLAN_KEYS = {**CONFIG_KEYS, "path": TEXT, "variants": list, "needed_by": list}
SHARED_KEYS = ("id", "method", "variant", "dataset", "seed", "determinism")  # run.json repeats them from config.json
RUN_KEYS = {
    **{key: CONFIG_KEYS[key] for key in SHARED_KEYS},
    **{"commit": (TEXT, NOTHING), "dirty_sha256": (TEXT, NOTHING), "started": TEXT, "seconds": NUMBER},
    **{"device": dict, "device.name": TEXT, "versions": dict, "files": dict, "sources": dict},
    **{"files.*": TEXT, "sources.*": TEXT},
}
METRICS_KEYS = {
    **{"id": TEXT, "evaluated_on": TEXT, "headline": dict, "splits": dict},
    **{"predictions_sha256": TEXT, "labels_sha256": TEXT},
    **dict.fromkeys(("headline.acc", "headline.nmi", "headline.ari", "headline.*"), NUMBER),
    **dict.fromkeys(("headline.n", "headline.largest_cluster_share", "headline.num_clusters"), NUMBER),
}
UNLABELLED_KEYS = {  # of a data set without labels, `num_classes` 0
    **{key: kind for key, kind in METRICS_KEYS.items() if key not in ("headline.acc", "headline.nmi", "headline.ari")},
    **dict.fromkeys(("headline.cluster_entropy", "headline.mean_confidence"), NUMBER),
}
LABELS_KEYS = {
    **{"fingerprint": TEXT, "classes": list, "splits": dict, "splits.*": dict},
    **{"splits.*.shape": list, "splits.*.pixels_sha256": TEXT, "splits.*.labels_sha256": TEXT},
}


@dataclass
class Finding:
    """One check: `ok` True (holds), False (does not), None (could not be checked, or for information)."""

    what: str
    ok: bool | None
    detail: str = ""
    missing: bool = False


def read_record(path: Path, keys: dict[str, Any]) -> tuple[dict | None, list[Finding]]:
    """Read a JSON file that must have `keys`: dotted names with their types, `*` for every key of a mapping.

    Returns
    -------
    tuple
        The content, or None together with what is wrong.
    """
    value, findings = _object(path)
    return (None, findings) if value is None else _with_keys(value, keys, path.name)


def read_metrics(path: Path) -> tuple[dict | None, list[Finding]]:
    """Read a run's ``metrics.json``, as `read_record` does; without labels it has other keys."""
    value, findings = _object(path)
    if value is None:
        return None, findings
    if not isinstance(value.get("headline"), dict):
        return _with_keys(value, {"headline": dict}, path.name)
    return _with_keys(value, UNLABELLED_KEYS if value["headline"].get("num_classes") == 0 else METRICS_KEYS, path.name)


def _object(path: Path) -> tuple[dict | None, list[Finding]]:
    if not path.is_file():
        return None, [Finding(path.name, False, "missing", missing=True)]
    try:
        value = read_json(path)
    except UserError as error:
        return None, [Finding(path.name, False, str(error))]
    return (value, []) if isinstance(value, dict) else (None, [Finding(path.name, False, "is not a JSON object")])


def _with_keys(value: dict, keys: dict[str, Any], name: str) -> tuple[dict | None, list[Finding]]:
    wrong = list(dict.fromkeys(chain.from_iterable(faults(value, key.split("."), kind) for key, kind in keys.items())))
    return (None, [Finding(name, False, "; ".join(wrong))]) if wrong else (value, [])


def environment_of(record: dict[str, Any]) -> dict[str, str]:
    """Return the digests of the environment that a record names; those of older records are not known."""
    found = record.get("environment")
    return {key: text for key, text in found.items() if isinstance(text, str)} if isinstance(found, dict) else {}


def faults(value: Any, names: list[str], kind: type | tuple, where: str = "") -> list[str]:
    """Return where `value` has not the type `kind` under a dotted key."""
    if not names:
        right = isinstance(value, kind) and not isinstance(value, bool)
        if right and isinstance(value, NUMBER) and not abs(value) < FINITE:  # NaN is neither
            return [f"{where}: is not a finite number"]
        return [] if right else [f"{where}: has the wrong type ({type(value).__name__})"]
    if not isinstance(value, dict):
        return [f"{where}: has the wrong type ({type(value).__name__})"]
    chosen = list(value) if names[0] == "*" else names[:1]
    dot = "." if where else ""
    if chosen and chosen[0] not in value:
        return [f"lacks {where}{dot}{chosen[0]}"]
    return [fault for name in chosen for fault in faults(value[name], names[1:], kind, f"{where}{dot}{name}")]
