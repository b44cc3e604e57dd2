"""Where a classifier looks: Grad-CAM maps of the true class on a few images of each task seen.

The maps (`methods.parts.grad_cam`; Selvaraju et al., ICCV 2017) are enlarged to the image
bilinearly and divided by their largest value. The images are the same after every task, so that
maps can be compared over tasks (`analysis.attention`), as in BrainCL (arXiv:2504.14727). Methods
without feature maps of that kind give none.

Details `attention`, a row an image: `image`, its row number in the measured part; `label`, `task`;
`map` (H * W) from 0 to 1, float16; `pixels` (C * H * W), uint8; `channels`, `height`, `width`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from harness.measure import Checkpoint, Details, Evaluator, as_numpy


@dataclass(frozen=True, slots=True)
class Config:
    per_task: int = 2  # images of each task, of as many classes as possible

    def __post_init__(self) -> None:
        if self.per_task < 1:
            raise ValueError(f"per_task must be at least 1, got {self.per_task}")


class Attention(Evaluator):
    config: Config

    def evaluate(self, checkpoint: Checkpoint) -> Iterator[Details]:
        places = _places(checkpoint, self.config.per_task)
        rows = checkpoint.rows(checkpoint.split)[places]
        labels = checkpoint.labels(checkpoint.split)[places]
        images = checkpoint.images(checkpoint.split, places)
        maps = checkpoint.method.class_attention(images, labels)
        if maps is None:
            return
        count, channels, height, width = images.shape
        columns = {
            "image": rows,
            "label": labels,
            "task": checkpoint.task(checkpoint.split)[places],
            "map": enlarged(maps, (height, width)).half(),
            "pixels": images.flatten(1),
        }
        sides = {"channels": channels, "height": height, "width": width}
        yield Details(
            "attention",
            {name: as_numpy(values) for name, values in columns.items()}
            | {name: np.full(count, side) for name, side in sides.items()},
        )


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (N, h, w) at the size of the image, flat, (N, H * W), each with 1 as its largest value.

    A map that is 0 everywhere stays so.
    """
    wide = F.interpolate(maps[:, None].float(), size, mode="bilinear", align_corners=False)
    flat = wide.flatten(1)
    largest = flat.amax(1, keepdim=True)
    return torch.where(largest > 0, flat / largest, flat)


def _places(checkpoint: Checkpoint, per_task: int) -> Tensor:
    """Places, among the measured images, of the first ones of each task seen, class by class."""
    task, labels = (
        values(checkpoint.split).cpu() for values in (checkpoint.task, checkpoint.labels)
    )
    chosen: list[Tensor] = []
    for position in range(checkpoint.after_task + 1):
        own = (task == position).nonzero()[:, 0]
        turns = torch.empty_like(own)  # of an image among those of its class
        for label in labels[own].unique():
            mask = labels[own] == label
            turns[mask] = torch.arange(int(mask.sum()))
        chosen.append(own[turns.argsort(stable=True)][:per_task])
    return torch.cat(chosen).to(checkpoint.labels(checkpoint.split).device)


build = Attention
