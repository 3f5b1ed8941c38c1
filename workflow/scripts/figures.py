"""Draw the declared figures from the histories and metrics of a plan's runs: SVG and PNG.

python workflow/scripts/figures.py --plan results/plan.json --out results/figures [--artefact dica figure-1]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dica.figures import write_figures
from dica.files import project_root
from dica.plan.made import Made
from dica.plan.planned import artefacts_of, has_something, load_plan, results_of
from dica.scripting import run_script


def main() -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="plan.json of the profile")
    parser.add_argument("--artefact", nargs=2, metavar=("PAPER", "NAME"), help="one figure (default: all)")
    parser.add_argument("--out", type=Path, required=True, help="folder; gets <paper>/<figure>.{svg,png}")
    parser.add_argument("--root", type=Path, help="project root (default: found from the working directory)")
    args = parser.parse_args()
    root, plan = args.root or project_root(), load_plan(args.plan)
    chosen, results = artefacts_of(plan, root, args.artefact), results_of(args.plan, root)
    written = write_figures(chosen, plan, root, results, args.out)
    made = Made(plan, root, results)
    for artefact in chosen:
        if artefact.kind == "figure" and has_something(artefact, plan, root):
            made.record((artefact.kind, artefact.paper, artefact.name), args.out)
    return f"wrote {len(written)} files under {args.out}"


if __name__ == "__main__":
    sys.exit(run_script(main))
