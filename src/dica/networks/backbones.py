"""Residual networks with the stems of the papers, for images of 8 to 224 pixels.

The blocks compute what torchvision's do, with the same names of weights. torchvision itself is not imported, because it
loads torch's compiler, which takes longer than torch does. What differs between the papers is the stem:

========  ==============================================  =================================
stem      first convolution and pooling                   used by
========  ==============================================  =================================
cifar     3x3 stride 1, no pooling                        CRLC, TCC, SCAN at 32 px; digits
std       7x7 stride 2, 3x3 max-pool stride 2             TCC at 96 px, CRLC and CC at 224
pica      3x3 stride 1, 2x2 max-pool stride 2 padding 1   PICA, IIC, DRC (with Sobel input)
imc       as cifar up to 32 px, above it a 2x2 max-pool   IMC-SwAV
========  ==============================================  =================================

The papers' final pooling (3x3, 5x5 or 7x7 for PICA's 32, 64 and 96 px) always covers the whole last map, so one
global average serves all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dica.files import UserError


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to the input or to its shortcut."""

    expansion = 1

    def __init__(self, channels: int, planes: int, stride: int = 1, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to (n, planes, h / stride, w / stride)."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        residual += x if self.downsample is None else self.downsample(x)
        return self.relu(residual)


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1, added to the input or to its shortcut; the 3x3 one has the stride (ResNet 1.5)."""

    expansion = 4

    def __init__(self, channels: int, planes: int, stride: int = 1, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        out = planes * self.expansion
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to (n, 4 planes, h / stride, w / stride)."""
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        residual += x if self.downsample is None else self.downsample(x)
        return self.relu(residual)


# name: block, blocks per stage. resnet8 and resnet10 are for images that a few convolutions see whole.
BACKBONES = {
    "resnet8": (BasicBlock, (1, 1, 1)),
    "resnet10": (BasicBlock, (1, 1, 1, 1)),
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
# A wide residual network (below) and its blocks per stage; wrn10 is for tests.
WIDE = {"wrn28": 4, "wrn10": 1}
STEMS = ("cifar", "std", "pica", "imc")
INITS = ("pica", "kaiming", "torch")


class Sobel(nn.Module):
    """Fixed front end of PICA: the mean of the channels, then its horizontal and vertical gradient (2 channels)."""

    def __init__(self) -> None:
        super().__init__()
        gx = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        gy = torch.tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]])
        self.register_buffer("filters", torch.stack([gx, gy])[:, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, 2, h, w)."""
        grey = images.mean(1, keepdim=True)
        return F.conv2d(grey, self.filters.to(grey.dtype), padding=1)


class ResNet(nn.Module):
    """A residual network without its classifier; `build_backbone` chooses the parts.

    Parameters
    ----------
    block
        `BasicBlock` or `Bottleneck`.
    depths, planes
        Blocks of each stage, and channels of their 3x3 convolutions.
    stem
        What stands before the first stage; it has as many channels as that stage's convolutions.

    Attributes
    ----------
    out_features : int
        Length of the feature vector.
    stage_features : list of int
        Channels of each stage's map.
    """

    def __init__(
        self, block: type[nn.Module], depths: Sequence[int], planes: Sequence[int], stem: nn.Sequential
    ) -> None:
        super().__init__()
        self.stem = stem
        stages = []
        channels = planes[0]
        self.stage_features: list[int] = []
        for index, (depth, width) in enumerate(zip(depths, planes, strict=True)):
            stages.append(_stage(block, channels, width, depth, stride=2 if index else 1))
            channels = width * block.expansion
            self.stage_features.append(channels)
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.out_features = channels

    def feature_map(self, images: Tensor) -> Tensor:
        """Map (n, c, h, w) to the last map (n, out_features, h', w')."""
        return self.stages(self.stem(images))

    def forward(self, images: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, out_features)."""
        return self.pool(self.feature_map(images)).flatten(1)


class PreActivationBlock(nn.Module):
    """Batch norm, leaky ReLU and 3x3 convolution, twice, added to the input."""

    def __init__(self, channels: int, out: int, stride: int, activate_first: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.BatchNorm2d(c, momentum=0.001) for c in (channels, out))
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.shortcut = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False)
        self.activate_first = activate_first

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to (n, out, h / stride, w / stride)."""
        active = F.leaky_relu(self.norm1(x), 0.1)
        residual = self.conv2(F.leaky_relu(self.norm2(self.conv1(active)), 0.1))
        return self.shortcut(active if self.activate_first else x) + residual


class WideResNet(nn.Module):
    """Wide residual network in the form of the semi-supervised literature, without its classifier.

    Zagoruyko and Komodakis, BMVC 2016; slope .1 and the slow batch norms (momentum .001) as in MixMatch and FixMatch.
    WRN-28-2 has four blocks a stage and 32 channels in the first of three stages.
    """

    def __init__(self, depth: int, in_channels: int, width: int) -> None:
        super().__init__()
        channels = 16
        self.stem = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        stages = []
        for index in range(3):
            out = width * 2**index
            first = PreActivationBlock(channels, out, 2 if index else 1, activate_first=index == 0)
            rest = (PreActivationBlock(out, out, 1, activate_first=False) for _ in range(depth - 1))
            stages.append(nn.Sequential(first, *rest))
            channels = out
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(channels, momentum=0.001)
        self.out_features = channels

    def feature_map(self, images: Tensor) -> Tensor:
        """Map (n, c, h, w) to the last map (n, out_features, h / 4, w / 4)."""
        return F.leaky_relu(self.norm(self.stages(self.stem(images))), 0.1)

    def forward(self, images: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, out_features)."""
        return self.feature_map(images).mean((2, 3))


