"""Strict YAML into frozen dataclasses: an unknown key or a wrong type is an error with a hint.

YAML is read by version 1.2 of its rules, so that `lr: 1e-3` is a number and `off` is a word.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from harness.errors import UserError, unknown

ROOT: Final = Path(__file__).resolve().parents[1]
CONFIGS: Final = ROOT / "configs"

T = TypeVar("T")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: if the file is missing, is not YAML, or does not hold a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{_neighbour(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    return mapping(parse_yaml(text, where=str(path)), where=str(path))


def mapping(value: object, *, where: str) -> dict[str, Any]:
    """`value` as a mapping with words as keys; nothing at all is an empty one.

    Raises:
        UserError: if it is anything else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a mapping of keys, got {_kind(value)}")
    for key in value:
        if not isinstance(key, str):
            raise UserError(f"{where}: keys must be words, got {key!r}")
    return value


def parse_yaml(text: str, *, where: str) -> Any:  # noqa: ANN401 - whatever the user wrote
    """The value that `text` holds; `where` names it in errors."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        at = f"{where}, line {mark.line + 1}" if mark else where
        raise UserError(f"{at}: not valid YAML: {error.problem}") from None
    except YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {error}") from None
    except (ValueError, KeyError) as error:  # a date such as 2024-13-45
        raise UserError(f"{where}: not valid YAML: {error}") from None


def settings(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Build the dataclass `cls` from `values`, checking names, types and its own `__post_init__`.

    Raises:
        UserError: naming `where`, the key, and the nearest valid key.
    """
    known = fields(cls)
    for key in values:
        if key not in known:
            raise unknown("key", key, known, where=where)
    try:
        # Through JSON, in strict mode: lists become tuples, yet "3" or true never become 3.
        return _adapter(cls).validate_json(json.dumps(dict(values)), strict=True)
    except ValidationError as error:
        raise UserError(f"{where}: {_first(error)}") from None
    except TypeError as error:
        raise UserError(f"{where}: {error}") from None


def plain(instance: Any) -> dict[str, Any]:  # noqa: ANN401 - any dataclass instance
    """A dataclass as JSON would give it back: every field, lists for tuples."""
    return json.loads(json.dumps(dataclasses.asdict(instance)))


def fields(cls: type) -> frozenset[str]:
    """Names of the settings of a dataclass."""
    return frozenset(field.name for field in dataclasses.fields(cls))


@cache
def _adapter(cls: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(cls)


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, in one line: the key, what was expected, what was given."""
    detail = error.errors(include_url=False)[0]
    key = detail["loc"][0] if detail["loc"] else "value"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return message
    given = json.dumps(detail["input"])
    return f"{key}: {message[0].lower()}{message[1:]}, got {given}"


def _neighbour(path: Path) -> str:
    """A file beside the missing one that may have been meant."""
    beside = sorted(p.name for p in path.parent.glob(f"*{path.suffix}") if p.is_file())
    close = difflib.get_close_matches(path.name, beside, n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "a truth value"
    return {"list": "a list", "str": "text", "int": "a number", "float": "a number"}.get(
        type(value).__name__, type(value).__name__
    )
