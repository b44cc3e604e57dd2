"""SCALE: contrast with pseudo-positives, distillation of pairwise similarities, selected memory.

Yu et al., 2022, arXiv:2208.11266, as an online method in CLA (Cignoni et al., CoLLAs 2025). Stream
and memory images are contrasted, where pairs of stream images with similar features count as
positives; the similarities between images must stay those that the encoder at the beginning of the
mini-batch saw; the memory keeps a spread-out subset (`memory: psa`) or a reservoir, which is what
CLA compares, as a selection encodes the whole memory for every mini-batch.

It stands in for objective simclr and brings its own projector and losses. Deviations from the
versions in the released code of CLA and CLIMB: stream images come first, where the mask expects
them (there, replayed images stand in their place); the earlier encoder is copied once a mini-batch
as in the original, not in every pass; features are normalised before they are compared, as the mask
assumes (`normalize_features: false` for both released versions). The copy of the encoder is renewed
for every mini-batch, so it is not counted as held between tasks.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Backbone, Batch, Context, Embeddings, Objective, Planned, Stateful
from methods.learners import SelfSupervisedMethod
from methods.parts.buffers import Buffer, reservoir
from methods.parts.part_and_select import part_and_select
from methods.parts.stand_in import require_contrastive
from methods.parts.transfers import sent

SELF: Final = 1000.0  # taken off the similarity of an image with itself; SCALE's released code
BASE_TEMPERATURE: Final = 0.07  # SCALE's released code: the loss is scaled by temperature / this
EMBED_BATCH: Final = 256  # images a forward pass when the memory is encoded


@dataclass(frozen=True, slots=True)
class Config:
    memory: Literal["psa", "reservoir"] = "psa"  # SCALE; reservoir: CLA
    temperature: float = 0.1  # SCALE, released code, as the next six
    past_temperature: float = 0.01
    mask_temperature: float = 0.1
    mask_threshold: float = 0.1  # 0.3 for i.i.d. streams
    distillation: float = 0.15  # share of the contrastive loss at the first step
    projection_dim: int = 128
    hidden: int = 512
    normalize_features: bool = True  # what the mask assumes; false: released code


class ScaleLoss(Objective):
    """SCALE's projector, and its contrastive loss of a batch without memory."""

    contrastive: ClassVar[bool] = True
    weight: Tensor

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.projection_dim = config.projection_dim
        self.projector = nn.Sequential(
            nn.Linear(backbone.feature_dim, config.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, config.projection_dim),
        )
        # The weight of the distillation, set by the first step that has one.
        self.register_buffer("weight", torch.zeros(()))

    def forward(
        self, backbone: Backbone, views: tuple[Tensor, ...], rng: torch.Generator
    ) -> Embeddings:
        del rng
        return self.contrast(backbone, views, len(views[0]))

    def contrast(self, backbone: Backbone, views: tuple[Tensor, ...], stream: int) -> Embeddings:
        """The contrastive loss of views (B, C, H, W) whose first `stream` images are new."""
        features = tuple(backbone(view) for view in views)
        projections = tuple(F.normalize(self.projector(f), dim=1) for f in features)
        compared = [f.detach() for f in features]
        if self.config.normalize_features:
            compared = [F.normalize(f, dim=1) for f in compared]
        config = self.config
        mask = pseudo_positives(compared, config.mask_temperature, config.mask_threshold)
        mask = mask & _block(len(mask), stream, mask.device)
        loss = contrastive(torch.cat(projections), mask, stream, config.temperature)
        return Embeddings(loss, features, projections)

    def weigh(self, distillation: Tensor, contrastive: Tensor) -> Tensor:
        """The weighted distillation; the first one above 0 fixes the weight for good."""
        first = self.config.distillation * contrastive.detach() / distillation.detach()
        unset = (self.weight == 0) & (distillation.detach() > 0)
        self.weight.copy_(torch.where(unset, first, self.weight))
        return self.weight * distillation


