"""Shapes, initial values and front ends of the backbones, the heads, and the torchvision import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from dica.files import UserError
from dica.losses.imc_swav import cosines
from dica.networks.backbones import BasicBlock, Bottleneck, Sobel, build_backbone, init_weights
from dica.networks.heads import ClusterHead, ClusterSubHeads, ProjectionHead, Prototypes, mlp
from vision import torchvision


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def spatial_sizes(network, size, channels=3):
    """Return the map size after the first convolution, the whole stem and every stage."""
    sizes = []
    parts = [m for m in network.stem if isinstance(m, torch.nn.Conv2d | torch.nn.MaxPool2d)]
    hooks = [m.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1])) for m in [*parts, *network.stages]]
    with torch.no_grad():
        features = network.eval()(torch.zeros(1, channels, size, size))
    for hook in hooks:
        hook.remove()
    assert features.shape == (1, network.out_features)
    return sizes


@pytest.mark.parametrize(
    ("stem", "size", "expected"),
    [
        ("pica", 32, [32, 17, 17, 9, 5, 3]),
        ("pica", 64, [64, 33, 33, 17, 9, 5]),
        ("pica", 96, [96, 49, 49, 25, 13, 7]),
        ("cifar", 32, [32, 32, 16, 8, 4]),
        ("std", 96, [48, 24, 24, 12, 6, 3]),
        ("std", 224, [112, 56, 56, 28, 14, 7]),
        ("imc", 32, [32, 32, 16, 8, 4]),
        ("imc", 64, [64, 32, 32, 16, 8, 4]),
        ("imc", 96, [96, 48, 48, 24, 12, 6]),
    ],
)
def test_spatial_sizes(stem, size, expected):
    network = build_backbone("resnet34", stem, width=4, sobel=stem == "pica", image_size=size)
    assert spatial_sizes(network, size) == expected


@pytest.mark.parametrize(
    ("name", "features", "parameters"),
    # The counts are torchvision's for the same network without its classifier.
    [("resnet18", 512, 11_176_512), ("resnet34", 512, 21_284_672), ("resnet50", 2048, 23_508_032)],
)
def test_standard_networks_have_the_standard_size(name, features, parameters):
    with torch.device("meta"):
        network = build_backbone(name, "std")
    assert network.out_features == features
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_small_network_for_digits_uses_its_eight_pixels():
    network = build_backbone("resnet8", "cifar", in_channels=1, width=8)
    assert network.out_features == 32
    assert spatial_sizes(network, 8, channels=1) == [8, 8, 4, 2]


def test_weights_follow_the_generator():
    first, second, third = (build_backbone("resnet8", "cifar", width=4, generator=generator(s)) for s in (1, 1, 2))
    for a, b, c in zip(first.parameters(), second.parameters(), third.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.dim() == 1 or not torch.equal(a, c)


def test_initial_values():
    network = build_backbone("resnet18", "cifar", generator=generator())
    conv = network.stages[1][0].conv1.weight  # 64 -> 128
    assert conv.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    head = ClusterHead(512, 1000)
    init_weights(head, "pica", generator())
    assert head.layers[0].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not head.layers[0].bias.any()
    init_weights(head, "kaiming", generator())
    assert head.layers[0].weight.abs().max().item() == pytest.approx((6 / 512) ** 0.5, rel=0.01)
    init_weights(head, "torch", generator())
    assert head.layers[0].weight.abs().max().item() == pytest.approx(512**-0.5, rel=0.01)
    assert head.layers[0].bias.any()


def test_sobel_answers_edges_of_the_mean_channel_and_is_not_trained():
    sobel = Sobel()
    assert not list(sobel.parameters())
    assert not sobel.state_dict()
    ramp = torch.arange(6.0).expand(6, 6)  # grows to the right
    gx, gy = sobel(torch.stack([ramp, 2 * ramp, 3 * ramp])[None])[0, :, 1:-1, 1:-1]
    assert torch.allclose(gx, torch.full_like(gx, -16.0))
    assert torch.allclose(gy, torch.zeros_like(gy))
    network = build_backbone("resnet8", "pica", in_channels=1, width=4, sobel=True)
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 16)


def test_channels_last_gives_the_same_features():
    network = build_backbone("resnet8", "pica", width=8, sobel=True).eval()
    images = torch.rand(4, 3, 32, 32, generator=generator())
    expected = network(images)
    found = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet19", "stem": "cifar"}, "resnet19.*resnet18"),
        ({"name": "resnet18", "stem": "cfar"}, "cfar.*cifar"),
        ({"name": "resnet18", "stem": "imc"}, "image_size"),
        ({"name": "resnet8", "stem": "cifar", "init": "zeros"}, "zeros.*kaiming"),
    ],
)
def test_wrong_arguments_name_the_allowed_ones(arguments, message):
    with pytest.raises(UserError, match=message):
        build_backbone(**arguments)


def test_mlp_layers():
    kinds = [type(m).__name__ for m in mlp((8, 16, 16, 3), batch_norm=True)]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [type(m).__name__ for m in mlp((8, 8, 3), activation=False)] == ["Linear", "Linear"]


def test_heads_have_the_promised_shapes():
    features = torch.randn(5, 16, generator=generator())
    assert ClusterHead(16, 3)(features).shape == (5, 3)
    assert ClusterSubHeads(16, 3, num_heads=4, hidden=(8,))(features).shape == (4, 5, 3)
    z = ProjectionHead(16, (16,), 7)(features)
    assert z.shape == (5, 7)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(5))
    assert ProjectionHead(16, (16,), 7).double()(features.double()).dtype == torch.float64


def test_prototypes_are_unit_rows_and_scores_are_cosines():
    prototypes = Prototypes(6, 9)
    with torch.no_grad():
        prototypes.linear.weight.mul_(5)
    z = torch.randn(2, 4, 6, generator=generator(), requires_grad=True)
    scores = cosines(z, prototypes.unit_rows())
    torch.testing.assert_close(prototypes.linear.weight.norm(dim=-1), torch.ones(9))
    torch.testing.assert_close(scores[1, 2, 3], F.cosine_similarity(z[1, 2], prototypes.linear.weight[3], dim=0))
    scores.sum().backward()
    assert prototypes.linear.weight.grad is not None


@pytest.mark.parametrize(("block", "stride"), [(BasicBlock, 1), (BasicBlock, 2), (Bottleneck, 1), (Bottleneck, 2)])
def test_blocks_are_torchvisions(block, stride):
    x = torch.randn(2, 8, 6, 6, generator=generator())
    networks = []
    for kind in (block, getattr(torchvision.models.resnet, block.__name__)):
        torch.manual_seed(0)
        shortcut = torch.nn.Conv2d(8, 8 * block.expansion, 1, stride)
        networks.append(kind(8, 8, stride, shortcut).train())
    ours, theirs = (network.state_dict() for network in networks)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    outputs = [network(x) for network in networks]
    assert torch.equal(*outputs)
    gradients = [
        torch.autograd.grad(out.square().sum(), network.conv1.weight)
        for out, network in zip(outputs, networks, strict=True)
    ]
    assert torch.equal(gradients[0][0], gradients[1][0])


SUPPORT = Path(__file__).resolve().parents[1] / "support"
RUN_WITHOUT_EXTENSION = """
import torch
load = torch.ops.load_library
def refuse(path):
    if "torchvision" in str(path):
        raise OSError("no extension")
    load(path)
