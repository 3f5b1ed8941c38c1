"""Can the printed numbers be true? Each is held against the bounds of `dica.scores.bounds` and against other papers.

A printed number is allowed half a unit of its last digit; a mean of runs is held against the lower convex envelope of
the floor, since it is no single partition. "Possible" means: not excluded by these bounds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from dica.data.paths import labels_file
from dica.files import load_arrays, read_csv
from dica.plan.parameters import load_datasets
from dica.plan.planned import load_runs
from dica.plan.published import decimals, load_published
from dica.runs.files import PREDICTIONS
from dica.scores.bounds import (
    NOISE,
    Certificate,
    ari_floor,
    ari_floor_of_means,
    certify,
    equal_cluster_bounds,
    fano,
    largest_cluster_needed,
    nmi_floor,
)
from dica.scores.evaluation import SPLITS, judged_labels

VERDICTS = ("impossible", "needs uneven clusters", "possible")
STATISTICS = ("mean", "best", "single")  # printed numbers; "upper-bound" and the like are none
COLUMNS = (
    *("kind", "verdict", "method", "dataset", "places", "statistic", "acc", "nmi", "ari"),
    *("nmi_floor", "ari_floor", "slack", "certificate", "detail"),
)


@dataclass(frozen=True)
class Triple:
    """ACC with NMI and/or ARI as printed (text, fractions), and where."""

    dataset: str
    num_classes: int
    n: int
    acc: str
    nmi: str
    ari: str
    rows: tuple[dict[str, str], ...]

    @property
    def places(self) -> str:
        """Papers, tables and statistics that print these numbers."""
        parts = [f"{row['paper']} {row['table']} {row['setting']}".strip() for row in self.rows]
        return "; ".join(dict.fromkeys(parts))


def triples(root: Path) -> list[Triple]:
    """Return the distinct (data set, ACC, NMI, ARI) of ``params/published/results.csv`` in order of appearance."""
    cells: dict[tuple, dict[str, dict[str, str]]] = defaultdict(dict)
    for row in load_published(root):
        if row["metric"] in ("acc", "nmi", "ari") and row["statistic"] in STATISTICS and row["value"]:
            key = tuple(row[name] for name in ("paper", "table", "setting", "method", "dataset", "statistic"))
            cells[key][row["metric"]] = row
    datasets = load_datasets(root)
    found: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for cell in cells.values():
        if "acc" in cell and len(cell) > 1:
            row = cell["acc"]
            texts = tuple(cell[name]["value"] if name in cell else "" for name in ("acc", "nmi", "ari"))
            found[row["dataset"], *texts].append(row)
    return [
        Triple(name, datasets[name]["num_classes"], _least_n(datasets[name]), acc, nmi, ari, tuple(rows))
        for (name, acc, nmi, ari), rows in found.items()
    ]


def _least_n(entry: dict) -> int:
    """Return the size of the smallest labelled split, where bounds that depend on n are weakest."""
    counts = [count for split, count in entry["splits"].items() if split in SPLITS and count]
    return min(counts) if counts else 50 * entry["num_classes"]


def judge(triple: Triple) -> dict[str, Any]:
    """Return one row of ``consistency.csv``: verdict, bounds, slack and, for an impossible triple, the proof."""
    k = triple.num_classes
    low, high = _interval(triple.acc, 1 / k)
    nmi, ari = (_interval(text)[1] if text else None for text in (triple.nmi, triple.ari))
    floors = {"nmi": nmi_floor(low, k), "ari": min(ari_floor(low, k), ari_floor(low, k, triple.n))}
    proof = _impossible((low, high), ari, k, triple.n) if ari is not None else None
    verdict, detail = "possible", "not excluded by any of the bounds"
    if nmi is not None and nmi < floors["nmi"]:
        verdict, detail = "impossible", f"an ACC of {triple.acc} needs an NMI of at least {floors['nmi']:.4f}"
    elif proof is not None:
        verdict = "impossible"
        mean_floor = ari_floor_of_means(low, k)
        detail = f"ACC {triple.acc} needs an ARI of at least {floors['ari']:.4f} (mean of runs {mean_floor:.4f})"
    elif uneven := _uneven((low, high), triple, k):
        verdict, detail = "needs uneven clusters", uneven
    slacks = [value - floors[name] for name, value in (("nmi", nmi), ("ari", ari)) if value is not None]
    return {
        "verdict": verdict,
        "acc": triple.acc,
        "nmi": triple.nmi,
        "ari": triple.ari,
        "nmi_floor": "" if nmi is None else f"{floors['nmi']:.4f}",
        "ari_floor": "" if ari is None else f"{floors['ari']:.4f}",
        "slack": f"{min(slacks):.4f}",
        "certificate": "" if proof is None else _text_of(proof),
        "detail": detail,
    }


def _interval(text: str, least: float = 0.0) -> tuple[float, float]:
    """Return what a printed number may be before rounding."""
    half = 0.5 * 10.0 ** -decimals(text)
    return max(float(text) - half, least), min(max(float(text) + half, least), 1.0)


def _impossible(acc: tuple[float, float], ari: float, k: int, n: int) -> Certificate | None:
    """Return the proof that no partition, nor any mean of runs, has these numbers; None where there is none."""
    if ari <= 0 or ari >= ari_floor_of_means(acc[0], k) - 1e-4:  # the envelope is exact to 1e-6 between grid points
        return None
    shares = np.full(k, 1 / k)
    proofs = [certify(acc, ari, shares, size) for size in (math.inf, n)]
    weakest = min(proofs, key=lambda proof: proof.margin)
    return weakest if weakest.margin > 0 else None


def _uneven(acc: tuple[float, float], triple: Triple, k: int) -> str:
    """Return why clusters cannot all be of one size, or nothing."""
    least, most = (equal_cluster_bounds(end, k) for end in acc)
    for name, text in (("nmi", triple.nmi), ("ari", triple.ari)):
        if not text:
            continue
        low, high = _interval(text)
        if high < least[name][0]:
            share = f"; one holds at least {largest_cluster_needed(acc, high, k):.1%}" if name == "ari" else ""
            return f"clusters of one size give {name.upper()} ≥ {least[name][0]:.3f}{share}"
        if low > most[name][1]:
            return f"clusters of one size give {name.upper()} ≤ {most[name][1]:.3f}"
    return ""


def _text_of(proof: Certificate) -> str:
    return f"t={proof.t:.4f} λ={proof.lam:.6f} μ={proof.mu:.6f} margin={proof.margin:.2e}"


def disagreements(root: Path) -> list[dict[str, Any]]:
    """Return each number that two papers print differently, with the remark of ``discrepancies.csv`` on it.

    Papers agree on a cell if they share one of the values that they print for it (mean and best, say).
    """
    printed: dict[tuple[str, str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in load_published(root):
        if row["metric"] in ("acc", "nmi", "ari") and row["statistic"] in STATISTICS:
            printed[row["method"], row["dataset"], row["metric"]][row["paper"]].append(row["value"])
    known = {_cell_of(row): row["comment"] for row in load_discrepancies(root)}
    found = []
    for (method, dataset, metric), papers in sorted(printed.items()):
        for one, other in combinations(sorted(papers), 2):
            if not {Decimal(value) for value in papers[one]} & {Decimal(value) for value in papers[other]}:
                remark = known.get((method, dataset, metric, frozenset((one, other))), "")
                values = f"{one} {' and '.join(papers[one])}, {other} {' and '.join(papers[other])}"
                found.append(
                    {
                        "verdict": remark.partition(":")[0] or "unexplained",
                        "method": method,
                        "dataset": dataset,
                        "places": f"{one}; {other}",
                        "detail": f"{metric}: {values}" + (f" ({remark})" if remark else ""),
                    }
                )
    return found


def _cell_of(row: dict[str, str]) -> tuple:
    return row["method"], row["dataset"], row["metric"], frozenset((row["paper_a"], row["paper_b"]))


DISCREPANCIES = ("method", "dataset", "metric", "paper_a", "value_a", "paper_b", "value_b", "comment")


def load_discrepancies(root: Path) -> list[dict[str, str]]:
    """Read ``params/published/discrepancies.csv``: what a reader of the papers found, with a remark each."""
    return read_csv(root / "params" / "published" / "discrepancies.csv", DISCREPANCIES)


def remarks(root: Path) -> list[dict[str, Any]]:
    """Return what a paper says against its own table, and other oddities inside one paper."""
    return [
        {
            "verdict": row["comment"].partition(":")[0],
            "method": row["method"],
            "dataset": row["dataset"],
            "places": "; ".join(dict.fromkeys(name for name in (row["paper_a"], row["paper_b"]) if name != "bound")),
            "detail": f"{row['metric']}: {row['value_a']} against {row['value_b'] or 'nothing'} ({row['comment']})",
        }
        for row in load_discrepancies(root)
        if row["paper_a"] == row["paper_b"] or row["paper_b"] == "bound"
    ]


def own_runs(plan: dict[str, Any], root: Path, results: str) -> list[dict[str, Any]]:
    """Hold the archive's own metrics against the same bounds: a violation is a bug in a metric or mixed-up files."""

    @cache
    def shares(dataset: str, split: str, path: str = "") -> np.ndarray:
        labels = load_arrays(root / labels_file(dataset))
        names = [name for name in (SPLITS if split == "all" else (split,)) if name in labels]
        stored = load_arrays(root / path / PREDICTIONS) if path else {}
        values = np.concatenate([judged_labels(name, labels[name], stored) for name in names])
        counts = np.bincount(values[values >= 0])
        return counts[counts > 0] / counts.sum()

    found = []
    for run in load_runs(plan, root, results):
        if run.metrics is not None and "acc" in run.metrics["headline"]:  # bounds are of scores against labels
            own = run.path if run.plan["params"].get("held_out") else ""  # not scored on every image
            headline, classes = run.metrics["headline"], shares(run.plan["dataset"], run.metrics["evaluated_on"], own)
            found.append({"places": run.path, "method": run.plan["method"], "dataset": run.plan["dataset"]})
            found[-1] |= check_own(headline, classes)
    return found


