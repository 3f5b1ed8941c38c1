"""Audit the papers' printed numbers, and this archive's own, for contradictions.

python workflow/scripts/consistency.py --plan results/plan.json --out results/tables/consistency.csv
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from dica.files import project_root, write_csv
from dica.plan.made import Made
from dica.plan.planned import load_plan, results_of
from dica.scores.consistency import COLUMNS, audit_published
from dica.scripting import run_script


def main() -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="plan.json of the profile")
    parser.add_argument("--out", type=Path, required=True, help="consistency.csv to write")
    args = parser.parse_args()
    root = project_root()
    plan, results = load_plan(args.plan), results_of(args.plan, root)
    rows = audit_published(root, plan, results)
    write_csv(rows, COLUMNS, args.out)
    Made(plan, root, results).record(("consistency",), args.out)
    counts = Counter((row["kind"], row["verdict"]) for row in rows)
    for (kind, verdict), count in counts.items():
        print(f"{count:5d} {kind}: {verdict}", file=sys.stderr)
    return f"wrote {args.out}"


if __name__ == "__main__":
    sys.exit(run_script(main))
