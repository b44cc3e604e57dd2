"""Anchors: synthetic images that a network is about to forget (HAL).

Chaudhry et al. (2021, arXiv:2002.08165).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Weights = dict[str, Tensor]
"""Parameters of a network by name, in place of its own."""


@final
class Anchors:
    """The anchors so far, and the mean feature of the task that is being learned.

    Attributes:
        images: float (N, C, H, W) in the space of normalised images, in the order of the classes.
        mean: (D,) while a task is learned; nothing between tasks.
    """

    kind = "exemplars"

    def __init__(self, image_shape: tuple[int, int, int], device: torch.device) -> None:
        self.images = torch.zeros((0, *image_shape), device=device)
        self.mean: Tensor | None = None
        self._device = device

    def __len__(self) -> int:
        return len(self.images)

    @property
    def nbytes(self) -> int:
        return self.images.nbytes + (0 if self.mean is None else self.mean.nbytes)

    def follow(self, features: Tensor, beta: float) -> None:
        """Move the mean, which starts at 0: beta * mean + (1 - beta) * mean of features (B, D)."""
        step = (1 - beta) * features.mean(0)
        self.mean = step if self.mean is None else beta * self.mean + step

    def append(self, images: Tensor) -> None:
        """Keep the anchors of the task (N, C, H, W) and forget its mean feature."""
        self.images = torch.cat([self.images, images.detach()])
        self.mean = None

    def state_dict(self) -> dict[str, Any]:
        mean = {} if self.mean is None else {"mean": self.mean.clone()}
        return {"images": self.images.clone(), **mean}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self.images = state_dict["images"].to(self._device)
        mean = state_dict.get("mean")
        self.mean = None if mean is None else mean.to(self._device)


def stepped(net: nn.Module, lr: float) -> Weights:
    """The weights after a plain step against the gradients in `net`, which stays as it is."""
    return {
        name: p.detach() if p.grad is None else p.detach() - lr * p.grad
        for name, p in net.named_parameters()
    }


@torch.no_grad()
def tried_weights(net: nn.Module, optimizer: torch.optim.Optimizer) -> Weights:
    """The weights after a step of the optimizer; it and the network are then what they were."""
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    state = {p: _copied(held) for p, held in optimizer.state.items()}
    # Not what schedules wrap to count the steps of a task.
    type(optimizer).step(optimizer)
    tried = {name: p.detach().clone() for name, p in net.named_parameters()}
    for name, p in net.named_parameters():
        p.copy_(before[name])
    optimizer.state.clear()
    optimizer.state.update(state)
    return tried


def _copied(held: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.clone() if isinstance(v, Tensor) else v for k, v in held.items()}


def anchor_loss(
    features: Tensor, logits: Tensor, tuned: Tensor, y: Tensor, *, mean: Tensor, gamma: float
) -> Tensor:
    """What an anchor minimises: - forgetting + gamma * ||features - mean||^2; (N,), one an anchor.

    Forgetting is by how much the cross-entropy rises from the network to the tuned one.

    Args:
        features: of the network (N, D).
        logits: of the network (N, C).
        tuned: logits after a step on the memory (N, C).
        y: the class of each anchor (N,).
        mean: feature to stay close to (D,).
        gamma: the weight of staying close.
    """
    rise = F.cross_entropy(tuned, y, reduction="none") - F.cross_entropy(
        logits, y, reduction="none"
    )
    return gamma * (features - mean).square().sum(1) - rise
