"""What figures need beyond a run's own files: ``python -m dica.analyse KIND --run … --models … --data … --out …``.

Each kind is a function from a trained run to a few small arrays, which Git owns (results/analyses/<kind>/…):

- `embedding`: t-SNE of the outputs of a trained model on up to 6,000 images
- `stages`: t-SNE, BCubed curves and variances of the watched images in the middle of training, too (stages.npz)
- `cases`: most confident successes, false negatives and false positives of some classes, as pictures
- `neighbours`: right and wrong images with their nearest neighbours in feature space, as pictures
- `gradcam`: what spoke for the predicted cluster, as maps over pictures
- `jsd`: divergence of prototype distributions between two views (IMC-SwAV)
- `outlook`: what is to be said of clusters without labels: second choices, silhouettes, a map (`dica cluster`)
- `counts`: K-means on the features for every number of clusters up to the run's own, to compare seeds by
- `heads`: what each of several cluster heads would have predicted, with the loss that the choice among them goes by
- `labelled`: the images that a semi-supervised run was given labels of, as pictures

True labels choose and colour pictures; no model sees them.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_samples
from torch import Tensor

from dica.data.splits import splits_of
from dica.data.whole import centre_square
from dica.engine.heat_maps import heat_maps
from dica.engine.images import ResidentImages
from dica.engine.load import RunFolders, load_trained
from dica.files import IntegrityError, UserError, load_arrays, read_json, sha256_file, write_npz
from dica.losses.imc_swav import jensen_shannon
from dica.methods.base import Method
from dica.methods.imc_swav import IMCSwAV
from dica.methods.kmeans import fit_kmeans
from dica.plan.parameters import check_loadable
from dica.rng import derive_seed, generator
from dica.runs.files import CONFIG, PREDICTIONS, RECORD, STAGES
from dica.runs.record import CHECKOUT
from dica.scores import evaluation, metrics
from dica.scores.assignments import second_choice
from dica.scripting import run_script

IMAGES = 6000  # of an embedding, as in DRC's Figures 4 and 6
GALLERY = 20_000  # among so many images neighbours are looked for
BATCH = 100  # images in a forward pass: of CRLC's ResNet-34 at 96 pixels 12 MB each
THRESHOLDS = np.unique(np.concatenate([np.linspace(0.0, 0.9, 10), np.linspace(0.9, 1.0, 11)]).round(3))
CASE_CLASSES, EACH = 5, 6
QUERIES, NEIGHBOURS = 3, 5  # right and as many wrong ones; each with its nearest
MAPS = 5  # right and as many wrong ones
SIDE, MANY, SMALL_SIDE = 64, 100, 32  # of thumbnails, in pixels; smaller where there are many
LOGITS = {"drc": "heads.main", "pica": "heads.main"}  # modules whose output is a paper's "assignment feature"
JSD_IMAGES = 32
MAPPED = 1500  # images on the map of an outlook
COMPARED = 3000  # images that silhouettes and numbers of clusters are computed on: their cost goes with the square
RESTARTS = 5  # of K-means for one number of clusters


@dataclass
class Trained:
    """A finished run with all that an analysis may ask for; what is not asked for is not loaded."""

    folder: Path
    models: Path
    data: Path
    labels_file: Path

    @cached_property
    def config(self) -> dict:
        return read_json(self.folder / CONFIG)

    @cached_property
    def images(self) -> ResidentImages:
        images = ResidentImages(self.data, torch.device("cpu"))
        if self.config["data_id"] not in (images.manifest["fingerprint"], images.manifest["data_id"]):
            raise IntegrityError(f"{self.data}: not the images that run {self.config['id']} was trained on")
        return images

    @cached_property
    def method(self) -> Method:
        check_loadable(self.config["method"], self.config["params"], str(self.folder), CHECKOUT)
        folders = RunFolders(self.folder, self.models)
        return load_trained(folders, self.config["id"], self.images.info, self.images.device)[0]

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits that the run is scored on."""
        return splits_of(self.config["params"]["eval_split"], self.images.info)

    @cached_property
    def labels(self) -> np.ndarray:
        """True classes of the scored images, splits end to end."""
        found = load_arrays(self.labels_file)
        return np.concatenate([found[split] for split in self.splits]).astype(np.int64)

    @cached_property
    def stored(self) -> tuple[np.ndarray, np.ndarray]:
        """Assignment and confidence of the scored images, as predictions.npz has them."""
        found = load_arrays(self.folder / PREDICTIONS)
        return tuple(
            np.concatenate([found[f"{split}_{what}"] for split in self.splits]) for what in ("assignment", "confidence")
        )

    @cached_property
    def predicted(self) -> np.ndarray:
        """The class that each scored image's cluster stands for, or -1."""
        params = self.config["params"]
        scored = evaluation.scored_partition(
            load_arrays(self.folder / PREDICTIONS),
            load_arrays(self.labels_file),
            params["eval_split"],
        )
        supervised = params.get("supervised", False)
        found = metrics.confusion(*scored, num_clusters=int(params["num_clusters"]), supervised=supervised)
        return found.mapping[self.stored[0].astype(np.int64)]

    def take(self, rows: np.ndarray) -> Tensor:
        """Return scored images (n, C, H, W) uint8 by their position."""
        return self.images.take(self.splits, torch.from_numpy(rows).to(self.images.device, torch.int64))

    def ask(self, question: Callable[[Tensor], Tensor], rows: np.ndarray) -> np.ndarray:
        """Return what the model answers for some scored images, (n, d) float32."""
        with torch.no_grad():
            parts = [question(self.take(part)).float().cpu() for part in np.split(rows, range(BATCH, len(rows), BATCH))]
        return _finite(torch.cat(parts).numpy(), self.folder)


