"""What the stored predictions of a plan's runs say about chance: intervals, tests between methods, stability.

Read from predictions, labels and metrics alone. The rules of the tests are in `dica.scores.stats` (`PAIRED_RULE`).
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from dica.data.paths import labels_file
from dica.files import UserError, load_arrays, write_csv
from dica.plan.planned import Run, load_runs
from dica.runs.files import PREDICTIONS
from dica.scores import stats
from dica.scores.evaluation import scored_partition
from dica.scores.metrics import ari, cluster_map, contingency

METRICS = ("acc", "nmi", "ari")
GROUP = ("dataset", "method", "variant")
COLUMNS = {
    "intervals": (*GROUP, "seed", "metric", "over", "n", "value", "low", "high", "how", "remark"),
    "pairs": (
        *("dataset", "method_a", "variant_a", "method_b", "variant_b", "metric", "test", "seed"),
        *("n", "difference", "p", "p_holm", "least_p", "remark"),
    ),
    "stability": (*GROUP, "seeds", "pairs", "ari_mean", "ari_min", "ari_max"),
}
Group = tuple[str, str, str]


class Partitions:
    """The finished runs of a plan by (data set, method, variant) and seed, with their partitions."""

    def __init__(self, plan: dict[str, Any], root: Path, results: str) -> None:
        self.root = root
        self.groups: dict[Group, dict[int, Run]] = defaultdict(dict)
        for run in load_runs(plan, root, results):
            if run.metrics is not None and not run.unlabelled:
                names = run.plan.get("variants", [])
                variant = "full" if "full" in names else run.plan["variant"]  # equal parameters may have two names
                self.groups[run.plan["dataset"], run.plan["method"], variant][run.plan["seed"]] = run
        self._right: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.labels = cache(lambda dataset: load_arrays(root / labels_file(dataset)))

    def of(self, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """Return classes and clusters of the splits that a run is scored on, class -1 for an image that does not count.

        Raises
        ------
        UserError
            If predictions and labels are not of the same images.
        """
        stored, labels = load_arrays(self.root / run.path / PREDICTIONS), self.labels(run.plan["dataset"])
        try:
            return scored_partition(stored, labels, run.scored["evaluated_on"])
        except UserError as error:
            raise UserError(f"{run.path}/{PREDICTIONS}: {error}") from None

    def scored(self, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """Return classes and clusters of the samples that a run is scored on."""
        true, pred = self.of(run)
        return true[true >= 0], pred[true >= 0]

    def right(self, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """Return which images are right under the run's map of clusters to classes, and which count."""
        if run.path not in self._right:
            true, pred = self.of(run)
            if run.plan["params"].get("supervised") is not True:
                pred = cluster_map(*self.scored(run), num_clusters=int(pred.max()) + 1)[pred]
            self._right[run.path] = pred == true, true >= 0
        return self._right[run.path]


def intervals(partitions: Partitions) -> list[dict[str, Any]]:
    """Return intervals of each group's mean over seeds, and of each run over its samples."""
    rows = []
    for group, runs in sorted(partitions.groups.items()):
        known = dict(zip(GROUP, group, strict=True))
        for metric in METRICS:
            values = [runs[seed].value(metric) for seed in sorted(runs)]
            rows += [{**known, "metric": metric, **row} for row in _over_seeds(values)]
        for seed in sorted(runs):
            true, pred = partitions.scored(runs[seed])
            supervised = runs[seed].plan["params"].get("supervised") is True
            found = stats.bootstrap_table(contingency(true, pred), supervised=supervised)
            for metric, (low, high) in found.items():
                row = {"seed": seed, "metric": metric, "over": "samples", "n": true.size, "how": "basic bootstrap"}
                rows.append({**known, **row, "value": runs[seed].value(metric), "low": low, "high": high})
    return rows