class SCALE(SelfSupervisedMethod):
    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        require_contrastive(planned.objective)

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx, partial(ScaleLoss, config))
        self.config = config
        self.losses = cast(ScaleLoss, self.objective)
        self.past = copy.deepcopy(self.backbone).requires_grad_(requires_grad=False).eval()
        self.buffer = Buffer(ctx.training.buffer_size, reservoir, ctx.random("buffer"), ctx.device)

    def before_passes(self, batch: Batch) -> None:
        del batch
        self.past.load_state_dict(self.backbone.state_dict())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x = batch.x
        if len(self.buffer):
            old = self.buffer.sample(self.ctx.training.replay_batch, self.ctx.random("replay"))
            x = torch.cat([x, old["x"]])
        views = self.views(x)
        found = self.losses.contrast(self.backbone, views, len(batch.x))
        with torch.no_grad():
            before = F.normalize(self.losses.projector(self.past(views[0])), dim=1)
        config = self.config
        kept = similarity_distillation(
            found.projections[0], before, config.temperature, config.past_temperature
        )
        return {"contrast": found.loss, "distillation": self.losses.weigh(kept, found.loss)}

    def remember(self, batch: Batch) -> None:
        capacity = self.ctx.training.buffer_size
        if self.config.memory == "reservoir" or len(self.buffer) + len(batch.x) <= capacity:
            self.buffer.add(x=batch.x)
            return
        pool = torch.cat([self.buffer.everything()["x"], batch.x])
        z = torch.cat([self.embed(x) for x in pool.split(EMBED_BATCH)])
        # The selection is sequential, so it is made on the host: one transfer a mini-batch.
        rows = part_and_select(z.cpu(), capacity, rng=self.ctx.random("buffer"))
        self.buffer.refill(x=pool[sent(rows, pool.device)])

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "buffer": self.buffer}


def pseudo_positives(features: list[Tensor], temperature: float, threshold: float) -> Tensor:
    """Which pairs of images are taken for one class, bool (B, B); each image with itself is.

    Args:
        features: (B, D) of each view, of unit length.
        temperature: of the softmax over the negative squared distances.
        threshold: from 0, the mean over pairs, to 1, the maximum.
    """
    count = len(features[0])
    alone = torch.eye(count, dtype=torch.bool, device=features[0].device)
    alike = torch.zeros_like(alone, dtype=features[0].dtype)
    for one in features:
        for other in features:
            distance = 2 - 2 * one @ other.T
            score = -distance / temperature - SELF * alone
            alike += (score.softmax(1) + score.softmax(0)) / (2 * len(features) ** 2)
    mean = alike.masked_fill(alone, 0).sum() / max(count * (count - 1), 1)
    largest = alike.masked_fill(alone, float("-inf")).max()
    return (alike > mean + threshold * (largest - mean)) | alone


def contrastive(z: Tensor, positive: Tensor, stream: int, temperature: float) -> Tensor:
    """Supervised contrastive loss with a mask for labels, over stream anchors; a scalar.

    Args:
        z: normalised projections (2B, D), the first view's before the second's.
        positive: which images attract each other, bool (B, B).
        stream: the first so many images of each view are anchors.
        temperature: of the similarities.
    """
    count = len(z)
    other = ~torch.eye(count, dtype=torch.bool, device=z.device)
    similarity = (z @ z.T / temperature).masked_fill(~other, float("-inf"))
    log_share = similarity - similarity.logsumexp(1, keepdim=True)
    attracts = positive.tile(2, 2) & other
    total = log_share.masked_fill(~attracts, 0).sum(1) / (attracts.sum(1) + 1e-10)
    anchors = torch.cat([total[:stream], total[count // 2 : count // 2 + stream]])
    return -(temperature / BASE_TEMPERATURE) * anchors.mean()


def similarity_distillation(
    now: Tensor, before: Tensor, temperature: float, past_temperature: float
) -> Tensor:
    """Cross-entropy between the similarities of images now and before, a scalar.

    Of instance-wise relation distillation (Cha et al., 2021, arXiv:2106.14413); projections are
    normalised (B, D), and an image's similarity with itself is left out.
    """
    alone = torch.eye(len(now), dtype=torch.bool, device=now.device)
    target = (before @ before.T / past_temperature).masked_fill(alone, float("-inf")).softmax(1)
    log_share = (now @ now.T / temperature).masked_fill(alone, float("-inf")).log_softmax(1)
    return -(target * log_share.masked_fill(alone, 0)).sum(1).mean()


def _block(count: int, stream: int, device: torch.device) -> Tensor:
    new = torch.arange(count, device=device) < stream
    return new[:, None] & new[None, :]


build = SCALE