def embedding(run: Trained) -> dict[str, np.ndarray]:
    """t-SNE of assignment probabilities and of every layer that the method gives: `xy_<layer>` (n, 2) float16."""
    rows = _subset(len(run.labels), IMAGES)
    outputs = {"probability": run.ask(run.method.predict, rows)}
    for layer in run.method.layers:
        outputs[layer] = run.ask(partial(run.method.features, layer=layer), rows)
    if name := LOGITS.get(run.config["method"]):
        outputs["assignment"] = run.ask(lambda images: _output_of(run.method, name, images), rows)
    arrays = {f"xy_{layer}": _tsne(values) for layer, values in outputs.items()}
    return {**arrays, "label": run.labels[rows].astype(np.int16)}


def _finite(values: np.ndarray, source: Path) -> np.ndarray:
    """Return the values, or say whose are no numbers: no analysis has an answer for them."""
    if not np.isfinite(values).all():
        raise UserError(f"{source}: {(~np.isfinite(values)).sum()} values are NaN or infinite: the training diverged")
    return values


def _subset(total: int, count: int) -> np.ndarray:
    """Return ascending positions of at most `count` images, drawn evenly; the same ones every time."""
    return np.sort(np.random.default_rng(0).permutation(total)[:count])


def _output_of(method: Method, name: str, images: Tensor) -> Tensor:
    """Return what the module `name` gives while `images` are predicted."""
    seen = []
    handle = method.get_submodule(name).register_forward_hook(lambda module, given, output: seen.append(output))
    try:
        method.predict(images)
    finally:
        handle.remove()
    return seen[-1]


def _tsne(values: np.ndarray) -> np.ndarray:
    """Return (n, 2) float16: the first 50 principal components, then t-SNE of perplexity 30, with a fixed seed."""
    values = values.astype(np.float64)
    components = min(50, len(values))
    if values.shape[1] > components:
        values = PCA(components, random_state=0, svd_solver="full").fit_transform(values)
    if np.ptp(values, axis=0).max() == 0:  # a network that says the same of every image
        return np.zeros((len(values), 2), dtype=np.float16)
    perplexity = min(30.0, (len(values) - 1) / 4)
    return TSNE(2, init="pca", perplexity=perplexity, random_state=0).fit_transform(values).astype(np.float16)


