"""SimCLR, given MoCo weights, two-stage CRLC and CRLC-semi: what each takes over, learns from, and refuses."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from dica import methods
from dica.data.splits import DataInfo
from dica.files import IntegrityError, UserError, sha256_file
from dica.losses.crlc import cluster_loss, crlc_loss, feature_contrast, semi_loss
from dica.methods.base import Batch
from dica.methods.crlc_two_stage import nearest_neighbours
from dica.methods.pretrained import read_moco
from dica.networks.backbones import build_backbone
from dica.networks.heads import mlp
from dica.plan import parameters as config
from dica.rng import generator
from dica.views.steps import Normalize
from tiny import archive_profile
from vision import torchvision

N, CLASSES = 60, 10
IMAGES = torch.randint(0, 256, (N, 1, 8, 8), generator=generator(0, "images"), dtype=torch.uint8)
LABELS = torch.randperm(N, generator=generator(0, "labels")) % CLASSES


def params_of(root: Path, name: str, variant: str = "full", dataset: str = "digits", **overrides) -> dict:
    profile = {**archive_profile(), "overrides": {name: overrides}}
    return config.resolve(name, variant, dataset, profile, root)


def make(root: Path, name: str, variant: str = "full", seed: int = 0, **overrides):
    torch.manual_seed(seed)
    return methods.build(name, params_of(root, name, variant, **overrides), DataInfo(1, 8, {"train": N}))


def two_stage(root: Path, variant: str = "full", **overrides):
    source, method = make(root, "simclr", seed=1).eval(), make(root, "crlc-two-stage", variant, **overrides)
    method.adopt(source, {"train": IMAGES})
    return source, method


def semi(root: Path, variant: str = "full", seed: int = 0, **overrides):
    method = make(root, "crlc-semi", variant, seed, **overrides)
    method.give_labels(LABELS)
    return method


def batch_of(indices: list[int]) -> Batch:
    index = torch.tensor(indices)
    return Batch(IMAGES[index], index, 0, 0, "main", lambda p: generator(0, p), take=lambda rows: IMAGES[rows])


# SimCLR.


@pytest.mark.parametrize("joint", [True, False])
def test_simclr_is_the_contrast_of_two_views_alone(root: Path, joint: bool) -> None:
    method, batch = make(root, "simclr", joint_views=joint), batch_of(list(range(16)))
    step = method.loss(batch)
    views = method.augmented.views(batch.images, batch.rng("augmented"), 2)
    flat = views.flatten(0, 1)
    features = method.backbone(flat).chunk(2) if joint else [method.backbone(view) for view in views]
    z1, z2 = (method.rl_head(part) for part in features)
    torch.testing.assert_close(step.loss, feature_contrast(z1, z2, temperature=0.1))


def test_simclr_predicts_the_nearest_centroid_of_its_features(root: Path) -> None:
    method = make(root, "simclr")
    method.before_predict({"train": IMAGES}, lambda p: generator(0, p))
    features = method.eval().features(IMAGES)
    assert features.shape == (N, 64)
    probs = method.predict(IMAGES)
    nearest = torch.cdist(features, method.clusters.centroids).argmin(1)
    assert torch.equal(probs.argmax(1), nearest)
    assert len(nearest.unique()) == CLASSES, "every cluster has an image, as K-means leaves none empty"
    z = method.features(IMAGES, "projection")
    torch.testing.assert_close(z.norm(dim=1), torch.ones(N))
    again = make(root, "simclr", seed=5)
    again.load_state_dict(method.state_dict())
    torch.testing.assert_close(again.eval().predict(IMAGES), probs), "centroids are part of the weights"


def test_unlabelled_images_train_simclr_and_are_not_clustered(root: Path) -> None:
    torch.manual_seed(0)
    params = params_of(root, "simclr", train_split="train+unlabeled")
    method = methods.build("simclr", params, DataInfo(1, 8, {"train": N, "unlabeled": N}))
    assert method.phases(0)[0].splits == ("train", "unlabeled")
    found = []
    for unlabelled in (IMAGES, IMAGES // 2):
        method.before_predict({"train": IMAGES, "unlabeled": unlabelled}, lambda p: generator(0, p))
        found.append(method.clusters.centroids.clone())
    assert torch.equal(*found)


# Weights that others have trained.


def checkpoint(path: Path, **changes) -> dict:
    """Write a checkpoint of the form of MoCo's, and return the `weights` key for it."""
    torch.manual_seed(3)
    network = torchvision.models.resnet50()
    network.fc = mlp((2048, 2048, 128))
    state = {f"module.encoder_q.{name}": value for name, value in network.state_dict().items()}
    state |= {"module.encoder_k.conv1.weight": torch.zeros(1), "module.queue": torch.zeros(128, 8)}
    torch.save({"epoch": 800, "arch": "resnet50", "state_dict": state | changes, "optimizer": {}}, path)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()[:8]
    return {"file": str(path), "url": "https://example.org/moco", "md5": md5, "sha256": sha256_file(path)}


