"""Which task is being learned: what a method keeps of `TaskView` in its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from methods.base import TaskView


@final
class CurrentTask:
    """The position of the task, and its classes.

    Attributes:
        position: from 0; -1 before the first task.
        past: classes before the task's own: its classes are `past` to `seen` - 1.
        seen: classes up to and including the task's.
    """

    def __init__(self) -> None:
        self.position = -1
        self.past = 0
        self.seen = 0

    def begin(self, task: TaskView) -> None:
        """The task begins; call it first in `begin_task`."""
        self.position = task.position
        self.past, self.seen = task.classes.start, task.classes.stop

    @property
    def first(self) -> bool:
        """Whether nothing was learned before."""
        return self.position <= 0

    @property
    def own(self) -> range:
        """The labels of the task."""
        return range(self.past, self.seen)

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "past": self.past, "seen": self.seen}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self.position = state_dict["position"]
        self.past, self.seen = state_dict["past"], state_dict["seen"]
