"""The gradient of the loss of every single image, vectorised (torch.func)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

SampleLoss = Callable[[Tensor, Tensor], Tensor]
"""(outputs (1, C), label (1,)) -> the loss of one image, a scalar."""


def sample_gradients(
    net: nn.Module, x: Tensor, y: Tensor, loss: SampleLoss, *, chunk: int
) -> dict[str, Tensor]:
    """Gradients by the name of the parameter, each (N, *shape), of N images.

    `net` must be in eval mode: in training mode batch normalisation makes the loss of an image
    depend on the others.

    Args:
        net: from images to outputs.
        x: normalised images (N, C, H, W).
        y: labels (N,).
        loss: of one image.
        chunk: images whose gradients are computed side by side; bounds the working memory, not
            the result, which has N times the bytes of the parameters.
    """
    trained = {name: p.detach() for name, p in net.named_parameters() if p.requires_grad}
    names = trained.keys()
    fixed = {
        name: value.detach()
        for name, value in [*net.named_parameters(), *net.named_buffers()]
        if name not in names
    }

    def one(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return loss(functional_call(net, {**weights, **fixed}, (image[None],)), label[None])

    per_image = vmap(grad(one), in_dims=(None, 0, 0), chunk_size=chunk)
    return per_image(trained, x, y)


def stacked(gradients: dict[str, Tensor]) -> Tensor:
    """Gradients by name, each (N, *shape), as one matrix (N, P), in the order of the names."""
    return torch.cat([gradient.flatten(1) for gradient in gradients.values()], dim=1)
