"""Deep clustering as a scikit-learn estimator, for images in memory.

    from dica import DeepClustering
    labels = DeepClustering("imc-swav", n_clusters=10, random_state=0).fit_predict(images)   # (n, H, W) or (n, H, W, C)

The methods and recipes are those of `dica cluster`; nothing is written but to a temporary folder while it fits.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import threading
import warnings
from collections.abc import Iterator
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted

from dica import methods
from dica.data.own import Look
from dica.data.prepared import MANIFEST
from dica.data.splits import DataInfo
from dica.engine.checkpoints import StateFolder
from dica.engine.images import ResidentImages
from dica.engine.loop import SaveEvery, Trainer
from dica.files import UserError, sha256_file, write_json
from dica.methods.base import FitMethod, Method
from dica.plan import recipes
from dica.plan.parameters import complete, load_method, merge, with_shared
from dica.rng import derive_seed, generator
from dica.runs.record import CHECKOUT
from dica.validation import validate

DEVICES = ("auto", "cpu", "cuda")
OF_SOURCE = ("source", "layer")  # keys of runs that build on another one
PART = 1000  # images in a forward pass
LARGEST_SEED = 2**31 - 1
LEAST_STD = 0.01
GLOBAL_STREAM = threading.Lock()  # torch has one for all threads


class DeepClustering(ClusterMixin, TransformerMixin, BaseEstimator):
    """Cluster images with one of the archive's methods.

    Parameters
    ----------
    method
        `imc-swav`, `crlc`, `drc`, `tcc` or `kmeans` (on pixels).
    n_clusters
        Number of clusters, 2 or more.
    epochs
        Passes over the images; None for as many as the archive's own short runs have.
    params
        Parameters of the method to lay over the recipe, as in a profile's `overrides`; not `num_clusters`.
    random_state
        Seed of a run; equal seeds give equal results on one machine.
    device
        `auto` (a GPU if there is one), `cpu` or `cuda`.

    Attributes
    ----------
    labels_ : (n,) cluster of each image of `fit`
    n_features_in_ : numbers an image has
    image_shape_ : (H, W, C) of an image
    params_ : the parameters of the run, none left to defaults
    history_ : losses by epoch

    Notes
    -----
    X is (n, H, W) or (n, H, W, C) with H = W and C 1 or 3: uint8, other whole numbers from 0 to 255, or fractions
    from 0 to 1. Whole numbers that are all 0 or 1 are nearly black then, of which a UserWarning tells.

    A `fit` that fails raises a ValueError for what a user can mend, and leaves the model as it was before.
    """

    def __init__(
        self,
        method: str = recipes.DEFAULT,
        n_clusters: int = 8,
        *,
        epochs: int | None = None,
        params: dict[str, Any] | None = None,
        random_state: Any = None,
        device: str = "auto",
    ) -> None:
        self.method = method
        self.n_clusters = n_clusters
        self.epochs = epochs
        self.params = params
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any = None) -> DeepClustering:
        """Train on images; `y` is ignored."""
        self._check()
        images = self._images(X)
        if len(images) < 2 * self.n_clusters:
            raise ValueError(
                f"n_samples={len(images)} images are too few for n_clusters={self.n_clusters}; twice as many are needed"
            )
        seed = int(check_random_state(self.random_state).randint(LARGEST_SEED))
        device = self._device()
        with tempfile.TemporaryDirectory() as folder, self._as_value_errors():
            params = self._parameters(images, device.type == "cuda")
            _write_set(Path(folder) / "data", images)
            method, history = self._train(Path(folder), params, seed, device)
            labels = self._ask(method.to("cpu").predict, images).argmax(axis=1)
        # Only now, so that an attempt that fails leaves nothing of its own, and an earlier model whole.
        self.image_shape_, self.n_features_in_ = images.shape[1:], int(np.prod(images.shape[1:]))
        self.params_, self.history_, self.labels_ = params, history, labels
        self._name, self._method = self.method, method
        return self

    @contextlib.contextmanager
    def _as_value_errors(self) -> Iterator[None]:
        """Make a ValueError, as users of scikit-learn expect it, of a user's mistake and of what comes of `params`."""
        try:
            yield
        except (UserError, ValueError, RuntimeError) as error:  # torch has RuntimeErrors for sizes that do not fit
            if not self.params and not isinstance(error, UserError):
                raise
            told = str(error).partition("; the last good checkpoint")[0]  # it is in the temporary folder
            where = f"params ({', '.join(self.params)}): " if self.params and not told.startswith("params") else ""
            raise ValueError(f"{where}{told}") from error

    def _check(self) -> None:
        """Raise a ValueError for a parameter that means nothing."""
        if self.method not in recipes.METHODS:
            raise ValueError(f"method: no recipe for {self.method!r}; there are: {', '.join(recipes.METHODS)}")
        if not _is_whole(self.n_clusters) or self.n_clusters < 2:
            raise ValueError(f"n_clusters={self.n_clusters!r}; needs a whole number from 2 on, such as 10")
        if self.epochs is not None and (not _is_whole(self.epochs) or self.epochs < 1):
            raise ValueError(f"epochs={self.epochs!r}; needs a whole number from 1 on, or None for the recipe's own")
        if self.params is not None:
            self._check_params()
        if self.device not in DEVICES:
            raise ValueError(f"device={self.device!r}; needs one of {', '.join(DEVICES)}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device='cuda': there is no GPU that torch can use here; give 'auto' or 'cpu'")

    def _check_params(self) -> None:
        """Raise a ValueError that names `params` and the key for what the method does not take."""
        if not isinstance(self.params, dict):
            raise ValueError(f"params={self.params!r}; needs a dict of the method's parameters, such as {{'lr': 0.01}}")
        _require_plain(self.params, "params")
        if "num_clusters" in self.params:
            raise ValueError("params: the number of clusters is given by n_clusters; leave num_clusters out")
        for key, value in self.params.items():
            if value is not None if key in OF_SOURCE else isinstance(value, str) and value == "source":
                raise ValueError(f"params: {key}: {value!r} wants another run to build on, and here is none")
        with self._as_value_errors():
            validate(with_shared(self.params, "params", CHECKOUT), self.method, "params", CHECKOUT, partial=True)

    def _parameters(self, images: np.ndarray, gpu: bool) -> dict[str, Any]:
        """Return the complete parameters of the run."""
        grey = images.shape[3] == 1 or int(np.ptp(images.astype(np.int16), axis=3).max()) == 0
        look = Look("array", {"train": len(images)}, [], images.shape[1], grey, "")
        recipe = recipes.draft(self.method, look, int(self.n_clusters), gpu, CHECKOUT, look.side)
        if self.method != "kmeans":
            epochs = self.epochs or recipe.overrides["epochs"]
            recipe = recipes.with_epochs(recipe, int(epochs), len(images), CHECKOUT)
        pixels = images.reshape(-1, images.shape[3]) / 255
        std = pixels.std(axis=0).clip(LEAST_STD)
        statistics = {"mean": pixels.mean(axis=0).tolist(), "std": std.tolist()}
        entry: dict[str, Any] = {"normalisation": statistics, "splits": {"train": 1}}
        entry["num_classes"] = int(self.n_clusters)
        body = load_method(self.method, CHECKOUT)
        params = merge(body["defaults"], recipe.overrides, with_shared(self.params, "params", CHECKOUT))
        return complete(body, params, entry, self.method, CHECKOUT)

    def _train(
        self, folder: Path, params: dict[str, Any], seed: int, device: torch.device
    ) -> tuple[Method, list[dict[str, float]]]:
        images = ResidentImages(folder / "data", device)
        with GLOBAL_STREAM, torch.random.fork_rng(devices=[]):  # networks draw their weights from it
            torch.manual_seed(derive_seed(seed, "init"))
            method = methods.build(self.method, params, images.info).to(device)
        arrays = {name: images.all_of(name) for name in images.splits}
        if isinstance(method, FitMethod):
            history = method.fit(arrays, seed)
        else:
            method.to(memory_format=torch.channels_last)
            config: dict[str, Any] = {"id": "0" * 12, "seed": seed, "params": params, "method": self.method}
            state = StateFolder(folder / "state", config["id"])
            trainer = Trainer(config, method, images, state, SaveEvery(float("inf"), 0))
            trainer.run()
            history = trainer.history
        method.before_predict(arrays, lambda purpose: generator(seed, purpose, "predict", device=device))
        return method.requires_grad_(False).eval(), history

    def predict(self, X: Any) -> np.ndarray:
        """Return the cluster of each image (n,)."""
        return self.predict_proba(X).argmax(axis=1)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each cluster (n, K)."""
        check_is_fitted(self)
        return self._ask(self._method.predict, self._images(X, fitted=True))

    def transform(self, X: Any) -> np.ndarray:
        """Return the features of each image (n, d)."""
        check_is_fitted(self)
        return self._ask(self._method.features, self._images(X, fitted=True))

    @torch.no_grad()
    def _ask(self, question: Any, images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        return torch.cat([question(part).float() for part in pixels.split(PART)]).numpy()

    def _images(self, X: Any, fitted: bool = False) -> np.ndarray:
        """Return X as (n, H, W, C) uint8.

        Raises
        ------
        ValueError
            If it is not a stack of square images, or not of the shape that was fitted.
        """
        array = check_array(X, allow_nd=True, ensure_2d=False, dtype=None, ensure_min_samples=1)
        if array.ndim == 3:
            array = array[..., None]
        if array.ndim != 4 or array.shape[1] != array.shape[2] or array.shape[3] not in (1, 3):
            raise ValueError(f"X has shape {array.shape}; needs square images (n, H, W) or (n, H, W, C), C 1 or 3")
        if fitted and array.shape[1:] != self.image_shape_:
            raise ValueError(f"X has images of shape {array.shape[1:]}, the fitted ones had {self.image_shape_}")
        return _as_bytes(array)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: of a network its weights alone."""
        state = dict(super().__getstate__())
        if "_method" in state:
            state["_method"] = state["_method"].state_dict()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Build the network anew around the weights of a pickle."""
        super().__setstate__(state)
        if "_method" in state:
            size, _, channels = self.image_shape_
            info = DataInfo(channels, size, {"train": len(self.labels_)})
            with GLOBAL_STREAM, torch.random.fork_rng(devices=[]):  # its initial weights are thrown away
                self._method = methods.build(self._name, self.params_, info)
            self._method.load_state_dict(state["_method"])
            self._method.requires_grad_(False).eval()

    def _device(self) -> torch.device:
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def __sklearn_tags__(self):
        """Tell scikit-learn that images are wanted, not a table."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.non_deterministic = False
        return tags


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _require_plain(value: Any, where: str) -> None:
    """Raise a ValueError for keys and values that no parameter file can hold, at any depth."""
    if isinstance(value, dict):
        for key, below in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where}: the key {key!r} is not text")
            _require_plain(below, f"{where}{': ' if where == 'params' else '.'}{key}")
    elif isinstance(value, list | tuple):
        for below in value:
            _require_plain(below, where)
    elif not isinstance(value, str | int | float | None):
        raise ValueError(f"{where}: is of type {type(value).__name__}; needs text, a number, a list, a dict or None")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: {value!r} is no number to work with")


