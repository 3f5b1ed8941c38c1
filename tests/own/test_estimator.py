"""The estimator: images in memory, as scikit-learn's users expect it."""

from __future__ import annotations

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import dica
from dica.own.estimator import DeepClustering
from dica.scores.metrics import accuracy


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """(64, 8, 8) uint8: noise with a bright bar; the place of the bar is the image's number modulo 4."""
    found = np.random.default_rng(0).integers(0, 60, (64, 8, 8), dtype=np.uint8)
    for k, image in enumerate(found):
        image[:, k % 4 * 2 : k % 4 * 2 + 2] += 180
    return found


@pytest.fixture(scope="module")
def fitted(images: np.ndarray) -> DeepClustering:
    return DeepClustering("imc-swav", 4, epochs=2, random_state=0).fit(images)


def test_kmeans_finds_what_is_plain(images: np.ndarray) -> None:
    model = dica.DeepClustering("kmeans", n_clusters=4, random_state=0)
    assert accuracy(np.arange(64) % 4, model.fit_predict(images)) == 1
    assert model.labels_.shape == (64,)


def test_a_network_is_trained_and_asked(fitted: DeepClustering, images: np.ndarray) -> None:
    assert len(fitted.history_) == 2
    probability = fitted.predict_proba(images)
    assert probability.shape == (64, 4)
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(fitted.predict(images), fitted.labels_)
    assert fitted.transform(images[:3]).shape == (3, 64)
    assert fitted.params_["num_clusters"] == 4
    assert fitted.params_["epochs"] == 2


def test_equal_seeds_give_equal_results_and_leave_the_streams_alone(fitted: DeepClustering, images: np.ndarray) -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002  the stream that must stay as it is
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    again = clone(fitted).fit(images)
    np.testing.assert_array_equal(again.predict_proba(images), fitted.predict_proba(images))
    other = clone(fitted).set_params(random_state=1).fit(images)
    assert (other.predict_proba(images) != fitted.predict_proba(images)).any()
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_fractions_and_a_channel_axis_are_the_same_images(fitted: DeepClustering, images: np.ndarray) -> None:
    expected = fitted.predict_proba(images)
    for same in (images[..., None], images / 255, images.astype(np.int64), images.tolist()):
        np.testing.assert_array_equal(fitted.predict_proba(same), expected)


def test_it_can_be_pickled_and_stand_in_a_pipeline_and_in_threads(fitted: DeepClustering, images: np.ndarray) -> None:
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.predict(images), fitted.labels_)
    pipeline = make_pipeline(DeepClustering("kmeans", 4, random_state=0), PCA(2))
    assert pipeline.fit_transform(images).shape == (64, 2)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: clone(fitted).fit(images).labels_, range(2)))
    for labels in found:
        np.testing.assert_array_equal(labels, fitted.labels_)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x.reshape(64, 4, 16), "needs square images"),
        (lambda x: x.astype(float), "fractions from 0 to"),
        (lambda x: x.astype(int) - 1, "whole numbers from -1"),
        (lambda x: np.where(x > 200, np.nan, x / 255), "NaN"),
        (lambda x: x[:7], "n_samples=7 images are too few"),
        (lambda x: x.reshape(64, 64), "needs square images"),
    ],
)
def test_what_is_no_stack_of_images_is_refused(change, expected: str, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=expected):
        DeepClustering("kmeans", 4).fit(change(images))