@pytest.fixture(scope="module")
def moco(tmp_path_factory) -> dict:
    return checkpoint(tmp_path_factory.mktemp("moco") / "moco.pth.tar")


def test_given_weights_give_torchvisions_features_and_kmeans_on_them(root: Path, moco: dict) -> None:
    params = params_of(root, "pretrained", dataset="imagenet50", weights=moco, num_clusters=2, top5=False, restarts=1)
    params["views"], params["normalisation"] = {"test": []}, None
    del params["minibatch"]
    torch.manual_seed(0)
    method = methods.build("pretrained", params, DataInfo(3, 32, {"train": 6}))
    images = IMAGES[:6].repeat(1, 3, 4, 4)
    history = method.fit({"train": images}, seed=0)
    assert history[0]["loss"] >= 0
    torch.manual_seed(3)
    network = torchvision.models.resnet50()
    network.fc = mlp((2048, 2048, 128))
    with torch.no_grad():
        z = F.normalize(network.eval()(images / 255), dim=1)
        torch.testing.assert_close(method.features(images, "projection"), z)
    probs, centroids = method.predict(images), method.clusters.centroids.clone()
    assert probs.shape == (6, 2)
    assert len(probs.argmax(1).unique()) == 2
    method.clusters.centroids.add_(1.0)
    method.before_predict({"train": images}, lambda purpose: generator(0, purpose))
    assert torch.equal(method.clusters.centroids, centroids + 1), "the centroids of the history are those that predict"


def test_the_query_encoder_is_taken_whole_and_nothing_else(moco: dict) -> None:
    backbone, head = read_moco(moco)
    assert backbone.keys() == build_backbone("resnet50", "std").state_dict().keys()
    assert set(head) == {"layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"}


