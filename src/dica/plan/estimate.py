"""What a table, a method or everything would cost: hours, wall time at N devices, disk; from stored run records alone.

A run is timed after finished runs of its method on the same device, by the first rule that has any:

1. `same`: equal parameters but for the number of epochs; time goes with the epochs;
2. `variant`: other parameters of the method on the same data set; rough;
3. `data set`: another data set with equally large images, same backbone; rough. Of both the time goes with the
   arithmetic where that of both runs was counted, else with epochs times images;
4. `counted`: its arithmetic (`dica.plan.counted`) at the rate that finished runs reached on the device in steps that
   were not ten times smaller, those of its method if there are any; else at the rate that ``params/devices.yaml``
   states for it.

The range is that of the slowest and the fastest of the finished runs; it covers neither a busier machine nor the
roughness of rules 2 and 3. A count has no range: it is as good as its rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any

from dica.files import canonical_json
from dica.plan.counted import Work, counted_work
from dica.plan.devices import OTHER, Device, reference, stated
from dica.plan.parameters import load_datasets, load_method
from dica.plan.targets import name_of, no_target
from dica.runs.files import CONFIG, RECORD, models_of
from dica.runs.read import CONFIG_KEYS, RUN_KEYS, read_record

RULES = ("same", "variant", "data set", "counted", "unknown")
LIKE = 0.1  # a finished step tells the rate of steps with up to ten times its arithmetic a launch


@dataclass(frozen=True)
class Timed:
    """A finished run that others are timed after."""

    method: str
    dataset: str
    params: dict[str, Any]
    device: str
    seconds: float
    images_per_second: float | None
    torch: str
    threads: int
    bytes_git: int
    bytes_models: int


@dataclass(frozen=True)
class Cost:
    """What the runs of one method on one data set cost; seconds are None where nothing is known."""

    method: str
    dataset: str
    runs: int
    finished: int
    rule: str
    seconds: float | None
    low: float | None
    high: float | None
    each: tuple[float, ...]
    disk: int | None
    basis: str


class Estimator:
    """Times runs after those under ``<results>/runs``.

    Parameters
    ----------
    root, results
        Project root and the results root relative to it.
    """

    def __init__(self, root: Path, results: str) -> None:
        self.root, self.results = root, results
        self.datasets = load_datasets(root)

    @cached_property
    def timed(self) -> list[Timed]:
        """Finished runs with a usable record."""
        found = []
        for path in sorted((self.root / self.results / "runs").glob("*/*/s*-*/run.json")):
            record, faults = read_record(path, RUN_KEYS)
            config, more = read_record(path.with_name(CONFIG), CONFIG_KEYS)
            if record and config and not faults and not more and config["dataset"] in self.datasets:
                found.append(self._timed(path.parent, record, config))
        return found

    def _timed(self, folder: Path, record: dict[str, Any], config: dict[str, Any]) -> Timed:
        models = models_of(folder)
        return Timed(
            config["method"],
            config["dataset"],
            config["params"],
            record["device"]["name"],
            float(record["seconds"]),
            record.get("images_per_second"),
            str(record["versions"].get("torch")),
            int(record["device"].get("threads", 1)),
            _size(folder),
            _size(models),
        )

    @property
    def devices(self) -> dict[str, int]:
        """Device -> number of finished runs, the commonest first."""
        counts: dict[str, int] = defaultdict(int)
        for run in self.timed:
            counts[run.device] += 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def costs(self, runs: Sequence[dict[str, Any]], device: str) -> list[Cost]:
        """Return the costs of planned runs on a device, one entry for each method and data set."""
        groups: dict[tuple[str, str], list[dict]] = defaultdict(list)
        for run in runs:
            groups[run["method"], run["dataset"]].append(run)
        return [self._cost(*key, members, device) for key, members in sorted(groups.items())]

    def _cost(self, method: str, dataset: str, runs: list[dict], device: str) -> Cost:
        waiting = [run for run in runs if not (self.root / run["path"] / RECORD).is_file()]
        found = [self._time(run, device) for run in waiting]
        rules = [rule for rule, *_ in found]
        rule = max(rules, key=RULES.index) if rules else "same"
        finished = len(runs) - len(waiting)
        known: dict[str, Any] = dict(method=method, dataset=dataset, runs=len(runs), finished=finished, rule=rule)
        if rule == "unknown":
            lacking = rules.count("unknown")
            basis = f"neither timed nor counted: {lacking} of {len(waiting)} runs"
            return Cost(**known, seconds=None, low=None, high=None, each=(), disk=None, basis=basis)
        each = tuple(middle for _, middle, *_ in found)
        low, high = (sum(line[k] for line in found) for k in (2, 3))
        disk = sum(line[4] for line in found)
        basis = "; ".join(dict.fromkeys(line[5] for line in found))
        return Cost(**known, seconds=sum(each), low=low, high=high, each=each, disk=disk, basis=basis)

    def _time(self, run: dict[str, Any], device: str) -> tuple:
        """Return rule, seconds (middle, low, high), bytes and what it rests on."""
        mine = [done for done in self.timed if (done.method, done.device) == (run["method"], device)]
        here = [done for done in mine if done.dataset == run["dataset"]]
        alike = [done for done in mine if self._like(done, run)]
        same = [done for done in here if _apart_from_epochs(done.params) == _apart_from_epochs(run["params"])]
        for rule, chosen in zip(RULES, (same, here, alike), strict=False):
            if chosen:
                work = counted_work(run, self.datasets[run["dataset"]]) if rule != "same" else None
                seconds = [done.seconds * self._ratio(run, work, done) for done in chosen]
                sizes = fmean([done.bytes_git + done.bytes_models for done in chosen])
                return rule, fmean(seconds), min(seconds), max(seconds), round(sizes), _basis(chosen)
        return self._counted(run, device)

    def _counted(self, run: dict[str, Any], device: str) -> tuple:
        """Return the same as `_time` from the arithmetic of a run, which names neither range nor bytes."""
        work = counted_work(run, self.datasets[run["dataset"]])
        if work is None:
            return "unknown", 0.0, 0.0, 0.0, 0, ""
        on_gpu = load_method(run["method"], self.root)["resources"]["gpu"] > 0
        rates = self._reached(run["method"], work, device) if on_gpu else []
        if rates:
            seconds, basis = work.flops / median(rates), f"the rate of {len(rates)} finished runs"
            basis += f", {median(rates) / 1e12:.3g} TFLOP/s"
        else:
            said, precision, seconds = _as_stated(run, work, device, on_gpu, self.root)
            basis = f"{said.tflops[precision]:g} TFLOP/s in {precision} as stated for {said.name}"
        return "counted", seconds, seconds, seconds, 0, basis if work.exact else f"{basis}, as another variant"

    def _reached(self, method: str, work: Work, device: str) -> list[float]:
        """Return the operations a second of finished runs with steps like those of `work`; the method's, if any."""
        like = [
            (done.method, theirs.flops / done.seconds)
            for done in self.timed
            if (theirs := self._works.get(id(done)))
            and done.device == device
            and theirs.launches
            and theirs.flops / theirs.launches >= LIKE * work.flops / max(work.launches, 1)
        ]
        return [rate for name, rate in like if name == method] or [rate for _, rate in like]

    @cached_property
    def _works(self) -> dict[int, Work]:
        """The work of those finished runs whose own arithmetic was counted, by `id`."""
        found = {id(done): counted_work(vars(done), self.datasets[done.dataset]) for done in self.timed if done.seconds}
        return {key: work for key, work in found.items() if work and work.exact}

    def _like(self, done: Timed, run: dict[str, Any]) -> bool:
        sizes = [
            (self.datasets[name]["image_size"], self.datasets[name]["channels"])
            for name in (done.dataset, run["dataset"])
        ]
        return sizes[0] == sizes[1] and done.params.get("backbone") == run["params"].get("backbone")

    def _ratio(self, run: dict[str, Any], work: Work | None, done: Timed) -> float:
        """Return how many times the work of a finished run this one is: by the arithmetic, where both were counted."""
        theirs = self._works.get(id(done))
        if work and work.exact and theirs:
            return work.flops / theirs.flops
        return self._work(run) / self._work(vars(done))

    def _work(self, run: dict[str, Any]) -> float:
        """Return epochs times their images, what the time of a method goes with."""
        params, images = run["params"], sum(self.datasets[run["dataset"]]["splits"].values())
        if "epoch_batches" in params:
            images = min(images, params["epoch_batches"] * params["batch_size"])
        return params.get("epochs", 1) * max(images, 1)


