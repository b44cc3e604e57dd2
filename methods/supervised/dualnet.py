"""DualNet (Pham et al., 2021, arXiv:2110.00175): a slow network without labels, a fast one with.

The slow network is the protocol's backbone, with max-pooling behind its stem; its maps mask those
of a small fast network, and a head reads the last masked map. With every batch the slow network
first makes `inner_steps` steps of Barlow Twins and keeps `beta` of the way (look-ahead), `n_outer`
times; then all make `inner_steps` steps on the labels of stream and memory, and towards the logits
that stored images had when the task began. That divergence is summed over the replayed images, so
that `reg` weighs more with a larger `replay_batch`. Features are the masked ones.

As in the released code for streams without task labels (github.com/phquang/DualNet,
model/dualnet_tf.py), but: one buffer holds `buffer_size` images, not so many of each class; all of
them get new logits when a task begins, and those stored since then have none and count in the
cross-entropy alone, where the released code takes whatever stood in their place; images are stored
after they were learned; all steps see the protocol's augmentation (`augmentation: simclr` comes
close to the released views); projections are standardised by the deviation over N, as in the paper
of Barlow Twins; the fast steps are the protocol's unless `native_optimizer` is set, and those
beyond the first come after the protocol's `passes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Batch, Context, Planned, Signal, Stateful, TaskView
from methods.learners import ClassifierMethod, evaluating, total
from methods.objectives.barlow_twins import barlow_loss
from methods.parts.buffers import Buffer, reservoir
from methods.parts.current_task import CurrentTask
from methods.parts.dual_network import FastNetwork, LookAhead, Projector, summed_divergence
from methods.parts.feature_maps import feature_maps, map_shapes, staged
from methods.parts.requirements import require_stages, require_two_images

FAST_LR = 0.03  # released code


@dataclass(frozen=True, slots=True)
class Config:
    """`temperature` is that of the divergence, `redundancy` Barlow Twins' weight off the diagonal.

    `slow_batch` stored images make a slow step from the second task on; in the first one it is
    the batch itself. `native_optimizer`: fast steps by plain SGD at 0.03.
    """

    beta: float = 0.05  # EDD's comparison
    reg: float = 10.0  # EDD's comparison
    temperature: float = 2.0  # EDD's comparison
    inner_steps: int = 2  # these and the following: released code
    n_outer: int = 1
    slow_lr: float = 3e-4
    slow_batch: int = 32
    redundancy: float = 2e-3
    slow_pool: bool = True
    native_optimizer: bool = False  # ours: one optimizer for all methods

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must lie in [0, 1], got {self.beta}")
        for name, least in (("inner_steps", 1), ("n_outer", 0), ("slow_batch", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("reg", "slow_lr", "redundancy"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")


class DualNet(ClassifierMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.LABELS, Signal.BOUNDARIES})

    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        require_stages(planned, 2)
        require_two_images(planned, planned.training.buffer_size)
        try:
            shapes = map_shapes(staged(planned.backbone), planned.image_shape, _behind_stem(config))
            with torch.device("meta"):
                FastNetwork(planned.image_shape, shapes)
        except (RuntimeError, ValueError) as error:
            sides = "x".join(map(str, planned.image_shape[1:]))
            remedy = "; try slow_pool: false" if config.slow_pool else ""
            raise ValueError(
                f"backbone: maps of {sides} images do not suit the fast network{remedy} ({error})"
            ) from None

    def __init__(self, config: Config, ctx: Context) -> None:
        self.config = config
        super().__init__(ctx)
        self.task = CurrentTask()
        self.slow, self._behind_stem = staged(self.backbone), _behind_stem(config)
        shapes = map_shapes(self.slow, ctx.image_shape, self._behind_stem)
        make, dim = ctx.random.weights, self.slow.feature_dim
        self.fast = make(lambda: FastNetwork(ctx.image_shape, shapes), "fast network")
        self.projector = make(lambda: Projector(dim), "projector")
        for module in (self.fast, self.projector):
            self.train_also(module.to(ctx.device))
        self._slow_learners = nn.ModuleList([self.slow, self.projector])
        self._look_ahead = LookAhead(self._slow_learners)
        # Without momentum it remembers nothing, and need not be saved.
        self._slow_optimizer = torch.optim.SGD(self._slow_learners.parameters(), config.slow_lr)
        self.buffer = Buffer(ctx.training.buffer_size, reservoir, ctx.random("buffer"), ctx.device)

    def make_optimizer(self) -> torch.optim.Optimizer:
        if not self.config.native_optimizer:
            return super().make_optimizer()
        return torch.optim.SGD(chain.from_iterable(m.parameters() for m in self._trained), FAST_LR)

    @torch.no_grad()
    def begin_task(self, task: TaskView) -> None:
        self.task.begin(task)
        if self.task.first:
            return
        x = self.buffer.everything()["x"]
        logits = torch.cat([self.predict(some) for some in x.split(self.ctx.training.batch_size)])
        rows = torch.arange(len(x), device=x.device)
        self.buffer.put(rows, logits=logits, known=torch.ones_like(rows, dtype=torch.bool))

    def before_passes(self, batch: Batch) -> None:
        for _ in range(self.config.n_outer):
            start = self._look_ahead.here()
            for _ in range(self.config.inner_steps):
                self._slow_step(batch)
            self._look_ahead.part_of_the_way(start, self.config.beta)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        terms = {"stream": F.cross_entropy(self._logits(self.views(batch.x)), batch.labels())}
        if self.task.first:
            return terms
        old = self.buffer.sample(self.ctx.training.replay_batch, self.ctx.random("replay"))
        logits, temperature = self._logits(self.views(old["x"])), self.config.temperature
        drift = summed_divergence(logits, old["logits"], old["known"], temperature)
        return {
            **terms,
            "replay": F.cross_entropy(logits, old["y"]),
            "divergence": self.config.reg * drift,
        }

    def remember(self, batch: Batch) -> None:
        for _ in range(self.config.inner_steps - 1):
            self.optimizer.zero_grad(set_to_none=True)
            total(self.loss(batch)).backward()
            self.optimizer.step()
        y = batch.labels()
        logits = torch.zeros(len(y), self.ctx.num_classes, device=y.device)
        self.buffer.add(x=batch.x, y=y, logits=logits, known=torch.zeros_like(y, dtype=torch.bool))

    def parts(self) -> dict[str, Stateful]:
        held = {"fast": self.fast, "projector": self.projector}
        return {**super().parts(), **held, "buffer": self.buffer, "task": self.task}

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        with evaluating(self.net), evaluating(self.fast):
            return self._features(self.ctx.normalize(x))

    @torch.no_grad()
    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        del task  # one head for all tasks
        with evaluating(self.net), evaluating(self.fast):
            return self._logits(self.ctx.normalize(x))

    def _logits(self, x: Tensor) -> Tensor:
        return self.head(self._features(x))

    def _features(self, x: Tensor) -> Tensor:
        """Masked features (B, D) of normalised images."""
        return self.slow.pool(self.fast(x, feature_maps(self.slow, x, self._behind_stem)))

    def _projections(self, x: Tensor) -> Tensor:
        """Projections (B, D) of the slow network's own features of normalised images."""
        return self.projector(self.slow.pool(feature_maps(self.slow, x, self._behind_stem)[-1]))

    def _slow_step(self, batch: Batch) -> None:
        """One step of Barlow Twins; none on a single image, which correlates with nothing."""
        x = batch.x
        if not self.task.first:
            x = self.buffer.sample(self.config.slow_batch, self.ctx.random("slow replay"))["x"]
        if len(x) < 2:
            return
        z1, z2 = (self._projections(self.views(x)) for _ in range(2))
        self._slow_optimizer.zero_grad(set_to_none=True)
        barlow_loss(z1, z2, self.config.redundancy).backward()
        self._slow_optimizer.step()


def _behind_stem(config: Config) -> nn.Module | None:
    return nn.MaxPool2d(3, stride=2, padding=1) if config.slow_pool else None


build = DualNet
