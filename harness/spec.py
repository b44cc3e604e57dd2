"""What one trial is. Equal specs have equal ids, and the id names the result file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from harness.errors import UserError
from methods.base import Signal, Training

SPEC_VERSION: Final = 1
"""Raised when equal settings no longer mean equal numbers, so that old results do not mix in."""


_NO_NUMBER: Final = frozenset({"primary", "hides"})
"""Protocol settings that change no number."""


@dataclass(frozen=True, slots=True)
class Component:
    """A named plug-in with every one of its settings, defaults included."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ProtocolSettings(Training):
    """How learners are trained and measured: the same for every method of a grid.

    Attributes:
        drop_last: leave out a task's last mini-batch if it is not full.
        backbone: name, or mapping of a name and the backbone's settings; likewise `objective`
            and `augmentation`.
        validation: share of each class's training images taken out of the stream.
        hides: signals that the stream does not reveal, such as "labels"; methods that need one are
            left out. Changes no number.
        split: which images are measured, "test" or "validation".
        evaluators: names, or mappings of a name, `when` (each, last) and the evaluator's settings.
        records: what is stored of every measured image after each task, "features" and
            "predictions" (`harness.records`).
        primary: the evaluator whose accuracy CA and FA use; changes no number.
        class_order: "seeded", "natural", "pycil1993" or a list of class ids.
    """

    drop_last: bool = False
    backbone: str | dict[str, Any] = "mlp"
    objective: str | dict[str, Any] = "simclr"
    augmentation: str | dict[str, Any] = "standard"
    validation: float = 0.0
    hides: tuple[Signal, ...] = ()
    split: Literal["test", "validation"] = "test"
    evaluators: tuple[str | dict[str, Any], ...] = ("classifier", "cost")
    records: tuple[Literal["features", "predictions"], ...] = ()
    primary: str = "classifier"
    class_order: Literal["seeded", "natural", "pycil1993"] | tuple[int, ...] = "natural"

    def __post_init__(self) -> None:
        # Named, because slots=True builds a second class that a bare super() would not know.
        super(ProtocolSettings, self).__post_init__()
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation is a share from 0 to below 1, got {self.validation}")
        if self.split == "validation" and not self.validation:
            raise ValueError("split: validation needs validation above 0")


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """Everything that can change a result; nothing about where, how fast or under which name.

    All mappings are resolved (every setting, defaults included) and plain JSON values.

    Attributes:
        first_tasks: train and measure the first so many of the `num_tasks` alone; nothing of the
            later ones is seen, by the method or by a probe. None: all of them.
        stop_after: a search stopped the trial after so many of its tasks: the rows are those that
            the whole trial has until then. No suite asks for it. None: it was not stopped.
    """

    method: Component
    dataset: Component
    num_tasks: int
    distribution: str
    protocol: Mapping[str, Any]
    seed: int
    first_tasks: int | None = None
    stop_after: int | None = None

    @property
    def tasks_learned(self) -> int:
        """How many tasks the trial has, and so its matrix A."""
        return self.first_tasks or self.num_tasks

    @property
    def trial_id(self) -> str:
        """16 hex digits, stable across processes, machines and the order of keys."""
        return _digest(self._identity())

    @property
    def group(self) -> str:
        """The same for trials that differ in nothing but the seed."""
        return _digest({k: v for k, v in self._identity().items() if k != "seed"})

    def _identity(self) -> dict[str, Any]:
        identity = {"version": SPEC_VERSION, **self.to_json()}
        identity["protocol"] = {k: v for k, v in self.protocol.items() if k not in _NO_NUMBER}
        return identity

    def to_json(self) -> dict[str, Any]:
        """Without what came later where it is None: trials keep the ids they had before it."""
        values = dataclasses.asdict(self)
        for name in ("first_tasks", "stop_after"):
            if values[name] is None:
                del values[name]
        return values

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialSpec:
        try:
            rest = {k: v for k, v in data.items() if k not in {"method", "dataset"}}
            return cls(Component(**data["method"]), Component(**data["dataset"]), **rest)
        except (KeyError, TypeError) as error:
            raise UserError(f"not the settings of a trial of this version: {error}") from None

    def flat(self) -> dict[str, Any]:
        """Settings under dotted names, as tables show them: `method.omega`, `protocol.lr`."""
        flat = {f"method.{k}": v for k, v in self.method.settings.items()}
        flat |= {f"dataset.{k}": v for k, v in self.dataset.settings.items()}
        if self.first_tasks is not None:
            flat["first_tasks"] = f"{self.first_tasks} of {self.num_tasks}"
        return flat | {f"protocol.{k}": v for k, v in self.protocol.items()}


@dataclass(frozen=True, slots=True)
class Resources:
    """What one trial reserves: `cpu` cores, which is also its number of threads, and `gpu`s.

    `images_gb` is how much of a GPU's memory images may take; None: see `harness.device`. Those of
    a larger data set are read from the CPU's memory, which changes no number.
    """

    cpu: float = 1.0
    gpu: float = 0.0
    images_gb: float | None = None

    def __post_init__(self) -> None:
        if self.cpu <= 0 or self.gpu < 0:
            raise ValueError(f"resources: cpu must be above 0 and gpu not below, got {self}")
        if self.images_gb is not None and self.images_gb < 0:
            raise ValueError(f"resources: images_gb must not be below 0, got {self.images_gb}")

    @property
    def threads(self) -> int:
        """Whole cores, at least one."""
        return max(1, int(self.cpu))


@dataclass(frozen=True, slots=True)
class Trial:
    """A spec with the names a suite gives it and what it may use; none of that is identity."""

    spec: TrialSpec
    suite: str
    label: str
    dataset_label: str
    protocol_name: str
    resources: Resources = dataclasses.field(default_factory=Resources)

    @property
    def trial_id(self) -> str:
        return self.spec.trial_id

    @property
    def primary(self) -> str:
        return self.spec.protocol["primary"]

    @property
    def cell(self) -> str:
        """Data set and tasks in short: `digits/5`, or `digits/5 irregular`."""
        irregular = "" if self.spec.distribution == "regular" else f" {self.spec.distribution}"
        first = "" if self.spec.first_tasks is None else f" first {self.spec.first_tasks}"
        return f"{self.dataset_label}/{self.spec.num_tasks}{irregular}{first}"

    @property
    def title(self) -> str:
        """A short name for people: `er digits/5 seed 0`."""
        return f"{self.label} {self.cell} seed {self.spec.seed}"

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "spec": self.spec.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trial:
        rest = {k: v for k, v in data.items() if k not in {"spec", "resources"}}
        spec, resources = TrialSpec.from_json(data["spec"]), Resources(**data["resources"])
        return cls(spec=spec, resources=resources, **rest)


def _digest(payload: Mapping[str, Any]) -> str:
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