def _apart_from_epochs(params: dict[str, Any]) -> str:
    kept = {key: value for key, value in params.items() if key not in ("epochs", "revision")}
    if kept.get("source"):  # the run below has an id of its own for every seed
        kept["source"] = {key: value for key, value in kept["source"].items() if key != "id"}
    return canonical_json(kept)


def _basis(chosen: list[Timed]) -> str:
    """Return what an estimate rests on, in words."""
    names = ", ".join(dict.fromkeys(f"{done.method} on {done.dataset}" for done in chosen))
    speeds = [done.images_per_second for done in chosen if done.images_per_second]
    speed = f" at {min(speeds):,.0f} to {max(speeds):,.0f} images/s" if speeds else ""
    software = ", ".join(dict.fromkeys(f"torch {done.torch}, {done.threads} thread(s)" for done in chosen))
    return f"{len(chosen)} runs of {names}{speed} ({software})"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) if folder.is_dir() else 0


def wall_time(seconds: Sequence[float], devices: int) -> float:
    """Return when the last of independent runs ends if the longest start first on `devices` devices."""
    loads = [0.0] * devices
    for one in sorted(seconds, reverse=True):
        loads[loads.index(min(loads))] += one
    return max(loads)


def summary(costs: Sequence[Cost], devices: int, price: float | None = None) -> dict[str, Any]:
    """Return the totals of what is known, and how many runs are not; `price` is that of an hour of a device."""
    known = [cost for cost in costs if cost.seconds is not None]
    each = [seconds for cost in known for seconds in cost.each]
    waiting = {rule: sum(cost.runs - cost.finished for cost in costs if cost.rule == rule) for rule in RULES}
    return {
        "runs": sum(cost.runs for cost in costs),
        "finished": sum(cost.finished for cost in costs),
        "timed": len(each),
        "rough": waiting["variant"] + waiting["data set"],
        "counted": waiting["counted"],
        "unknown": waiting["unknown"],
        "device_hours": sum(each) / 3600,
        "device_hours_low": sum(cost.low or 0 for cost in known) / 3600,
        "device_hours_high": sum(cost.high or 0 for cost in known) / 3600,
        "devices": devices,
        "wall_hours": wall_time(each, devices) / 3600,
        "disk_bytes": sum(cost.disk or 0 for cost in known),
        "cost": None if price is None else price * sum(each) / 3600,
    }


