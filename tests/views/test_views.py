"""The batched augmentation against torchvision's per-image operators, and what is drawn against its ranges."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from batches import bytes_, floats, generator, per_image, with_draws
from dica.views import pixels, rand_augment, steps
from dica.views.pipeline import build_pipeline
from dica.views.steps import ColorJitter, RandomResizedCrop
from vision import torchvision

functional = torchvision.transforms.functional
MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (32, 32, 18), (96, 96, 52), (20, 31, 24)])
def test_crop_resize_equals_torchvision(height, width, size):
    images = floats(8, 3, height, width)
    u = torch.rand(8, 22, generator=generator(1))
    boxes = RandomResizedCrop(size, scale=(0.05, 1.0)).boxes(u, height, width)
    flip = torch.tensor([False, True] * 4)

    def reference(image, box, mirrored):
        out = functional.resized_crop(image, *map(int, box.tolist()), [size, size], antialias=True)
        return functional.hflip(out) if mirrored else out

    expected = per_image(reference, images, boxes, flip)
    torch.testing.assert_close(pixels.crop_resize(images, boxes, size, flip), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 40), (40, 24, 16), (24, 37, 30), (16, 16, 16)])
def test_resize_equals_torchvision(height, width, size):
    images = floats(2, 3, height, width)
    expected = functional.resize(images, size, antialias=True)
    torch.testing.assert_close(pixels.resize(images, size), expected, atol=1e-5, rtol=0)


def test_center_and_random_crops_are_windows_of_the_image():
    images = bytes_(200, 1, 10, 9)
    centre = build_pipeline([{"op": "center_crop", "size": 6}])(images, generator())
    assert torch.equal(centre, functional.center_crop(images, 6) / 255)
    random = build_pipeline([{"op": "random_crop", "size": 6}])(images, generator())
    windows = (images / 255).unfold(2, 6, 1).unfold(3, 6, 1)[:, 0]  # (n, 5, 4, 6, 6)
    found = (windows == random[:, :, None]).all(-1).all(-1)
    assert found.flatten(1).any(1).all()
    assert found.sum(0).min() >= 2  # every place is taken at times


def test_padded_crop_shows_the_padding():
    images = bytes_(100, 1, 8, 8).clamp_min(1)
    random = build_pipeline([{"op": "random_crop", "size": 8, "padding": 4}])(images, generator())
    assert random.shape == (100, 1, 8, 8)
    assert (random == 0).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_contrast_saturation_equal_torchvision(channels):
    images = floats(9, channels)
    factor = torch.linspace(0.2, 1.8, 9)
    references = [functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation]
    for kind, reference in enumerate(references):
        expected = per_image(lambda x, f, r=reference: r(x, f.item()), images, factor)
        found = pixels.jitter_lerp(images, torch.full((9,), kind), factor)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_hue_equals_torchvision_also_for_grey_and_pure_colours():
    images = floats(11)
    images[0] = 0.5
    images[1] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    images[2] = torch.tensor([0.0, 1.0, 1.0])[:, None, None]
    images[3] = 0.0
    shift = torch.linspace(-0.5, 0.5, 11)
    expected = per_image(lambda x, s: functional.adjust_hue(x, s.item()), images, shift)
    torch.testing.assert_close(pixels.adjust_hue(images, shift), expected, atol=1e-5, rtol=0)


def test_color_jitter_is_torchvisions_in_some_order_and_every_order_occurs():
    images = floats(240, 3, 4, 4)
    jitter = ColorJitter(0.4, 0.4, 0.4, 0.1)
    found = with_draws(jitter, images, generator(5))
    u = torch.rand(240, 9, generator=generator(5))  # the one block that the step draws
    factors = torch.cat([0.6 + 0.8 * u[:, :3], 0.2 * u[:, 3:4] - 0.1], dim=1).tolist()
    steps = [
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    ]
    seen = set()
    for image, out, factor in zip(images, found, factors, strict=True):
        for order in itertools.permutations(range(4)):
            expected = image
            for index in order:
                expected = steps[index](expected, factor[index])
            if torch.allclose(expected, out, atol=1e-4):
                seen.add(order)
                break
        else:
            pytest.fail("an image is not torchvision's under any order")
    assert len(seen) >= 20  # a pair of steps may commute on an image; the first of equal orders is counted
    assert {order.index(3) for order in seen} == {0, 1, 2, 3}


def test_grayscale_equals_torchvision():
    images = bytes_()
    found = build_pipeline([{"op": "grayscale"}])(images, generator())
    torch.testing.assert_close(found, functional.rgb_to_grayscale(images / 255, 3), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (9, 20)])
def test_blur_equals_torchvision(height, width):
    images = floats(5, 3, height, width)
    sigma = torch.tensor([0.1, 0.5, 1.0, 1.5, 2.0])
    expected = per_image(lambda x, s: functional.gaussian_blur(x, [7, 7], [s.item()] * 2), images, sigma)
    torch.testing.assert_close(pixels.gaussian_blur(images, sigma, 7), expected, atol=1e-5, rtol=0)
    untouched = pixels.gaussian_blur(images, sigma, 7, torch.zeros(5, dtype=torch.bool))
    torch.testing.assert_close(untouched, images)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (12, 17)])
def test_affine_equals_torchvision(height, width):
    images = floats(4, 1, height, width)
    degrees, shear = torch.tensor([0.0, 12.0, -30.0, 5.0]), torch.tensor([0.0, 0.0, 8.0, -15.0])
    shift = torch.tensor([[1.0, 2.0], [0.0, 0.0], [-1.0, 1.0], [2.0, -3.0]])
    scale = torch.tensor([1.0, 0.8, 1.2, 1.1])

    def reference(image, angle, move, size, lean):
        mode = torchvision.transforms.InterpolationMode.BILINEAR
        moves = [int(m) for m in move]
        return functional.affine(image, angle.item(), moves, size.item(), [lean.item(), 0.0], mode)

    matrix = steps.affine_matrix(torch.deg2rad(degrees), shift, scale, torch.deg2rad(shear))
    expected = per_image(reference, images, degrees, shift, scale, shear)
    torch.testing.assert_close(pixels.warp(images, matrix), expected, atol=1e-4, rtol=0)


def test_keras_affine_equals_scipy_channels_first():
    images = floats(3, 3, 10, 14)
    angle = torch.tensor([0.3, -0.2, 0.0])
    shift, zoom = (
        torch.tensor([[1.5, -2.0], [0.0, 1.0], [3.0, 0.0]]),
        torch.tensor([[0.9, 1.1], [1.0, 0.85], [1.15, 1.0]]),
    )
    found = pixels.warp(images, steps.keras_matrix(angle, shift, zoom), nearest_fill=True)
    centre = np.array([4.5, 6.5])
    for i in range(3):
        cos, sin = math.cos(angle[i]), math.sin(angle[i])
        rotation = np.array([[cos, -sin], [sin, cos]])  # rows and columns, as in Keras
        matrix = rotation @ np.diag(zoom[i].numpy()[::-1])
        offset = centre + rotation @ shift[i].numpy()[::-1] - matrix @ centre
        for channel in range(3):
            expected = ndimage.affine_transform(images[i, channel].numpy(), matrix, offset, order=1, mode="nearest")
            np.testing.assert_allclose(found[i, channel].numpy(), expected, atol=1e-4)


def test_normalize_and_rescale():
    images = bytes_()
    found = build_pipeline([{"op": "rescale", "factor": 0.95}, {"op": "normalize"}], MEAN, STD)(images, generator())
    torch.testing.assert_close(found, functional.normalize(images / 255 * 0.95, MEAN, STD))


def test_channel_shuffle_gives_every_order_of_the_channels():
    images = torch.arange(3, dtype=torch.uint8).mul(50)[None, :, None, None].expand(300, -1, 2, 2)
    found = build_pipeline([{"op": "channel_shuffle"}])(images, generator()) * 255 / 50
    assert torch.equal(found, found[:, :, :1, :1].expand_as(found)), "channels move whole"
    orders = [tuple(order) for order in found[:, :, 0, 0].round().int().tolist()]
    assert {tuple(sorted(order)) for order in orders} == {(0, 1, 2)}
    assert len(set(orders)) == 6
    assert all(30 < orders.count(order) < 75 for order in set(orders))


def test_channel_shift_stays_in_the_range_of_the_image():
    images = bytes_(50).clamp(60, 200)
    found = build_pipeline([{"op": "channel_shift", "amount": 0.1}])(images, generator())
    before = images / 255
    assert (found.amax((1, 2, 3)) <= before.amax((1, 2, 3))).all()
    assert (found.amin((1, 2, 3)) >= before.amin((1, 2, 3))).all()
    change = (found - before).flatten(2)
    assert change.abs().max() <= 0.1 + 1e-6
    middle = change.median(2).values  # most pixels are far from the ends: the shift of the channel
    assert middle.std(1).min() > 0  # channels are shifted apart


@pytest.mark.parametrize("channels", [1, 3])
def test_tone_operations_equal_torchvision(channels):
    images = bytes_(6, channels, 32, 24)
    images[0], images[1, 0] = 77, 3  # nothing to stretch
    images[2] = images[2] // 4 + 40
    scaled, fraction = images / 255, torch.linspace(0.05, 0.95, 6)
    close = functools.partial(torch.testing.assert_close, atol=1e-6, rtol=1e-5)
    close(pixels.autocontrast(scaled), functional.autocontrast(scaled))
    close(pixels.equalize(scaled), functional.equalize(images) / 255)
    close(pixels.solarize(scaled, fraction), per_image(lambda x, t: functional.solarize(x, float(t)), scaled, fraction))
    bits = torch.tensor([1, 4, 5, 6, 7, 8])
    expected = per_image(lambda x, b: functional.posterize(x, int(b)), images, bits) / 255
    close(pixels.posterize(scaled, bits), expected)
    factor = 2 * fraction
    expected = per_image(lambda x, f: functional.adjust_sharpness(x, float(f)), scaled, factor)
    close(pixels.sharpen(scaled, factor), expected)


def test_equalising_an_image_of_few_pixels_changes_nothing():
    images = floats(3, 1, 8, 8)
    assert torch.equal(pixels.equalize(images), images)


def reference_moves(u, height, width):
    """Return torchvision's functions for the five geometric operations of `u` (5,), in their order."""
    amount = (2 * u - 1).tolist()
    lean = [math.degrees(math.atan(0.1 * a)) for a in amount]
    affine = functools.partial(functional.affine, angle=0.0, scale=1.0)
    still = {"translate": [0, 0], "center": [0.0, 0.0]}
    return [
        lambda x: functional.rotate(x, 30 * amount[0]),
        lambda x: affine(x, shear=[lean[1], 0.0], **still),
        lambda x: affine(x, shear=[0.0, lean[2]], **still),
        lambda x: affine(x, shear=[0.0, 0.0], translate=[-round(0.1 * amount[3] * width), 0]),
        lambda x: affine(x, shear=[0.0, 0.0], translate=[0, -round(0.1 * amount[4] * height)]),
    ]


