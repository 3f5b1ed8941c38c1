"""Views of whole pictures: what each takes of them, against the pictures as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import archives
from batches import generator
from dica.data.images import Recipe, decode
from dica.data.prepare import prepare
from dica.data.whole import centre_square, pack, sides
from dica.engine.images import ResidentImages
from dica.files import UserError
from dica.plan.parameters import load_datasets, load_method, method_names, resolve
from dica.views.pipeline import build_pipeline
from vision import torchvision

functional = torchvision.transforms.functional
SIDE = 64
SHAPES = ((90, 150), (150, 90), (120, 120), (100, 300))  # height, width


def ramps(height: int, width: int) -> np.ndarray:
    """Return a picture whose red is the place from left to right and whose green the place from top to bottom."""
    red, green = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return np.round(np.stack([red, green, np.full_like(red, 0.5)], axis=2) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Return the stored form of one picture of each shape, (4, 3, SIDE + 1, SIDE) uint8."""
    stored = [decode(archives.encode(ramps(*shape)), Recipe(SIDE, "whole")) for shape in SHAPES]
    return torch.from_numpy(np.stack(stored)).permute(0, 3, 1, 2)


def view(images: torch.Tensor, *steps: dict, seed: int = 0) -> torch.Tensor:
    return build_pipeline(steps, whole=True)(images, generator(seed))


