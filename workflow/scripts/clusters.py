"""Show what came of the runs on a user's own images: a page, a table and all numbers.

python workflow/scripts/clusters.py --profile params/own/photos/profile.yaml
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dica.files import project_root
from dica.plan.parameters import load_profile
from dica.report.clusters import write_clusters
from dica.report.counts import write_counts
from dica.scripting import run_script


def main() -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", type=Path, required=True, help="a profile that names runs")
    args = parser.parse_args()
    root = project_root()
    profile = load_profile(args.profile, root)
    written = (write_counts if "counts" in profile["runs"] else write_clusters)(profile, root)
    return f"wrote {', '.join(str(path.relative_to(root)) for path in written)}"


if __name__ == "__main__":
    sys.exit(run_script(main))
