"""Search spaces: which hyperparameters a search varies, and over which values.

A file writes one as a mapping of names to a kind and its range, such as
`lr: {log_uniform: [1e-3, 1]}`, or to a list, such as `policy: {choices: [fifo, reservoir]}`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from harness.config import mapping
from harness.errors import UserError, unknown

Value = float | int | str | bool | None
Configuration = dict[str, Value]

DIGITS: Final = 4
"""Significant digits of what is drawn, so that the settings found can be read and typed."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included; `whole` ones or any, on a `log` scale or not.

    `points`: how many values a grid takes, spaced evenly on that scale.
    """

    low: float
    high: float
    whole: bool
    log: bool
    points: int | None = None

    @property
    def size(self) -> float:
        """How many values there are."""
        return self.high - self.low + 1 if self.whole else math.inf

    def distribution(self) -> BaseDistribution:
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def rounded(self, value: Any) -> Value:  # noqa: ANN401 - whatever a sampler gives
        if self.whole:
            return int(value)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def contains(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return self.low <= value <= self.high

    def ends(self) -> tuple[Value, ...]:
        return self.rounded(self.low), self.rounded(self.high)

    def every(self) -> list[Value]:
        """All of its values, where they are whole numbers."""
        return list(range(int(self.low), int(self.high) + 1))

    def grid(self) -> list[Value]:
        """Its values in a grid, ascending; empty if a grid needs to be told how many."""
        if self.points is None:
            return self.every() if self.whole else []
        spaced = np.geomspace if self.log else np.linspace
        values = spaced(self.low, self.high, self.points)
        return list(dict.fromkeys(self.rounded(round(v) if self.whole else v) for v in values))


@dataclass(frozen=True, slots=True)
class Choices:
    """One of several values, without an order."""

    values: tuple[Value, ...]

    @property
    def size(self) -> float:
        return len(self.values)

    def distribution(self) -> BaseDistribution:
        return CategoricalDistribution(self.values)

    def rounded(self, value: Any) -> Value:  # noqa: ANN401 - whatever a sampler gives
        return value

    def contains(self, value: object) -> bool:
        return any(value == one and type(value) is type(one) for one in self.values)

    def ends(self) -> tuple[Value, ...]:
        return self.values

    def every(self) -> list[Value]:
        return list(self.values)

    def grid(self) -> list[Value]:
        return list(self.values)


Dimension = Range | Choices
Space = Mapping[str, Dimension]

_RANGES: Final = {
    "uniform": (False, False),
    "log_uniform": (False, True),
    "integers": (True, False),
    "log_integers": (True, True),
}
"""Whether the numbers are whole, and whether their scale is logarithmic."""

_KINDS: Final = (*_RANGES, "choices")


def read_space(raw: Mapping[str, Any], *, where: str) -> Space:
    """The space that a file describes.

    Raises:
        UserError: if it is empty, a range is upside down, or a hyperparameter has just one value.
    """
    if not raw:
        raise UserError(
            f"{where}: empty; name at least one hyperparameter, such as lr: {{log_uniform: "
            "[1e-3, 1]}"
        )
    return {name: _dimension(value, f"{where}: {name}") for name, value in raw.items()}


def size(space: Space) -> float:
    """How many configurations there are; infinite where numbers are continuous."""
    return math.prod(dimension.size for dimension in space.values())


def grid(space: Space, *, where: str) -> list[Configuration]:
    """Every combination of the values of each, the last name changing fastest.

    Raises:
        UserError: if a range does not say how many points it has.
    """
    axes: list[list[Value]] = []
    for name, dimension in space.items():
        axes.append(dimension.grid())
        if not axes[-1]:
            raise UserError(f"{where}: {name}: a grid needs points, how many values to take")
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*axes)]


def every(space: Space) -> Iterator[Configuration]:
    """Every configuration of a space that has finitely many, points or not."""
    axes = [one.every() for one in space.values()]
    return (dict(zip(space, values, strict=True)) for values in itertools.product(*axes))


def corners(space: Space) -> Iterator[tuple[str, Value]]:
    """Each hyperparameter with the ends of its range, or every choice."""
    return ((name, value) for name, one in space.items() for value in one.ends())


def _dimension(raw: object, where: str) -> Dimension:
    given = mapping(raw, where=where)
    kinds = [key for key in given if key != "points"]
    if len(kinds) != 1:
        raise UserError(f"{where}: expected one of {', '.join(_KINDS)}, such as uniform: [0, 1]")
    kind = kinds[0]
    if kind not in _KINDS:
        raise unknown("kind of range", kind, _KINDS, where=where)
    where = f"{where}: {kind}"
    if kind == "choices":
        if "points" in given:
            raise UserError(f"{where}: choices have no points, a grid takes all of them")
        return _choices(given[kind], where)
    return _range(given[kind], given.get("points"), where, *_RANGES[kind])


def _choices(raw: object, where: str) -> Choices:
    if not isinstance(raw, list) or not all(_plain(value) for value in raw):
        raise UserError(f"{where}: expected a list of numbers, words or truth values, got {raw!r}")
    written = [json.dumps(value) for value in raw]
    if len(set(written)) < len(written):
        raise UserError(f"{where}: {', '.join(written)}: one is listed twice")
    if len(raw) < 2:
        raise UserError(f"{where}: {_ONE_POINT}")
    return Choices(tuple(raw))


def _plain(value: object) -> bool:
    return value is None or isinstance(value, str | bool) or _finite(value)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


_ONE_POINT: Final = "one point is nothing to search; put the value under `set`"


def _range(raw: object, points: object, where: str, whole: bool, log: bool) -> Range:  # noqa: FBT001
    if not isinstance(raw, list) or len(raw) != 2:
        raise UserError(f"{where}: expected [LOW, HIGH], got {raw!r}")
    low, high = (_number(value, where, whole=whole) for value in raw)
    if low > high:
        raise UserError(f"{where}: upside down: [{low}, {high}]; write the smaller number first")
    if low == high:
        raise UserError(f"{where}: [{low}, {high}]: {_ONE_POINT}")
    if log and low <= 0:
        raise UserError(f"{where}: a logarithmic range must begin above 0, got {low}")
    if points is None:
        return Range(low, high, whole, log)
    count = int(_number(points, f"{where}: points", whole=True))
    if count < 2:
        raise UserError(f"{where}: points: {count}: {_ONE_POINT}")
    return Range(low, high, whole, log, count)


def _number(value: object, where: str, *, whole: bool) -> float:
    kinds = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
        kind = "whole numbers" if whole else "numbers"
        raise UserError(f"{where}: expected {kind}, got {value!r}")
    return value if whole else float(value)
