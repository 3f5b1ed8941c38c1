"""Draw the graph of the workflow's rules.

python workflow/scripts/rulegraph.py --plan results/plan.json --out results/report/rules.svg
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dica.files import atomic_write_text, project_root
from dica.plan.made import Made
from dica.plan.planned import load_plan, results_of
from dica.report import rulegraph
from dica.scripting import run_script


def main() -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="plan.json of the profile")
    parser.add_argument("--out", type=Path, required=True, help="SVG file to write")
    parser.add_argument("--root", type=Path, help="project root (default: found from the working directory)")
    args = parser.parse_args()
    root = args.root or project_root()
    atomic_write_text(args.out, rulegraph.svg(rulegraph.arrows(root)))
    Made(load_plan(args.plan), root, results_of(args.plan, root)).record(("rulegraph",), args.out)
    return f"wrote {args.out}"


if __name__ == "__main__":
    sys.exit(run_script(main))