def test_rand_augment_applies_torchvisions_fourteen_operations():
    share, height, width = 2, 40, 60
    images = bytes_(14 * share, 3, height, width)
    pixels = images / 255
    u = torch.rand(14 * share, generator=generator(3))
    u[-4:] = (u[-4:] * 4).round() / 4  # whole pixels, so that no rounding decides
    found = rand_augment.RandAugment(1).apply(pixels, u, share)
    enhance = (0.05 + 0.9 * u).tolist()
    for k in range(share):
        rows = [share * op + k for op in range(14)]
        moves = reference_moves(u[rows[9:]], height, width)
        expected = [
            lambda x, i: pixels[i][None],
            lambda x, i: functional.autocontrast(pixels[i][None]),
            lambda x, i: functional.equalize(x) / 255,
            lambda x, i: functional.solarize(pixels[i][None], min(1.0, 256 * u[i].item() / 255)),
            lambda x, i: functional.posterize(x, int(4 + 4 * u[i])) / 255,
            lambda x, i: functional.adjust_sharpness(pixels[i][None], enhance[i]),
            lambda x, i: functional.adjust_brightness(pixels[i][None], enhance[i]),
            lambda x, i: functional.adjust_contrast(pixels[i][None], enhance[i]),
            lambda x, i: functional.adjust_saturation(pixels[i][None], enhance[i]),
            *(lambda x, i, move=move: move(x) / 255 for move in moves),
        ]
        for op, (row, reference) in enumerate(zip(rows, expected, strict=True)):
            target = reference(images[row][None], row)[0]
            same = ((found[row] - target).abs() < 1e-5).float().mean().item()
            assert same > 0.995, (rand_augment.RAND_AUGMENT_OPS[op], same)  # a nearest pixel may be a tie


