"""The files that a run leaves, by name: told once for the workflow, training, tables and the audit."""

from __future__ import annotations

from pathlib import Path

from dica.files import UserError, read_json

PACKAGE = Path(__file__).resolve().parents[1]
RESULT_FILES = ("config.json", "history.csv", "predictions.npz")  # of every run
TRACE = "trace.npz"  # beside them: of methods trained by gradient steps
RECORD = "run.json"  # is written last, and has the digests of all others
WEIGHTS, STAGES = "weights.safetensors", "stages.npz"  # in the folder of models, outside Git
METRICS = "metrics.json"  # what the predictions score, written by the rule `evaluate`
FAILURE = "failed.json"  # in the folder of the run's state


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
