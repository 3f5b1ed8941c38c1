"""Commands of `dica` about runs: status, compare, estimate, evaluate. `dica.cli.__main__` adds them to the command."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dica.cli import completion
from dica.files import UserError, project_root

# In a file or a pipe nothing is cut: there a table is as wide as it needs to be.
WIDE = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 250
console = Console(highlight=False, soft_wrap=True, width=WIDE)
ARCHIVE = Path("params/archive.yaml")
TOLD = ("interrupted", "collapsed", "scored without labels")  # beginnings of details that `status` prints in any case
TOLD_AS = {  # how an estimate is marked
    "same": "after ",
    "variant": "~ rough: after ",
    "data set": "~ rough: after ",
    "counted": "# counted arithmetic, at ",
}
Profile = Annotated[
    Path,
    typer.Option(help="Profile whose results are meant, such as params/demo.yaml.", autocompletion=completion.profiles),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
SideName = typer.Argument(
    help="Run folder, start of a run id, PAPER/TABLE/ROW/DATASET/METRIC, COMMIT:folder, or another checkout.",
    autocompletion=completion.sides,
)


def status(
    profile: Profile = ARCHIVE,
    changed: Annotated[bool, typer.Option("--stale", help="Say for each run what has changed since.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell which planned runs are done, stale, running, failed or missing.

    Stale: done, but today's code behaves otherwise (its golden trace is another one), or scored by older conventions.
    A run whose code has only another text, with the same golden trace, is done.
    Collapsed runs, with all images in one cluster, are done but named.
    """
    from dica.plan.estimate import remaining
    from dica.plan.parameters import load_profile
    from dica.plan.plan import current_plan
    from dica.plan.status import STATES, states
    from dica.runs.behaviour import BEHAVIOURS, OTHER, UNKNOWN

    root = project_root()
    body = load_profile(root / profile, root)
    plan = current_plan(body, root)
    found = states(plan, root, body["results"])
    if as_json:
        rows = [
            {"path": state.run["path"], "state": state.name, "code": state.code, "detail": state.detail}
            for state in found
        ]
        print(json.dumps(rows, indent=2))
        return
    caption = "stale: done, but today's code behaves otherwise"
    table = Table(caption=caption, caption_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("method", "dataset", *STATES):
        named = heading in ("method", "dataset")
        table.add_column(heading, justify="left" if named else "right", no_wrap=named)
    groups: dict[tuple[str, str], Counter] = {}
    for state in found:
        groups.setdefault((state.run["method"], state.run["dataset"]), Counter())[state.name] += 1
    for key, counts in _with_unbegun_joined(groups):
        table.add_row(*key, *(str(counts[name] or "") for name in STATES))
    total = Counter(state.name for state in found)
    table.add_section()
    table.add_row("all", "", *(str(total[name] or "") for name in STATES), style="bold")
    console.print(table)
    codes = Counter(state.code for state in found if state.code)
    if waiting := [state.run for state in found if state.name not in ("done", "stale")]:
        device, flops, hours, uncounted = remaining(waiting, plan["on_gpu"], root)
        left = f", {uncounted} of them not counted" if uncounted else ""
        console.print(
            f"to do: {len(waiting)} runs{left}, counted {_operations(flops)}, about {hours:,.1f} h of one {device} as"
            " stated (params/devices.yaml); in detail, for any device: dica estimate all"
        )
    if codes:
        console.print(f"code of the {codes.total()} finished runs: {', '.join(f'{codes[c]} {c}' for c in BEHAVIOURS)}")
    told = {"failed": "red", "running": "cyan", **({"stale": "yellow"} if changed else {})}
    for state in found:
        older = changed and state.code in (OTHER, UNKNOWN)
        if older or state.name in told or state.detail.startswith(TOLD):
            colour = told.get(state.name, "yellow")
            console.print(f"[{colour}]{state.name}[/] {escape(state.run['path'])}: {escape(state.detail)}")


def _with_unbegun_joined(groups: dict[tuple[str, str], Counter]) -> list[tuple[tuple[str, str], Counter]]:
    """Return the counts by method and data set; of a method, the data sets with missing runs alone are its last row."""
    rows = []
    for method in sorted({method for method, _ in groups}):
        mine = sorted((key, counts) for key, counts in groups.items() if key[0] == method)
        unbegun = [(key, counts) for key, counts in mine if set(counts) == {"missing"}]
        if len(unbegun) > 1:
            joined = sum((counts for _, counts in unbegun), Counter())
            mine = [row for row in mine if row not in unbegun] + [((method, f"{len(unbegun)} not begun"), joined)]
        rows += mine
    return rows


def compare(
    one: Annotated[str, SideName],
    other: Annotated[str, SideName],
    profile: Profile = ARCHIVE,
    as_json: AsJson = False,
) -> None:
    """Say why two numbers differ: parameters, data, seeds, code, environment, hardware, metrics."""
    from dica.audit.compare import Finder, compare
    from dica.plan.parameters import load_profile

    root = project_root()
    results = load_profile(root / profile, root)["results"]
    result = compare(*Finder(root, results).sides(one, other))
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return
    for letter in ("a", "b"):
        side = result[letter]
        console.print(f"[bold]{letter.upper()}[/] {escape(side['name'])} ({len(side['runs'])} run(s))")
    _print_metrics(result)
    if result["differences"]:
        table = Table(title="What differs", title_justify="left")
        for heading in ("", "key", "A", "B"):
            table.add_column(heading, overflow="fold")
        for section, keys in result["differences"].items():
            table.add_section()
            for index, (key, texts) in enumerate(keys.items()):
                shown = [_digests_cut(text) if section == "code" else text for text in texts]
                table.add_row("" if index else section, *map(escape, (key, *shown)))
        console.print(table)
    for line in result["summary"]:
        console.print(f"- {escape(line)}")


def _digests_cut(text: str) -> str:
    """Return the digests and commits of a list of them as their beginnings."""
    return ", ".join(part[:12] if len(part) >= 40 else part for part in text.split(", "))


def _print_metrics(result: dict) -> None:
    table = Table()
    for heading in ("metric", "A", "B", "B - A", "by seed, 95 %"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for name, row in result["metrics"].items():
        paired = row["paired"]
        by_seed = f"{paired['low']:+.4f} to {paired['high']:+.4f}, {paired['seeds']} seeds" if paired else ""
        table.add_row(name, *(f"{row[key]:.4f}" for key in ("a", "b")), f"{row['difference']:+.4f}", by_seed)
    console.print(table if result["metrics"] else "one side has no metrics.json: no numbers to compare")


def estimate(
    target: Annotated[
        list[str],
        typer.Argument(help="all, PAPER, PAPER TABLE, METHOD, or a run.", autocompletion=completion.targets),
    ],
    gpus: Annotated[int, typer.Option(min=1, help="Devices that work side by side.")] = 1,
    device: Annotated[
        str, typer.Option(help="Device as run.json or params/devices.yaml names it (default: this machine's).")
    ] = "",
    price: Annotated[float | None, typer.Option(min=0, help="Of an hour of a device, to tell the cost.")] = None,
    profile: Profile = ARCHIVE,
    as_json: AsJson = False,
) -> None:
    """Tell what the runs that are still missing would cost.

    Timed after finished ones on the same device; where there are none like them, from their counted arithmetic and the
    rate that was reached there, or that params/devices.yaml states.
    """
    from dica.plan import estimate
    from dica.plan.devices import load_devices
    from dica.plan.parameters import load_profile
    from dica.plan.plan import current_plan
    from dica.plan.targets import require_target

    root = project_root()
    body = load_profile(root / profile, root)
    estimator = estimate.Estimator(root, body["results"])
    require_target(target, body, root)
    name = _device(device, {**estimator.devices, **load_devices(root)["devices"]})
    runs = estimate.select(current_plan(body, root), target)
    costs = estimator.costs(runs, name)
    totals = estimate.summary(costs, gpus, price)
    if as_json:
        print(json.dumps(estimate.as_dict(costs, totals, name), indent=2))
        return
    table = Table(title=f"{' '.join(target)} on {name}", title_justify="left")
    for heading in ("method", "dataset", "runs", "done", "hours", "range", "disk"):
        table.add_column(heading, justify="left" if heading in ("method", "dataset") else "right", overflow="fold")
    for cost in costs:
        table.add_row(cost.method, cost.dataset, str(cost.runs), str(cost.finished or ""), *_hours(cost))
    console.print(table)
    for basis, rule in dict.fromkeys((cost.basis, cost.rule) for cost in costs if cost.seconds):
        console.print(f"  {TOLD_AS[rule]}{escape(basis)}")
    _print_totals(totals, name)


def _hours(cost) -> tuple[str, str, str]:
    if cost.runs == cost.finished:
        return "", "", ""
    if cost.seconds is None:
        return "unknown", "", ""
    if cost.rule == "counted":
        return f"#{cost.seconds / 3600:,.2f}", "counted", ""
    span = f"{cost.low / 3600:,.2f}–{cost.high / 3600:,.2f}"
    return f"{'' if cost.rule == 'same' else '~'}{cost.seconds / 3600:,.2f}", span, _bytes(cost.disk)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _operations(flops: float) -> str:
    return f"{flops / 1e18:,.1f} EFLOP" if flops >= 1e17 else f"{flops / 1e15:,.2f} PFLOP"


def _print_totals(totals: dict, device: str) -> None:
    waiting = totals["runs"] - totals["finished"]
    console.print(f"{totals['runs']} runs, {totals['finished']} finished, {waiting} to do")
    if totals["timed"]:
        span = f"{totals['device_hours_low']:,.2f} to {totals['device_hours_high']:,.2f}"
        cost = "" if totals["cost"] is None else f", cost {totals['cost']:,.2f}"
        console.print(
            f"of these {totals['timed']} ({totals['rough']} roughly, {totals['counted']} counted):"
            f" [bold]{totals['device_hours']:,.2f}[/] hours of device ({span}), {totals['wall_hours']:,.2f} h on"
            f" {totals['devices']} device(s){cost}; of those timed {_bytes(totals['disk_bytes'])} of results, and of"
            " weights where these are kept here"
        )
    if totals["unknown"]:
        console.print(
            f"[yellow]{totals['unknown']} runs are not in these figures:[/] none like them was timed on"
            f" {escape(device)} or counted. To count them: python workflow/scripts/counts.py"
        )


def _device(wanted: str, known: dict[str, Any]) -> str:
    """Return the device to estimate for: the wanted one, which must be among the known, else this machine's."""
    from dica.validation import hint

    if not wanted:
        return this_device()
    if wanted not in known:
        where = "no finished run was timed on it, and params/devices.yaml does not have it"
        raise UserError(f"device {wanted!r}: {where}; {hint(wanted, known)}")
    return wanted


def this_device() -> str:
    """Return the name of this machine's GPU, else of its processor, without importing torch."""
    from dica.runs.record import processor_name

    return next(iter(gpu_names()), None) or processor_name()


def gpu_names() -> list[str]:
    """Return the names of this machine's GPUs, none if they are hidden, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") != ""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")) if visible else []
    lines = [line for path in files for line in path.read_text().splitlines()]
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]


def evaluate(
    file: Annotated[
        Path,
        typer.Argument(
            help="Assignments: npz, npy, csv or txt, in the data set's order, or a csv with a column `file`."
        ),
    ],
    dataset: Annotated[str, typer.Option(help="Data set, such as cifar10.", autocompletion=completion.datasets)],
    split: Annotated[str, typer.Option(help="all, train or test (default: the one of that length).")] = "",
    column: Annotated[str, typer.Option(help="Column of a csv that has the clusters, where several may.")] = "",
    confusion: Annotated[bool, typer.Option("--confusion", help="Print clusters against classes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score anyone's predictions for a data set with the archive's metrics.

    A csv's rows are matched with the images by its column `file`, by name, or by `index`, which has 0 to n-1.
    """
    from dica.data.prepared import class_names
    from dica.scores.outside import score

    root = project_root()
    result = score(file, dataset, root, split, column=column)
    if as_json:
        print(json.dumps(result, indent=2))
        return
    console.print(f"[bold]{escape(str(file))}[/] on {escape(dataset)}, {result['split']}, {result['n']} samples")
    console.print(escape(f"  scored: {result['scored']}; order of the samples: {result['order']}"))
    for name in ("acc", "nmi", "ami", "nmi_geometric", "ari"):
        level = result.get("chance", {}).get(name)
        by_chance = "" if level is None else f"  (random labels of these sizes: {level:.4f})"
        if name in result:
            console.print(f"  {name:<14} {result[name]:.4f}{by_chance}")
    console.print(
        f"  {result['used_clusters']} of {result['num_clusters']} clusters used for {result['num_classes']} classes,"
        f" the largest holds {result['largest_cluster_share']:.1%}"
    )
    if confusion:
        console.print(_confusion(result, class_names(root, dataset, result["num_classes"])))


def _confusion(result: dict, classes: list[str]) -> Table:
    """Return the counts with one row a cluster, in the order of the classes they are mapped to."""
    import numpy as np

    from dica.scores.metrics import Confusion

    table = Table(title="clusters (with the class each is mapped to) against classes", title_justify="left")
    for heading in ("cluster", "class", *classes):
        table.add_column(heading, justify="right")
    for cluster in Confusion(np.array(result["confusion"]), np.array(result["map"])).order:
        mapped, counts = result["map"][cluster], result["confusion"][cluster]
        cells = [f"[bold]{count}[/]" if index == mapped else str(count or "") for index, count in enumerate(counts)]
        table.add_row(str(cluster), escape(classes[mapped]) if mapped >= 0 else "–", *cells)
    return table