RESIDUAL = (ResNet, WideResNet)


def build_backbone(
    name: str,
    stem: str,
    in_channels: int = 3,
    width: int = 64,
    sobel: bool = False,
    image_size: int | None = None,
    init: str = "kaiming",
    generator: torch.Generator | None = None,
) -> ResNet | WideResNet:
    """Build a backbone with attribute `out_features`.

    Parameters
    ----------
    name
        A key of `BACKBONES` or of `WIDE`.
    stem
        `cifar`, `std`, `pica` or `imc` (table above).
    in_channels
        Channels of the images: 1 or 3.
    width
        Channels of the first stage, doubled at every further one; 64 in the papers, 32 for the wide one.
    sobel
        Put PICA's fixed gradient filters in front.
    image_size
        Size of the data set's images (not of the crops); needed by the stem `imc` only.
    init, generator
        See `init_weights`.

    Raises
    ------
    UserError
        For an unknown name, stem or init, or a missing image size.
    """
    if name not in {**BACKBONES, **WIDE}:
        raise UserError(f"backbone: {name!r} is not one of {', '.join([*BACKBONES, *WIDE])}")
    if stem not in STEMS:
        raise UserError(f"stem: {stem!r} is not one of {', '.join(STEMS)}")
    if name in WIDE and (stem != "cifar" or sobel):
        raise UserError(f"backbone: {name} has the stem cifar and no Sobel filters")
    if name in WIDE:
        network = WideResNet(WIDE[name], in_channels, width)
    else:
        block, depths = BACKBONES[name]
        layers = [Sobel()] if sobel else []
        layers += _stem(stem, 2 if sobel else in_channels, width, image_size)
        planes = [width * 2**stage for stage in range(len(depths))]
        network = ResNet(block, depths, planes, nn.Sequential(*layers))
    init_weights(network, init, generator)
    return network


def init_weights(module: nn.Module, init: str = "kaiming", generator: torch.Generator | None = None) -> None:
    """Initialise every convolution, linear layer and batch norm below `module` in a fixed order.

    Parameters
    ----------
    init
        Convolutions are N(0, 2 / (kernel area * channels out)) in all three. Linear layers: `pica` N(0, 0.01^2),
        zero bias; `kaiming` uniform with gain sqrt 2 over fan-in, zero bias; `torch` the library's default,
        weight and bias uniform within 1 / sqrt(fan-in).
    generator
        Source of the numbers, on the device of the weights (default: torch's global one).
    """
    if init not in INITS:
        raise UserError(f"init: {init!r} is not one of {', '.join(INITS)}")
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Linear):
            init_linear(part.weight, part.bias, init, generator)


@torch.no_grad()
def init_linear(weight: Tensor, bias: Tensor | None, init: str, generator: torch.Generator | None = None) -> None:
    """Initialise one linear layer, (out, in) weights, as `init_weights` says."""
    fan_in = weight.shape[-1]
    if init == "pica":
        weight.normal_(0, 0.01, generator=generator)
    else:
        bound = (6 if init == "kaiming" else 1) ** 0.5 / fan_in**0.5
        weight.uniform_(-bound, bound, generator=generator)
    if bias is not None and init == "torch":
        bias.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
    elif bias is not None:
        bias.zero_()


def load_state(module: nn.Module, state: dict[str, Tensor], refusal: str) -> None:
    """Load weights into `module`, all of them and no others.

    Raises
    ------
    UserError
        `refusal` and the first difference, if they are of another network.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise UserError(f"{refusal}: {first[:200]}") from None


def _stem(kind: str, in_channels: int, width: int, image_size: int | None) -> list[nn.Module]:
    if image_size is None and kind == "imc":
        raise UserError("stem: imc needs image_size, the size of the data set's images")
    kernel, stride, padding = (7, 2, 3) if kind == "std" else (3, 1, 1)
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, width, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]
    if kind == "std":
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    elif kind == "pica":
        layers.append(nn.MaxPool2d(2, stride=2, padding=1))
    elif kind == "imc" and image_size is not None and image_size > 32:
        layers.append(nn.MaxPool2d(2, stride=2))
    return layers


def _stage(block: type[nn.Module], channels: int, planes: int, depth: int, stride: int) -> nn.Sequential:
    """Return `depth` blocks, the first of which changes size and width through a 1x1 shortcut."""
    out = planes * block.expansion
    shortcut = None
    if stride != 1 or channels != out:
        shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
    first = block(channels, planes, stride, shortcut)
    return nn.Sequential(first, *(block(out, planes) for _ in range(depth - 1)))
