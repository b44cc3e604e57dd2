"""Backbones whose features take both signs: without the ReLU before the pooling."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from methods.base import Backbone, StagedBackbone


class SignedBlock(nn.Module):
    """A basic block without its last ReLU; weights and their names are those of `block`."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = block.conv1, block.bn1, block.relu
        self.conv2, self.bn2, self.downsample = block.conv2, block.bn2, block.downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + shortcut


def remove_last_relu(net: Backbone) -> None:
    """Take the last ReLU out of a backbone, in place; parameters and their names stay.

    Raises:
        ValueError: if there is none, or it is not known how.
    """
    layers = _last_layers(net)
    last = layers[-1]
    layers[-1] = SignedBlock(last) if isinstance(last, BasicBlock) else nn.Identity()


def require_last_relu(net: Backbone) -> None:
    """Raise what `remove_last_relu` would, and change nothing."""
    _last_layers(net)


def _last_layers(net: Backbone) -> nn.Sequential:
    """The layers of which the last one ends with a ReLU."""
    layers = net.stages[-1] if isinstance(net, StagedBackbone) else [*net.children()][-1]
    if not isinstance(layers, nn.Sequential) or not isinstance(layers[-1], nn.ReLU | BasicBlock):
        raise ValueError(
            "remove_last_relu: it can be taken out of a cnn, an mlp and a resnet of basic blocks; "
            "other backbones need remove_last_relu: false"
        )
    return layers
