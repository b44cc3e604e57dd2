"""EDD (Moon and Cho, 2025, arXiv:2511.09871): expandable dual memories with orthogonal slots.

The maps behind the first two stages, as in github.com/axtabio/EDD, are read by attention from
memories of key-value slots, one shared and one task-specific. After each task the slots that moved
most are frozen and as many added; later tasks align their attention with that of the network
before and keep the second memory's learning slots orthogonal to its frozen ones.

Deviations. From the paper: the base loss is the code's, that of LwF-MC (`base_loss: ce_kd` has the
paper's wording); positions are queries and channels dimensions, as in the code, where the paper's
figure counts pixels. From the code: attention sums to 1 over the slots, the paper's equation,
where the code's softmax runs over the positions (`softmax`); counts and importance of frozen slots
and the orthogonality are the paper's; slots grow when the next task begins, so that no random
slots are evaluated (`expand_at`); the learning rate is the protocol's, where the code steps a
cosine of epochs in every batch; frozen slots are no parameters, so that momentum and weight decay
cannot move them. The code's `ba_lr` moves nothing there and is left out, as is passing on memory
and map concatenated, which needs wider stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Batch, Context, Planned, Signal, StagedBackbone, Stateful, TaskView
from methods.learners import ClassifierMethod, evaluating
from methods.parts.current_task import CurrentTask
from methods.parts.distillation import sharpened_distillation, sigmoid_distillation
from methods.parts.requirements import require_stages
from methods.parts.slot_attention import Over
from methods.parts.slot_growth import Growth, GrowthRule
from methods.parts.slot_memory import Orthogonality, SlotMemories, new_slots
from methods.parts.slot_network import Query, Read, SlotNetwork, Trace, query_dims
from methods.parts.teachers import FrozenNet

MEMORIES = 2
TASK_SPECIFIC = 1  # number of the memory whose slots are kept orthogonal


@dataclass(frozen=True, slots=True)
class Config:
    slots: int = 1000  # the paper, of each memory in the first task
    lambda_mem: float = 20.0  # the paper; 0 leaves alignment out
    lambda_ortho: float = 10.0  # the paper; 0 leaves orthogonality out
    ba_epochs: int = 20  # the paper, Algorithm 3; 0 leaves batch-norm adaptation out
    pruning_ratio: float = 0.15  # the paper
    growth: Growth = "d2"  # the paper, appendix D.2
    max_slots: int | None = None  # no limit in the paper's experiments
    freeze: Literal["both", "task"] = "both"  # the paper's text; Algorithm 3: task-specific alone
    importance_ref: Literal["prev_task", "init"] = "prev_task"  # the paper; its code: init
    expand_at: Literal["next_task_begin", "task_end"] = "next_task_begin"  # its code: task_end
    query: Query = "position"  # the released code
    read: Read = "memory"  # the paper
    softmax: Over = "slots"  # the paper; its code: positions
    orth: Orthogonality = "sq_mean"  # the paper, Algorithm 1; its code: abs_mean
    align: Literal["sum", "mean"] = "sum"  # the paper, equation 8; Algorithm 2: mean
    base_loss: Literal["lwf_mc", "ce_kd"] = "lwf_mc"  # the released code
    kd_weight: float = 1.0  # not in the paper; of ce_kd
    temperature: float = 2.0  # not in the paper; of ce_kd, LwF's
    student_bn: Literal["own", "adapted"] = "own"  # the released code; Algorithm 3: adapted

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ValueError(f"slots must be at least 1, got {self.slots}")
        if self.max_slots is not None and self.max_slots < self.slots:
            raise ValueError(f"max_slots must not be below slots, {self.slots}: {self.max_slots}")
        if not 0 <= self.pruning_ratio <= 1:
            raise ValueError(f"pruning_ratio must be from 0 to 1, got {self.pruning_ratio}")
        for name in ("lambda_mem", "lambda_ortho", "ba_epochs", "kd_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be above 0, got {self.temperature}")


class EDD(ClassifierMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset(
        {Signal.LABELS, Signal.BOUNDARIES, Signal.TASK_DATA}
    )

    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        require_stages(planned, MEMORIES)

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        backbone = cast("StagedBackbone", self.backbone)
        blank = torch.zeros(1, *ctx.image_shape, device=ctx.device)
        with evaluating(backbone):
            dims = query_dims(backbone, blank, MEMORIES, config.query)
        memories = ctx.random.weights(lambda: SlotMemories(dims, config.slots), "memories")
        self.memories = memories.to(ctx.device)
        self.train_also(self.memories)
        self.model = SlotNetwork(
            backbone,
            self.head,
            self.memories,
            query=config.query,
            read=config.read,
            over=config.softmax,
        )
        self.teacher = FrozenNet(self.model, fit=fit_memories)
        self.task = CurrentTask()

    def begin_task(self, task: TaskView) -> None:
        if task.position:
            if self.config.expand_at == "next_task_begin":
                counts = self._freeze()
                self.teacher.take()  # the network that was measured, without the random slots
                self._expand(counts)
            self._adapt(task)
        self.task.begin(task)

    def end_task(self, task: TaskView) -> None:
        del task
        if self.config.expand_at == "task_end":
            self._expand(self._freeze())
            self.teacher.take()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x, y = self.views(batch.x), batch.labels()
        teacher: Trace | None = self.teacher(x) if self.teacher else None
        aligned = teacher if self.config.lambda_mem > 0 else None
        trace = self.model(x, None if aligned is None else aligned.targets)
        terms = {"stream": self._base_loss(trace.logits[:, : self.task.seen], y, teacher)}
        if aligned is not None:
            distances = torch.stack(trace.distances).mean(1)  # over the images, (memories,)
            distance = distances.sum() if self.config.align == "sum" else distances.mean()
            terms["alignment"] = self.config.lambda_mem * distance
        if teacher is not None and self.config.lambda_ortho > 0:
            off = self.memories.all()[TASK_SPECIFIC].orthogonality(self.config.orth)
            terms["orthogonality"] = self.config.lambda_ortho * off
        return terms

    def _base_loss(self, logits: Tensor, y: Tensor, teacher: Trace | None) -> Tensor:
        past = self.task.past
        known = None if teacher is None else teacher.logits
        if self.config.base_loss == "lwf_mc":
            return sigmoid_distillation(logits, y, known, past)
        loss = F.cross_entropy(logits, y)
        if known is None or not past:
            return loss
        old = sharpened_distillation(logits[:, :past], known[:, :past], self.config.temperature)
        return loss + self.config.kd_weight * old

    def _freeze(self) -> list[int]:
        """Freeze slots after the current task; how many of each memory."""
        config, position = self.config, self.task.position
        rule = GrowthRule(config.growth, config.pruning_ratio, config.max_slots)
        counts: list[int] = []
        for number, memory in enumerate(self.memories.all()):
            done, tasks, unfrozen = position + 1, self.ctx.num_tasks, len(memory.keys)
            count = rule.newly_frozen(done, of=tasks, total=len(memory), unfrozen=unfrozen)
            if config.freeze == "task" and number != TASK_SPECIFIC:
                count = 0
            memory.freeze(count)
            counts.append(count)
        return counts

    def _expand(self, counts: list[int]) -> None:
        """Add new slots to each memory, and train all that then learn."""
        for number, (memory, count) in enumerate(zip(self.memories.all(), counts, strict=True)):
            make = partial(new_slots, count, memory.keys.shape[1])
            slots = self.ctx.random.weights(make, "slots", number, self.task.position)
            memory.append(slots)
        if self.config.importance_ref == "prev_task":
            self.memories.refer()
        self.optimizer = self.make_optimizer()

    def _adapt(self, task: TaskView) -> None:
        """Let the teacher's running statistics follow the new task's images; nothing else of it."""
        rng, size = self.ctx.random("adaptation"), self.ctx.training.batch_size
        teacher = cast("SlotNetwork", self.teacher.net)
        teacher.train()
        for batch in task.batches(size, epochs=self.config.ba_epochs, rng=rng):
            self.teacher(self.ctx.augment(batch.x, rng))
        teacher.eval()
        if self.config.student_bn == "adapted":
            adapted = teacher.backbone.buffers()
            for own, theirs in zip(self.backbone.buffers(), adapted, strict=True):
                own.copy_(theirs)

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        with evaluating(self.net):
            return self.model(self.ctx.normalize(x)).features

    @torch.no_grad()
    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        del task  # one head for all tasks
        with evaluating(self.net):
            return self.model(self.ctx.normalize(x)).logits

    def rebuild(self, state: Mapping[str, Any]) -> None:
        self.memories.resize(state["memories"])
        self.optimizer = self.make_optimizer()

    def parts(self) -> dict[str, Stateful]:
        beside = {"memories": self.memories, "teacher": self.teacher, "task": self.task}
        return {**super().parts(), **beside}


def fit_memories(net: nn.Module, state: Mapping[str, Any]) -> None:
    """Give the memories of a copied network the sizes in its state, which may be older."""
    prefix = "memories."
    sizes = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    cast("SlotNetwork", net).memories.resize(sizes)
    net.requires_grad_(requires_grad=False)


build = EDD
