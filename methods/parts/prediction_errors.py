"""Small networks that imitate a random one; how well each does says what it was trained on.

Of PEC (Zając et al., 2024): 3x3 convolution, instance normalisation, ReLU, average pooling to a few
cells, linear layer. Networks of one shape are stacked, so that many run at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.parts.bytes_held import module_nbytes


@dataclass(frozen=True, slots=True)
class Shape:
    """Of one network: images (C, H, W), `resolution` ** 2 cells, `outputs` numbers."""

    image: tuple[int, int, int]
    resolution: int
    outputs: int


class Regressors(nn.Module):
    """`count` networks of `width` channels, all with the same initial weights, PyTorch's default.

    Every parameter is (count, ...). Pooling is a product with two fixed matrices: PyTorch's
    adaptive pooling has no deterministic gradient on a GPU.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, count: int, width: int, shape: Shape) -> None:
        super().__init__()
        channels, height, wide = shape.image
        self.count, self.shape = count, shape
        filters = nn.Conv2d(channels, width, 3)
        last = nn.Linear(width * shape.resolution**2, shape.outputs)
        self.filters = _copies(filters.weight.flatten(1), count)
        self.offsets = _copies(filters.bias, count)
        self.gain = _copies(torch.ones(width), count)
        self.shift = _copies(torch.zeros(width), count)
        self.weight = _copies(last.weight, count)
        self.bias = _copies(last.bias, count)
        rows, columns = (_averages(side, shape.resolution) for side in (height, wide))
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns.T.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """All networks on all images (B, C, H, W): (count, B, outputs)."""
        first = (self.filters, self.offsets, self.gain, self.shift)
        hidden = self._hidden(x, *(p.flatten(0, 1).expand(len(x), -1, *p.shape[2:]) for p in first))
        return self._last(hidden.unflatten(1, (self.count, -1)).flatten(2), range(self.count))

    def of_own(self, x: Tensor, y: Tensor, classes: range) -> Tensor:
        """To each image what its own network says, (B, outputs).

        Args:
            x: normalised images (B, C, H, W).
            y: which network, for each image (B,).
            classes: consecutive networks, those of `y` among them.
        """
        first = (self.filters, self.offsets, self.gain, self.shift)
        hidden = self._hidden(x, *(parameter[y] for parameter in first)).flatten(1)
        # Copying the last layer's weights for every image would cost more than the few products.
        outputs = self._last(hidden[:, None].expand(-1, len(classes), -1), classes)
        return outputs[y - classes.start, torch.arange(len(x), device=x.device)]

    def _hidden(
        self, x: Tensor, filters: Tensor, offsets: Tensor, gain: Tensor, shift: Tensor
    ) -> Tensor:
        """Pooled maps (B, K, resolution, resolution) of K filters for each image, (B, K, ...)."""
        patches = F.unfold(x, 3, padding=1)
        maps = F.instance_norm(torch.baddbmm(offsets[..., None], filters, patches))
        maps = torch.addcmul(shift[..., None], gain[..., None], maps).relu_()
        return self.rows @ (maps.unflatten(2, x.shape[2:]) @ self.columns)

    def _last(self, hidden: Tensor, classes: range) -> Tensor:
        """The last layer of n networks, (n, B, outputs); hidden units (B, n, H)."""
        own = slice(classes.start, classes.stop)
        weight, bias = self.weight[own], self.bias[own]
        return torch.baddbmm(bias[:, None], hidden.transpose(0, 1), weight.transpose(1, 2))


def _copies(values: Tensor | None, count: int) -> nn.Parameter:
    assert values is not None
    return nn.Parameter(values.detach().expand(count, *values.shape).contiguous())


def _averages(side: int, cells: int) -> Tensor:
    """Weights (cells, side) of adaptive average pooling: cell i covers what it touches."""
    weights = torch.zeros(cells, side)
    for i in range(cells):
        start, stop = i * side // cells, ceil((i + 1) * side / cells)
        weights[i, start:stop] = 1 / (stop - start)
    return weights


class RandomTeacher(nn.Module):
    """A network that is never trained.

    Args:
        net: a single one.
        batch: images a pass, which bounds the memory of its many maps.
    """

    kind = "teachers"

    def __init__(self, net: Regressors, batch: int) -> None:
        super().__init__()
        self.net = net.requires_grad_(requires_grad=False)
        self.batch = batch

    @property
    def nbytes(self) -> int:
        return module_nbytes(self)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Its outputs (B, outputs) for normalised images (B, C, H, W)."""
        return torch.cat([self.net(part)[0] for part in x.split(self.batch)])


def prediction_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared differences over the last dimension."""
    return (outputs - targets).square().mean(-1)


def class_losses(errors: Tensor, y: Tensor, classes: range) -> tuple[Tensor, Tensor]:
    """The mean error of each class, (n,), 0 where it has no images; and which ones have, bool (n,).

    Args:
        errors: of each image (B,).
        y: labels (B,), all among `classes`.
        classes: n consecutive ones.
    """
    own = F.one_hot(y - classes.start, len(classes)).to(errors.dtype)
    counts = own.sum(0)
    return (errors @ own) / counts.clamp(min=1), counts > 0