def remaining(runs: Sequence[dict[str, Any]], on_gpu: Container[str], root: Path) -> tuple[str, float, float, int]:
    """Return what runs ask of the device of reference: its name, operations, hours, and how many were not counted.

    Parameters
    ----------
    on_gpu
        The methods that take a GPU, as the plan lists them.
    """
    device, datasets = reference(root), load_datasets(root)
    found = [(run, counted_work(run, datasets[run["dataset"]])) for run in runs]
    known = [(run, work) for run, work in found if work]
    seconds = sum(_as_stated(run, work, device.name, run["method"] in on_gpu, root)[2] for run, work in known)
    return device.name, sum(work.flops for _, work in known), seconds / 3600, len(found) - len(known)


def _as_stated(run: dict[str, Any], work: Work, device: str, on_gpu: bool, root: Path) -> tuple[Device, str, float]:
    """Return the device that a run would have, its precision, and the seconds that follow from the device's rates."""
    said = stated(device if on_gpu else OTHER, root)
    precision = run["params"].get("precision", "float32")
    return said, precision, said.seconds(work, precision)


def select(plan: dict[str, Any], words: Sequence[str]) -> list[dict[str, Any]]:
    """Return the planned runs that a target means: ``all``, a paper, a paper and an artefact, a method, or a run.

    A name that is a paper and a method is the paper; ``method NAME`` is the method. A run is its folder or its id.

    Raises
    ------
    UserError
        If it is none of them.
    """
    runs, name = plan["runs"], name_of(words)
    addresses = sorted({address for run in runs for address in run["needed_by"]})
    methods = sorted({run["method"] for run in runs})
    if name == "all":
        return runs
    if name in addresses:
        return [run for run in runs if name in run["needed_by"]]
    if name in {address.split(" ")[0] for address in addresses}:
        return [run for run in runs if any(address.startswith(f"{name} ") for address in run["needed_by"])]
    if name.removeprefix("method ") in methods:
        return [run for run in runs if run["method"] == name.removeprefix("method ")]
    if one := [run for run in runs if run["id"] == name or run["path"] == "/".join(words).rstrip("/")]:
        return one
    raise no_target(name, addresses, methods)


def as_dict(costs: Sequence[Cost], totals: dict[str, Any], device: str) -> dict[str, Any]:
    """Return everything as plain values, for ``--json``."""
    return {"device": device, "total": totals, "parts": [asdict(cost) for cost in costs]}
