"""Small seeded batches of images, and a function of one image applied to each."""

from __future__ import annotations

import torch


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def floats(n=6, c=3, h=16, w=16, seed=0):
    return torch.rand(n, c, h, w, generator=generator(seed))


def bytes_(n=6, c=3, h=16, w=16, seed=0):
    return torch.randint(0, 256, (n, c, h, w), generator=generator(seed), dtype=torch.uint8)


def with_draws(step, images, source):
    """Apply one step of a pipeline with numbers that `source` draws."""
    return step(images, step.draw(images, source))


def per_image(function, images, *parameters):
    """Apply a torchvision function to each image with its own parameters."""
    rows = zip(images, *parameters, strict=True)
    return torch.cat([function(image[None], *rest) for image, *rest in rows])


# Each operator equals torchvision's.
