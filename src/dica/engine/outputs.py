"""What a finished run leaves: config, history, predictions, trace, weights, and the record that answers for them."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.torch import save as safetensors_bytes

from dica.engine.images import ResidentImages
from dica.engine.loop import Position
from dica.engine.observer import Observer
from dica.files import atomic_write_bytes, atomic_write_text, json_text, sha256_file, write_json, write_npz
from dica.methods.base import Method
from dica.runs import record
from dica.runs.behaviour import trace_of
from dica.runs.files import CONFIG, HISTORY, PREDICTIONS, RESULT_FILES, STAGES, TRACE, WEIGHTS

OUTPUTS = (*RESULT_FILES, TRACE)
MODEL_OUTPUTS = (WEIGHTS, STAGES)  # kept outside Git
OBSERVED = (TRACE, STAGES)  # of runs that were watched


@dataclass
class Done:
    """A run that is trained and has predicted.

    Attributes
    ----------
    code : what code ran, see `dica.runs.record.code_state`
    started : when this attempt began
    at : where training ended
    observer : what looked at the run meanwhile, if anything did
    arrays : its predictions
    extra : what else the record says; what is empty is left out
    """

    config: dict
    code: dict
    started: datetime
    images: ResidentImages
    method: Method
    at: Position
    observer: Observer | None
    arrays: dict[str, np.ndarray]
    extra: dict


def write_outputs(run: Done, out: Path, models: Path) -> None:
    """Write all but the record, weights and stages to `models`."""
    write_json(out / CONFIG, run.config)
    atomic_write_text(out / HISTORY, record.history_csv(run.at.history))
    write_npz(out / PREDICTIONS, run.arrays)
    if run.observer:  # when it looked is in the record: a time in the trace would change its digest
        write_npz(out / TRACE, run.observer.trace())
        write_npz(models / STAGES, run.observer.stage_arrays())
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in run.method.state_dict().items()}
    atomic_write_bytes(models / WEIGHTS, safetensors_bytes(weights))


def record_of(run: Done, out: Path, models: Path) -> bytes:
    """Return the record of a run whose other files are written: its presence says that they are complete."""
    device = run.images.device.type
    written = [out / name for name in OUTPUTS] + [models / name for name in MODEL_OUTPUTS]
    files = {path.name: sha256_file(path) for path in written if path.name not in OBSERVED or run.observer}
    return json_text(
        {
            **{key: run.config[key] for key in ("id", "method", "variant", "dataset", "seed", "determinism")},
            **run.code,
            "trace": trace_of(run.config["method"], run.config["variant"]),
            "versions": record.versions(device),
            "environment": record.environment(),
            "host_platform": platform.platform(),
            "device": record.device_facts(device),
            "data": _data_facts(run.images.manifest),
            "started": run.started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(run.at.seconds, 2),
            "images_per_second": round(run.at.images_seen / run.at.seconds, 1) if run.at.seconds else None,
            "peak_memory_mb": record.peak_memory_mb(device),
            "resumed": run.at.resumed,
            "attempts": run.at.attempts,
            **({"look_seconds": run.observer.look_seconds()} if run.observer else {}),
            **{key: value for key, value in run.extra.items() if value},
            "files": files,
        },
    ).encode()


def _data_facts(manifest: dict) -> dict:
    splits = {name: {"n": split["n"], "sha256": split["sha256"]} for name, split in manifest["splits"].items()}
    return {"fingerprint": manifest["fingerprint"], "data_id": manifest["data_id"], "splits": splits}
