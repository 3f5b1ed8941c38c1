"""Intervals, paired tests and stability of a plan's finished runs.

python workflow/scripts/inference.py --plan results/plan.json --out results/tables/statistics
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dica.files import project_root
from dica.plan.made import Made
from dica.plan.planned import load_plan, results_of
from dica.scores.significance import write_statistics
from dica.scripting import run_script


def main() -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="plan.json of the profile")
    parser.add_argument("--out", type=Path, required=True, help="folder for the three tables")
    args = parser.parse_args()
    root = project_root()
    plan, results = load_plan(args.plan), results_of(args.plan, root)
    written = write_statistics(plan, root, results, args.out)
    Made(plan, root, results).record(("statistics",), args.out)
    return f"wrote {', '.join(map(str, written))}"


if __name__ == "__main__":
    sys.exit(run_script(main))