def stages(run: Trained) -> dict[str, np.ndarray]:
    """What becomes of watched images: `epoch` (T,), `xy` (T, n, 2), BCubed curves (T, thresholds), variances (T,)."""
    path = run.models / STAGES
    expected = read_json(run.folder / RECORD)["files"].get(STAGES)
    if expected is None:
        raise UserError(f"{run.folder / RECORD}: the run was not watched, it has no stages.npz")
    if not path.is_file() or sha256_file(path) != expected:
        raise IntegrityError(f"{path}: missing or changed; it must be the file that {run.folder / RECORD} names")
    found = load_arrays(path)
    true = load_arrays(run.labels_file)
    splits = [split for split in run.splits if f"{split}_index" in found]
    label = np.concatenate([true[split][found[f"{split}_index"]] for split in splits]).astype(np.int64)
    probability, features = (
        np.concatenate([found[f"{split}_{what}"] for split in splits], axis=1).astype(np.float64)
        for what in ("probability", "features")
    )
    curves = np.array([_bcubed_curve(values, label) for values in probability])
    variances = [metrics.variance(values, label) for values in probability]
    return {
        "epoch": found["epoch"],
        "label": label.astype(np.int16),
        "xy": np.stack([_tsne(values) for values in _finite(features, path)]),
        "threshold": THRESHOLDS,
        "precision": curves[:, 0],
        "recall": curves[:, 1],
        **{name: np.array([pair[name] for pair in variances]) for name in ("intra", "inter")},
    }


