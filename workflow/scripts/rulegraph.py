"""Draw the graph of the workflow's rules: python workflow/scripts/rulegraph.py --out results/report/rules.svg"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dica.files import atomic_write_text, project_root
from dica.report import rulegraph
from dica.scripting import run_script


def main() -> str:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="SVG file to write")
    parser.add_argument("--root", type=Path, help="project root (default: found from the working directory)")
    args = parser.parse_args()
    atomic_write_text(args.out, rulegraph.svg(rulegraph.arrows(args.root or project_root())))
    return f"wrote {args.out}"


if __name__ == "__main__":
    sys.exit(run_script(main))
