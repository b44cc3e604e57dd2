"""MAE (He et al., 2022, arXiv:2111.06377): paint the hidden patches of an image from the others.

The small version for small images (github.com/IcarusWizard/MAE) that CLIMB's released code carries:
pixels of the normalised view are the target, the decoder has no normalisation at its end and, as
wide as the encoder, no layer in front. Deviations from that code: patches are hidden in training
alone, not when features are measured; the error is divided by the share of patches that are really
hidden, which is `mask_ratio` wherever that makes a whole number of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Backbone, Embeddings, Objective
from methods.parts.patches import PatchBackbone
from methods.parts.transfers import sent


@dataclass(frozen=True, slots=True)
class Config:
    mask_ratio: float = 0.75  # the paper's Figure 5
    decoder_depth: int = 4
    decoder_heads: int = 3
    decoder_dim: int = 192

    def __post_init__(self) -> None:
        for name in ("decoder_depth", "decoder_heads", "decoder_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.decoder_dim % self.decoder_heads:
            raise ValueError(
                f"decoder_dim {self.decoder_dim} does not divide by decoder_heads "
                f"{self.decoder_heads}"
            )


class Decoder(nn.Module):
    """From tokens of the visible patches to the pixels of the hidden ones."""

    def __init__(self, config: Config, backbone: PatchBackbone) -> None:
        super().__init__()
        width, dim = config.decoder_dim, backbone.feature_dim
        pixels = backbone.image_shape[0] * backbone.patch_size**2
        self.enter = nn.Identity() if dim == width else nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, backbone.num_patches + 1, width))
        for parameter in (self.mask_token, self.positions):
            nn.init.trunc_normal_(parameter, std=0.02)  # as vision transformers do
        blocks = [Block(width, config.decoder_heads) for _ in range(config.decoder_depth)]
        for block in blocks:  # the fused gradient differs from run to run on GPUs
            block.attn.fused_attn = False  # pyright: ignore[reportArgumentType]
        self.blocks = nn.Sequential(*blocks)
        self.leave = nn.Linear(width, pixels)

    def forward(self, tokens: Tensor, order: Tensor) -> Tensor:
        """Pixels (B, N - K, C * p * p) of the hidden patches `order[:, K:]`.

        Args:
            tokens: (B, 1 + K, D), the class token and those of patches `order[:, :K]`.
            order: numbers of all patches, (B, N) int64, the K visible ones first.
        """
        batch, visible = len(tokens), tokens.shape[1]
        hidden = order.shape[1] + 1 - visible
        mask = self.mask_token.expand(batch, hidden, -1)
        positions = self.positions.expand(batch, -1, -1)
        # Attention does not see the order of tokens: positions come to them, not they to positions.
        here = torch.cat([positions[:, :1], patches_at(positions[:, 1:], order)], dim=1)
        decoded = self.blocks(torch.cat([self.enter(tokens), mask], dim=1) + here)
        return self.leave(decoded[:, visible:])


class MAE(Objective):
    num_views: ClassVar[int] = 1
    alignable: ClassVar[bool] = False

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        backbone = _patchwise(backbone)
        self.num_hidden = round(config.mask_ratio * backbone.num_patches)
        if not 0 < self.num_hidden < backbone.num_patches:
            raise ValueError(
                f"objective mae: `mask_ratio` {config.mask_ratio} hides {self.num_hidden} "
                f"of {backbone.num_patches} patches"
            )
        self.projection_dim = backbone.feature_dim
        self.projector = nn.Identity()
        self.decoder = Decoder(config, backbone)

    def forward(
        self, backbone: Backbone, views: tuple[Tensor, ...], rng: torch.Generator
    ) -> Embeddings:
        """The loss of one view, with features of what was visible; they are the projections too."""
        (view,) = views
        backbone = _patchwise(backbone)
        order = random_order(len(view), backbone.num_patches, rng=rng, device=view.device)
        keep, hide = order[:, : -self.num_hidden], order[:, -self.num_hidden :]
        tokens = backbone.encode(view, keep)
        target = patches_at(patches(view, backbone.patch_size), hide)
        loss = F.mse_loss(self.decoder(tokens, order), target)
        features = (backbone.pool(tokens),)
        return Embeddings(loss, features, features)


def random_order(batch: int, count: int, *, rng: torch.Generator, device: torch.device) -> Tensor:
    """A permutation of 0..count-1 a row, (batch, count); one copy that the host does not await."""
    return sent(torch.rand(batch, count, generator=rng, device="cpu").argsort(dim=1), device)


def patches(x: Tensor, size: int) -> Tensor:
    """Images (B, C, H, W) cut into (B, N, C * size * size), row by row."""
    return F.pixel_unshuffle(x, size).flatten(2).transpose(1, 2)


def patches_at(rows: Tensor, numbers: Tensor) -> Tensor:
    """Rows (B, K, D) of each image's (B, N, D) by their numbers (B, K)."""
    return torch.take_along_dim(rows, numbers.unsqueeze(-1), dim=1)


def _patchwise(backbone: Backbone) -> PatchBackbone:
    if not isinstance(backbone, PatchBackbone):
        raise ValueError("objective mae needs a backbone of patches, such as vit_tiny")
    return backbone


build = MAE