# What is drawn.


def test_rand_augment_gives_each_operation_its_share_and_keeps_the_order_of_the_images(monkeypatch):
    def mark(self, images, u, share):
        return images + 1000 * torch.arange(14).repeat_interleave(share)[:, None, None, None]

    monkeypatch.setattr(rand_augment.RandAugment, "apply", mark)
    images = torch.arange(140.0)[:, None, None, None].expand(140, 1, 2, 2)
    found = with_draws(rand_augment.RandAugment(1), images, generator())
    assert torch.equal(found % 1000, images)
    counts = torch.bincount((found[:, 0, 0, 0] // 1000).long(), minlength=14)
    assert torch.equal(counts, torch.full((14,), 10))
    half = with_draws(rand_augment.RandAugment(1, p=0.5), images, generator())
    assert 25 < (half == images).flatten(1).all(1).sum() - 5 < 115, "done with probability p; identity marks 0"
    few = torch.stack(
        [
            with_draws(rand_augment.RandAugment(1), images[:3], generator(seed))[:, 0, 0, 0] // 1000
            for seed in range(700)
        ]
    )
    for image in few.T:  # also in a batch with fewer images than operations
        counts = torch.bincount(image.long(), minlength=14)
        assert counts.min() > 25
        assert counts.max() < 80


def test_cutout_sets_one_square_to_zero():
    images = torch.ones(2000, 2, 20, 24)
    hole = with_draws(steps.Cutout(7), images, generator()) == 0
    assert torch.equal(hole[:, 0], hole[:, 1])
    rows, columns = hole[:, 0].any(2).sum(1), hole[:, 0].any(1).sum(1)
    assert torch.equal(hole[:, 0].sum((1, 2)), rows * columns), "a rectangle"
    whole = (rows == columns) & (rows > 0)
    assert set(rows[whole].tolist()) >= {2, 4, 6}
    assert rows.max() == columns.max() == 6
    assert 0.1 < (rows == 0).float().mean() < 0.2, "one side in seven is 1, which SCAN's halving makes 0"
    assert hole.float().mean((0, 1)).min() > 0, "everywhere"


def test_boxes_have_torchvisions_distribution():
    n = 4000
    u = torch.rand(n, 22, generator=generator(2))
    boxes = RandomResizedCrop(28, scale=(0.2, 1.0)).boxes(u, 32, 32)
    torch.manual_seed(0)
    image = torch.zeros(3, 32, 32)
    get = torchvision.transforms.RandomResizedCrop.get_params
    reference = torch.tensor([get(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(n)], dtype=torch.float32)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 32).all()
    for ours, theirs in zip(boxes.T, reference.T, strict=True):
        levels = torch.arange(33.0)
        difference = (ours[:, None] <= levels).float().mean(0) - (theirs[:, None] <= levels).float().mean(0)
        assert difference.abs().max() < 1.95 * (2 / n) ** 0.5  # Kolmogorov-Smirnov at 0.1 %
    area, ratio = boxes[:, 2] * boxes[:, 3] / 1024, boxes[:, 3] / boxes[:, 2]
    assert area.min() > 0.17
    assert area.mean().item() == pytest.approx(0.2 + 0.37, abs=0.05)  # large boxes fit less often
    assert ratio.log().mean().abs() < 0.02


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(32, 32, (0, 0, 32, 32)), (10, 40, (0, 13, 10, 13)), (40, 10, (13, 0, 13, 10))]
)
def test_box_that_never_fits_falls_back_to_the_centre(height, width, expected):
    crop = RandomResizedCrop(8, scale=(3.0, 3.0))
    boxes = crop.boxes(torch.rand(5, 22, generator=generator()), height, width)
    assert boxes.tolist() == [list(map(float, expected))] * 5


