"""Runs that build on trained runs: what the plan makes of them, and what training proves before it believes one."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from dica import train
from dica.analyse import Trained, embedding
from dica.engine.images import ResidentImages
from dica.engine.load import RunFolders, load_trained
from dica.files import IntegrityError, UserError, read_json, sha256_file, write_json
from dica.methods.base import Method
from dica.plan import parameters as config
from dica.plan import plan as identity
from dica.validation import load_yaml
from editable import edit
from tiny import ROOT, archive_profile, make_prepared, make_trainer, tiny_config


def run_config(method: str, variant: str, profile: dict | None = None, seed: int = 0, dataset: str = "digits") -> dict:
    return identity.run_config(method, variant, dataset, seed, profile or archive_profile(), ROOT)


def test_a_run_has_the_id_of_the_run_below_in_its_own() -> None:
    below, run = run_config("imc-swav", "full"), run_config("kmeans", "on-imc-swav")
    assert run["params"]["source"] == {"method": "imc-swav", "variant": "full", "id": below["id"]}
    assert run["params"]["train_split"] == below["params"]["train_split"], "source: the same images"
    assert run["params"]["eval_split"] == below["params"]["eval_split"]
    longer = {**archive_profile(), "overrides": {"imc-swav": {"epochs": 7}}}
    assert run_config("kmeans", "on-imc-swav", longer)["id"] != run["id"]
    assert run_config("kmeans", "full", longer)["id"] == run_config("kmeans", "full")["id"]
    assert identity.source_folder(run, "results") == f"results/runs/imc-swav/digits/s0-{below['id']}"
    assert identity.source_folder(below, "results") == ""


def test_the_plan_has_the_runs_below_for_the_same_artefact(monkeypatch) -> None:
    declared = load_yaml(ROOT / "params/artefacts/dica.yaml")
    table = {**declared["artefacts"]["table-1"], "seeds": 2}
    table["rows"] = [{"label": "K", "method": "kmeans", "variant": "on-drc"}]
    artefact = identity.declared._artefact({**declared, "artefacts": {"table-9": table}}, "table-9", "here")
    monkeypatch.setattr(identity.declared, "load_artefacts", lambda *_, **__: [artefact])
    runs = identity.make_plan(archive_profile(), ROOT)["runs"]
    assert [(run["method"], run["variants"], run["seed"], run["needed_by"]) for run in runs] == [
        (method, variants, seed, ["dica table-9"])
        for method, variants in (("drc", ["full"]), ("kmeans", ["on-drc"]))
        for seed in (0, 1)
    ]


def test_a_source_that_cannot_be_is_refused(copied_params: Path) -> None:
    def change(body: dict) -> None:
        body["variants"]["a"] = {"source": {"method": "kmeans", "variant": "b"}}
        body["variants"]["b"] = {"source": {"method": "kmeans", "variant": "a"}}
        body["variants"]["c"] = {"source": {"method": "drx", "variant": "full"}}
        body["variants"]["e"] = {"source": {"method": "probe", "variant": "full"}}
        body["variants"]["f"] = {"source": {"method": "kmeans", "variant": "on-drc"}}
        body["variants"]["g"] = {"source": {"method": "kmeans", "variant": "full"}}
        body["variants"]["d"] = {"top5": True, "num_clusters": 4}
        body["variants"]["h"] = {"source": {"method": "drc"}}

    edit(copied_params, "kmeans", change)
    for variant, expected in [
        ("a", r"kmeans\.yaml: b: source: .*kmeans \(a\) <- kmeans \(b\) <- kmeans \(a\)"),
        ("c", r"kmeans\.yaml: c: source: unknown method 'drx'"),
        ("e", r"kmeans\.yaml: e: source: a probe run .* cannot be loaded again, .*; use that run itself: imc-swav"),
        ("f", r"kmeans\.yaml: f: source: a kmeans run .* use that run itself: drc \(full\)"),
        ("h", r"kmeans \(h\) on digits: source: .*variant"),
        ("d", "top5: needs 5 clusters, there are 4"),
    ]:
        with pytest.raises(UserError, match=expected):
            config.resolve("kmeans", variant, "digits", archive_profile(), copied_params)
    assert config.resolve("kmeans", "g", "digits", archive_profile(), copied_params)["source"]["method"] == "kmeans"


def test_whoever_adopts_a_run_can_be_loaded_again_or_is_known_not_to_be() -> None:
    """A new method that builds on another belongs to one of the two."""
    adopting = set()
    for name in config.method_names(ROOT):
        module = importlib.import_module(f"dica.methods.{name.replace('-', '_')}")
        classes = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Method)]
        own = [kind for kind in classes if kind.__module__ == module.__name__]
        adopting |= {name for kind in own if kind.adopt is not Method.adopt}
    made = {name for name in config.method_names(ROOT) if config.load_method(name, ROOT).get("made_of_source")}
    assert adopting == {*made, "dccm", "crlc-two-stage", "dec", "scan", "scan-neighbours"}


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Path:
    """A folder with tiny images, a short IMC-SwAV run on them, and the config of K-means on its features."""
    folder = tmp_path_factory.mktemp("chain")
    make_prepared(folder / "data")
    below = tiny_config("imc-swav")
    write_json(folder / "below.json", below)
    assert train.main(arguments(folder, "below", "below")) == 0
    above = tiny_config("kmeans", "on-imc-swav", top5=True)
    assert above["params"]["source"]["id"] == below["id"]
    write_json(folder / "above.json", above)
    return folder


def arguments(folder: Path, name: str, out: str, *more: str) -> list[str]:
    return [
        *("--config", str(folder / f"{name}.json"), "--data", str(folder / "data"), "--device", "cpu"),
        *("--out", str(folder / out), "--models", str(folder / f"{out}-models"), *more),
    ]


def source_of(folder: Path) -> list[str]:
    return ["--source", str(folder / "below"), "--source-models", str(folder / "below-models")]


def test_kmeans_clusters_the_features_of_its_source(chain: Path) -> None:
    assert train.main(arguments(chain, "above", "above", *source_of(chain))) == 0
    digest = sha256_file(chain / "below-models/weights.safetensors")
    record = read_json(chain / "above/run.json")
    assert record["source"] == {"id": read_json(chain / "below.json")["id"], "weights_sha256": digest}
    assert "source" not in read_json(chain / "below/run.json"), "a plain run's record stays as it was"
    images = ResidentImages(chain / "data", torch.device("cpu"))
    place = RunFolders(chain / "below", chain / "below-models")
    method, _ = load_trained(place, record["source"]["id"], images.info, images.device)
    features = method.features(images.all_of("train"))
    assert features.shape == (48, 64)
    assert not features.requires_grad
    with np.load(chain / "above/predictions.npz") as stored:
        assignment, top5 = stored["train_assignment"], stored["train_top5"]
    assert (top5[:, 0] == assignment).all()
    centres = torch.stack([features[assignment == cluster].mean(dim=0) for cluster in range(10)])
    distances = torch.cdist(features, centres)
    assert (distances.argmin(dim=1).numpy() == assignment).all(), "each point is in the cluster of its nearest mean"
    assert (distances.topk(5, largest=False).indices.numpy() == top5).mean() > 0.95, "up to what two means tie"


def test_the_features_are_those_of_the_weights_not_of_a_new_network(chain: Path) -> None:
    images = ResidentImages(chain / "data", torch.device("cpu"))
    state = torch.get_rng_state()
    place, wanted = RunFolders(chain / "below", chain / "below-models"), read_json(chain / "below.json")["id"]
    first, _ = load_trained(place, wanted, images.info, images.device)
    assert torch.equal(state, torch.get_rng_state()), "loading draws nothing from the stream that others draw from"
    torch.manual_seed(99)
    second, _ = load_trained(place, wanted, images.info, images.device)
    pixels = images.all_of("train")
    assert torch.equal(first.features(pixels), second.features(pixels))


def test_a_source_is_proved_before_it_is_used(chain: Path, tmp_path: Path, capsys) -> None:
    def fails(code: int, said: str, *more: str, name: str = "above") -> None:
        assert train.main(arguments(chain, name, "refused", *more)) == code
        assert said in capsys.readouterr().err

    fails(2, "builds on imc-swav (full), run")
    fails(2, "run.json: no such file; the run", "--source", str(tmp_path / "nowhere"))
    fails(2, "weights.safetensors: no such file", "--source", str(chain / "below"))
    fails(2, "builds on no other run", *source_of(chain), name="below")
    other = tiny_config("imc-swav", seed=1)
    write_json(tmp_path / "below/run.json", {**read_json(chain / "below/run.json"), "id": other["id"]})
    write_json(tmp_path / "below/config.json", other)
    models = tmp_path / "below-models/weights.safetensors"
    models.parent.mkdir()
    content = (chain / "below-models/weights.safetensors").read_bytes()
    models.write_bytes(content)
    fails(2, f"is of run {other['id']}", *source_of(tmp_path))
    for name in ("run.json", "config.json"):
        (tmp_path / "below" / name).write_bytes((chain / "below" / name).read_bytes())
    models.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    fails(3, "its SHA-256 is not the one in", *source_of(tmp_path))


def test_a_run_that_weights_alone_do_not_make_is_not_analysed(chain: Path) -> None:
    """Features may be as many as pixels: its weights could then be loaded, and it would look at pixels."""
    assert train.main(arguments(chain, "above", "looked-at", *source_of(chain))) == 0
    run = Trained(chain / "looked-at", chain / "looked-at-models", chain / "data", chain / "data/labels.npz")
    with pytest.raises(UserError, match=r"looked-at: a kmeans run .* use that run itself: imc-swav \(full\)"):
        embedding(run)


def test_a_method_without_a_use_for_a_source_says_so(tmp_path: Path) -> None:
    data = make_prepared(tmp_path / "data")
    trainer = make_trainer(tiny_config("drc"), data, tmp_path / "state")
    with pytest.raises(UserError, match="DRC builds on no other run"):
        trainer.method.adopt(trainer.method, {})


LAYERS = [
    ("drc", "backbone", 64),
    ("dccm", "backbone", 64),
    ("dccm", "embedding", 64),
    ("dccm", "conv", 512),
    ("crlc", "backbone", 64),
    ("crlc", "projection", "projection_size"),
    ("tcc", "backbone", "feature_size"),
    ("imc-swav", "backbone", 64),
    ("imc-swav", "projection", 32),
]


@pytest.mark.parametrize(("name", "layer", "size"), LAYERS)
def test_features_are_of_the_plain_image_and_the_named_layer(name: str, layer: str, size, tmp_path: Path) -> None:
    settings = tiny_config(name)
    trainer = make_trainer(settings, make_prepared(tmp_path / "data"), tmp_path / "state")
    method, images = trainer.method.eval(), trainer.images.all_of("train")[:6]
    with torch.no_grad():
        features = method.features(images, layer)
        assert features.shape == (6, settings["params"].get(size, size))
        if layer == "projection":
            assert torch.allclose(features.norm(dim=1), torch.ones(6))
        assert torch.equal(features, method.features(images, layer)), "nothing is drawn"
        alone = method.features(images[:1], layer)
        assert torch.allclose(alone[0], features[0], atol=1e-5), "an image's features do not depend on its neighbours"
        with pytest.raises(UserError, match="no layer 'nonsense'; there are: backbone"):
            method.features(images, "nonsense")


def test_labels_go_to_supervised_methods_alone(tmp_path: Path) -> None:
    data = make_prepared(tmp_path / "data", {"train": 20, "test": 12})
    trainer = make_trainer(tiny_config("drc"), data, tmp_path / "state")
    inputs = train.Inputs(data, data / "labels.npz")
    given = []
    trainer.method.give_labels = given.append
    settings = tiny_config("drc")
    train.give_labels(settings, trainer.method, train.Inputs(data, tmp_path / "absent.npz"), torch.device("cpu"))
    assert not given, "not even opened"
    settings["params"]["supervised"] = True
    with pytest.raises(UserError, match="supervised: False"):
        train.give_labels(settings, trainer.method, inputs, torch.device("cpu"))
    trainer.method.supervised = True
    train.give_labels(settings, trainer.method, inputs, torch.device("cpu"))
    assert given[0].tolist() == [index % 8 for index in range(20)], "the train split's, not the test split's"
    with np.load(data / "labels.npz") as stored:
        np.savez(data / "labels.npz", train=stored["train"][::-1], test=stored["test"])
    with pytest.raises(IntegrityError, match="not the labels of"):
        train.give_labels(settings, trainer.method, inputs, torch.device("cpu"))