def test_other_shapes_methods_and_parameters_are_refused(fitted: DeepClustering, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="the fitted ones had"):
        fitted.predict(images[:, :4, :4])
    with pytest.raises(ValueError, match="no recipe for 'k-means'"):
        DeepClustering("k-means").fit(images)
    with pytest.raises(ValueError, match="there are: crlc, drc, imc-swav, kmeans, tcc"):
        DeepClustering(["kmeans"]).fit(images)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"epochs": 0}, r"epochs=0; needs a whole number from 1 on"),
        ({"epochs": 2.5}, r"epochs=2\.5; "),
        ({"n_clusters": 3.7}, r"n_clusters=3\.7; needs a whole number from 2 on"),
        ({"n_clusters": "3"}, r"n_clusters='3'; "),
        ({"n_clusters": True}, r"n_clusters=True; "),
        ({"n_clusters": 1}, r"n_clusters=1; "),
        ({"n_clusters": np.int64(1)}, r"n_clusters=np\.int64\(1\); "),
        ({"n_clusters": 0}, r"n_clusters=0; "),
        ({"n_clusters": -3}, r"n_clusters=-3; "),
        ({"n_clusters": None}, r"n_clusters=None; "),
        ({"n_clusters": [3]}, r"n_clusters=\[3\]; "),
        ({"n_clusters": 10**30}, r"too few for n_clusters=1000000"),
        ({"device": "cuda"}, r"device='cuda': there is no GPU"),
        ({"device": "gpu"}, r"device='gpu'; needs one of auto, cpu, cuda"),
        ({"params": {"num_clusters": 5}}, r"given by n_clusters"),
        ({"params": [1]}, r"params=\[1\]; needs a dict"),
        ({"params": []}, r"params=\[\]; needs a dict"),
        ({"params": "x"}, r"params='x'; needs a dict"),
        ({"params": 0}, r"params=0; needs a dict"),
        ({"params": {1: 2}}, r"params: the key 1 is not text"),
        ({"params": {"views": {"high": [], 2: []}}}, r"params: views: the key 2 is not text"),
        ({"params": {"tau": 1}}, r"params: unknown key 'tau'; allowed: .*temperature"),
        ({"params": {"optimizer": {"names": "sgd"}}}, r"params: optimizer: unknown key 'names'"),
        ({"params": {"lr": -1}}, r"params: lr: -1 is less"),
        ({"params": {"lr": None}}, r"params: lr: None is not of type 'number'"),
        ({"params": {"lr": float("nan")}}, r"params: lr: nan is no number to work with"),
        ({"params": {"lr": np.ones(2)}}, r"params: lr: is of type ndarray"),
        ({"params": {"optimizer": {"betas": [0.9, float("inf")]}}}, r"params: optimizer\.betas: inf "),
        ({"params": {"batch_size": 2.5}}, r"params: batch_size: 2\.5 is not of type 'integer'"),
        ({"params": {"num_prototypes": 1e30}}, r"params: num_prototypes: 1e\+30 is not of type 'integer'"),
        ({"params": {"backbone": {"name": "resnet19"}}}, r"params: backbone\.name: 'resnet19' is not one of"),
        ({"params": {"normalisation": {"mean": [0.5], "std": [0]}}}, r"params: normalisation\.std\.0: 0 is less"),
        ({"params": {"schedule": {"kind": "inverse"}}}, r"params.*schedule: missing key 'decay', 'power'"),
        (
            {"method": "tcc", "params": {"schedule": {"kind": "steps"}}},
            r"params.*schedule: missing key 'milestones', 'factor'",
        ),
        ({"params": {"views": {"high": "nope"}}}, r"params: views\.high: .*no pipeline 'nope'"),
        ({"params": {"views": {"high": [{"op": "nope"}]}}}, r"params \(views\): .*op 'nope'"),
        ({"params": {"views": {"test": [{"op": "center_crop", "size": 99}]}}}, r"params \(views\): .* 99 px or more"),
        ({"params": {"normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3}}}, r"params \(normalisation\): "),
        ({"params": {"lr": 1e30}}, r"params \(lr\): loss not finite by epoch 1[^;]*$"),
        ({"params": {"source": {"method": "drc", "variant": "full"}}}, r"params: source: .*another run to build on"),
        ({"method": "kmeans", "params": {"layer": "backbone"}}, r"params: layer: 'backbone' wants another run"),
        ({"method": "kmeans", "params": {"train_split": "source"}}, r"params: train_split: 'source' wants another"),
        (
            {"method": "kmeans", "params": {"inputs": {"map": "pixels", "scale": "pca", "components": 99}}},
            r"params.*99",
        ),
    ],
)
def test_parameters_that_mean_nothing_are_refused(given: dict, expected: str, images: np.ndarray, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=expected):
        DeepClustering(**{"method": "imc-swav", "n_clusters": 4, "epochs": 1, **given}).fit(images)


def test_params_are_those_of_a_profile(images: np.ndarray) -> None:
    """Blocks and pipelines that params/shared.yaml has are taken by name."""
    model = DeepClustering("imc-swav", 4, epochs=1, params={"views": {"high": "affine-8"}}, random_state=0).fit(images)
    assert model.params_["views"]["high"][0]["op"] == "affine"


FAILS = {
    "a parameter": {"n_clusters": 1},
    "too few images": {"n_clusters": 50},
    "the seed": {"random_state": "x"},
    "a typo": {"params": {"tau": 1}},
    "another method's training": {"method": "tcc", "n_clusters": 3, "params": {"lr": 1e30}},
}


def state_of(model: DeepClustering) -> dict:
    return {key: value for key, value in vars(model).items() if key not in model.get_params()}


@pytest.mark.parametrize("given", FAILS.values(), ids=FAILS)
def test_a_fit_that_fails_leaves_no_model_or_the_one_before(given: dict, images: np.ndarray) -> None:
    new = DeepClustering(**{"method": "imc-swav", "n_clusters": 4, "epochs": 1, **given})
    with pytest.raises(ValueError):
        new.fit(images)
    assert state_of(new) == {}
    for ask in (new.predict, new.predict_proba, new.transform):
        with pytest.raises(NotFittedError):
            ask(images)
    model = DeepClustering("imc-swav", 4, epochs=1, random_state=0).fit(images)
    before, expected = state_of(model), model.predict_proba(images)
    with pytest.raises(ValueError):
        model.set_params(**given).fit(images.repeat(2, axis=1).repeat(2, axis=2))
    assert state_of(model).keys() == before.keys()
    assert all(value is before[key] for key, value in state_of(model).items())
    np.testing.assert_array_equal(model.predict_proba(images), expected)
    np.testing.assert_array_equal(model.predict(images), model.labels_)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(model)).predict_proba(images), expected, rtol=1e-5)