@pytest.mark.parametrize("step", [{"op": "horizontal_flip", "p": 0.3}, {"op": "grayscale", "p": 0.3}])
def test_probability_is_a_rate_per_image(step):
    images = bytes_(2000, 3, 4, 4)
    found = build_pipeline([step])(images, generator())
    changed = (found != images / 255).flatten(1).any(1).float().mean().item()
    assert changed == pytest.approx(0.3, abs=0.04)


def test_jitter_factors_fill_their_range_and_p_switches_all_four():
    grey = torch.full((3000, 3, 2, 2), 0.5)
    factor = with_draws(ColorJitter(brightness=0.4), grey, generator())[:, 0, 0, 0] / 0.5
    assert factor.min().item() == pytest.approx(0.6, abs=0.01)
    assert factor.max().item() == pytest.approx(1.4, abs=0.01)
    assert factor.mean().item() == pytest.approx(1.0, abs=0.02)
    images = floats(2000, 3, 4, 4)
    found = with_draws(ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8), images, generator())
    kept = ((found - images).abs().flatten(1).amax(1) < 1e-5).float().mean().item()
    assert kept == pytest.approx(0.2, abs=0.03)


def test_affine_parameters_stay_in_their_ranges():
    dot = torch.zeros(500, 1, 41, 41, dtype=torch.uint8)
    dot[:, :, 19:22, 19:22] = 255
    found = build_pipeline([{"op": "affine", "shift": 0.2}])(dot, generator())
    place = torch.arange(41.0)
    x = (found.sum((1, 2)) * place).sum(1) / found.sum((1, 2, 3)) - 20
    assert x.abs().max().item() == pytest.approx(0.2 * 41, abs=0.3)
    assert abs(x.mean().item()) < 0.6
