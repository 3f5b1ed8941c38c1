"""The probe: what it learns from, what it drops out, what it leaves alone; and DCCM's networks for Table 6."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dica import train
from dica.files import UserError, write_npz
from dica.losses.dccm import targets
from dica.methods.base import Batch
from dica.rng import generator
from dica.scores import evaluation
from tiny import make_prepared, make_trainer, tiny_config


def probe(tmp_path: Path, variant: str = "full", **overrides):
    settings = tiny_config("probe", variant, **overrides)
    return make_trainer(settings, make_prepared(tmp_path / "data"), tmp_path / "state")


def batch_of(trainer, indices: list[int]) -> Batch:
    rows = torch.tensor(indices)
    images = trainer.images.take(("train",), rows)
    return Batch(images, rows, 0, 0, "main", lambda purpose: generator(0, purpose), {})


@pytest.mark.parametrize("variant", ["full", "dccm-y64"])
def test_it_learns_the_labels_and_nothing_of_the_source_moves(variant: str, tmp_path: Path) -> None:
    trainer = probe(tmp_path, variant, epochs=40, lr=0.05, held_out=0.0)
    method, images = trainer.method, trainer.images.all_of("train")
    with torch.no_grad():
        before = method.represent(images)
    trainer.run()
    assert trainer.history[-1]["right"] > 0.9 > 0.5 > trainer.history[0]["right"]
    with torch.no_grad():
        assert torch.equal(method.represent(images), before)
        right = (method.eval().predict(images).argmax(dim=1) == method.labels).float().mean()
    assert right > 0.9
    assert not any(name.startswith(("points", "labels", "source")) for name in method.state_dict())


def test_a_last_batch_of_one_image_is_left_out_where_there_is_a_batch_norm(tmp_path: Path) -> None:
    plain, hidden = probe(tmp_path), probe(tmp_path / "hidden", "dccm-y64")
    for trainer, steps in ((plain, 1), (hidden, 0)):
        assert len(list(trainer.method.split(batch_of(trainer, [0])))) == steps
        assert len(list(trainer.method.split(batch_of(trainer, [0, 1])))) == 1


def test_dropout_is_for_training_alone_and_keeps_the_mean(tmp_path: Path) -> None:
    trainer = probe(tmp_path, dropout=0.5, held_out=0.0)
    method, batch = trainer.method, batch_of(trainer, list(range(48)))
    ones = torch.ones(2000, 64)
    dropped = method._dropout(ones, batch)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert abs(float(dropped.mean()) - 1) < 0.02
    assert torch.equal(dropped, method._dropout(ones, batch)), "the same numbers at the same position"
    assert method._dropout(ones, None) is ones
    kept = method.points[batch.indices].clone()
    expected = torch.nn.functional.cross_entropy(method.first(method._dropout(kept, batch)), method.labels)
    assert torch.allclose(method.loss(batch).loss, expected)


def test_an_image_without_a_label_teaches_nothing(tmp_path: Path) -> None:
    trainer = probe(tmp_path, dropout=0.0, held_out=0.0)
    method = trainer.method
    some, more = batch_of(trainer, [0, 1, 2]), batch_of(trainer, [0, 1, 2, 3])
    method.labels[3] = -1
    assert torch.allclose(method.loss(some).loss, method.loss(more).loss)
    assert method.loss(batch_of(trainer, [3])).loss == 0


def test_what_is_held_out_teaches_nothing_and_alone_is_scored(tmp_path: Path) -> None:
    trainer = probe(tmp_path, epochs=1, held_out=0.25)
    method = trainer.method
    held = method.judged()["train"]
    assert held.sum() == 12
    assert (method.labels[held] == -1).all()
    assert (method.labels[~held] == torch.arange(48)[~held] % 8).all()
    again = probe(tmp_path / "again", epochs=1, held_out=0.25).method
    assert torch.equal(again.held, held), "a resumed run holds out the same"
    arrays = train.predict(method, trainer.images, lambda purpose: generator(0, purpose))
    arrays["train_assignment"] = np.where(held, np.arange(48) % 8, 9).astype(np.int16)
    write_npz(tmp_path / "p.npz", arrays)
    found = evaluation.recompute(tmp_path / "p.npz", tmp_path / "data/labels.npz", "all", supervised=True)
    assert (found["headline"]["acc"], found["headline"]["n"]) == (1.0, 12)
    write_npz(tmp_path / "p.npz", {**arrays, "train_judged": held.numpy()[:4]})
    with pytest.raises(UserError, match="train_judged is bool"):
        evaluation.recompute(tmp_path / "p.npz", tmp_path / "data/labels.npz", "all", supervised=True)


def test_wrong_uses_are_explained(tmp_path: Path) -> None:
    trainer = probe(tmp_path)
    with pytest.raises(UserError, match="num_clusters is 8, there are labels 11"):
        trainer.method.give_labels(torch.tensor([0, 11]))
    with pytest.raises(UserError, match="source: name the method"):
        train.methods.build("probe", {**trainer.params, "source": None}, trainer.images.info)
    with pytest.raises(UserError, match="terms MI takes its pseudo-graph from a source"):
        make_trainer(tiny_config("dccm", "m3", terms="MI"), tmp_path / "data", tmp_path / "other")


def test_a_network_for_table_6_takes_its_graph_from_the_source_and_learns_from_mutual_information(tmp_path) -> None:
    trainer = make_trainer(tiny_config("dccm", "mi-v1"), make_prepared(tmp_path / "data"), tmp_path / "state")
    method = trainer.method
    batch = batch_of(trainer, [5, 40, 7, 8])
    before = method.targets(batch)
    expected = targets(method.given_probs[batch.indices], thres1=0.95, thres2=0.9)
    assert torch.equal(before.W, expected.W)
    head = method.network.output.weight.clone()
    convolution = method.network.stages[0][0].weight.clone()
    trainer.run()
    assert torch.equal(method.targets(batch).W, before.W), "the graph stays while the network moves"
    assert torch.equal(method.network.output.weight, head), "no other term teaches the clusters"
    assert not torch.equal(method.network.stages[0][0].weight, convolution)
    assert "given_probs" not in method.state_dict()
