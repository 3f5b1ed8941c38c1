"""Write the report: self-contained HTML pages with every table, figure and run of a plan.

    python workflow/scripts/report.py --plan results/plan.json --cells results/tables/cells.csv \\
        --graph results/report/rules.svg --out results/report
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dica.files import project_root
from dica.plan.made import Made
from dica.plan.planned import artefacts_of, load_plan, results_of
from dica.report.pages import write_report
from dica.scripting import run_script
from dica.tables.cells import read_cells


def main() -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="plan.json of the profile")
    parser.add_argument("--cells", type=Path, required=True, help="cells.csv made from it")
    parser.add_argument("--graph", type=Path, required=True, help="graph of the rules, from rulegraph.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pages")
    parser.add_argument("--root", type=Path, help="project root (default: found from the working directory)")
    args = parser.parse_args()
    root, plan = args.root or project_root(), load_plan(args.plan)
    results = results_of(args.plan, root)
    shown, frame = artefacts_of(plan, root), read_cells(args.cells)
    graph = args.graph.read_text(encoding="utf-8")
    written = write_report(shown, frame, plan, root, results, args.out, graph)
    Made(plan, root, results).record(("page",), args.out)
    return f"wrote {len(written)} pages to {args.out}"


if __name__ == "__main__":
    sys.exit(run_script(main))