torch.ops.load_library = refuse
from vision import torchvision
import torchvision.transforms.v2
print(torchvision.models.resnet18()(torch.zeros(2, 3, 32, 32)).shape)
"""

RUN_WITH_ANOTHER_ERROR = """
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision.models":
            raise RuntimeError("a fault of another kind")
sys.meta_path.insert(0, Broken())
import vision
"""


def test_torchvision_is_importable_without_its_compiled_extension():
    done = subprocess.run([sys.executable, "-c", RUN_WITHOUT_EXTENSION], capture_output=True, text=True, cwd=SUPPORT)
    assert done.returncode == 0, done.stderr
    assert "[2, 1000]" in done.stdout


def test_other_import_errors_of_torchvision_are_not_hidden():
    # The operators are declared beforehand, so that only the planted fault is left on either kind of wheel.
    prelude = (
        "import torch\nlib = torch.library.Library('torchvision', 'FRAGMENT')\n"
        "[lib.define(f'{n}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor') for n in ('nms', 'qnms')"
        " if not hasattr(torch.ops.torchvision, n)]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", prelude + RUN_WITH_ANOTHER_ERROR], capture_output=True, text=True, cwd=SUPPORT
    )
    assert done.returncode != 0
    assert "a fault of another kind" in done.stderr