def test_an_interrupted_fit_leaves_the_model_before(images: np.ndarray, monkeypatch) -> None:
    model = DeepClustering("kmeans", 4, random_state=0).fit(images)
    before = state_of(model)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DeepClustering, "_ask", interrupted)  # at the very end
    with pytest.raises(KeyboardInterrupt):
        model.set_params(n_clusters=3).fit(images[:, :6, :6])
    assert state_of(model) == before


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, bool, list])
@pytest.mark.parametrize("largest", [0, 1])
def test_whole_numbers_that_are_nearly_black_are_told(dtype, largest: int, fitted: DeepClustering) -> None:
    images = np.arange(64 * 64).reshape(64, 8, 8) // 3 % (largest + 1)
    given = images.tolist() if dtype is list else images.astype(dtype)
    told = rf"whole numbers from 0 to {largest} and is taken as 0\.\.255.*X\.astype\(float\).* 255"
    for ask in (DeepClustering("kmeans", 2, random_state=0).fit, fitted.predict, fitted.transform):
        with pytest.warns(UserWarning, match=told):
            ask(given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for fine in (images / 1, images.astype(np.uint8) * 255 + 2, images + 1.0 - largest):
            fitted.predict(fine)


class Tabular(DeepClustering):
    """Images as rows of a table, as scikit-learn's checks make them. What images need of the checks is here, by name.

    - a row of numbers becomes a square of fractions, because the checks know no stack of images
    - a single cluster becomes two, because no method of the archive has fewer, and `_check` refuses it
    - array_api input is skipped by scikit-learn itself where SCIPY_ARRAY_API is not set
    """

    def _images(self, X, fitted=False):
        from sklearn.utils.validation import validate_data

        table = validate_data(self, X, reset=not fitted, dtype=np.float64)
        self.columns_ = table.shape[1]
        side = int(np.ceil(np.sqrt(table.shape[1])))
        squares = np.zeros((len(table), side * side))
        squares[:, : table.shape[1]] = 1 / (1 + np.exp(-table))
        return super()._images(squares.reshape(-1, side, side), fitted)

    def _check(self):
        clone(self).set_params(n_clusters=max(2, self.n_clusters))._checked()

    def _checked(self):
        DeepClustering._check(self)

    def _parameters(self, images, gpu):
        if self.n_clusters > 1:
            return super()._parameters(images, gpu)
        return clone(self).set_params(n_clusters=2)._parameters(images, gpu)  # some checks ask for a single cluster

    def fit(self, X, y=None):
        super().fit(X, y)
        self.n_features_in_ = self.columns_
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


def test_scikit_learn_s_own_checks_pass() -> None:
    found = check_estimator(Tabular("kmeans", 3, random_state=0), on_skip=None, on_fail=None)
    wrong = {one["check_name"]: str(one["exception"]) for one in found if one["status"] not in ("passed", "skipped")}
    skipped = {one["check_name"] for one in found if one["status"] == "skipped"}
    assert len(found) > 40
    assert not wrong
    assert skipped <= {"check_array_api_input"}
