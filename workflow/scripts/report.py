"""Write the report: one self-contained HTML page with every table, figure and run of a plan.

    python workflow/scripts/report.py --plan results/plan.json --cells results/tables/cells.csv \\
        --out results/report/index.html
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dica.files import project_root
from dica.report import write_report
from dica.scripting import run_script
from dica.tables import artefacts_of, load_plan, read_cells, results_of


def main() -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="plan.json of the profile")
    parser.add_argument("--cells", type=Path, required=True, help="cells.csv made from it")
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write")
    parser.add_argument("--root", type=Path, help="project root (default: found from the working directory)")
    args = parser.parse_args()
    root, plan = args.root or project_root(), load_plan(args.plan)
    results = results_of(args.plan, root)
    write_report(artefacts_of(plan, root), read_cells(args.cells), plan, root, results, args.out)
    return f"wrote {args.out}"


if __name__ == "__main__":
    sys.exit(run_script(main))