def test_missing_or_wrong_weights_are_named(moco: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such file; download https://example.org/moco and put it there"):
        read_moco({**moco, "file": str(tmp_path / "nowhere")})
    for digest in ({"md5": "00000000"}, {"sha256": "0" * 64}):
        with pytest.raises(IntegrityError, match=f"its {next(iter(digest))} is .* declared is 0000"):
            read_moco({**moco, **digest})
    read_moco({**moco, "sha256": None})
    other = tmp_path / "other"
    torch.save([1, 2], other)
    with pytest.raises(UserError, match="not a MoCo checkpoint"):
        read_moco({**moco, "file": str(other), "md5": hashlib.md5(other.read_bytes()).hexdigest(), "sha256": None})


def test_weights_of_another_network_are_refused(root: Path, tmp_path: Path) -> None:
    wrong = checkpoint(tmp_path / "wrong", **{"module.encoder_q.fc.2.weight": torch.zeros(64, 2048)})
    params = params_of(root, "pretrained", dataset="imagenet50", weights=wrong)
    method = methods.build("pretrained", params, DataInfo(3, 32, {"train": 6}))
    with pytest.raises(UserError, match=r"wrong: not the weights of this rl_head: size mismatch for layers.2"):
        method.fit({"train": IMAGES[:6].repeat(1, 3, 4, 4)}, seed=0)


def test_the_digits_weights_are_those_declared_and_written_as_others_write_theirs(root: Path, monkeypatch) -> None:
    monkeypatch.chdir(root)
    params = params_of(root, "pretrained", num_clusters=4, restarts=1)
    method = methods.build("pretrained", params, DataInfo(1, 8, {"train": N}))
    method.fit({"train": IMAGES}, seed=0)
    state = {**method.state_dict(), "clusters.centroids": torch.zeros(1)}
    spec = importlib.util.spec_from_file_location("checkpoint", root / "workflow/scripts/checkpoint.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    written = torch.load(params["weights"]["file"], weights_only=True)["state_dict"]
    named = script.moco_names(state)
    assert named.keys() == written.keys()
    assert all(torch.equal(named[name], written[name]) for name in named)
    with pytest.raises(UserError, match="have no backbone with an RL-head"):
        script.moco_names({"backbone.stem.0.weight": torch.zeros(1)})


# Two stages.


def test_neighbours_are_those_of_a_sort_and_never_the_image_itself(monkeypatch) -> None:
    features = torch.randn(50, 6, generator=generator(0, "z"), dtype=torch.float64)
    expected = F.cosine_similarity(features[:, None], features[None], dim=2).fill_diagonal_(-2).argsort(1, True)[:, :7]
    assert torch.equal(nearest_neighbours(features, 7), expected)
    monkeypatch.setattr("dica.methods.crlc_two_stage.PART", 16)
    assert torch.equal(nearest_neighbours(features, 7), expected), "also in parts"


@pytest.mark.parametrize(("variant", "layer"), [("full", "projection"), ("backbone-neighbours", "backbone")])
def test_stage_two_starts_from_the_source(root: Path, variant: str, layer: str) -> None:
    source, method = two_stage(root, variant)
    own, theirs = method.backbone.state_dict(), source.backbone.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in theirs)
    assert torch.equal(method.neighbours, nearest_neighbours(source.features(IMAGES, layer), 20))
    assert "neighbours" in method.state_dict()
    assert not any(name.startswith("rl_head") for name in method.state_dict())


def test_stage_two_contrasts_an_image_with_one_of_its_neighbours(root: Path) -> None:
    _, method = two_stage(root)
    taken = []
    batch = replace(batch_of(list(range(16))), take=lambda rows: taken.append(rows) or IMAGES[rows])
    step = method.loss(batch)
    (partners,) = taken
    assert (method.neighbours[batch.indices] == partners[:, None]).any(1).all()
    views = (batch.images, "anchor"), (IMAGES[partners], "partner")
    logits = [method.c_head(method.backbone(method.augmented(x, batch.rng(purpose)))) for x, purpose in views]
    loss, _ = cluster_loss(*logits, reg_weight=0.01)
    torch.testing.assert_close(step.loss, loss)


def test_each_neighbour_is_drawn_equally_often(root: Path) -> None:
    _, method = two_stage(root)
    batches = [replace(batch_of(list(range(16))), rng=lambda p, s=s: generator(s, p)) for s in range(300)]
    drawn = torch.stack([method._draw_neighbours(batch) for batch in batches])
    share = (method.neighbours[:16] == drawn[..., None]).float().mean((0, 1))
    torch.testing.assert_close(share, torch.full((20,), 1 / 20), atol=0.015, rtol=0)


def test_a_frozen_backbone_does_not_move(root: Path) -> None:
    _, method = two_stage(root, "frozen")
    method.train()
    assert not method.backbone.training
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    (group,) = method.parameter_groups()
    assert {id(p) for p in group["params"]} == {id(p) for p in method.c_head.parameters()}
    method.loss(batch_of(list(range(16)))).loss.backward()
    assert all(p.grad is None for p in method.backbone.parameters())
    assert all(torch.equal(before[name], value) for name, value in method.backbone.state_dict().items())
    assert all(p.grad is not None for p in method.c_head.parameters())


def test_stage_two_refuses_another_backbone_and_too_many_neighbours(root: Path) -> None:
    source = make(root, "simclr", backbone={"width": 8}).eval()
    with pytest.raises(UserError, match=r"backbone is not the one of the source run: size mismatch for stem.0"):
        make(root, "crlc-two-stage").adopt(source, {"train": IMAGES})
    with pytest.raises(UserError, match="neighbours: 60, but an image has only 59 others"):
        make(root, "crlc-two-stage", neighbours=60)


@pytest.mark.parametrize("dataset", ["imagenet50", "imagenet100", "imagenet200"])
def test_the_recipe_of_the_large_sets(root: Path, dataset: str) -> None:
    params = config.resolve("crlc-two-stage", "full", dataset, archive_profile(), root)
    assert params["source"]["method"] == "pretrained"
    assert params["freeze_backbone"]
    assert params["neighbour_layer"] == "backbone"
    assert params["top5"]
    assert params["batch_size"] == (512 if dataset == "imagenet50" else 1024)
    optimizer = {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 0.0}
    assert (params["optimizer"], params["lr"], params["epochs"], params["neighbours"]) == (optimizer, 5.0, 200, 50)


# A few labels.


@pytest.mark.parametrize(("variant", "each"), [("full", 4), ("per-class-1", 1), ("per-class-2", 2)])
def test_so_many_labels_of_each_class_are_drawn_and_recorded(root: Path, variant: str, each: int) -> None:
    method = semi(root, variant)
    record = method.record()
    assert record["labelled"] == sorted(set(record["labelled"]))
    assert record["classes"] == LABELS[record["labelled"]].tolist()
    assert [record["classes"].count(number) for number in range(CLASSES)] == [each] * CLASSES
    assert semi(root, variant).record() == record, "the run's seed decides"
    assert semi(root, variant, seed=1).record() != record


def test_no_label_but_the_drawn_ones_has_any_effect(root: Path) -> None:
    method = semi(root)
    labels = LABELS.clone()
    other = torch.ones(N, dtype=torch.bool)
    other[method.labelled.positions] = False
    labels[other] = -1
    again = make(root, "crlc-semi")
    again.give_labels(labels)
    batch = batch_of(list(range(16)))
    torch.testing.assert_close(again.loss(batch).loss, method.loss(batch_of(list(range(16)))).loss)
    assert {name: len(value) for name, value in again.labelled.state_dict().items()} == {"positions": 40, "classes": 40}


@pytest.mark.parametrize("variant", ["full", "without-rl-head"])
def test_the_loss_is_equation_12(root: Path, variant: str) -> None:
    method, batch = semi(root, variant, lambda3=0.7), batch_of(list(range(16)))
    step = method.loss(batch)
    features = method._embed(batch.images, batch.rng("augmented"))
    z = (None, None) if method.rl_head is None else method.rl_head(features)
    logits, few = method.c_head(features), method.labelled
    chosen = few.draw(32, batch.rng("labelled images"))
    labelled = method.c_head(method.backbone(method.augmented(IMAGES[few.positions[chosen]], batch.rng("labelled"))))
    options = {name: method.params[name] for name in ("lambda2", "lambda3", "temperature")}
    loss, expected = semi_loss(*z, logits[:, 0], logits[:, 1], labelled, few.classes[chosen], **options)
    torch.testing.assert_close(step.loss, loss)
    assert step.parts.keys() == expected.keys() - {"heads"}
    torch.testing.assert_close(step.parts["L_CE"], expected["L_CE"])
    alone, _ = crlc_loss(None, None, logits[3, 0], logits[3, 1], reg_weight=0.01)
    entropy = F.cross_entropy(labelled[3], few.classes[chosen])
    torch.testing.assert_close(step.carry["heads"][3], alone + 0.7 * entropy)


def test_a_labelled_batch_repeats_images_only_when_it_must(root: Path) -> None:
    few, many = semi(root, "per-class-1"), semi(root)
    counts = torch.bincount(few.labelled.draw(32, generator(0, "x")), minlength=10)
    assert counts.tolist().count(3) == 8, "32 of 10: three of each, and two a fourth time"
    assert counts.tolist().count(4) == 2
    drawn = many.labelled.draw(32, generator(0, "x"))
    assert len(drawn) == len(drawn.unique()) == 32


def test_a_class_without_enough_images_is_named(root: Path) -> None:
    with pytest.raises(UserError, match="labels_per_class: 4, but class 7 has 0 images"):
        make(root, "crlc-semi").give_labels(torch.where(LABELS == 7, 3, LABELS))


# Parameters.


@pytest.mark.parametrize("dataset", ["cifar10", "cifar20", "stl10"])
def test_every_variant_resolves_on_the_papers_data_sets(root: Path, dataset: str) -> None:
    for name in ("simclr", "crlc-two-stage"):
        for variant in config.load_method(name, root)["variants"]:
            config.resolve(name, variant, dataset, archive_profile(), root)
    strong = config.resolve("crlc-two-stage", "full", dataset, archive_profile(), root)
    below = config.resolve("simclr", "full", dataset, archive_profile(), root)
    assert strong["backbone"] == below["backbone"]
    assert strong["normalisation"] == below["normalisation"]
    steps = methods.build("crlc-two-stage", strong, DataInfo(3, 32, {"train": 100})).augmented.steps
    assert [type(step).__name__ for step in steps] == ["HorizontalFlip", "RandAugment", "Normalize", "Cutout"]
    assert sum(isinstance(step, Normalize) for step in steps) == 1, "where the pipeline says, and not again at its end"
