"""The diagonal of the Fisher information, image by image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from methods.base import Batch
from methods.learners import evaluating
from methods.parts.flat_gradients import flat_parameters
from methods.parts.importance import squared_gradients
from methods.parts.sample_gradients import SampleLoss, sample_gradients
from methods.parts.transfers import sent

CHUNK = 32
"""Images with a gradient each at a time: 1.4 GB for a ResNet-18."""


def fisher_diagonal(
    net: nn.Module, data: Batch, loss: SampleLoss, normalize: Callable[[Tensor], Tensor]
) -> Tensor:
    """The mean over images of the squared gradients of their losses, (P,), in eval mode.

    Args:
        net: from normalised images to outputs.
        data: raw images and labels, at least one.
        loss: of one image; cross-entropy gives the empirical Fisher information.
        normalize: from raw images to the network's input.
    """
    total = torch.zeros_like(flat_parameters(p for p in net.parameters() if p.requires_grad))
    with evaluating(net):
        for x, y in zip(data.x.split(CHUNK), data.labels().split(CHUNK), strict=True):
            total += squared_gradients(sample_gradients(net, normalize(x), y, loss, chunk=CHUNK))
    return total / len(data.x)


def drawn(data: Batch, count: int | None, rng: torch.Generator) -> Batch:
    """`count` random images of `data`, or all of them: with None, or if they are fewer."""
    if count is None or count >= len(data.x):
        return data
    rows = sent(torch.randperm(len(data.x), generator=rng)[:count], data.x.device)
    return Batch(data.x[rows], data.labels()[rows], data.index[rows], data.task)
