"""Auto-encoders and K-means on their codes: the rows AE, DAE, DeCNN and VAE of the papers' tables.

The numbers of these rows were copied from table to table; network, size of the code, corruption, epochs and starts of
K-means are not known of any of them. `code` chooses:

- `plain` (AE; the papers cite Bengio et al., Greedy layer-wise training of deep networks, NIPS 2006): the image is
  reconstructed.
- `plain` with `corruption` (DAE; Vincent et al., Stacked denoising autoencoders, JMLR 2010): a share of the pixels is
  set to zero before they go in, and the clean image is asked for.
- `sparse` (DeCNN; Zeiler et al., Deconvolutional networks, CVPR 2010): the 1-norm of the code is added. The cited work
  has no encoder and infers maps; this is an approximation, and its rows say so.
- `variational` (VAE; Kingma and Welling, ICLR 2014, Eq. 10): one sample of a Gaussian code an image; features are its
  means.

Deviations, each a key of params/autoencoder.yaml:

- All layers are trained at once, not one after the other as the cited works of AE and DAE have it.
- `encoder`: convolutions with a mirrored decoder (`widths`), or `dense` layers as in DEC.
- `loss`, `scale`: squared error or cross-entropy, and over what it is summed (`dica.losses.autoencoder`).
- `weight`: of the 1-norm, or of the divergence (beta).
- `views.given`, `target`: what goes in, not augmented as cited, and whether it or the un-augmented image comes out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dica.data.splits import DataInfo
from dica.files import UserError
from dica.losses.autoencoder import divergence, reconstruction_loss, sparsity
from dica.losses.common import at_least_float32
from dica.methods.base import Batch, Step
from dica.methods.feature_clusters import FeatureClusters
from dica.networks.mirrored import Decoder, Encoder

CODES = ("plain", "sparse", "variational")


class Autoencoder(FeatureClusters):
    """An encoder with its mirrored decoder."""

    def __init__(self, params: dict, data: DataInfo) -> None:
        super().__init__(params, data)
        if params["code"] not in CODES:
            raise UserError(f"autoencoder: code: {params['code']!r} is not one of {', '.join(CODES)}")
        size, width = params.get("size", data.image_size), params["code_size"]
        shape = (data.channels, size, params["widths"])
        self.variational, dense = params["code"] == "variational", params["encoder"] == "dense"
        self.encoder = Encoder(*shape, width * (2 if self.variational else 1), dense)
        self.decoder = Decoder(*shape, width, dense)
        self.given = self.pipeline("given")
        self.make_clusters(width)

    def networks(self) -> list[nn.Module]:
        """Return the parts with nearly all of the arithmetic."""
        return [self.encoder, self.decoder]

    def loss(self, batch: Batch) -> Step:
        """Reconstruction, and what the kind of code adds."""
        images = self.given(batch.images, batch.rng("given"))
        coded = self.encoder(self._corrupted(images, batch))
        codes = self._sampled(coded, batch) if self.variational else coded
        target = images if self.params["target"] == "given" else self.test_view(batch.images)
        kind = {"kind": self.params["loss"], "scale": self.params["scale"]}
        loss, parts = reconstruction_loss(self.decoder(codes), target, **kind)
        if self.params["code"] != "plain":
            added = divergence(*coded.chunk(2, dim=1)) if self.variational else sparsity(coded)
            parts |= {"KL" if self.variational else "L_sparse": added.detach()}
            loss = loss + self.params["weight"] * added
        return Step(loss, parts)

    def _corrupted(self, images: Tensor, batch: Batch) -> Tensor:
        """Set a share of the pixels to zero, all channels of a pixel together."""
        share = self.params["corruption"]
        if not share:
            return images
        kept = torch.rand(images[:, :1].shape, generator=batch.rng("corruption"), device=images.device) >= share
        return images * kept

    def _sampled(self, coded: Tensor, batch: Batch) -> Tensor:
        """Draw a code of each image from the Gaussian that the encoder gives."""
        mean, log_variance = at_least_float32(coded).chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=batch.rng("code"), device=mean.device, dtype=mean.dtype)
        return mean + (log_variance / 2).exp() * noise

    def features(self, images: Tensor, layer: str = "backbone") -> Tensor:
        """Return the codes of the un-augmented view, (n, code_size); of a variational one the means."""
        self.check_layer(layer)
        coded = self.encoder(self.test_view(images))
        return coded.chunk(2, dim=1)[0] if self.variational else coded


METHOD = Autoencoder
