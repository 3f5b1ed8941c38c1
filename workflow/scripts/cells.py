"""Collect the scores of a plan's runs: all cells beside the published numbers, or one method's summary.

python workflow/scripts/cells.py --plan results/plan.json --out results/tables/cells.csv
python workflow/scripts/cells.py --plan results/plan.json --method drc --out results/metrics/drc.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dica.files import project_root, write_json
from dica.plan.made import Made
from dica.plan.planned import artefacts_of, load_plan, results_of
from dica.scripting import run_script
from dica.tables.cells import cells, summarise, write_cells
from dica.tables.inputs import NAME, write_inputs


def main() -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="plan.json of the profile")
    parser.add_argument("--method", help="write this method's summary instead of all cells")
    parser.add_argument("--datasets", nargs="+", help="data sets of that summary (default: all)")
    parser.add_argument("--out", type=Path, required=True, help="cells.csv, or the summary as JSON")
    parser.add_argument("--root", type=Path, help="project root (default: found from the working directory)")
    args = parser.parse_args()
    root = args.root or project_root()
    plan, results = load_plan(args.plan), results_of(args.plan, root)
    if args.method:
        write_json(args.out, summarise(args.method, plan, root, results, args.datasets))
        Made(plan, root, results).record(("summary", args.method), args.out)
    else:
        declared = artefacts_of(plan, root)
        frame = cells(plan, root, results, declared)
        write_cells(frame, args.out)
        write_inputs(declared, plan, root, args.out.with_name(NAME))  # what all of it takes from params/
        Made(plan, root, results).record(("cells",), args.out)
        print(frame["verdict"].value_counts().to_string(), file=sys.stderr)
    return f"wrote {args.out}"


if __name__ == "__main__":
    sys.exit(run_script(main))
