"""Methods that label a fitted set: they find groups, their labels are scored as they are, others get a vote."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from dica.data.splits import DataInfo
from dica.files import UserError
from dica.methods import build
from dica.methods.fitted import nearest_others, sparse_graph
from dica.methods.sc import leading_eigenvectors, self_tuning
from dica.plan.parameters import load_profile, resolve
from dica.train import predict
from tiny import ROOT

FITTED = ("ac", "nmf", "random-labels", "sc")
INFO = DataInfo(1, 8, {"train": 60, "test": 30})


def params_of(method: str, **overrides: object) -> dict:
    profile = load_profile(ROOT / "params/archive.yaml", ROOT)
    return {**resolve(method, "full", "digits", profile, ROOT), "num_clusters": 3, "kept": 30, **overrides}


@pytest.fixture
def images() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Three places of a bright bar, (60 + 30, 1, 8, 8) uint8, and which image has which."""
    torch.manual_seed(0)
    group = torch.arange(90) % 3
    pixels = torch.randint(0, 30, (90, 1, 8, 8))
    for image, place in zip(pixels, group, strict=True):
        image[:, :, 2 * place : 2 * place + 2] += 200
    return {"train": pixels[:60].to(torch.uint8), "test": pixels[60:].to(torch.uint8)}, group


def fitted(method: str, pixels: dict, **overrides: object):
    model = build(method, params_of(method, **overrides), INFO)
    (row,) = model.fit(pixels, seed=0)
    return model, row


def resident(pixels: dict[str, torch.Tensor]) -> SimpleNamespace:
    return SimpleNamespace(splits=pixels, all_of=pixels.get, device=torch.device("cpu"))


@pytest.mark.parametrize(("method", "extra"), [("ac", {}), ("sc", {}), ("nmf", {}), ("ac", {"resize": 4})])
def test_separated_groups_are_found(images, method: str, extra: dict) -> None:
    pixels, group = images
    model, row = fitted(method, pixels, **extra)
    assert row["epoch"] == 1
    assert adjusted_rand_score(group, model.labels) == 1


def test_the_largest_coefficient_of_a_factorisation_is_a_cluster(images) -> None:
    pixels, group = images
    assert adjusted_rand_score(group, fitted("nmf", pixels, components=1, assignment="argmax")[0].labels) > 0.9
    with pytest.raises(UserError, match=r"nmf: components: 2, but with assignment: argmax .* set 1"):
        build("nmf", params_of("nmf", assignment="argmax"), INFO)


@pytest.mark.parametrize("method", FITTED)
def test_fitted_images_are_scored_by_position_and_others_by_vote(images, method: str) -> None:
    pixels, group = images
    model, _ = fitted(method, pixels, train_split="train", kept=2)
    arrays = predict(model, resident(pixels), lambda purpose: None)
    np.testing.assert_array_equal(arrays["train_assignment"], model.labels)
    assert (arrays["train_confidence"] == 1).all()
    assert set(arrays["test_assignment"]) <= set(model.kept_labels.tolist()), "two kept images know two clusters"
    if method != "random-labels":
        model, _ = fitted(method, pixels, train_split="train", kept=60, votes=5)
        arrays = predict(model, resident(pixels), lambda purpose: None)
        assert adjusted_rand_score(group[60:], arrays["test_assignment"]) == 1
        assert adjusted_rand_score(group[:60], model.predict(pixels["train"]).argmax(dim=1)) == 1


@pytest.mark.parametrize("method", FITTED)
def test_labels_of_a_fitted_set_are_part_of_the_weights(images, method: str) -> None:
    pixels, _ = images
    model, _ = fitted(method, pixels)
    again = build(method, params_of(method), INFO)
    again.load_state_dict(model.state_dict())
    for name in ("train", "test"):
        assert torch.equal(again.known()[name], model.known()[name])
        assert torch.equal(again.predict(pixels[name]), model.predict(pixels[name]))


@pytest.mark.parametrize(("method", "drawn"), [("ac", False), ("random-labels", True)])
def test_the_seed_decides_what_is_drawn(images, method: str, drawn: bool) -> None:
    pixels, _ = images
    first, same, other = (build(method, params_of(method), INFO) for _ in range(3))
    for model, seed in ((first, 0), (same, 0), (other, 1)):
        model.fit(pixels, seed)
    assert torch.equal(first.labels, same.labels)
    assert torch.equal(first.labels, other.labels) != drawn
    assert torch.equal(first.kept, same.kept)
    assert not torch.equal(first.kept, other.kept)


