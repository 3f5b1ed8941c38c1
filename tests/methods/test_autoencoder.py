"""Auto-encoders: the decoder mirrors the encoder, noise goes in and the clean image is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dica import methods
from dica.data.splits import DataInfo
from dica.files import UserError
from dica.losses.autoencoder import divergence
from dica.methods.base import Batch
from dica.networks.mirrored import Decoder, Encoder
from dica.rng import generator
from tiny import make_prepared, make_trainer, tiny_config


@pytest.mark.parametrize(
    ("size", "widths", "dense"),
    [(8, (4, 8), False), (32, (4, 8, 16), False), (96, (2, 4, 4, 8), False), (8, (9, 5), True)],
)
def test_what_the_encoder_takes_the_decoder_gives(size: int, widths: tuple, dense: bool) -> None:
    encoder, decoder = Encoder(3, size, widths, 6, dense), Decoder(3, size, widths, 6, dense)
    images = torch.rand(2, 3, size, size)
    codes = encoder(images)
    assert codes.shape == (2, 6)
    assert decoder(codes).shape == images.shape
    kernels = [[p.shape for p in part.parameters() if p.dim() == 4] for part in (encoder, decoder)]
    assert kernels[0] == kernels[1][::-1], "a transposed convolution has the shape of the one that it mirrors"


def test_images_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(UserError, match=r"widths: images of 28 pixels cannot be halved 3 times; give fewer widths"):
        Encoder(1, 28, (4, 4, 4), 5)


def one_batch(method, count: int = 12) -> Batch:
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator(3, "images"), dtype=torch.uint8)
    return Batch(images, torch.arange(count), 0, 0, "main", lambda purpose: generator(0, purpose))


def build(variant: str, **overrides: object):
    torch.manual_seed(0)
    return methods.build(
        "autoencoder", tiny_config("autoencoder", variant, **overrides)["params"], DataInfo(1, 8, {"train": 12})
    )


def test_a_corrupted_image_loses_whole_pixels_and_the_clean_one_is_asked_for() -> None:
    method = build("dae", corruption=0.5, views={"given": []})
    seen, forward = [], method.encoder.forward
    method.encoder.forward = lambda images: seen.append(images) or forward(images)
    batch = one_batch(method)
    clean = method.test_view(batch.images)
    loss = method.loss(batch).loss
    lost = (seen[0] == 0) & (clean > 0)
    assert 0.4 < lost.float().mean() < 0.6
    assert torch.equal(seen[0][~lost], clean[~lost])
    method.train()
    with torch.no_grad():
        expected = (
            (torch.sigmoid(method.decoder(method.encoder(seen[0]))) - clean).square().flatten(1).sum(dim=1).mean()
        )
    torch.testing.assert_close(loss, expected)
    colour = method._corrupted(torch.ones(4, 3, 8, 8), batch)
    assert torch.equal(colour[:, 0], colour[:, 1]), "the channels of a pixel go together"


def test_features_of_a_variational_code_are_its_means() -> None:
    method = build("vae").eval()
    batch = one_batch(method)
    step = method.loss(batch)
    mean, log_variance = method.encoder(method.test_view(batch.images)).chunk(2, dim=1)
    torch.testing.assert_close(method.features(batch.images), mean)
    if not method.params["views"]["given"]:
        torch.testing.assert_close(step.parts["KL"], divergence(mean, log_variance).detach())
    torch.testing.assert_close(step.loss, step.parts["L_rec"] + method.params["weight"] * step.parts["KL"])


@pytest.mark.parametrize("variant", ["full", "decnn"])
def test_codes_tell_places_apart_after_a_few_epochs(variant: str, tmp_path: Path) -> None:
    data = make_prepared(tmp_path / "data")
    trainer = make_trainer(tiny_config("autoencoder", variant, epochs=12, num_clusters=8), data, tmp_path / "state")
    trainer.run()
    images = {name: trainer.images.all_of(name) for name in trainer.images.splits}
    trainer.method.before_predict(images, lambda purpose: generator(0, purpose))
    assignment = trainer.method.predict(images["train"]).argmax(dim=1)
    place = torch.arange(48) % 8
    agreeing = torch.stack([torch.bincount(assignment[place == k], minlength=8).max() for k in range(8)]).sum()
    assert agreeing >= 30, "of 48; about 20 by chance"
    losses = [row["loss"] for row in trainer.history]
    assert losses[-1] < losses[0] / 1.5