def _over_seeds(values: list[float]) -> list[dict[str, Any]]:
    row = {"over": "seeds", "n": len(values), "value": stats.mean(values)}
    if len(values) < 2:
        return [{**row, "how": "none", "remark": "one seed: no interval"}]
    found = [("t", stats.t_interval(values), "")]
    few = "too short: so few seeds" if len(values) < 10 else ""
    found.append(("percentile bootstrap", stats.bootstrap_mean(values), few))
    return [{**row, "how": how, "low": low, "high": high, "remark": remark} for how, (low, high), remark in found]


def pairs(partitions: Partitions) -> list[dict[str, Any]]:
    """Return paired tests on each data set: the methods as their papers have them, and variants against these."""
    rows: list[dict[str, Any]] = []
    for one, other in combinations(sorted(partitions.groups), 2):
        if one[0] == other[0] and _worth_comparing(one, other):
            rows += _compare(partitions, one, other)
    families = defaultdict(list)
    for row in rows:
        if row["p"] is not None:
            families[row["dataset"], row["test"], row["metric"]].append(row)
    for family in families.values():
        for row, corrected in zip(family, stats.holm([row["p"] for row in family]), strict=True):
            row["p_holm"] = corrected
    return rows


def _worth_comparing(one: Group, other: Group) -> bool:
    full = [group[2] == "full" for group in (one, other)]
    return all(full) or (one[1] == other[1] and any(full))


def _compare(partitions: Partitions, one: Group, other: Group) -> list[dict[str, Any]]:
    a, b = partitions.groups[one], partitions.groups[other]
    seeds = sorted(a.keys() & b.keys())
    known = dict(zip(("dataset", "method_a", "variant_a", "method_b", "variant_b"), one + other[1:], strict=True))
    rows = []
    for metric in METRICS:
        values = [[runs[seed].value(metric) for seed in seeds] for runs in (a, b)]
        rows += [{**known, "metric": metric, **_test_row(test)} for test in stats.paired_tests(*values)]
    for seed in seeds:
        if a[seed].scored["evaluated_on"] == b[seed].scored["evaluated_on"]:  # else not the same images
            (right, counts), (right_too, counts_too) = (partitions.right(runs[seed]) for runs in (a, b))
            if (both := counts & counts_too).any():
                test = stats.mcnemar(right[both], right_too[both])
                rows.append({**known, "metric": "acc", "seed": seed, **_test_row(test)})
    return rows


def _test_row(test: stats.Paired) -> dict[str, Any]:
    return {name: getattr(test, name) for name in ("test", "n", "difference", "p", "least_p", "remark")}


def stability(partitions: Partitions) -> list[dict[str, Any]]:
    """Return how alike the partitions of different seeds are: ARI between the assignments, without any labels."""
    rows = []
    for group, runs in sorted(partitions.groups.items()):
        found = [partitions.of(runs[seed])[1] for seed in sorted(runs)]
        alike = [ari(one, other) for one, other in combinations(found, 2)]
        row = {**dict(zip(GROUP, group, strict=True)), "seeds": len(runs), "pairs": len(alike)}
        if alike:
            row |= {"ari_mean": stats.mean(alike), "ari_min": min(alike), "ari_max": max(alike)}
        rows.append(row)
    return rows


def write_statistics(plan: dict[str, Any], root: Path, results: str, folder: Path) -> list[Path]:
    """Write ``intervals.csv``, ``pairs.csv`` and ``stability.csv`` and return their paths."""
    partitions = Partitions(plan, root, results)
    written = []
    for name, make in (("intervals", intervals), ("pairs", pairs), ("stability", stability)):
        rows = [{key: _text(row.get(key)) for key in COLUMNS[name]} for row in make(partitions)]
        written.append(folder / f"{name}.csv")
        write_csv(rows, COLUMNS[name], written[-1])
    return written


def _text(value: Any) -> str:
    """Return a cell of the CSV; six digits are more than any of these numbers is good for."""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
