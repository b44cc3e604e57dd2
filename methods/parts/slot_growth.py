"""How many slots of a memory are frozen, and replaced by new ones, after a task."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Growth = Literal["d2", "eq6_ratio", "eq6", "code_class", "topk"]
"""Rules of EDD (arXiv:2511.09871): "d2" is the recurrence of its appendix D.2, "eq6" equation 6 as
it stands and "eq6_ratio" that times the pruning ratio of equation 12; "code_class" and "topk" are
the released code's, which runs the first: a task's part of all classes, taken as equal."""


@dataclass(frozen=True, slots=True)
class GrowthRule:
    """How a memory grows; counts are exact: 0.15 of 1,000 is 150.

    Attributes:
        rule: see `Growth`.
        ratio: the pruning ratio; without effect on "eq6" and "code_class".
        limit: of slots, beyond which none are frozen and none added; None: no limit.
    """

    rule: Growth = "d2"
    ratio: float = 0.15
    limit: int | None = None

    def newly_frozen(self, task: int, *, of: int, total: int, unfrozen: int) -> int:
        """Slots to freeze, and to add, after a task.

        Args:
            task: the one that ends, from 1.
            of: tasks of the stream; concerns "code_class" alone.
            total: slots of the memory, frozen ones included.
            unfrozen: slots of it that learn.
        """
        ratio = Fraction(str(self.ratio))
        wanted = {
            "d2": ratio * total / task,
            "eq6_ratio": ratio * unfrozen / task,
            "eq6": Fraction(unfrozen, task),
            "code_class": max(Fraction(1), Fraction(unfrozen, of)),
            "topk": max(Fraction(1), ratio * unfrozen),
        }
        room = unfrozen if self.limit is None else self.limit - total
        return min(int(wanted[self.rule]), unfrozen, room)
