"""The score of a run: from its stored predictions and the labels of its data set to metrics.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dica.files import UserError, load_arrays, read_json, sha256_file, write_json
from dica.runs.files import CONFIG
from dica.scores import oracle
from dica.scores.metrics import evaluate, unlabelled

SPLITS = ("train", "test")
EVAL_SPLITS = ("all", *SPLITS)


def judged_labels(split: str, labels: np.ndarray, stored: dict[str, np.ndarray]) -> np.ndarray:
    """Return the labels (n,) of a split, -1 for the images on which a run is not to be scored (`<split>_judged`)."""
    judged = stored.get(f"{split}_judged")
    return labels if judged is None else np.where(judged, labels, -1)


def scored_partition(
    stored: dict[str, np.ndarray], labels: dict[str, np.ndarray], evaluated_on: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return classes and clusters of the splits that a run is scored on, class -1 for an image that does not count.

    Parameters
    ----------
    stored, labels
        Arrays of predictions.npz and of the data set's label file.
    evaluated_on
        `all`, `train` or `test`.

    Raises
    ------
    UserError
        If predictions and labels are not of the same images.
    """
    splits = [split for split in SPLITS if evaluated_on in ("all", split) and len(labels.get(split, ()))]
    for split in splits:
        if (name := f"{split}_assignment") not in stored:
            raise UserError(f"lacks {name}")
        if stored[name].shape != labels[split].shape:
            raise UserError(f"{name}: {stored[name].size} assignments, {labels[split].size} labels")
    true = np.concatenate([judged_labels(split, labels[split], stored) for split in splits])
    return true, np.concatenate([stored[f"{split}_assignment"] for split in splits])


def recompute(predictions: Path | str, labels: Path | str, eval_split: str, supervised: bool = False) -> dict[str, Any]:
    """Return `evaluated_on`, `headline` and `splits` for stored predictions, writing nothing.

    Parameters
    ----------
    predictions, labels
        npz files; see `evaluate_files`.
    eval_split
        `all` (train followed by test), `train` or `test`.
    supervised
        See `evaluate`.
    """
    if eval_split not in EVAL_SPLITS:
        raise UserError(f"eval_split is {eval_split!r}, allowed: {', '.join(EVAL_SPLITS)}")
    stored, truth = load_arrays(predictions), load_arrays(labels)
    if "num_clusters" not in stored or stored["num_clusters"].size != 1:
        raise UserError(f"{predictions}: lacks the number num_clusters")
    num_clusters = int(stored["num_clusters"].item())
    parts = {split: _split(split, stored, truth, predictions, labels) for split in SPLITS}
    has_labels = [split for split in SPLITS if len(truth.get(split, ()))]
    needed = (has_labels or SPLITS) if eval_split == "all" else (eval_split,)
    for split in needed:
        if parts[split] is None:
            raise UserError(f"{predictions}: no {split}_assignment with labels; eval_split {eval_split!r} needs it")
    num_classes = max(int(values.max()) + 1 for values in truth.values() if values.size)
    chosen = [part for split in needed if (part := parts[split]) is not None]
    if not num_classes:
        return {"evaluated_on": eval_split, **_without_labels(stored, needed, predictions)}

    def score(*parts: tuple[np.ndarray, ...]) -> dict[str, Any]:
        if len({len(part) for part in parts}) > 1:
            raise UserError("top5 is stored for one split and not for the other")
        true, pred, *top5 = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return evaluate(true, pred, num_clusters, num_classes, top5[0] if top5 else None, supervised)

    try:
        headline = score(*chosen)
        splits = {split: score(part) for split, part in parts.items() if part is not None and (part[0] != -1).any()}
    except UserError as error:
        raise UserError(f"{predictions} with {labels}: {error}") from None
    result = {"evaluated_on": eval_split, "headline": headline, "splits": splits}
    if all(f"{split}_heads" in stored for split in needed):
        true = np.concatenate([part[0] for part in chosen])
        heads = [_heads(split, stored, predictions) for split in needed]
        if len({len(each) for each in heads}) > 1:
            raise UserError(f"{predictions}: the splits have unlike numbers of heads")
        result["heads"] = oracle.of_heads(true, np.concatenate(heads, axis=1), num_clusters, num_classes)
    return result


