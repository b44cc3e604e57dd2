"""CLIMB: a memory of images under centroids, short and long term, and alignment of what it replays.

CLIMB (CoLLAs 2026; github.com/lefebvju/climb). Every image of the stream meets a short-term and a
long-term memory of centroids in the space of projections: a novel one opens a centroid, others join
theirs; centroids with enough images are promoted, similar ones are merged, and when the memory is
full it is consolidated with fresh embeddings (`methods/parts/centroid_memory.py`). Steps train on
replayed and stream images, and replayed projections align with a moving average of the network, as
in CLA-E. The average follows after every optimizer step: the README says after every mini-batch,
the released code does it in every pass.

`fidelity: clean`, the default, is the method as its README describes it. `fidelity: upstream` does
what the released code does instead:
- the alignment head keeps its random initial weights, as the optimizer never sees them;
- images are compared with centroids by embeddings in training mode, normalised by the statistics of
  the mini-batch and changing the running ones, while consolidation embeds in evaluation mode;
- and what `CentroidMemory` lists: replay moves the centroids of the other memory, the window of
  distances fills ten times too fast and is blind at first, matches are lost or counted for
  centroids that were promoted, and promotion counts matches.
`cold_start` and `promote_on` are not asked then. In both, replay begins when `replay_batch` images
are stored, and the memory is consolidated as soon as it is full (README: when it would exceed its
size). Not reproduced, because they change no number of a run that ends undisturbed: a resume that
starts the averaged network and the head anew, the error when the memory fills before any promotion,
options that nothing reads. Left out, all off by default there: alignment before the projector, a
loss on centroids, trimming in the place of consolidation, moving long-term images between
centroids, a plain buffer in the place of centroids, more rules for replacing and merging.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from methods.base import Batch, Context, Planned, Stateful
from methods.learners import SelfSupervisedMethod, evaluating
from methods.parts.alignment import Alignment, require_alignable
from methods.parts.centroid_memory import CentroidMemory, Rules
from methods.parts.replay import require_replay
from methods.parts.teachers import Teacher


@dataclass(frozen=True, slots=True)
class Config:
    omega: float = 1.0  # weight of the alignment, lambda; README: 2 CIFAR-100, 1 ImageNet-100
    tau: float = 0.999  # momentum of the averaged network; README
    stm_centroids: int = 100  # L; README
    ltm_centroids: int = 60  # K; README
    examples: int = 30  # M, images under a centroid; README
    window: int = 1000  # distances that the novelty threshold looks back on; README
    percentile: float = 0.95  # of those distances; README
    stm_rate: float = 0.1  # step of a short-term centroid towards a match; README
    replay_rate: float = 0.5  # step of a replayed image's centroid, times its images; released code
    ratio_ltm: float = 0.5  # share of long-term images in replay, -1: as stored; README
    cold_start: Literal["fill", "first", "threshold"] = "fill"  # free slots; first: released code
    promote_on: Literal["examples", "matches"] = "examples"  # README; matches: released code
    ltm_replace: Literal["random", "oldest", "reservoir", "none"] = "random"  # released code
    ltm_merge: Literal["random", "balanced"] = "random"  # released code
    pruning: Literal["no_reset", "reset", "reset_stm"] = "no_reset"  # released code
    align_criterion: Literal["cosine", "mse", "ssl"] = "cosine"  # README
    ema_bn: Literal["batch", "copy"] = "batch"  # released code; copy: running statistics
    fidelity: Literal["clean", "upstream"] = "clean"  # see above

    def rules(self) -> Rules:
        """What concerns the memory."""
        return Rules(
            stm_centroids=self.stm_centroids,
            ltm_centroids=self.ltm_centroids,
            examples=self.examples,
            window=self.window,
            percentile=self.percentile,
            stm_rate=self.stm_rate,
            replay_rate=self.replay_rate,
            ratio_ltm=self.ratio_ltm,
            cold_start=self.cold_start,
            promote_on=self.promote_on,
            ltm_replace=self.ltm_replace,
            ltm_merge=self.ltm_merge,
            pruning=self.pruning,
            upstream=self.fidelity == "upstream",
        )

    def __post_init__(self) -> None:
        self.rules()  # refuses sizes and rates that make no sense


class CLIMB(SelfSupervisedMethod):
    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        require_replay(planned.training)
        require_alignable(planned.objective)
        try:
            config.rules().check_capacity(planned.training.buffer_size)
        except ValueError as error:
            raise ValueError(f"buffer_size: {error}") from None

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.upstream = config.fidelity == "upstream"
        self.centroids = CentroidMemory(
            config.rules(),
            capacity=ctx.training.buffer_size,
            slack=ctx.training.batch_size + 1,  # a last image may join a batch
            rng=ctx.random("buffer"),
            device=ctx.device,
        )
        self.teacher = Teacher(self.backbone, self.objective, config.ema_bn)
        self.alignment = Alignment(ctx, self.objective, config.align_criterion)
        if self.upstream:
            self.alignment.requires_grad_(requires_grad=False)
        else:
            self.train_also(self.alignment)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        size = self.ctx.training.replay_batch
        replayed = self.centroids.draw(size, self.ctx.random("replay"))
        if replayed is None:
            return {"ssl": self.embeddings(self.views(batch.x)).loss}
        views = self.views(torch.cat([replayed.x, batch.x]))
        found = self.embeddings(views)
        self.centroids.drift(replayed, found.mean_projection()[:size])
        alignment = self.alignment.towards(self.teacher, views, found.projections, size)
        return {"ssl": found.loss, "alignment": self.config.omega * alignment}

    def after_step(self) -> None:
        super().after_step()
        self.teacher.follow(self.backbone, self.objective, self.config.tau)

    def remember(self, batch: Batch) -> None:
        with nullcontext() if self.upstream else evaluating(self.net):
            z = self.project(batch.x)
        self.centroids.add(batch.x, z)
        if self.centroids.full:
            with evaluating(self.net):
                self.centroids.consolidate(self.project)

    def parts(self) -> dict[str, Stateful]:
        mine = {"centroids": self.centroids, "alignment": self.alignment, "teacher": self.teacher}
        return {**super().parts(), **mine}


build = CLIMB
