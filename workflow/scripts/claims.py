"""The ledger of claims: what the papers assert, and what a plan's finished runs say of it.

python workflow/scripts/claims.py --plan results/plan.json --out results
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dica.files import project_root
from dica.plan.made import Made
from dica.plan.planned import load_plan, results_of
from dica.scripting import run_script
from dica.tables.claims import ledger, write_ledger


def main() -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="plan.json of the profile")
    parser.add_argument("--out", type=Path, required=True, help="folder for claims.csv and claims.md")
    args = parser.parse_args()
    root = project_root()
    plan, results = load_plan(args.plan), results_of(args.plan, root)
    written = write_ledger(ledger(plan, root, results), args.out)
    Made(plan, root, results).record(("claims",), args.out)
    return f"wrote {', '.join(map(str, written))}"


if __name__ == "__main__":
    sys.exit(run_script(main))
