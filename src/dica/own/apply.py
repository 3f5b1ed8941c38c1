"""Use a trained run: ``python -m dica.own.apply predict|export --run RUN --models WEIGHTS …``.

- `predict` sorts images that the run has never seen into its clusters, by its weights alone
- `export` writes the network with what it needs of preprocessing: .safetensors (weights, for this package), .pt2 (torch
  alone loads it) or .onnx (onnxruntime alone)
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dica.data import features
from dica.data.catalog import data_id, is_identified
from dica.data.folder import contents
from dica.data.images import Encoded, Recipe, decode_all
from dica.data.own import list_images
from dica.data.paths import labels_record
from dica.data.splits import DataInfo
from dica.engine.load import RunFolders, load_trained
from dica.files import UserError, atomic_write_text, project_root, read_json, write_json
from dica.methods.base import Method
from dica.plan.parameters import check_loadable, load_datasets
from dica.runs.files import CONFIG
from dica.scores.assignments import assignments_csv, second_choice
from dica.scripting import run_script

BATCH = 1000  # as a run predicts its own images: equal batches give equal bits
FORMATS = (".safetensors", ".pt2", ".onnx")
ADVICE = "mend or remove them, or give `--skip-unreadable` to leave them out"
EXAMPLES = 2  # images that a network is traced with; their number stays open


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

    @cached_property
    def method(self) -> Method:
        """The trained method."""
        check_loadable(self.config["method"], self.config["params"], str(self.folder), self.root)
        folders = RunFolders(self.folder, self.models)
        return load_trained(folders, self.config["id"], self.info, torch.device("cpu"))[0]

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

    @torch.no_grad()
    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return cluster probabilities (n, K) of prepared images (n, H, W, C)."""
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        return torch.cat([self.method.predict(part).float() for part in pixels.split(BATCH)]).numpy()


def _grey(images: np.ndarray) -> np.ndarray:
    """Return luma by the weights of ITU-R 601, as Pillow rounds it; grey images keep their values."""
    weighted = images.astype(np.int64) @ np.array([19595, 38470, 7471])
    return ((weighted + 0x8000) >> 16).astype(np.uint8)[..., None]


def predict(run: Applied, source: Path, out: Path, skip: bool = False, follow: bool = False) -> int:
    """Write assignments.csv of new images and return their number; see `Applied.read`."""
    names, images = run.read(source, skip, follow)
    probability = run.probabilities(images)
    if not np.isfinite(probability).all():
        raise UserError(f"{run.folder}: its network gives what is no number for images of {source}")
    first = torch.from_numpy(probability).max(dim=1)
    second = second_choice(probability, first.indices.numpy())
    unknown = np.full(len(names), np.nan)
    atomic_write_text(out, assignments_csv(names, first.indices.numpy(), first.values.numpy(), *second, unknown))
    return len(names)


class Network(nn.Module):
    """Prepared images to cluster probabilities, as one graph: normalisation and test view are inside."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities (n, K) of uint8 images (n, C, H, W)."""
        return self.method.predict(images)


def export(run: Applied, out: Path) -> None:
    """Write a run's network, and beside it in `<name>.json` how to prepare images for it."""
    if out.suffix not in FORMATS:
        raise UserError(f"{out}: of unknown kind; allowed: {', '.join(FORMATS)}")
    if run.of_features:
        raise UserError(f"{run.folder}: clusters features that were given; there is no network to write")
    out.parent.mkdir(parents=True, exist_ok=True)
    facts = preprocessing(run)
    if out.suffix == ".safetensors":
        metadata = {"config": json.dumps(run.config), "preprocessing": json.dumps(facts)}
        save_file({name: value.contiguous().clone() for name, value in run.method.state_dict().items()}, out, metadata)
    else:
        _export_graph(run, out)
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


def _export_graph(run: Applied, out: Path) -> None:
    """Write the network as .pt2 or .onnx.

    Raises
    ------
    UserError
        If packages for ONNX are missing, or the method does what no graph can hold.
    """
    lacking = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if out.suffix == ".onnx" and lacking:
        raise UserError(f"{out}: ONNX needs {' and '.join(lacking)}: pip install 'dica[onnx]', or export to .pt2")
    info = run.info
    example = torch.zeros(EXAMPLES, info.channels, info.image_size, info.image_size, dtype=torch.uint8)
    shapes = {"images": {0: torch.export.Dim("n", min=1)}}
    network = Network(run.method).eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            if out.suffix == ".pt2":
                torch.export.save(torch.export.export(network, (example,), dynamic_shapes=shapes), out)
            else:
                names = {"input_names": ["images"], "output_names": ["probabilities"]}
                options = {"dynamo": True, "external_data": False, "verbose": False}
                torch.onnx.export(network, (example,), str(out), dynamic_shapes=shapes, **names, **options)
    except Exception as error:  # torch has many errors for what it cannot trace
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{out}: {run.config['method']} cannot be written as one graph ({reason})") from None


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
    torch.set_num_threads(1)

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