def test_a_picture_is_stored_in_full_with_the_sides_it_had(pictures):
    assert pictures.shape == (4, 3, SIDE + 1, SIDE)
    assert [sides(picture.permute(1, 2, 0).numpy()) for picture in pictures] == [(w, h) for h, w in SHAPES]
    for picture, shape in zip(pictures, SHAPES, strict=True):
        resized = Image.fromarray(ramps(*shape)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        assert np.array_equal(picture[:, :-1].permute(1, 2, 0), resized)
    with pytest.raises(ValueError, match="70000 pixels"):
        pack(np.zeros((2, 2, 3), np.uint8), 70_000, 9)


def test_stretch_takes_all_of_a_picture(pictures):
    shown = view(pictures, {"op": "stretch", "size": 24})
    assert shown.shape == (4, 3, 24, 24)
    for one in shown:
        assert one[0, :, 0].max() < 0.05 < 0.95 < one[0, :, -1].min()
        assert one[1, 0].max() < 0.05 < 0.95 < one[1, -1].min()


def test_resize_and_centre_crop_are_those_of_the_picture_as_it_was(pictures):
    shown = view(pictures, {"op": "resize", "size": 48}, {"op": "center_crop", "size": 40})
    for one, shape in zip(shown, SHAPES, strict=True):
        original = torch.from_numpy(ramps(*shape)).permute(2, 0, 1) / 255
        expected = functional.center_crop(functional.resize(original, 48, antialias=True), 40)
        torch.testing.assert_close(one, expected, atol=0.02, rtol=0)


def extents(shown: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the share of a picture's width and height that views (n, 3, s, s) of ramps show."""
    size = shown.shape[-1]
    across, down = shown[:, 0].mean(1), shown[:, 1].mean(2)
    return ((line[:, -2] - line[:, 1]) * size / (size - 3) for line in (across, down))


def test_random_windows_have_the_size_asked_for_and_reach_the_ends(pictures):
    wide = pictures[:1].repeat(200, 1, 1, 1)  # 90 x 150
    shown = view(wide, {"op": "resize", "size": 48}, {"op": "random_crop", "size": 40})
    width, height = extents(shown)
    assert (width * 80 - 40).abs().max() < 1.5
    assert (height * 48 - 40).abs().max() < 1.5
    left = shown[:, 0, :, 0].mean(1) * 80
    assert left.min() < 2
    assert left.max() > 80 - 40 - 2


def test_random_crops_have_areas_and_proportions_of_the_picture_as_it_was(pictures):
    wide = pictures[3:].repeat(400, 1, 1, 1)  # 100 x 300
    shown = view(wide, {"op": "random_resized_crop", "size": 32, "scale": [0.05, 0.3], "ratio": [0.8, 1.25]})
    width, height = extents(shown)
    ratio, area = 3 * width / height, width * height
    assert ratio.min() > 0.68  # 0.8, measured on a few pixels
    assert ratio.max() < 1.45
    assert abs(float(ratio.log().mean())) < 0.05
    assert area.min() > 0.035
    assert area.max() < 0.32
    centre = shown[:, 0].mean((1, 2))
    assert centre.min() < 1 / 6  # left of the centre square, which ends at a third
    assert centre.max() > 5 / 6


def test_a_crop_that_does_not_fit_is_the_middle_of_the_picture(pictures):
    shown = view(pictures[3:], {"op": "random_resized_crop", "size": 32, "scale": [1.0, 1.0]})  # 100 x 300
    width, height = extents(shown)
    assert float(height) == pytest.approx(1, abs=0.03)
    assert float(width) == pytest.approx(4 / 9, abs=0.03)  # the widest ratio, 4 : 3


@pytest.mark.parametrize(
    "steps",
    [[], ["resize"], ["center_crop"], ["resize", "horizontal_flip", "center_crop"], ["gaussian_blur", "stretch"]],
)
def test_a_view_that_does_not_say_what_it_takes_is_refused(steps):
    settings = {
        "resize": {"size": 40},
        "center_crop": {"size": 32},
        "stretch": {"size": 32},
        "horizontal_flip": {},
        "gaussian_blur": {"kernel_size": 3, "sigma": [0.1, 2.0]},
    }
    with pytest.raises(UserError, match="whole pictures"):
        build_pipeline([{"op": op, **settings[op]} for op in steps], whole=True)


@pytest.mark.parametrize("crop", [{"op": "center_crop", "size": 50}, {"op": "random_crop", "size": 32, "padding": 4}])
def test_a_window_beyond_the_picture_is_refused(crop):
    with pytest.raises(UserError, match="beyond their border"):
        build_pipeline([{"op": "resize", "size": 40}, crop], whole=True)


def test_a_flip_may_come_before_the_crop(pictures):
    shown = view(pictures, {"op": "horizontal_flip", "p": 1.0}, {"op": "stretch", "size": SIDE})
    assert torch.equal(shown, (pictures[:, :, :-1] / 255).flip(-1))


def test_people_are_shown_the_centre_square(pictures):
    for picture, (height, width) in zip(pictures.permute(0, 2, 3, 1).numpy(), SHAPES, strict=True):
        shown = centre_square(picture) / 255
        assert shown.shape == (SIDE, SIDE, 3)
        reach = np.ptp(shown[:, :, 0].mean(0)) * width, np.ptp(shown[:, :, 1].mean(1)) * height
        assert reach[0] == pytest.approx(reach[1], rel=0.06)


def test_each_method_says_what_it_takes_of_imagenet(root):
    images = torch.randint(1, 256, (1, 3, 385, 384), dtype=torch.uint8, generator=generator(1))
    checked = 0
    catalogue = load_datasets(root)
    whole = {name for name, entry in catalogue.items() if entry["kind"] == "imagenet"}
    assert {catalogue[name]["prepare"]["mode"] for name in whole} == {"whole"}
    for method in method_names(root):
        for dataset in sorted(whole & set(load_method(method, root)["datasets"])):
            variant = next(iter(load_method(method, root)["variants"]))
            for name, steps in resolve(method, variant, dataset, {"overrides": {}}, root).get("views", {}).items():
                steps = [step for step in steps if step["op"] != "normalize"]
                shown = build_pipeline(steps, whole=True)(images, generator(2))
                assert shown.shape[-2:] in {(64, 64), (96, 96), (128, 128), (224, 224)}, (method, dataset, name)
                checked += 1
    assert checked > 40


def test_prepared_pictures_reach_a_method_whole(tmp_path: Path):
    jpegs = [archives.encode(ramps(*shape), "JPEG", quality=95) for shape in SHAPES]
    files = archives.ilsvrc(tmp_path / "data/raw", {"n01": jpegs[:2], "n02": jpegs[2:]}, [("n01", jpegs[3])])
    (tmp_path / "params").mkdir()
    (tmp_path / "params/list.txt").write_text("n01\nn02\n")
    tar = {"format": "tar", "files": [archives.file_entry(path, role=role) for role, path in files.items()]}
    more = {"num_classes": 2, "class_list": "params/list.txt", "prepare": {"size": SIDE, "mode": "whole"}}
    one = archives.entry("imagenet", [tar], {"train": 4, "test": 1}, SIDE, **more)
    manifest = prepare("in", archives.project(tmp_path, **{"in": one}))
    assert manifest["splits"]["train"]["shape"] == [4, SIDE + 1, SIDE, 3]
    resident = ResidentImages(tmp_path / "data/prepared/in", torch.device("cpu"))
    assert resident.info.whole
    shown = view(resident.all_of("train"), {"op": "stretch", "size": 16})
    assert shown[:, 0, :, -1].min() > 0.9


def test_only_imagenet_is_kept_whole(tmp_path: Path):
    one = archives.entry("folder", [{"format": "folder", "folder": "x"}], {"train": 1}, 32)
    one["prepare"] = {"size": 32, "mode": "whole"}
    with pytest.raises(UserError, match="mode"):
        prepare("own", archives.project(tmp_path, own=one))
