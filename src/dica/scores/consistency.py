"""Can the printed numbers be true? Bounds between ACC, NMI and ARI, and cells that papers print differently.

One partition of n samples of K classes has an ACC, an NMI and an ARI that are not free of each other. With p_ij the
share of all samples that are of class i and in cluster j, clusters numbered so that the one-to-one map is i -> i,
q = 1 - ACC, d_j = p_jj and e_j the rest of cluster j:

* NMI >= 1 - (h(q) + q log(K-1)) / log K, h the binary entropy (Fano; sharp; convex in ACC, so it holds for means too);
* ARI is smallest when one cluster swallows every error, evenly from the other classes (`ari_floor`; sharp).

That nothing lies below the ARI floor is not taken on trust: `certify` proves each claim by Lagrange multipliers, see
there. A printed number is allowed half a unit of its last digit; a mean of runs is held against the lower convex
envelope of the floor, since it is no single partition. "Possible" means: not excluded by these bounds.
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
from scipy.optimize import minimize

from dica.data.paths import labels_file
from dica.files import read_csv
from dica.plan.parameters import load_datasets
from dica.plan.planned import load_runs
from dica.plan.published import decimals, load_published
from dica.runs.files import PREDICTIONS
from dica.scores.metrics import SPLITS, judged_labels, load_arrays

VERDICTS = ("impossible", "needs uneven clusters", "possible")
STATISTICS = ("mean", "best", "single")  # printed numbers; "upper-bound" and the like are none
NOISE = 1e-9  # what rounding errors of the proof itself may amount to
GRID = 4001
COLUMNS = (
    *("kind", "verdict", "method", "dataset", "places", "statistic", "acc", "nmi", "ari"),
    *("nmi_floor", "ari_floor", "slack", "certificate", "detail"),
)


def nmi_floor(acc: float, num_classes: int) -> float:
    """Return the smallest NMI of a partition of balanced classes with this ACC (Fano), for every normalisation.

    Sharp as long as no cluster beyond `num_classes` is used.
    """
    return _fano(acc, math.log(num_classes), num_classes, num_classes)


def _fano(acc: float, class_entropy: float, num_classes: int, num_clusters: int) -> float:
    q = 1 - acc
    if class_entropy == 0:
        return 0.0
    unknown = sum(-x * math.log(x) for x in (q, acc) if x > 0) + q * math.log(max(num_classes - 1, 1))
    return max(0.0, 2 * (class_entropy - unknown) / (class_entropy + math.log(num_clusters)))


def ari_floor(acc: float, num_classes: int, n: float = math.inf) -> float:
    """Return the smallest ARI of a partition of balanced classes with this ACC >= 1/K: one cluster swallows all errors.

    `n` is the number of samples; the limit of many differs by less than 0.001 from 5,000 on. Where n is so small or
    the ARI so near to 0 that the proof does not hold, the floor is the one of all partitions, a little below 0.
    """
    k, q = num_classes, 1 - acc
    d, off = 1 / k - q / (k - 1), q / (k - 1)
    floor = _ari(1 / k**2 + (k - 1) * (d**2 + off**2), 1 / k, (1 / k + q) ** 2 + (k - 1) * d**2, n)
    a = _pairs(1 / k, n)
    return floor if (floor / 2 + (1 - floor) * a) * k >= 1 else 0.0 - (1 - a) / (a * n)


def _ari(joint: float, classes: float, clusters: float, n: float) -> float:
    """Return the ARI of three sums of squared shares."""
    s, a, b = (_pairs(x, n) for x in (joint, classes, clusters))
    return (s - a * b) / ((a + b) / 2 - a * b)


def _pairs(squares: float, n: float) -> float:
    """Return the share of pairs of different samples that lie together."""
    return squares if math.isinf(n) else (n * squares - 1) / (n - 1)


def ari_floor_of_means(acc: float, num_classes: int) -> float:
    """Return the smallest mean ARI of any runs with this mean ACC: the lower convex envelope of `ari_floor`."""
    return float(np.interp(acc, *_envelope(num_classes)))


@cache
def _envelope(num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    accs = np.linspace(1 / num_classes, 1, GRID)
    points = [(acc, ari_floor(acc, num_classes)) for acc in accs]
    hull: list[tuple[float, float]] = []
    for point in points:  # lower hull, points come sorted
        while len(hull) > 1 and _turns_down(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return np.array([x for x, _ in hull]), np.array([y for _, y in hull])


def _turns_down(a: tuple, b: tuple, c: tuple) -> bool:
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])


def equal_cluster_bounds(acc: float, num_classes: int) -> dict[str, tuple[float, float]]:
    """Return (least, most) `nmi` and `ari` if every cluster holds 1/K of the samples."""
    share = (num_classes * acc - 1) / (num_classes - 1)
    most = math.log(max(num_classes * acc, 1)) / math.log(num_classes)
    return {"nmi": (nmi_floor(acc, num_classes), most), "ari": (share**2, share)}


@dataclass(frozen=True)
class Certificate:
    """Numbers that prove, if `margin` > 0, that no partition with that ACC has an ARI of `t` or less."""

    t: float
    lam: float
    mu: float
    margin: float


def certify(
    acc: tuple[float, float], t: float, shares: np.ndarray, n: float = math.inf, largest: float = 1.0
) -> Certificate:
    """Try to prove that ARI <= `t` is impossible for every ACC in the interval `acc`.

    ARI <= t is, since class sizes are fixed, S - cB <= r for sums of squares S of cells and B of clusters. Column j
    adds at least phi = d² + e²/(K-1) - c(d+e)² to the left side, with (d, e) in the polygon 0 <= d <= largest class,
    0 <= e <= q - (smallest class - d), d + e <= `largest`. As the d_j add up to ACC and the e_j to q, for any λ and μ
    S - cB >= K min(phi - λd - μe) + λ ACC + μ q; phi is an indefinite quadratic, its minimum is on an edge. If that
    exceeds r the claim is proved, whatever λ and μ are. Any number of clusters is covered (`_surplus_cannot_help`).

    Parameters
    ----------
    acc
        Least and greatest ACC that the print allows; need not be of the best map, one-to-one is enough.
    t
        ARI in (0, 1].
    shares
        Share of each class (they need not be balanced).
    n
        Number of samples.
    largest
        Only partitions whose largest cluster has at most this share.

    Returns
    -------
    Certificate
        With `margin` <= 0 (or -inf) where nothing is proved.
    """
    problem = _Problem(acc, t, shares, n, largest)
    if not problem.sound:
        return Certificate(t, 0.0, 0.0, -math.inf)
    lam, mu = problem.start()
    if largest < 1:
        found = minimize(lambda x: -problem.margin(*x), (lam, mu), method="Nelder-Mead", options={"xatol": 1e-7})
        lam, mu = found.x
    margin = problem.margin(lam, mu) if problem.surplus_cannot_help(mu) else -math.inf
    return Certificate(t, float(lam), float(mu), float(margin))


class _Problem:
    """The Lagrangian of `certify`."""

    def __init__(self, acc: tuple[float, float], t: float, shares: np.ndarray, n: float, largest: float) -> None:
        self.acc, self.k, self.q = acc, len(shares), 1 - acc[0]
        a = _pairs(float(np.sum(shares**2)), n)
        self.c = t / 2 + (1 - t) * a
        self.right = t * a / 2 if math.isinf(n) else ((n - 1) * t * a / 2 + 1 - self.c) / n
        self.corners = _polygon(self.q, float(shares.min()), float(shares.max()), largest)
        # An indefinite phi has no minimum inside the polygon; elsewhere nothing is claimed.
        self.sound = self.k > 1 and 0 < t <= 1 and self.c * self.k >= 1 and len(self.corners) > 1 and self.q > 0

    def start(self) -> tuple[float, float]:
        """Return the multipliers that are tight for the absorbing table, the one of `ari_floor`."""
        k, q = self.k, self.q
        d = 1 / k - q / (k - 1)
        lam = 2 * (1 - self.c) * d
        plain, absorbing = (1 - self.c) * d**2 - lam * d, self.phi(1 / k, q) - lam / k
        return lam, (absorbing - plain) / q

    def phi(self, d: Any, e: Any) -> Any:
        return d**2 + e**2 / (self.k - 1) - self.c * (d + e) ** 2

    def margin(self, lam: float, mu: float) -> float:
        linear = min(lam * acc + mu * (1 - acc) for acc in self.acc)
        return self.k * self._least(lam, mu) + linear - self.right - NOISE

    def _least(self, lam: float, mu: float) -> float:
        """Return min(phi - lam d - mu e) over the polygon: on each edge a quadratic in one variable."""
        first, last = self.corners, np.roll(self.corners, -1, axis=0)
        step = last - first
        values = self.phi(*first.T) - first @ (lam, mu)
        square = self.phi(*step.T)
        slope = 2 * _bilinear(first, step, self.k, self.c) - step @ (lam, mu)
        inside = np.clip(np.divide(-slope, 2 * square, out=np.zeros_like(slope), where=square > 0), 0, 1)
        return float(min(values.min(), (values + slope * inside + square * inside**2).min()))

    def surplus_cannot_help(self, mu: float) -> bool:
        """Whether clusters without a class only add to the left side: e²(1/K - c) - mu e >= 0 on [0, q]."""
        return self.q * (1 / self.k - self.c) - mu >= 0 if self.c >= 1 / self.k else mu <= 0


def _bilinear(x: np.ndarray, y: np.ndarray, k: int, c: float) -> np.ndarray:
    """Return the bilinear form of phi, row by row."""
    return x[:, 0] * y[:, 0] + x[:, 1] * y[:, 1] / (k - 1) - c * x.sum(axis=1) * y.sum(axis=1)


def _polygon(q: float, smallest: float, largest_class: float, largest_cluster: float) -> np.ndarray:
    """Return the corners of the (d, e) that a matched cluster can have."""
    left = max(0.0, smallest - q)
    room = q - smallest
    corners = [(left, 0.0), (largest_class, 0.0), (largest_class, room + largest_class), (left, max(room + left, 0.0))]
    kept = []
    for (d, e), (d2, e2) in zip(corners, corners[1:] + corners[:1], strict=True):
        over, over2 = d + e - largest_cluster, d2 + e2 - largest_cluster
        if over <= 0:
            kept.append((d, e))
        if over * over2 < 0:
            share = over / (over - over2)
            kept.append((d + share * (d2 - d), e + share * (e2 - e)))
    return np.array(kept).reshape(-1, 2)


def largest_cluster_needed(acc: tuple[float, float], ari: float, num_classes: int) -> float:
    """Return a share that the largest cluster must at least have for that ACC and an ARI of at most `ari`."""
    shares = np.full(num_classes, 1 / num_classes)
    low, high = 1 / num_classes, 1.0  # equal clusters are excluded, any are not
    while high - low > 1e-4:
        middle = (low + high) / 2
        proved = certify(acc, ari, shares, largest=middle).margin > 0
        low, high = (middle, high) if proved else (low, middle)
    return low


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
    datasets, found = load_datasets(root), defaultdict(list)
    for cell in cells.values():
        if "acc" in cell and len(cell) > 1:
            row = cell["acc"]
            texts = tuple(cell[name]["value"] if name in cell else "" for name in ("acc", "nmi", "ari"))
            found[row["dataset"], *texts].append(row)
    return [
        Triple(name, datasets[name]["num_classes"], _least_n(datasets[name]), *texts, tuple(rows))
        for (name, *texts), rows in found.items()
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
    floor = _fano(acc, entropy, k, max(k, headline["num_clusters"]))
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