def _bcubed_curve(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return precision and recall (2, thresholds) of the graph that links pairs of at least so large a cosine."""
    unit = probability / np.linalg.norm(probability, axis=1, keepdims=True)
    cosine = (unit @ unit.T).astype(np.float32)
    np.fill_diagonal(cosine, 2)  # an image is linked to itself, whatever the rounding
    same = label[:, None] == label[None, :]
    curve = []
    for threshold in THRESHOLDS:  # as `metrics.bcubed`, on truth values instead of floats
        linked = cosine >= threshold
        right = (linked & same).sum(axis=1)
        curve.append([(right / linked.sum(axis=1)).mean(), (right / same.sum(axis=1)).mean()])
    return np.array(curve).T


def cases(run: Trained) -> dict[str, np.ndarray]:
    """Most confident images of the first classes: `tile` (class, kind, image) into the thumbnails, -1 for none.

    Kinds in order: success, false negative (of the class, clustered elsewhere), false positive (of another class);
    `other` is the class predicted for a false negative, or the true one of a false positive.
    """
    order = np.argsort(-run.stored[1].astype(np.float64), kind="stable")
    true, guess = run.labels[order], run.predicted[order]
    classes = np.arange(min(CASE_CLASSES, int(run.labels.max()) + 1))
    tile: np.ndarray = np.full((len(classes), 3, EACH), -1, dtype=np.int16)
    index: np.ndarray = tile.astype(np.int32)
    other, rows = tile.copy(), list[int]()
    for k in classes:
        own, given = true == k, guess == k
        for number, chosen in enumerate((own & given, own & ~given, ~own & given)):
            for slot, row in enumerate(order[chosen][:EACH]):
                tile[k, number, slot], index[k, number, slot] = len(rows), row
                other[k, number, slot] = run.labels[row] if number == 2 else run.predicted[row]
                rows.append(row)
    return {"class": classes, "tile": tile, "index": index, "other": other, **_pack(run.take(np.array(rows)))}


def neighbours(run: Trained) -> dict[str, np.ndarray]:
    """Confident images, right ones then wrong ones, each followed by its nearest: `index` (queries, 1 + neighbours)."""
    layer = "projection" if "projection" in run.method.layers else "backbone"
    queries = _confident(run, QUERIES)
    gallery = np.union1d(_subset(len(run.labels), GALLERY), queries)
    features = run.ask(lambda images: run.method.features(images, layer), gallery)
    features /= np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    own = np.searchsorted(gallery, queries)
    cosine = features[own] @ features.T
    cosine[np.arange(len(queries)), own] = 2  # itself first
    near = np.argsort(-cosine, axis=1, kind="stable")[:, : NEIGHBOURS + 1]
    nearest = gallery[near]
    return {
        "index": nearest.astype(np.int32),
        "cosine": np.take_along_axis(cosine, near, axis=1).astype(np.float16),
        "label": run.labels[nearest].astype(np.int16),
        "predicted": run.predicted[nearest].astype(np.int16),
        **_pack(run.take(nearest.ravel())),
    }


def _confident(run: Trained, count: int) -> np.ndarray:
    """Return the positions of the most confident right image of each of `count` classes, then of as many wrong ones."""
    order = np.argsort(-run.stored[1].astype(np.float64), kind="stable")
    chosen = []
    for right in (True, False):
        fitting = order[(run.labels == run.predicted)[order] == right]
        _, first = np.unique(run.labels[fitting], return_index=True)  # the surest of each class
        chosen.append(fitting[np.sort(first)][:count])
    return np.concatenate(chosen)


def gradcam(run: Trained) -> dict[str, np.ndarray]:
    """Grad-CAM (Selvaraju et al., ICCV 2017) of the predicted cluster's log-probability: `map` (n, h, w) in [0, 1]."""
    rows = _confident(run, MAPS)
    maps = heat_maps(run.method, run.take(rows)).cpu().numpy().astype(np.float16)
    facts = {"label": run.labels[rows], "predicted": run.predicted[rows]}
    return {"index": rows.astype(np.int32), "map": maps, **facts, **_pack(run.take(rows))}


def jsd(run: Trained) -> dict[str, np.ndarray]:
    """Divergences (32, 32) between prototype distributions (Eq. 2) of two high-resolution views of training images."""
    method, device = run.method, run.images.device
    if not isinstance(method, IMCSwAV):
        raise UserError(f"jsd: {run.config['method']} has no scores of prototypes; this analysis is for imc-swav")
    rows = _subset(run.images.info.counts["train"], JSD_IMAGES)
    images = run.images.take(("train",), torch.from_numpy(rows).to(device, torch.int64))
    views = []
    with torch.no_grad():
        for number in range(2):
            view = method.high(images, generator(run.config["seed"], "jsd", number, device=device))
            scores = method.prototype_scores(method.backbone(view))
            views.append(torch.softmax(scores / method.params["temperature"], dim=-1))
    return {"index": rows, "jsd": jensen_shannon(*views).cpu().numpy().astype(np.float32)}


def labelled(run: Trained) -> dict[str, np.ndarray]:
    """The labelled training images of a semi-supervised run, by class."""
    record = read_json(run.folder / RECORD).get("method_record", {})
    if "labelled" not in record:
        raise UserError(f"{run.folder / RECORD}: has no method_record.labelled; only semi-supervised runs have")
    rows, label = np.array(record["labelled"], dtype=np.int64), np.array(record["classes"], dtype=np.int16)
    order = np.lexsort((rows, label))
    images = run.images.take(("train",), torch.from_numpy(rows[order]).to(run.images.device))
    return {"index": rows[order].astype(np.int32), "label": label[order], **_pack(images)}


def outlook(run: Trained) -> dict[str, np.ndarray]:
    """What clusters look like from inside, without labels.

    `second` and `second_confidence` (n,) of every scored image; `silhouette` of the images `compared`, NaN where they
    are in one cluster; `xy`, a t-SNE map of the features of the images `mapped`.
    """
    total = len(run.stored[0])
    probability = run.ask(run.method.predict, np.arange(total))
    second, second_confidence = second_choice(probability, run.stored[0])
    compared = _subset(total, COMPARED)
    features: np.ndarray = run.ask(run.method.features, compared).astype(np.float64)
    mapped = _subset(len(compared), MAPPED)
    return {
        "second": second,
        "second_confidence": second_confidence,
        "compared": compared.astype(np.int32),
        "silhouette": _silhouettes(features, run.stored[0][compared]),
        "mapped": compared[mapped].astype(np.int32),
        "xy": _tsne(features[mapped]),
    }


def _silhouettes(features: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    """Return the silhouette of each image, NaN for all where it has no meaning: one cluster, or one image in each."""
    if not 1 < len(np.unique(assignment)) < len(assignment):
        return np.full(len(assignment), np.nan, np.float32)
    return silhouette_samples(features, assignment).astype(np.float32)


def counts(run: Trained) -> dict[str, np.ndarray]:
    """K-means on a run's features for 2, 3, … clusters up to the run's own number, on the same images for every seed.

    `k` (m,), `assignment` (m, images), mean `silhouette` (m,).
    """
    rows = _subset(len(run.stored[0]), COMPARED)
    features: np.ndarray = run.ask(run.method.features, rows).astype(np.float64)
    numbers = np.arange(2, int(run.config["params"]["num_clusters"]) + 1)
    seed = derive_seed(run.config["seed"], "counts")
    found = [fit_kmeans(features, int(k), seed, RESTARTS).labels_ for k in numbers]
    return {
        "k": numbers.astype(np.int32),
        "assignment": np.array(found, np.int16),
        "silhouette": np.array([_silhouettes(features, labels).mean() for labels in found], np.float32),
    }


def heads(run: Trained) -> dict[str, np.ndarray]:
    """`loss` (H,) of each cluster head in the last epoch, and the `assignment` (H, n) that it gives to every image."""
    choice = getattr(run.method, "choice", None)
    losses = choice.losses if choice is not None else getattr(run.method, "head_losses", None)
    if losses is None:
        raise UserError(f"heads: {run.config['method']} has no several heads to choose among")
    given: Any = run.method.predict_heads
    found = run.ask(lambda images: given(images).T, np.arange(len(run.stored[0])))
    return {"loss": losses.cpu().numpy(), "assignment": found.T.astype(np.int16)}


def _pack(images: Tensor) -> dict[str, np.ndarray]:
    """Return thumbnails of (n, C, H, W) uint8 images as one JPEG sheet of square tiles, with their number and side."""
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()
    pixels = np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels
    side = min(pixels.shape[2], SMALL_SIDE if len(pixels) > MANY else SIDE)
    across = int(np.ceil(np.sqrt(len(pixels))))
    sheet = Image.new("RGB", (across * side, -(-len(pixels) // across) * side))
    for k, image in enumerate(pixels):
        tile = Image.fromarray(centre_square(image)).resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(tile, (k % across * side, k // across * side))
    out = io.BytesIO()
    sheet.save(out, format="JPEG", quality=88, subsampling=0)
    return {
        "sheet": np.frombuffer(out.getvalue(), dtype=np.uint8),
        "side": np.int32(side),
        "count": np.int32(len(pixels)),
    }


KINDS: dict[str, Callable[[Trained], dict[str, np.ndarray]]] = {
    kind.__name__: kind
    for kind in (embedding, stages, cases, neighbours, gradcam, jsd, labelled, outlook, counts, heads)
}


def analyse(kind: str, run: Trained, out: Path) -> None:
    """Write one analysis of one run; `of` in it is the hash of the run's predictions: what the figure is of."""
    recorded = read_json(run.folder / RECORD)["files"][PREDICTIONS]
    if sha256_file(run.folder / PREDICTIONS) != recorded:
        raise IntegrityError(f"{run.folder / PREDICTIONS}: changed since the run; nothing is analysed")
    write_npz(out, {**KINDS[kind](run), "of": np.array(recorded)})


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m dica.analyse", description="Analyse one trained run for a figure.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run's records")
    parser.add_argument("--models", type=Path, required=True, help="folder of its weights")
    parser.add_argument("--data", type=Path, required=True, help="folder of the prepared data set")
    parser.add_argument("--labels", type=Path, required=True, help="data/labels/<data set>.npz")
    parser.add_argument("--out", type=Path, required=True, help="file to write (.npz)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    run = Trained(given.run, given.models, given.data, given.labels)
    return run_script(lambda: analyse(given.kind, run, given.out))


if __name__ == "__main__":
    sys.exit(main())
