"""Write the tables of docs/{reliability,validators,performance,numbers}.md from what the measurements left.

python workflow/scripts/quoted.py [--check]
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from pathlib import Path

from dica.files import atomic_write_text, project_root

BENCHMARKS = ("commands", "steps", "cpu_path", "shares", "plan", "evaluation", "gpu")
NUMBERS = ("levels", "digits", "restarts", "heads", "chosen", "jpeg", "subsets", "neighbours", "copies")
PAGES = {
    "docs/numbers.md": {name: f"docs/numbers/{name}.csv" for name in NUMBERS},
    "docs/reliability.md": {"faults": "docs/reliability.csv", "tampering": "docs/tampering.csv"},
    "docs/validators.md": {"validators": "docs/validators.csv"},
    "docs/performance.md": {name: f"benchmarks/results/{name}.csv" for name in BENCHMARKS},
}
MACHINE = ("device", "cpu", "cores", "threads", "torch", "date", "load")


def table(path: Path) -> str:
    """Return a csv file as a Markdown table, and below it once where it was measured."""
    if not path.is_file():
        return "Not measured yet."
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    shown = [name for name in rows[0] if name not in MACHINE]
    # Measured in several turns, on several machines.
    shown += [name for name in MACHINE if name != "load" and len({row.get(name) for row in rows}) > 1]
    numbers = [all(re.match(r"[-+]?\d|$", row[name]) for row in rows) for name in shown]
    lines = [f"| {' | '.join(shown)} |", "|" + "".join("--:|" if right else ":--|" for right in numbers)]
    lines += [f"| {' | '.join(row[name] for name in shown)} |" for row in rows]
    once = [name for name in MACHINE if rows[0].get(name) and name not in shown]
    where = ", ".join(f"{'highest ' * (name == 'load')}{name}: {max(row[name] for row in rows)}" for name in once)
    return "\n".join([*lines, "", f"Measured on {where}."] if where else lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 3 if a page is stale")
    args = parser.parse_args()
    root = project_root()
    stale = False
    for page, parts in PAGES.items():
        old = new = (root / page).read_text(encoding="utf-8")
        for name, source in parts.items():
            text = table(root / source)
            pattern = rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)"
            new = re.sub(pattern, lambda found, text=text: f"{found[1]}{text}\n{found[2]}", new, flags=re.DOTALL)
        if new != old:
            stale = True
            print(
                f"{page} is stale: python workflow/scripts/quoted.py" if args.check else f"wrote {page}",
                file=sys.stderr,
            )
            if not args.check:
                atomic_write_text(root / page, new)
    return 3 if stale and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
