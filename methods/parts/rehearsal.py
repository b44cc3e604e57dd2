"""Exemplars of every class that join the batches of later tasks.

A method is a `RehearsalMethod`: it says `joined(batch, self.drawn)` in `loss`, and after a task
`self.rehearsal.renew(task.data, seen, choose)`.

Deviation from the comparisons that train on the union of new images and memory (iCaRL, Rebuffi et
al., 2017, arXiv:1611.07725; Replay of github.com/G-U-N/PyCIL; BrainCL, arXiv:2504.14727): there the
batches are drawn from the union, so that the memory makes an epoch longer. Here every batch of the
stream gets its share of the exemplars and becomes larger. An epoch sees the same images, each about
once, and all methods of a comparison make the same number of steps. Where a task has few batches
beside many exemplars (the end of a long tail), a batch gets no more of them than the protocol's
`replay_batch`, and an epoch does not see all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch, Context, Planned, Signal, Stateful, TaskView, Training
from methods.learners import ClassifierMethod
from methods.parts.balanced_memory import BalancedMemory
from methods.parts.current_task import CurrentTask
from methods.parts.deck import Deck
from methods.parts.requirements import require_own_classes, require_room
from methods.parts.transfers import sent

Quota = Literal["per_class", "total"]
"""Exemplars of a class: the buffer over all classes, fixed from the start (2,000 images for 100
classes are 20 of each, BrainCL's comparison), or over the classes seen so far, so that the buffer
is always full (PyCIL's default)."""

Choose = Callable[[Tensor, int], Tensor]
"""Labels (N,) and the share of a class to row numbers, int64 on the CPU: at most `share` of every
class, the best first. See `methods.parts.exemplars`."""

FEATURE_BATCH = 256
"""Images a pass when the features of many images are computed."""


@final
class Rehearsal:
    """Equally many exemplars of every class, dealt to the batches of an epoch.

    A class with fewer images than its share has all of them, none twice. The images count as
    `exemplars` in `Method.memory`.

    Args:
        training: of the protocol. `buffer_size` images of all classes together, at least one for
            each class (`require_room`); at most `replay_batch` join a batch.
        num_classes: of the whole trial.
        quota: see `Quota`.
        device: where the images are kept.
    """

    kind = "exemplars"

    def __init__(
        self, training: Training, num_classes: int, quota: Quota, device: torch.device
    ) -> None:
        self._memory = BalancedMemory(training.buffer_size, device)
        self._most = training.replay_batch
        self._deck = Deck()
        self._num_classes = num_classes
        self._quota: Quota = quota
        self._device = device

    def __len__(self) -> int:
        return len(self._memory)

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes

    def share(self, seen: int) -> int:
        """Exemplars of each class when so many classes were seen."""
        places = self._num_classes if self._quota == "per_class" else seen
        return self._memory.capacity // places

    def begin(self, batches_an_epoch: int) -> None:
        """Deal the exemplars anew, over so many batches; before the first `draw` of a task."""
        self._deck.begin(len(self), batches_an_epoch, most=self._most)

    def draw(self, rng: torch.Generator) -> tuple[Tensor, Tensor] | None:
        """Images (M, C, H, W) and labels (M,) that join the next batch; None while it is empty.

        Raises:
            RuntimeError: if the exemplars were not dealt since they were renewed.
        """
        if not len(self):
            return None
        if not self._deck.share:
            raise RuntimeError("call `begin` before exemplars are drawn")
        rows = sent(self._deck.draw(len(self), rng), self._device)
        held = self._memory.everything()
        return held["x"][rows], held["y"][rows]

    def renew(self, data: Batch, seen: int, choose: Choose) -> None:
        """Keep exemplars of new classes; the old ones keep the first of theirs, as many each.

        Args:
            data: the images of the task, whose classes are all new.
            seen: number of classes seen so far, the new ones among them.
            choose: see `Choose`.
        """
        share, labels = self.share(seen), data.labels()
        rows = sent(choose(labels, share), data.x.device)
        self._memory.renew({"x": data.x[rows], "y": labels[rows]}, by="y", keep=share)
        self._deck = Deck()

    def everything(self) -> dict[str, Tensor]:
        """All exemplars: images `x` and labels `y`, of each class the best first; {} if empty."""
        return self._memory.everything()

    def state_dict(self) -> dict[str, Any]:
        return {"memory": self._memory.state_dict(), "deck": self._deck.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self._memory.load_state_dict(state_dict["memory"])
        self._deck.load_state_dict(state_dict["deck"])


class RehearsalMethod(ClassifierMethod):
    """A classifier with exemplars, dealt when a task begins and drawn for each batch.

    Attributes:
        current: the task that is learned, or was learned last.
        rehearsal: the exemplars.
        drawn: those that join the batch; None between tasks, and as long as there are none.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset(
        {Signal.LABELS, Signal.BOUNDARIES, Signal.TASK_DATA}
    )

    @classmethod
    def check(cls, config: Any, planned: Planned) -> None:  # noqa: ANN401 - the method's own
        del config
        require_own_classes(planned)
        require_room(planned, planned.num_classes, "classes")

    def __init__(self, ctx: Context, quota: Quota) -> None:
        super().__init__(ctx)
        self.current = CurrentTask()
        self.rehearsal = Rehearsal(ctx.training, ctx.num_classes, quota, ctx.device)
        self.drawn: tuple[Tensor, Tensor] | None = None

    def begin_task(self, task: TaskView) -> None:
        self.current.begin(task)
        size, rng = self.ctx.training.batch_size, self.ctx.random("replay")
        self.rehearsal.begin(len(task.batches(size, epochs=1, rng=rng)))

    def before_passes(self, batch: Batch) -> None:
        del batch
        self.drawn = self.rehearsal.draw(self.ctx.random("replay"))

    def end_task(self, task: TaskView) -> None:
        del task
        self.drawn = None

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "current": self.current, "rehearsal": self.rehearsal}


def joined(batch: Batch, drawn: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Images and labels of a batch, and behind them those of the exemplars that were drawn."""
    if drawn is None:
        return batch.x, batch.labels()
    return torch.cat([batch.x, drawn[0]]), torch.cat([batch.labels(), drawn[1]])


def directions(embed: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Features (N, D) of raw images, each of length 1, as herding compares them."""
    return torch.cat([F.normalize(embed(part)) for part in x.split(FEATURE_BATCH)])