def check_own(headline: dict[str, Any], shares: np.ndarray) -> dict[str, Any]:
    """Return the verdict on exact metrics of one partition of classes with these shares."""
    acc, k = headline["acc"], len(shares)
    entropy = float(-(shares * np.log(shares)).sum())
    floor = fano(acc, entropy, k, max(k, headline["num_clusters"]))
    proof = certify((acc, acc), headline["ari"], shares, headline["n"])
    broken = [f"NMI is below {floor:.4f}"] if headline["nmi"] < floor - NOISE else []
    broken += [f"ARI is too low for the ACC: {_text_of(proof)}"] if proof.margin > 0 else []
    numbers = {name: f"{headline[name]:.4f}" for name in ("acc", "nmi", "ari")}
    detail = "; ".join(broken) or "within the bounds"
    return {"verdict": "impossible" if broken else "possible", **numbers, "nmi_floor": f"{floor:.4f}", "detail": detail}


def audit_published(root: Path, plan: dict[str, Any] | None = None, results: str = "results") -> list[dict[str, str]]:
    """Return every row of ``consistency.csv``: `COLUMNS` as text.

    `kind` is `triple` (can one partition have these numbers?), `disagreement` (two papers, one cell, two numbers),
    `remark` (a paper against itself) or, with a plan, `own` (its finished runs under the same bounds).
    """
    rows = []
    for triple in triples(root):
        methods = " ".join(dict.fromkeys(row["method"] for row in triple.rows))
        statistics = " ".join(dict.fromkeys(row["statistic"] for row in triple.rows))
        known = {"method": methods, "dataset": triple.dataset, "places": triple.places, "statistic": statistics}
        rows.append({"kind": "triple", **known, **judge(triple)})
    rows.sort(key=lambda row: VERDICTS.index(row["verdict"]))
    rows += [{"kind": "disagreement", **row} for row in disagreements(root)]
    rows += [{"kind": "remark", **row} for row in remarks(root)]
    if plan is not None:
        rows += [{"kind": "own", **row} for row in own_runs(plan, root, results)]
    return [{name: str(row.get(name, "")) for name in COLUMNS} for row in rows]
