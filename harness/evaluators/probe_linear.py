"""Linear probe on frozen features, by gradient descent with early stopping on validation accuracy.

The probe of CLA (CoLLAs 2025): L2-normalised features, one linear layer, Adam. When validation
accuracy has not improved for `patience` epochs the learning rate is divided by `factor` and the
best weights come back; training ends after `epochs` or below `min_lr`. Adam keeps its moments over
such a return, as upstream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import UserError
from harness.measure import Checkpoint
from harness.probes import Probe


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of CLA's released code (`probing_pytorch.py`)."""

    lr: float = 0.05
    batch_size: int = 256
    epochs: int = 100
    patience: int = 5
    factor: float = 3.0
    min_lr: float = 1e-4

    def __post_init__(self) -> None:
        if min(self.batch_size, self.epochs, self.patience) < 1 or self.factor <= 1:
            raise ValueError("batch_size, epochs and patience are at least 1, factor above 1")


class _Data(NamedTuple):
    x: Tensor
    y: Tensor


class LinearProbe(Probe):
    needs_validation: ClassVar[bool] = True
    config: Config

    def guesses(self, checkpoint: Checkpoint) -> Tensor:
        train, validation = (
            _Data(F.normalize(checkpoint.features(part), dim=1), checkpoint.labels(part))
            for part in ("train", "validation")
        )
        if not len(validation.y):
            raise UserError("probe_linear: no class has enough images for the validation share")
        rng = checkpoint.rng("probe_linear")
        layer = _linear(train.x.shape[1], checkpoint.scenario.dataset.num_classes, rng)
        layer = layer.to(train.x.device)
        _fit(layer, train, validation, self.config, rng)
        measured = F.normalize(checkpoint.features(checkpoint.split), dim=1)
        with torch.no_grad():
            return layer(measured).argmax(1)


def _linear(inputs: int, outputs: int, rng: torch.Generator) -> nn.Linear:
    """PyTorch's default initialisation of a linear layer, drawn from `rng`."""
    with torch.device("meta"):  # or the layer would draw from the global generator
        layer = nn.Linear(inputs, outputs)
    layer = layer.to_empty(device="cpu")
    bound = inputs**-0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=rng)
    return layer


def _fit(
    layer: nn.Linear, train: _Data, validation: _Data, config: Config, rng: torch.Generator
) -> None:
    """Train in place; `layer` ends with the weights of the best validation accuracy."""
    optimizer = torch.optim.Adam(layer.parameters(), lr=config.lr)
    best, waited = -1.0, 0
    kept = {name: value.clone() for name, value in layer.state_dict().items()}
    for _ in range(config.epochs):
        _epoch(layer, optimizer, train, config.batch_size, rng)
        accuracy = _accuracy(layer, validation)
        if accuracy > best:
            best, waited = accuracy, 0
            kept = {name: value.clone() for name, value in layer.state_dict().items()}
            continue
        waited += 1
        if waited < config.patience:
            continue
        layer.load_state_dict(kept)
        waited = 0
        for group in optimizer.param_groups:
            group["lr"] /= config.factor
        if optimizer.param_groups[0]["lr"] < config.min_lr:
            break
    layer.load_state_dict(kept)


def _epoch(
    layer: nn.Linear,
    optimizer: torch.optim.Optimizer,
    train: _Data,
    batch_size: int,
    rng: torch.Generator,
) -> None:
    order = torch.randperm(len(train.y), generator=rng).to(train.y.device)
    for rows in order.split(batch_size):
        # A partial batch is skipped, unless it is all there is.
        if len(rows) < min(batch_size, len(order)):
            break
        loss = F.cross_entropy(layer(train.x[rows]), train.y[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


@torch.no_grad()
def _accuracy(layer: nn.Linear, data: _Data) -> float:
    return (layer(data.x).argmax(1) == data.y).float().mean().item()


build = LinearProbe
