"""Use a trained run: ``python -m dica.own.apply predict|export --run RUN --models WEIGHTS …``.

- `predict` sorts images that the run has never seen into its clusters, by its weights alone
- `export` writes the network with what it needs of preprocessing: .safetensors (weights, for this package), .pt2 (torch
  alone loads it) or .onnx (onnxruntime alone)

To import torch takes longer than all else: `network`, which does, is imported when everything else has been checked.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dica.data import features
from dica.data.catalog import data_id, is_identified
from dica.data.folder import contents
from dica.data.images import Encoded, Recipe, decode_all
from dica.data.own import list_images
from dica.data.paths import labels_record
from dica.data.splits import DataInfo
from dica.files import UserError, atomic_write_text, project_root, read_json, write_json
from dica.plan.parameters import check_loadable, load_datasets
from dica.runs.files import CONFIG, RECORD, WEIGHTS
from dica.scores.assignments import assignments_csv, second_choice
from dica.scripting import run_script

if TYPE_CHECKING:
    from dica.methods.base import Method

FORMATS = (".safetensors", ".pt2", ".onnx")
ADVICE = "mend or remove them, or give `--skip-unreadable` to leave them out"


class Applied:
    """A finished run, ready to be asked about new images."""

    def __init__(self, folder: Path, models: Path, root: Path) -> None:
        self.folder, self.models, self.root = folder, models, root
        self.remarks: list[str] = []  # what was passed over or left out of the new images, in words
        self.config = read_json(folder / CONFIG)

    @cached_property
    def entry(self) -> dict[str, Any]:
        """Entry of the data set that the run was trained on."""
        name, known = self.config["dataset"], load_datasets(self.root)
        if name not in known:
            raise UserError(f"{self.folder}: its data set {name!r} is declared no more; how to read images is unknown")
        return known[name]

    @cached_property
    def info(self) -> DataInfo:
        """Facts about the images of that data set; Git keeps them, so the images need not be here."""
        path = self.root / labels_record(self.config["dataset"])
        if not path.is_file():
            raise UserError(f"{path}: no such file; prepare {self.config['dataset']} first")
        known = read_json(path)
        self._require_same_data(known["fingerprint"])
        shapes = {split: record["shape"] for split, record in known["splits"].items()}
        _, side, _, channels = next(iter(shapes.values()))
        return DataInfo(channels, side, {split: shape[0] for split, shape in shapes.items()})

    def _require_same_data(self, fingerprint: str) -> None:
        """Refuse a run on images that have since been replaced: their size and preparation are known no more."""
        name, trained = self.config["dataset"], self.config["data_id"]
        if trained not in (fingerprint, data_id(self.entry) if is_identified(self.entry) else fingerprint):
            raise UserError(
                f"{self.folder}: was trained on images {trained[:12]}, {name} has {fingerprint[:12]} now, so how to "
                f"prepare new images for it is unknown; train on the images of now (`dica cluster`, or the workflow) "
                "and give that run, or prepare those of then again"
            )

    def require_weights(self) -> None:
        """Refuse a run that cannot be loaded from its weights, or has none here."""
        check_loadable(self.config["method"], self.config["params"], str(self.folder), self.root)
        for file in (self.folder / RECORD, self.models / WEIGHTS):
            if not file.is_file():
                raise UserError(f"{file}: no such file; the run is needed with its weights: train it first")

    @cached_property
    def method(self) -> Method:
        """The trained method."""
        from dica.own import network

        self.require_weights()
        return network.load(self.folder, self.models, self.config["id"], self.info)

    @property
    def recipe(self) -> Recipe:
        """How an image file becomes an array; a size in any case, since new images may have another one."""
        prepare = self.entry["prepare"]
        return Recipe(self.info.image_size, prepare.get("mode", "crop"), upright=True)

    def read(self, source: Path, skip: bool = False, follow: bool = False) -> tuple[list[str], np.ndarray]:
        """Return names and images (n, H, W, C) of a folder, an archive or one file; of a run on features, its rows.

        Parameters
        ----------
        skip
            Whether damaged images are left out.
        follow
            Whether linked folders are read.
        """
        if self.of_features:
            return self._read_features(source)
        form, names, passed_over = list_images(source, follow)
        if passed_over:
            self.remarks.append(passed_over)
        place = source if form != "file" else source.parent
        files = contents(place, "folder" if form == "file" else form, names)
        row = {name: k for k, name in enumerate(names)}
        items: Iterator[Encoded] = (Encoded("new", row[name], name, data, why) for name, data, why in files)
        size, left_out = self.info.image_size, dict[str, str]()
        images: np.ndarray = np.zeros((len(names), size, size, 3), np.uint8)
        bad = left_out if skip else None
        for _, rows, pixels in decode_all(items, self.recipe, size, str(source), ADVICE, bad):
            images[rows] = pixels
        if left_out:
            names, images = self._without(names, images, left_out, source)
        return names, images if self.info.channels == 3 else _grey(images)

    def _without(
        self, names: list[str], images: np.ndarray, left_out: dict[str, str], source: Path
    ) -> tuple[list[str], np.ndarray]:
        """Return what is left without damaged images, and remember to name them."""
        kept = [row for row, name in enumerate(names) if name not in left_out]
        if not kept:
            raise UserError(f"{source}: no image can be read, {names[0]!r} the first ({left_out[names[0]]})")
        self.remarks.append(f"{len(left_out)} images that cannot be read are left out: {', '.join(sorted(left_out))}")
        return [names[row] for row in kept], images[kept]

    @property
    def of_features(self) -> bool:
        """Whether the run clusters rows of features."""
        return self.entry["kind"] == "features"

    def _read_features(self, source: Path) -> tuple[list[str], np.ndarray]:
        rows = features.open_rows(source)
        if rows.shape[1] != self.info.channels:
            raise UserError(f"{source}: has {rows.shape[1]} numbers a row, the run's data set {self.info.channels}")
        return features.row_names(source, len(rows)), features.checked(rows, source)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return cluster probabilities (n, K) of prepared images (n, H, W, C)."""
        from dica.own import network

        return network.probabilities(self.method, images)


