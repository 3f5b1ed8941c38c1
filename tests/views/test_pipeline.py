"""Pipelines of views: a function of the generator, no step changes its input, and wrong steps are named."""

from __future__ import annotations

import dataclasses
import math
import time

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from batches import bytes_, floats, generator, with_draws
from dica.data.pipelines import STEPS
from dica.files import UserError
from dica.views import pixels, steps
from dica.views.pipeline import OPS, build_pipeline

MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]

EVERY_OP = [
    {"op": "random_resized_crop", "size": 12, "scale": [0.2, 1.0], "flip_p": 0.5},
    {"op": "resize", "size": 14},
    {"op": "stretch", "size": 14},
    {"op": "random_crop", "size": 12, "padding": 1, "padding_mode": "reflect"},
    {"op": "center_crop", "size": 11},
    {"op": "horizontal_flip", "p": 0.5},
    {"op": "color_jitter", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8},
    {"op": "grayscale", "p": 0.2},
    {"op": "gaussian_blur", "kernel_size": 5, "sigma": [0.1, 2.0], "p": 0.5},
    {"op": "affine", "rotation": 10, "shift": 0.1, "scale": [0.9, 1.1], "shear": 5},
    {"op": "keras_affine", "rotation": 20, "shift": 0.18, "zoom": [0.85, 1.15]},
    {"op": "channel_shift", "amount": 0.1},
    {"op": "channel_shuffle"},
    {"op": "rescale", "factor": 0.95},
    {"op": "rand_augment", "count": 2},
    {"op": "normalize"},
    {"op": "cutout", "size": 6},
]


def test_orientation_of_an_asymmetric_image():
    """A bright top left corner: a flip moves it right, a quarter turn clockwise moves it to the top right."""
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    image[..., :3, :2] = 255
    flipped = build_pipeline([{"op": "horizontal_flip", "p": 1.0}])(image, generator())
    assert flipped[0, 0, :3, 6:].min() == 1
    assert flipped.sum() == 6
    cropped = build_pipeline([{"op": "random_resized_crop", "size": 8, "scale": [1.0, 1.0], "ratio": [1, 1]}])(
        image, generator()
    )
    torch.testing.assert_close(cropped, image / 255)
    quarter = steps.affine_matrix(torch.tensor([math.pi / 2]), torch.zeros(1, 2), torch.ones(1), torch.zeros(1))
    turned = pixels.warp(image / 255, quarter)
    torch.testing.assert_close(turned, torch.rot90(image / 255, -1, (2, 3)), atol=1e-5, rtol=0)


# The generator, and the cost.


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_a_function_of_the_generator(channels):
    pipeline = build_pipeline(EVERY_OP, MEAN[:channels], STD[:channels])
    images = bytes_(20, channels)
    before = images.clone()
    first, second, third = (pipeline(images, generator(s)) for s in (1, 1, 2))
    assert first.shape == (20, channels, 11, 11)
    assert first.dtype == torch.float32
    assert torch.isfinite(first).all()
    assert torch.equal(first, second)
    assert not torch.allclose(first, third)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pipeline(images, generator(1)), first)
    assert torch.equal(images, before)


def test_float64_is_kept_for_traces_that_must_not_depend_on_rounding():
    torch.set_default_dtype(torch.float64)
    try:
        found = build_pipeline(EVERY_OP, MEAN, STD)(bytes_(), generator())
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float64


def test_several_views_in_one_pass_differ_and_keep_the_order_of_the_images():
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 1, 8, 8) * 50
    views = build_pipeline([{"op": "random_resized_crop", "size": 6}]).views(images, generator(), 3)
    assert views.shape == (3, 5, 1, 6, 6)
    torch.testing.assert_close(views, (images / 255)[None, :, :, :6, :6].expand(3, 5, 1, 6, 6))
    pipeline = build_pipeline([{"op": "random_resized_crop", "size": 12}])
    first, second = pipeline.views(bytes_(), generator(), 2)
    assert (first != second).flatten(1).any(1).all()


def test_no_step_changes_the_tensor_it_is_given():
    for step in build_pipeline(EVERY_OP, MEAN, STD).steps:
        images = floats(8)
        before = images.clone()
        with_draws(step, images, generator())
        assert torch.equal(images, before), step


