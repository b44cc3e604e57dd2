"""What a method costs: bytes it holds, parameters, seconds, seconds an epoch, peak memory.

`train_seconds` and `eval_seconds` add up over the tasks, `train_seconds` with all that a method
does at the begin and end of a task; `epoch_seconds` is the time of one epoch of the task's stream
(EDD, 2025, arXiv:2511.09871, compares methods by that), without its first epoch.

`peak_memory_bytes` is the device's peak allocation during the trial on a GPU, and the process's
peak resident size on a CPU, where a process that ran larger trials before keeps their peak.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from harness.measure import Checkpoint, Evaluator, Measurement
from harness.schema import ALL_TASKS


@dataclass(frozen=True, slots=True)
class Config:
    pass


class CostEvaluator(Evaluator):
    runs_last: ClassVar[bool] = True

    def evaluate(self, checkpoint: Checkpoint) -> Iterator[Measurement]:
        held = checkpoint.method.memory()
        yield Measurement(ALL_TASKS, "method_memory_bytes", float(sum(held.values())), 0)
        for kind, nbytes in held.items():
            yield Measurement(ALL_TASKS, "method_memory_bytes", float(nbytes), 0, condition=kind)
        yield Measurement(ALL_TASKS, "parameters", float(checkpoint.method.parameters()), 0)
        cost = checkpoint.cost()
        yield Measurement(ALL_TASKS, "train_seconds", cost.train_seconds, 0)
        yield Measurement(ALL_TASKS, "eval_seconds", cost.eval_seconds, 0)
        if cost.epoch_seconds is not None:
            yield Measurement(ALL_TASKS, "epoch_seconds", cost.epoch_seconds, 0)
        yield Measurement(ALL_TASKS, "peak_memory_bytes", float(cost.peak_memory_bytes), 0)


build = CostEvaluator