def _grey(images: np.ndarray) -> np.ndarray:
    """Return luma by the weights of ITU-R 601, as Pillow rounds it; grey images keep their values."""
    weighted = images.astype(np.int64) @ np.array([19595, 38470, 7471])
    return ((weighted + 0x8000) >> 16).astype(np.uint8)[..., None]


def predict(run: Applied, source: Path, out: Path, skip: bool = False, follow: bool = False) -> int:
    """Write assignments.csv of new images and return their number; see `Applied.read`."""
    _require_place(out)
    run.require_weights()
    names, images = run.read(source, skip, follow)
    probability = run.probabilities(images)
    if not np.isfinite(probability).all():
        raise UserError(f"{run.folder}: its network gives what is no number for images of {source}")
    first = probability.argmax(axis=1)
    second, unknown = second_choice(probability, first), np.full(len(names), np.nan)
    atomic_write_text(out, assignments_csv(names, first, probability.max(axis=1), *second, unknown))
    return len(names)


def _require_place(out: Path) -> None:
    """Refuse what cannot become a file."""
    if out.is_dir():
        raise UserError(f"{out}: is a folder; name the file to write")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{out}: nothing can be written in {above}")


def export(run: Applied, out: Path) -> None:
    """Write a run's network, and beside it in `<name>.json` how to prepare images for it."""
    if out.suffix not in FORMATS:
        raise UserError(f"{out}: of unknown kind; allowed: {', '.join(FORMATS)}")
    lacking = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if out.suffix == ".onnx" and lacking:
        raise UserError(f"{out}: ONNX needs {' and '.join(lacking)}: pip install 'dica[onnx]', or export to .pt2")
    _require_place(out)
    if run.of_features:
        raise UserError(f"{run.folder}: clusters features that were given; there is no network to write")
    run.require_weights()
    facts = preprocessing(run)
    from dica.own import network

    method = run.method
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".safetensors":
        network.write_weights(method, out, {"config": json.dumps(run.config), "preprocessing": json.dumps(facts)})
    else:
        network.write_graph(method, run.config["method"], run.info, out)
    write_json(out.with_suffix(".json"), facts)


def preprocessing(run: Applied) -> dict[str, Any]:
    """Return in words and numbers what is done to an image file before and inside the network."""
    side, channels = run.info.image_size, run.info.channels
    how = f"both sides to {side}" if run.recipe.mode == "stretch" else f"shorter side to {side}, then the centre square"
    return {
        "run": run.config["id"],
        "method": run.config["method"],
        "clusters": int(run.config["params"]["num_clusters"]),
        "before": [
            "turn as EXIF says",
            "to RGB (grey becomes three equal channels, alpha is dropped, 16-bit grey keeps its upper byte)",
            f"resize {how} (Pillow, bilinear)",
            *(["to grey: luma of ITU-R 601"] if channels == 1 else []),
        ],
        "input": {"name": "images", "type": "uint8", "shape": ["n", channels, side, side]},
        "inside": {"divided_by": 255, "normalisation": run.config["params"].get("normalisation")},
        "output": {"name": "probabilities", "type": "float32", "shape": ["n", run.config["params"]["num_clusters"]]},
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m dica.own.apply", description="Use a trained run.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in (("predict", "sort new images into its clusters"), ("export", "write its network")):
        sub = commands.add_parser(command, help=text, description=text)
        sub.add_argument("--run", type=Path, required=True, help="folder of the run's records")
        sub.add_argument("--models", type=Path, required=True, help="folder of its weights")
        sub.add_argument("--out", type=Path, required=True, help="file to write")
        if command == "predict":
            sub.add_argument("--images", type=Path, required=True, help="folder, archive or file")
            sub.add_argument("--skip-unreadable", action="store_true", help="leave damaged images out and name them")
            sub.add_argument("--follow-links", action="store_true", help="read linked folders too")
    given = parser.parse_args(arguments)

    def work() -> None:
        run = Applied(given.run, given.models, project_root())
        if given.command == "predict":
            count = predict(run, given.images, given.out, given.skip_unreadable, given.follow_links)
            print(*(" ".join(remark.split()) for remark in run.remarks), count, sep="\n")
        else:
            export(run, given.out)

    return run_script(work)


if __name__ == "__main__":
    sys.exit(main())
