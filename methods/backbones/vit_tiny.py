"""ViT-Tiny (Touvron et al., 2021, arXiv:2012.12877) for images of every size, by timm's modules.

As in CLIMB's released code (CoLLAs 2026, github.com/lefebvju/climb, src/backbones/vit.py): learned
positions of the patches but not of the class token, no bias of queries, keys and values, and
patches of 2 pixels for 32 x 32 images. Deviation: linear layers, too, start from a truncated normal
of deviation 0.02, timm's initial weights, and not from PyTorch's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from methods.parts.patches import PatchBackbone

PATCH_OF_SIDE = {32: 2, 64: 4}
"""Patch sides in pixels of images up to these sides; larger images have `LARGE_PATCH`."""

LARGE_PATCH = 16


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the transformer.

    Attributes:
        patch_size: in pixels; None is 2 for images of up to 32 pixels, 4 up to 64, 16 above.
        dim: of the tokens and features.
        depth: number of blocks.
        heads: of attention in each block.
        pooling: whether features are the class token ("cls") or the mean of all tokens, class
            token included ("mean").
    """

    patch_size: int | None = None
    dim: int = 192
    depth: int = 12
    heads: int = 3
    pooling: Literal["cls", "mean"] = "cls"

    def __post_init__(self) -> None:
        sizes = (self.dim, self.depth, self.heads, self.patch_size or 1)
        if min(sizes) < 1 or self.patch_size == 0 or self.dim % self.heads:
            raise ValueError(
                "`patch_size`, `dim`, `depth` and `heads` must be positive, `heads` a divisor of "
                f"`dim`: {self}"
            )


class ViT(PatchBackbone):
    def __init__(self, config: Config, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = image_shape
        patch = config.patch_size or _patch_size(max(height, width))
        if height % patch or width % patch:
            raise ValueError(
                f"backbone vit_tiny: patches of {patch} pixels do not divide {height}x{width} "
                "images; set `patch_size`"
            )
        self.net = VisionTransformer(
            img_size=(height, width),
            patch_size=patch,
            in_chans=channels,
            num_classes=0,
            embed_dim=config.dim,
            depth=config.depth,
            num_heads=config.heads,
            qkv_bias=False,
            no_embed_class=True,
            norm_layer=nn.LayerNorm,
        )
        nn.init.trunc_normal_(self._class_token, std=0.02)
        for module in self.net.modules():
            if hasattr(module, "fused_attn"):  # the fused gradient differs from run to run on GPUs
                module.fused_attn = False  # pyright: ignore[reportArgumentType]
        self.patch_size = patch
        self.num_patches = (height // patch) * (width // patch)
        self.image_shape = image_shape
        self.feature_dim = config.dim
        self._pooling = config.pooling

    @property
    def _class_token(self) -> nn.Parameter:
        return cast("nn.Parameter", self.net.cls_token)

    def encode(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        patches = self.net.patch_embed(x) + self.net.pos_embed
        if keep is not None:
            patches = patches.gather(1, keep[:, :, None].expand(-1, -1, self.feature_dim))
        tokens = torch.cat([self._class_token.expand(len(x), -1, -1), patches], 1)
        return self.net.norm(self.net.blocks(tokens))

    def pool(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0] if self._pooling == "cls" else tokens.mean(1)


def _patch_size(side: int) -> int:
    return next((patch for most, patch in PATCH_OF_SIDE.items() if side <= most), LARGE_PATCH)


build = ViT