@pytest.mark.parametrize("name", sorted(set(OPS) - {"normalize"}))
def test_number_of_draws_does_not_depend_on_images_or_probability(name):
    settings = next(step for step in EVERY_OP if step["op"] == name)
    states = []
    for images, change in ((bytes_(), {}), (bytes_() // 300, {}), (bytes_(), {"p": 0.0}), (bytes_(), {"p": 1.0})):
        source = generator()
        build_pipeline([settings | (change if "p" in settings else {})])(images, source)
        states.append(source.get_state())
    assert all(torch.equal(states[0], state) for state in states)


class Calls(TorchDispatchMode):
    """Count dispatched operations (views left out) and list those that would make a GPU wait."""

    def __init__(self):
        super().__init__()
        self.count, self.waits = 0, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        makes_view = function._schema.returns and function._schema.returns[0].alias_info is not None
        self.count += not makes_view or str(function).split(".")[1].endswith("_")
        if any(name in str(function) for name in ("_local_scalar_dense", "nonzero", "masked_select")):
            self.waits.append(str(function))
        return function(*args, **(kwargs or {}))


def test_operations_do_not_grow_with_the_batch_and_none_waits():
    pipeline = build_pipeline(EVERY_OP, MEAN, STD)
    pipeline(bytes_(4), generator())  # constants are made once
    counts = []
    for n in (4, 512):
        with Calls() as calls:
            pipeline(bytes_(n), generator())
        counts.append(calls.count)
        assert not calls.waits
    assert counts[0] == counts[1] < 710  # for all steps; a view of IMC-SwAV takes 300


def test_a_batch_of_512_takes_far_less_than_a_loop_would():
    pipeline = build_pipeline(EVERY_OP[:1] + EVERY_OP[4:7] + EVERY_OP[-2:-1], MEAN, STD)
    images = bytes_(512, 3, 32, 32)
    pipeline(images, generator())
    start = time.perf_counter()
    pipeline(images, generator())
    assert time.perf_counter() - start < 0.5  # 0.05 s on one idle core; a PIL loop takes 0.2 s, a tensor loop 1 s


@pytest.mark.parametrize("channels", [1, 3])
def test_a_compiled_pipeline_is_one_function_of_its_draws(channels: int) -> None:
    pipeline = build_pipeline(EVERY_OP, MEAN[:channels], STD[:channels])
    images, graphs = bytes_(20, channels), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    expected = [pipeline(images, generator(seed)) for seed in (1, 2)]
    pipeline.compile(backend)
    assert torch.equal(pipeline(images, generator(1)), expected[0]), "eager until it is to be fast"
    assert not graphs
    pipeline.fast = True
    try:
        found = [pipeline(images, generator(seed)) for seed in (1, 2)]
        assert len(graphs) == 1, "other draws are not another function"
        pipeline(images[:8], generator())
        assert len(graphs) == 2, "another shape is"
    finally:
        torch._dynamo.reset()
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    waits = ("_local_scalar_dense", "nonzero", "lift_fresh")  # the last: a constant that is copied from the host
    called = {str(node.target) for graph in graphs for node in graph.graph.nodes}
    assert not [name for name in called if any(wait in name for wait in waits) or name.endswith(".tensor")]


def test_a_compiler_that_makes_other_images_is_not_believed() -> None:
    pipeline = build_pipeline(EVERY_OP, MEAN, STD)

    def backend(graph, inputs):
        def darker(*arguments):
            return tuple(result * 0.9 for result in graph.forward(*arguments))

        return darker

    pipeline.compile(backend)
    pipeline.fast = True
    try:
        with pytest.raises(UserError, match=r"other images of \(6, 3, 11, 11\).*speed: compile"):
            pipeline(bytes_(), generator())
    finally:
        torch._dynamo.reset()


# Errors.


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"op": "random_crop_resize"}, "random_crop_resize.*random_resized_crop"),
        ({"size": 8}, "None.*random_resized_crop"),
        ({"op": "color_jitter", "brightnes": 0.4}, "color_jitter.*brightnes.*brightness"),
        ({"op": "resize"}, "resize needs.*size"),
        ({"op": "grayscale", "p": 1.5}, r"grayscale: p is 1.5.*\[0, 1\]"),
        ({"op": "random_resized_crop", "size": 8, "scale": 0.2}, "scale is 0.2"),
        ({"op": "random_resized_crop", "size": 8.5}, "size is 8.5"),
        ({"op": "gaussian_blur", "kernel_size": 4}, "kernel_size is 4.*odd"),
        ({"op": "affine", "fill": "border"}, "fill is 'border'.*nearest"),
        ({"op": "color_jitter", "hue": 0.6}, "hue is 0.6"),
        ({"op": "rand_augment", "count": 0}, "count is 0"),
        ({"op": "cutout"}, "cutout needs.*size"),
        ({"op": "normalize", "mean": [0.5]}, "normalize has no key 'mean'; it takes none"),
        ("grayscale", "a mapping"),
    ],
)
def test_wrong_step_is_named(step, message):
    with pytest.raises(UserError, match=message):
        build_pipeline([step], MEAN, STD)


def test_normalize_without_statistics_and_images_of_a_wrong_kind_are_refused():
    with pytest.raises(UserError, match="mean and a std"):
        build_pipeline([{"op": "normalize"}])
    with pytest.raises(UserError, match="uint8"):
        build_pipeline([])(floats(), generator())
    with pytest.raises(UserError, match="1 or 3"):
        build_pipeline([])(bytes_(2, 8, 8, 3), generator())
    with pytest.raises(UserError, match="random_crop needs images of 20"):
        build_pipeline([{"op": "random_crop", "size": 20}])(bytes_(), generator())


@pytest.mark.parametrize("name", sorted({*OPS, *STEPS}))
def test_a_plan_knows_the_keys_that_a_step_has(name: str) -> None:
    needed, more = STEPS[name]
    fields = dataclasses.fields(OPS[name]) if name != "normalize" else ()  # mean and std are not written at the step
    assert list(needed) == [field.name for field in fields if field.default is dataclasses.MISSING]
    assert list(more) == [field.name for field in fields if field.default is not dataclasses.MISSING]
