"""ResNets (He et al., 2016, arXiv:1512.03385) for small and large images."""

from __future__ import annotations

from typing import cast

from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from methods.base import StagedBackbone

SMALL_IMAGE = 64
"""Up to this side in pixels the stem is one 3x3 convolution of stride 1 without max-pooling."""


class TorchvisionResNet(StagedBackbone):
    """A torchvision ResNet without its classifier; 3x3 stem for images of at most 64 pixels.

    Args:
        net: the network, whose stem is replaced for small images.
        image_shape: (C, H, W).
    """

    def __init__(self, net: ResNet, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.feature_dim = net.fc.in_features
        convolution, pooling = net.conv1, net.maxpool
        stem = convolution.out_channels
        if max(height, width) <= SMALL_IMAGE:
            convolution = nn.Conv2d(channels, stem, 3, stride=1, padding=1, bias=False)
            pooling = nn.Identity()
        elif channels != convolution.in_channels:
            convolution = nn.Conv2d(channels, stem, 7, stride=2, padding=3, bias=False)
        self.stem = nn.Sequential(convolution, net.bn1, net.relu, pooling)
        self.stages = nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4])
        self.stage_channels = tuple(self.feature_dim // 2**i for i in (3, 2, 1, 0))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


class SlimResNet(StagedBackbone):
    """Stages of basic blocks whose width doubles as the image halves, from `width` channels.

    The shape of GEM's reduced ResNet-18 (Lopez-Paz and Ranzato, 2017, arXiv:1706.08840), with any
    width and number of blocks a stage.

    Args:
        blocks: of each stage.
        width: channels of the stem and of the first stage.
        channels: of the images.
        large_stem: begin with torchvision's 7x7 convolution of stride 2 and max-pooling.
    """

    def __init__(
        self, blocks: tuple[int, ...], width: int, channels: int, *, large_stem: bool = False
    ) -> None:
        super().__init__()
        kernel, stride = (7, 2) if large_stem else (3, 1)
        convolution = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
        layers: list[nn.Module] = [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        if large_stem:
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
        self.stem = nn.Sequential(*layers)
        self.stage_channels = tuple(width * 2**stage for stage in range(len(blocks)))
        self.stages = nn.ModuleList()
        before = width
        for stage, (depth, after) in enumerate(zip(blocks, self.stage_channels, strict=True)):
            self.stages.append(basic_stage(before, after, depth, stride=2 if stage else 1))
            before = after
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.feature_dim = before


def basic_stage(before: int, after: int, depth: int, *, stride: int) -> nn.Sequential:
    """`depth` basic blocks from `before` to `after` channels, the first with the stride."""
    first = BasicBlock(before, after, stride, _shortcut(before, after, stride))
    return nn.Sequential(first, *(BasicBlock(after, after) for _ in range(depth - 1)))


def _shortcut(before: int, after: int, stride: int) -> nn.Module | None:
    if stride == 1 and before == after:
        return None
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


def resnet18_of_width(
    width: int, image_shape: tuple[int, int, int], *, zero_init_residual: bool
) -> SlimResNet:
    """A ResNet-18 with `width` channels in its first stage and 8 * `width` features.

    The wide and slim ResNet-18 of github.com/lefebvju/climb, src/backbones/custom_resnets.py, from
    He et al.'s initial weights (2015, arXiv:1502.01852, for the outputs of every convolution);
    there, the 3x3 stem alone, which small images have, keeps PyTorch's.
    """
    channels, *sides = image_shape
    net = SlimResNet((2, 2, 2, 2), width, channels, large_stem=max(sides) > SMALL_IMAGE)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, BasicBlock) and zero_init_residual:
            nn.init.zeros_(cast("nn.BatchNorm2d", module.bn2).weight)
    return net
