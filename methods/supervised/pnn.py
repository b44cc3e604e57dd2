"""Progressive networks (Rusu et al., 2016, arXiv:1606.04671): a new column for every task.

A column is the protocol's network; those of past tasks are frozen and heard by adapters. Task-IL
accuracy never falls; for class-IL a `rule` compares the columns, which the paper leaves open and
Mammoth's `pnn` (Buzzega et al., 2020, arXiv:2004.07211), whose network this is, does not have.
Further deviations from Mammoth: the cross-entropy is over the outputs of the task's own classes
(`train_on: all`: over all), since outputs that the rule compares must not depend on absent classes;
old columns are shared, not copied into every new one, and are heard as they are, with their own
stem, batch statistics and lateral connections.

With `slice`, a task of one class teaches its column nothing, and has no entropy: use `all` there.
The entropy of few classes is lower than that of many: `min_entropy` suits tasks of equal size.
Features are those of the newest column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Batch, Context, Planned, Signal, Stateful, TaskView
from methods.learners import ClassifierMethod, evaluating
from methods.parts.current_task import CurrentTask
from methods.parts.feature_maps import staged
from methods.parts.progressive_columns import (
    Activations,
    Column,
    FrozenColumns,
    Laterals,
    Rule,
    class_scores,
)
from methods.parts.requirements import require_own_classes, require_stages


@dataclass(frozen=True, slots=True)
class Config:
    """`rule`: see `class_scores`; `train_on`: the outputs in a column's cross-entropy."""

    rule: Rule = "concat_logits"  # ours
    train_on: Literal["slice", "all"] = "slice"  # ours; all: Mammoth


class PNN(ClassifierMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.LABELS, Signal.BOUNDARIES})

    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        require_stages(planned, 2)
        require_own_classes(planned)

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.task = CurrentTask()
        self.old = FrozenColumns()
        self._train(Column(staged(self.backbone), self.head, Laterals()))

    def begin_task(self, task: TaskView) -> None:
        if self.task.position >= 0:
            self._grow(self.task.seen)
        self.task.begin(task)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits, y = self._newest(self.views(batch.x)).logits, batch.labels()
        if self.config.train_on == "slice":
            logits, y = logits[:, self.task.past : self.task.seen], y - self.task.past
        return {"stream": F.cross_entropy(logits, y)}

    def parts(self) -> dict[str, Stateful]:
        held = {"columns": self.old, "laterals": self.column.laterals, "task": self.task}
        return {**super().parts(), **held}

    def rebuild(self, state: Mapping[str, Any]) -> None:
        self.old = FrozenColumns()
        self._train(self._fresh_column())
        for stop in state["columns"]["stops"]:
            self._grow(stop)

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        with evaluating(self.column):
            return self._newest(self.ctx.normalize(x)).features

    @torch.no_grad()
    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        del task  # the rule finds the column
        x = self.ctx.normalize(x)
        with evaluating(self.column):
            old = self.old(x)
            found = [*old, self.column(x, old)]
        stops = [*self.old.stops, self.task.seen] if self.task.position >= 0 else []
        logits = [column.logits for column in found]
        return class_scores(logits, stops, self.config.rule, whole=self.config.train_on == "all")

    def _newest(self, x: Tensor) -> Activations:
        """The column in training on normalised images."""
        return self.column(x, self.old(x))

    def _grow(self, stop: int) -> None:
        """Freeze the newest column, whose last class is `stop` - 1, and begin another."""
        self.old.add(self.column, stop)
        self._train(self._fresh_column())

    def _train(self, column: Column) -> None:
        """Train this column alone from now on."""
        self.column = column.to(self.ctx.device)
        self.backbone, self.head = column.backbone, column.head
        self.net = nn.Sequential(self.backbone, self.head)
        self._trained = [self.column]
        self.optimizer = self.make_optimizer()

    def _fresh_column(self) -> Column:
        """As many columns as there are frozen ones precede it; the first has the shared weights."""
        ctx, older = self.ctx, len(self.old)
        purpose = ("column", older) if older else ()
        backbone = staged(ctx.backbone(*purpose))
        dim, classes = backbone.feature_dim, ctx.num_classes
        head = ctx.random.weights(lambda: nn.Linear(dim, classes), "head", *purpose)
        if not older:
            return Column(backbone, head, Laterals())
        fresh = staged(ctx.backbone("lateral", older))
        laterals = ctx.random.weights(
            lambda: Laterals(older, fresh, ctx.image_shape, classes), "laterals", older
        )
        return Column(backbone, head, laterals)


build = PNN
