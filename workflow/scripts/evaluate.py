"""Score one run from its stored predictions; the only step that opens the labels of a test split.

    python workflow/scripts/evaluate.py --config RUN/config.json --predictions RUN/predictions.npz \\
        --labels data/labels/digits.npz --out RUN/metrics.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dica.files import read_json
from dica.runs.record import collapse_note
from dica.scores.evaluation import evaluate_files
from dica.scripting import run_script


def main() -> str:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="config.json of the run: says what is scored")
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.npz beside it")
    parser.add_argument("--labels", type=Path, required=True, help="labels of the data set (npz)")
    parser.add_argument("--out", type=Path, required=True, help="metrics.json to write")
    args = parser.parse_args()
    params = read_json(args.config)["params"]
    supervised = params.get("supervised", False)
    result = evaluate_files(args.predictions, args.labels, args.out, params["eval_split"], supervised)
    labelled = result["headline"]["num_classes"] > 0
    shown = ("acc", "nmi", "ari") if labelled else ("cluster_entropy", "mean_confidence")
    scores = ", ".join(f"{name} {result['headline'][name]:.4f}" for name in shown)
    if note := collapse_note(result["headline"]):
        print(f"warning: run {result['id']} {note}", file=sys.stderr)
    return f"run {result['id']} on {result['evaluated_on']}: {scores}; wrote {args.out}"


if __name__ == "__main__":
    sys.exit(run_script(main))
