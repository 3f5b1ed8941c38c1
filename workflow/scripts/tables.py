"""Lay out tables from cells.csv, as in the paper: Markdown, LaTeX, HTML and CSV.

    python workflow/scripts/tables.py --plan results/plan.json --cells results/tables/cells.csv \\
        --out results/tables [--artefact drc table-1]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dica.files import project_root
from dica.layout import write_tables
from dica.scripting import run_script
from dica.tables import artefacts_of, load_plan, read_cells


def main() -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="plan.json of the profile")
    parser.add_argument("--cells", type=Path, required=True, help="cells.csv made from it")
    parser.add_argument("--artefact", nargs=2, metavar=("PAPER", "NAME"), help="one table (default: all)")
    parser.add_argument("--out", type=Path, required=True, help="folder; gets <paper>/<table>.{md,tex,html,csv}")
    parser.add_argument("--root", type=Path, help="project root (default: found from the working directory)")
    args = parser.parse_args()
    root, plan = args.root or project_root(), load_plan(args.plan)
    written = write_tables(artefacts_of(plan, root, args.artefact), read_cells(args.cells), plan, args.out)
    return f"wrote {len(written)} files under {args.out}"


if __name__ == "__main__":
    sys.exit(run_script(main))