def _as_bytes(array: np.ndarray) -> np.ndarray:
    """Return images as uint8; see `DeepClustering` for what they may be."""
    if array.dtype.kind not in "iufb":
        raise ValueError(f"X is of type {array.dtype}; needs numbers")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        if low < 0 or high > 1:
            raise ValueError(f"X has fractions from {low:g} to {high:g}; scale them to 0..1, or give uint8")
        return np.round(array * 255).astype(np.uint8)
    if low < 0 or high > 255:
        raise ValueError(f"X has whole numbers from {low} to {high}; needs 0..255")
    if high <= 1:
        warnings.warn(
            f"X has whole numbers from {int(low)} to {int(high)} and is taken as 0..255, so that its images are nearly "
            "black; if 1 means white, give fractions (X.astype(float)) or multiply by 255",
            UserWarning,
            stacklevel=4,  # whoever calls fit or transform
        )
    return np.ascontiguousarray(array, dtype=np.uint8)


def _write_set(folder: Path, images: np.ndarray) -> None:
    """Write images where training looks for a prepared data set."""
    folder.mkdir()
    np.save(folder / "train.npy", images)
    split = {"file": "train.npy", "n": len(images), "shape": list(images.shape)}
    split |= {"bytes": (folder / "train.npy").stat().st_size, "sha256": sha256_file(folder / "train.npy")}
    size, channels = images.shape[1], images.shape[3]
    facts = {"fingerprint": "", "data_id": "", "image_size": size, "channels": channels, "classes": []}
    write_json(folder / MANIFEST, {"dataset": "memory", **facts, "splits": {"train": split}})
