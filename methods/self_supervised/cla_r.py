"""CLA-R: replayed images align with the projections that were stored with them.

Continual Latent Alignment with replayed features (Cignoni et al., CoLLAs 2025, eq. 3): a FIFO
buffer keeps each image with the mean of its views' projections in the last pass over it. Every pass
moves the stored projection of a replayed image halfway to its current one, after the target was
read; the paper's pseudocode shows that once a mini-batch, the released code does it every pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from methods.base import Batch, Context, Planned, Stateful
from methods.learners import SelfSupervisedMethod
from methods.parts.alignment import Alignment, require_alignable
from methods.parts.buffers import Buffer, fifo
from methods.parts.replay import require_replay, with_replay


@dataclass(frozen=True, slots=True)
class Config:
    omega: float = 1.0  # weight of the alignment; CLA, Tables 8 and 9
    keep: float = 0.5  # share of a stored projection that a pass leaves; released code
    align_criterion: Literal["cosine", "mse", "ssl"] = "cosine"  # released code


class CLAR(SelfSupervisedMethod):
    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        require_replay(planned.training)
        require_alignable(planned.objective)

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.buffer = Buffer(ctx.training.buffer_size, fifo, ctx.random("buffer"), ctx.device)
        self.alignment = Alignment(ctx, self.objective, config.align_criterion)
        self.train_also(self.alignment)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        size, rng = self.ctx.training.replay_batch, self.ctx.random("replay")
        x, replayed = with_replay(self.buffer, batch.x, size, rng)
        found = self.embeddings(self.views(x))
        z = found.mean_projection()
        self.newest = z[-len(batch.x) :]
        if replayed is None:
            return {"ssl": found.loss}
        stored = self.buffer.take(replayed)["z"]
        self.buffer.put(replayed, z=torch.lerp(z[:size], stored, self.config.keep))
        current = [projection[:size] for projection in found.projections]
        alignment = self.alignment(current, [stored] * len(current))
        return {"ssl": found.loss, "alignment": self.config.omega * alignment}

    def remember(self, batch: Batch) -> None:
        self.buffer.add(x=batch.x, z=self.newest)

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "buffer": self.buffer, "alignment": self.alignment}


build = CLAR
