"""Lay out tables as in the paper: Markdown, LaTeX, HTML and CSV.

python workflow/scripts/tables.py --plan results/plan.json --out results/tables [--artefact drc table-1]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dica.files import project_root
from dica.plan.made import Made
from dica.plan.planned import artefacts_of, has_something, load_plan, results_of
from dica.scripting import run_script
from dica.tables.cells import cells
from dica.tables.rendering import write_tables


def main() -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="plan.json of the profile")
    parser.add_argument("--artefact", nargs=2, metavar=("PAPER", "NAME"), help="one table (default: all)")
    parser.add_argument("--out", type=Path, required=True, help="folder; gets <paper>/<table>.{md,tex,html,csv}")
    parser.add_argument("--root", type=Path, help="project root (default: found from the working directory)")
    args = parser.parse_args()
    root, plan = args.root or project_root(), load_plan(args.plan)
    artefacts, results = artefacts_of(plan, root, args.artefact), results_of(args.plan, root)
    frame = cells(plan, root, results, artefacts)
    written = write_tables(artefacts, frame, plan, args.out)
    made = Made(plan, root, results)
    for artefact in artefacts:
        if artefact.kind == "table" and has_something(artefact, plan, root):
            made.record((artefact.kind, artefact.paper, artefact.name), args.out)
    return f"wrote {len(written)} files under {args.out}"


if __name__ == "__main__":
    sys.exit(run_script(main))