def _heads(split: str, stored: dict[str, np.ndarray], predictions: Path | str) -> np.ndarray:
    """Return the cluster that each cluster head gave to the images of a split, (H, n)."""
    heads, clusters = stored[f"{split}_heads"], int(stored["num_clusters"].item())
    images = len(stored[f"{split}_assignment"])
    if heads.ndim != 2 or heads.dtype.kind not in "iu" or not len(heads) or heads.shape[1] != images:
        raise UserError(f"{predictions}: {split}_heads is {heads.dtype} {heads.shape}; needs integers (H, {images})")
    if heads.min(initial=0) < 0 or heads.max(initial=0) >= clusters:
        raise UserError(f"{predictions}: {split}_heads names clusters beyond the {clusters} of the run")
    return heads.astype(np.int64)


def _without_labels(
    stored: dict[str, np.ndarray], needed: Sequence[str], predictions: Path | str
) -> dict[str, dict[str, Any]]:
    """Return `headline` and `splits` of a run on a data set of which no image has a label."""
    there = [split for split in needed if f"{split}_assignment" in stored]
    pairs = {}
    for split in there:
        assignment, confidence = stored[f"{split}_assignment"], stored.get(f"{split}_confidence")
        if confidence is None or confidence.shape != assignment.shape or not np.isfinite(confidence).all():
            raise UserError(f"{predictions}: {split}_confidence must be one number for each {split}_assignment")
        pairs[split] = assignment, confidence
    clusters = int(stored["num_clusters"].item())
    assignment, confidence = (np.concatenate(arrays) for arrays in zip(*pairs.values(), strict=True))
    try:
        splits = {split: unlabelled(*pair, clusters) for split, pair in pairs.items()}
        return {"headline": unlabelled(assignment, confidence, clusters), "splits": splits}
    except UserError as error:
        raise UserError(f"{predictions}: {error}") from None


def _split(
    split: str,
    stored: dict[str, np.ndarray],
    truth: dict[str, np.ndarray],
    predictions: Path | str,
    labels: Path | str,
) -> tuple[np.ndarray, ...] | None:
    """Return labels, assignment and, if stored, top5 of one split; None where run or label file does not have it.

    An image that is not to be judged (`<split>_judged`) has label -1, as one without a label.
    """
    name = f"{split}_assignment"
    if name not in stored or split not in truth or not len(truth[split]):
        return None
    true, pred = truth[split], stored[name]
    if true.ndim != 1 or true.shape != pred.shape:
        raise UserError(f"{predictions}: {name} has shape {pred.shape}, {labels} has {true.shape} for {split}")
    if true.dtype.kind not in "iu" or true.min() < -1:
        raise UserError(f"{labels}: {split} needs integer class indices (-1 = no label)")
    if (judged := stored.get(f"{split}_judged")) is not None:
        if judged.dtype != bool or judged.shape != true.shape:
            raise UserError(f"{predictions}: {split}_judged is {judged.dtype} {judged.shape}; needs bool {true.shape}")
        true = judged_labels(split, true, stored)
    top5 = stored.get(f"{split}_top5")
    if top5 is not None and (top5.shape != (len(pred), 5) or top5.dtype.kind not in "iu"):
        raise UserError(f"{predictions}: {split}_top5 is {top5.dtype} {top5.shape}; needs integers ({len(pred)}, 5)")
    return (true, pred) if top5 is None else (true, pred, top5)


def evaluate_files(
    predictions: Path | str, labels: Path | str, out: Path | str, eval_split: str, supervised: bool = False
) -> dict[str, Any]:
    """Evaluate stored predictions and write metrics.json.

    Parameters
    ----------
    predictions
        npz with `<split>_assignment` (n,) for train and/or test, the scalar `num_clusters` and, where the
        run stores it, `<split>_top5` (n, 5), `<split>_judged` (n,), which images to score, and `<split>_heads`
        (H, n), what each of several cluster heads gave. The id is read from the config.json beside it, if there is one.
    labels
        npz with `train` and `test` class indices in the same order; -1 marks a sample without label.
    out
        Path of metrics.json.
    eval_split
        What the headline is computed on: `all`, `train` or `test`.
    supervised
        See `evaluate`.

    Returns
    -------
    dict
        What was written.

    Raises
    ------
    UserError
        If a file is missing or damaged, or lengths, types or index ranges are wrong; the file is named.
    """
    config = Path(predictions).with_name(CONFIG)
    result = {
        "id": read_json(config)["id"] if config.is_file() else None,
        **recompute(predictions, labels, eval_split, supervised),
        "predictions_sha256": sha256_file(predictions),
        "labels_sha256": sha256_file(labels),
    }
    write_json(out, result)
    return result
