"""Score one run from its stored predictions; the only step that opens a label file.

    python workflow/scripts/evaluate.py --config RUN/config.json --predictions RUN/predictions.npz \\
        --labels data/labels/digits.npz --out RUN/metrics.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dica.files import UserError, read_json
from dica.metrics import evaluate_files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="config.json of the run: says what is scored")
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.npz beside it")
    parser.add_argument("--labels", type=Path, required=True, help="labels of the data set (npz)")
    parser.add_argument("--out", type=Path, required=True, help="metrics.json to write")
    args = parser.parse_args()
    try:
        config = read_json(args.config)
        result = evaluate_files(args.predictions, args.labels, args.out, config["params"]["eval_split"])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    scores = ", ".join(f"{name} {result['headline'][name]:.4f}" for name in ("acc", "nmi", "ari"))
    print(f"run {result['id']} on {result['evaluated_on']}: {scores}; wrote {args.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
