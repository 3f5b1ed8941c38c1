"""Write the generated parts of README.md, between their markers; `--check` only tells whether they are up to date.

python workflow/scripts/readme.py [--check]
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path

import pandas as pd

from dica.audit.auditor import Auditor
from dica.files import UserError, atomic_write_text, project_root, read_json
from dica.plan.planned import artefacts_of, load_plan
from dica.report import rulegraph
from dica.report.evidence import Evidence
from dica.runs.files import RECORD, STAGES, WEIGHTS
from dica.tables.cells import read_cells
from dica.tables.claims import overview, read_ledger

AUDITED = ("dica", "table-1", "imc-swav/digits/acc")
DESCRIBED = ("layer", "clusters", "image_size", "train_images", "test_images", "extra_images")  # of data and networks
SHOWN = 2  # of the audited cell's runs
UNSAID = ("code", "commit", "dvc.lock", "environment", "last writer", WEIGHTS, STAGES)  # they differ between checkouts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 3 if README.md is stale")
    args = parser.parse_args()
    root = project_root()
    frame = read_cells(root / "results/tables/cells.csv")
    parts = {
        "result": result(root, frame),
        "claims": overview(read_ledger(root / "results/claims.csv")),
        "dag": rulegraph.mermaid(rulegraph.arrows(root)),
        "digits": (root / "results/tables/dica/table-1.md").read_text(),
        "cifar10-jpeg": (root / "results/tables/dica/table-14.md").read_text(),
        "rows": rows(frame),
        "provenance": provenance(root),
        "audit": audit(root),
    }
    readme = root / "README.md"
    old = new = readme.read_text(encoding="utf-8")
    for name, text in parts.items():
        pattern = rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)"
        new = re.sub(pattern, lambda found, text=text: f"{found[1]}{text.strip()}\n{found[2]}", new, flags=re.DOTALL)
    if new == old:
        return 0
    if args.check:
        print("error: README.md is stale: run `make readme`", file=sys.stderr)
        return 3
    atomic_write_text(readme, new)
    return 0


def result(root: Path, frame: pd.DataFrame) -> str:
    """Return what was measured in one sentence, and the accuracies on the digits in another one."""
    plan = load_plan(root / "results/plan.json")
    evidence = Evidence(artefacts_of(plan, root), frame, plan, root, "results")
    mine = frame[(frame.paper == "dica") & (frame.artefact == "table-1") & (frame.metric == "acc") & (frame.n > 0)]
    ordered = mine.sort_values("value", ascending=False)
    numbers = ", ".join(f"{row.label} {row.value:.3f}" for row in ordered.itertuples())
    seeds = " to ".join(str(n) for n in sorted({ordered.n.min(), ordered.n.max()}))
    accuracies = f"ACC on {ordered.iloc[0].dataset_label.lower()}, mean of {seeds} seeds: {numbers}."
    return "\n\n".join(textwrap.fill(text, 118, break_long_words=False) for text in (evidence.sentence(), accuracies))


def rows(frame: pd.DataFrame) -> str:
    """Return how many numbers of the papers' tables stand in rows that can be run, and whose the others are."""
    printed = frame[(frame.paper != "dica") & (frame.published != "") & ~frame.metric.isin(DESCRIBED)]
    runs = printed.method != ""
    computed = printed.metric == "p_value"
    left = printed[~runs & ~computed].groupby("label").size().sort_values(ascending=False, kind="stable")
    names = ", ".join(f"{label} {count}" for label, count in left.items())
    return (
        f"The papers' tables have {len(printed):,} numbers beside sizes and layers; {runs.sum():,} of them stand in "
        f"rows that this archive can run, and {(computed & ~runs).sum()} are p values of printed numbers. The others "
        f"are of methods that are not here: {names}."
    )


def provenance(root: Path) -> str:
    """Return one line a data set: how many runs of how many methods, on what devices, how long."""
    groups: dict[str, list[dict]] = {}
    for run in read_json(root / "results/plan.json")["runs"]:
        record = root / run["path"] / RECORD
        if record.is_file():
            groups.setdefault(run["dataset"], []).append({"method": run["method"], **read_json(record)})
    lines = ["| data set | runs | methods | devices | hours |", "|:--|--:|--:|:--|--:|"]
    for dataset, records in sorted(groups.items()):
        devices = ", ".join(sorted({record["device"]["name"] for record in records}))
        hours = sum(record["seconds"] for record in records) / 3600
        methods = len({record["method"] for record in records})
        lines.append(f"| {dataset} | {len(records)} | {methods} | {devices} | {hours:.1f} |")
    return "\n".join(lines)


def audit(root: Path) -> str:
    """Return the command and what it says of the number; what it says of the code changes with every edit."""
    auditor = Auditor(root)
    result = auditor.audit(auditor.find(*AUDITED))
    lines = [f"$ dica audit {' '.join(AUDITED)}"]
    row = result.row
    lines.append(f"{row['metric']} = {float(row['value']):.4f} ± {float(row['spread']):.4f} ({row['n']} runs)")
    for run in result.runs[:SHOWN]:
        lines.append(f"run {run.folder}")
        shown = [finding for finding in run.findings if finding.what not in UNSAID]
        lines += [f"  {'ok   ' if finding.ok else 'WRONG'} {finding.what}: {finding.detail}" for finding in shown]
    lines.append(f"… and {len(result.runs) - SHOWN} runs more")
    lines += [textwrap.shorten(f"rebuild: {result.rebuild}", 118, placeholder=" …"), "…"]
    return "\n".join(["```text", *lines, "```"])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
