"""What masked autoencoders ask of a vision transformer: tokens of chosen patches of an image."""

from __future__ import annotations

import abc

from torch import Tensor

from methods.base import Backbone


class PatchBackbone(Backbone, abc.ABC):
    """A transformer over square patches of an image, numbered row by row, and one class token.

    Attributes:
        patch_size: side of a patch, in pixels; it divides the image's sides.
        num_patches: patches of an image.
        image_shape: (C, H, W) of the images it was built for.
    """

    patch_size: int
    num_patches: int
    image_shape: tuple[int, int, int]

    @abc.abstractmethod
    def encode(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Tokens (B, 1 + K, `feature_dim`) of normalised images after the last norm.

        Token 0 is the class token, then come the patches in the order of `keep`.

        Args:
            x: normalised images (B, C, H, W).
            keep: numbers of the patches to encode, (B, K) int64; None is all of them, in order.
        """

    @abc.abstractmethod
    def pool(self, tokens: Tensor) -> Tensor:
        """Features (B, D) of tokens (B, 1 + K, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.encode(x))
