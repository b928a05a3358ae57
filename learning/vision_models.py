"""ResNet, ResNeXt, VGG and EfficientNet for large images, as lists of units.

See architectures for their sizes and sources.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Block, ChannelsLast
from .model_arguments import Shape


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut, which is a 1x1 convolution where sizes change.

    It begins as its shortcut: the last BatchNorm's scale is 0.
    """

    def __init__(self, size: int, width: int, out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(size, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=groups, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(out)
        self.shortcut: nn.Module | None = None
        if stride > 1 or size != out:
            self.shortcut = nn.Sequential(nn.Conv2d(size, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        nn.init.zeros_(self.norm3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, size, height, breadth)."""
        inner = nn.functional.relu_(self.norm1(self.conv1(x)))
        inner = self.conv2(inner)  # statements of their own: without autograd, a convolution's input can go then
        inner = nn.functional.relu_(self.norm2(inner))
        inner = self.conv3(inner)
        inner = self.norm3(inner)
        inner += x if self.shortcut is None else self.shortcut(x)
        return nn.functional.relu_(inner)


def resnet(
    input_shape: Shape, classes: int, *, blocks: tuple[int, ...], bottleneck: bool, groups: int, group_width: int
) -> nn.Sequential:
    """See architectures.resnet."""
    stem = nn.Conv2d(input_shape[0], 64, 7, 2, padding=3, bias=False)
    pool = nn.MaxPool2d(3, 2, padding=1)
    made: list[nn.Module] = [nn.Sequential(stem, ChannelsLast(), nn.BatchNorm2d(64), nn.ReLU(inplace=True), pool)]
    size = 64
    for stage, count in enumerate(blocks):
        out = (256 if bottleneck else 64) << stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            width = groups * group_width << stage
            made.append(Bottleneck(size, width, out, stride, groups) if bottleneck else Block(size, out, stride))
            size = out
    model = nn.Sequential(*made, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(size, classes)))
    begin(model)
    return model


def vgg(
    input_shape: Shape, classes: int, *, convolutions: tuple[int, ...], batch_norm: bool, dropout: float
) -> nn.Sequential:
    """See architectures.vgg. A unit is a convolution, or a layer of the classifier."""
    made: list[nn.Module] = []
    size = input_shape[0]
    for stage, count in enumerate(convolutions):
        for _ in range(count):
            out = min(64 << stage, 512)
            order: list[nn.Module] = [] if made else [ChannelsLast()]
            norm: list[nn.Module] = [nn.BatchNorm2d(out)] if batch_norm else []
            conv = nn.Conv2d(size, out, 3, padding=1)
            made.append(nn.Sequential(conv, *order, *norm, nn.ReLU(inplace=True)))
            size = out
        made[-1] = nn.Sequential(made[-1], nn.MaxPool2d(2))
    before: list[nn.Module] = [nn.AdaptiveAvgPool2d(7), nn.Flatten()]
    for width in (size * 49, 4096):
        made.append(nn.Sequential(*before, nn.Linear(width, 4096), nn.ReLU(inplace=True), nn.Dropout(dropout)))
        before = []
    model = nn.Sequential(*made, nn.Linear(4096, classes))
    begin(model)
    return model


class Squeeze(nn.Module):
    """Each channel times a factor between 0 and 1, which two layers find from the means of all channels.

    Source: Hu et al., CVPR 2018, arXiv 1709.01507.
    """

    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.mean, self.down, self.up = nn.AdaptiveAvgPool2d(1), nn.Conv2d(size, inner, 1), nn.Conv2d(inner, size, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, size, height, breadth)."""
        inner = nn.functional.silu(self.down(self.mean(x)), inplace=True)
        return x * torch.sigmoid(self.up(inner))


class Inverted(nn.Module):
    """EfficientNet's block: 1x1 to more channels, a convolution of each channel, factors, 1x1 to fewer channels."""

    def __init__(self, size: int, out: int, expand: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = size * expand
        first = _convolution(size, wide, 1, 1, 1) if expand > 1 else []
        each = _convolution(wide, wide, kernel, stride, wide)
        last = [nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out)]
        self.inner = nn.Sequential(*first, *each, Squeeze(wide, size // 4), *last)
        self.whole = stride > 1 or size != out  # whether there is no shortcut

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, size, height, breadth)."""
        found: Tensor = self.inner(x)
        return found if self.whole else found.add_(x)


def _convolution(size: int, out: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
    conv = nn.Conv2d(size, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out), nn.SiLU(inplace=True)]


def efficientnet(input_shape: Shape, classes: int, *, dropout: float) -> nn.Sequential:
    """See architectures.efficientnet."""
    conv, *rest = _convolution(input_shape[0], 32, 3, 2, 1)
    made: list[nn.Module] = [nn.Sequential(conv, ChannelsLast(), *rest)]
    size = 32
    stages = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3))
    for expand, kernel, stride, out, count in (*stages, (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)):
        for block in range(count):
            made.append(Inverted(size, out, expand, kernel, 1 if block else stride))
            size = out
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(1280, classes)]
    model = nn.Sequential(*made, nn.Sequential(*_convolution(size, 1280, 1, 1, 1), *head))
    begin(model)
    return model


def begin(model: nn.Module) -> None:
    """Initial weights as in torchvision: convolutions by He et al. (arXiv 1502.01852) for ReLU, from their outputs."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