def test_neighbours_are_those_of_a_full_search() -> None:
    points = torch.randn(700, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)  # two parts
    distances, positions = nearest_others(points, 4)
    found, expected = NearestNeighbors(n_neighbors=5).fit(points.numpy()).kneighbors(points.numpy())
    np.testing.assert_array_equal(positions, expected[:, 1:])
    np.testing.assert_allclose(distances.sqrt(), found[:, 1:], rtol=1e-3)
    with pytest.raises(UserError, match=r"neighbours: 700, but an image has only 699 others"):
        nearest_others(points, 700)


def test_the_graph_has_both_directions_and_the_larger_weight() -> None:
    graph = sparse_graph(torch.tensor([[0.5], [0.7], [0.2]]), torch.tensor([[1], [0], [1]]))
    np.testing.assert_allclose(graph.toarray(), [[0, 0.7, 0], [0.7, 0, 0.2], [0, 0.2, 0]])


def test_affinities_follow_the_local_scale() -> None:
    distances, positions = torch.tensor([[1.0, 4.0], [1.0, 9.0], [4.0, 9.0]]), torch.tensor([[1, 2], [0, 2], [0, 1]])
    found = self_tuning(distances, positions, 2)  # scales 2, 3, 3
    expected = torch.tensor([[-1 / 6, -4 / 6], [-1 / 6, -1.0], [-4 / 6, -1.0]]).exp()
    torch.testing.assert_close(found, expected)
    assert (self_tuning(distances, positions, None) == 1).all()
    copies = self_tuning(torch.zeros(3, 2), positions, 2)
    assert copies.isfinite().all(), "copies of an image have no scale"


def test_eigenvectors_are_those_of_a_dense_solver() -> None:
    points = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    distances, positions = nearest_others(points, 8)
    graph = sparse_graph(self_tuning(distances, positions, 7), positions)
    values, vectors = leading_eigenvectors(graph, 3, seed=0)
    half = np.diag(graph.toarray().sum(axis=1) ** -0.5)
    expected, dense = np.linalg.eigh(half @ graph.toarray() @ half)
    np.testing.assert_allclose(np.sort(values), expected[-3:])
    np.testing.assert_allclose(vectors @ vectors.T, dense[:, -3:] @ dense[:, -3:].T, atol=1e-8)


def test_what_cannot_be_is_refused(images) -> None:
    pixels, _ = images
    with pytest.raises(UserError, match=r"sc: scale_neighbour: 11 is not among the 10 neighbours"):
        build("sc", params_of("sc", scale_neighbour=11), INFO)
    with pytest.raises(UserError, match=r"nmf: inputs: some numbers are negative"):
        fitted("nmf", pixels, inputs={"map": "pixels", "scale": "standardised"})


def test_an_untrained_network_is_the_one_that_was_drawn(images) -> None:
    pixels, _ = images
    torch.manual_seed(1)
    model = build("untrained", params_of("untrained"), INFO)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    model.fit(pixels, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())
    torch.testing.assert_close(model.predict(pixels["test"]).sum(dim=1), torch.ones(30))
    assert model.clusters.centroids.shape == (3, model.backbone.out_features)


@pytest.mark.parametrize("method", ["ac", "sc", "kmeans"])
def test_rows_of_features_are_clustered_as_they_are(method: str) -> None:
    """Negative and large numbers: neither shades of 255 nor anything to round."""
    torch.manual_seed(0)
    group = torch.arange(60) % 3
    rows = (torch.randn(60, 5) * 0.1 + 1000.5 * torch.tensor([-1.0, 0.0, 1.0])[group, None])[:, :, None, None]
    params = params_of(method, inputs={"map": "features"})
    model = build(method, params, DataInfo(5, 1, {"train": 60}))
    model.fit({"train": rows}, seed=0)
    assert adjusted_rand_score(group, model.predict(rows).argmax(dim=1)) == 1
    torch.testing.assert_close(model.features(rows), rows[:, :, 0, 0], rtol=0, atol=0)
    if method != "kmeans":
        assert adjusted_rand_score(group, model.labels) == 1
        assert (model.kept < -1000).any()
