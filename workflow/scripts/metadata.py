"""Write codemeta.json, .zenodo.json and docs/croissant/; `--check` only tells whether they are up to date.

python workflow/scripts/metadata.py [--check]
"""

from __future__ import annotations

import argparse
import sys

from dica.audit.metadata import CROISSANT, described
from dica.files import atomic_write_text, project_root


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 3 if a file is stale")
    args = parser.parse_args()
    root = project_root()
    files = described(root)
    old = {path.relative_to(root) for path in (root / CROISSANT).glob("*.json")} - files.keys()
    stale = [path for path, text in files.items() if not (root / path).is_file() or (root / path).read_text() != text]
    if args.check:
        for path in sorted([*stale, *old]):
            print(f"{path} is stale: python workflow/scripts/metadata.py", file=sys.stderr)
        return 3 if stale or old else 0
    for path in old:
        (root / path).unlink()
    for path in stale:
        atomic_write_text(root / path, files[path])
        print(f"wrote {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
