"""The files that a run leaves, by name: told once for the workflow, training, tables and the audit."""

from __future__ import annotations

from pathlib import Path

from dica.files import UserError, read_json

PACKAGE = Path(__file__).resolve().parents[1]
CONFIG, HISTORY, PREDICTIONS = "config.json", "history.csv", "predictions.npz"
RESULT_FILES = (CONFIG, HISTORY, PREDICTIONS)  # of every run
TRACE = "trace.npz"  # beside them: of methods trained by gradient steps
RECORD = "run.json"  # is written last, and has the digests of all others
WEIGHTS, STAGES = "weights.safetensors", "stages.npz"  # in the folder of models, outside Git
METRICS = "metrics.json"  # what the predictions score, written by the rule `evaluate`
FAILURE = "failed.json"  # in the folder of the run's state


def models_of(run: Path) -> Path:
    """Return the folder of a run's weights: ``…/runs/<method>/<dataset>/<name>`` has it under ``…/models``."""
    return Path(*run.parts[:-4], "models", *run.parts[-3:])


def failure_reason(state: Path) -> str | None:
    """Return why the last attempt of a run failed, or None.

    Parameters
    ----------
    state
        The folder of the run's state, ``results/state/<id>``.
    """
    path = state / FAILURE
    if not path.is_file():
        return None
    try:
        note = read_json(path)
    except UserError as error:
        return f"its reason is lost: {error}"
    return str((isinstance(note, dict) and note.get("reason")) or "no reason recorded")
