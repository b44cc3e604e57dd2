"""What there is to name in a suite, and what a method is: `list` and `show`."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import json
import re
import typing
from pathlib import Path
from typing import Final

from harness import plugins
from harness.config import CONFIGS, ROOT
from methods import registry
from methods.registry import Entry

_KINDS: Final = {
    "methods": "method",
    "datasets": "data set",
    "evaluators": "evaluator",
    "objectives": "objective",
    "backbones": "backbone",
    "augmentations": "augmentation",
}


_FOLDERS: Final = {"searches": "search"}
"""Folders of `configs` whose name is not that of the kind without an s."""


def listing(kind: str) -> list[tuple[str, str]]:
    """Names of one kind and a sentence on each, read from the files without running them."""
    if kind in _KINDS:
        modules = registry.where(plugins.KINDS[_KINDS[kind]])
        return [(name, _docstring_line(_source(module))) for name, module in modules.items()]
    if kind == "papers":
        folder = ROOT / "analysis" / "papers"
        return [(p.stem, _docstring_line(p)) for p in sorted(folder.glob("[!_]*.py"))]
    folder = CONFIGS / _FOLDERS.get(kind, kind.removesuffix("s"))
    return [(path.stem, _comment_line(path)) for path in sorted(folder.glob("*.yaml"))]


def describe(method: str) -> str:
    """A method's paper and deviations, what it needs, its settings with defaults and sources.

    Raises:
        UserError: if there is no such method.
    """
    entry = plugins.find("method", method, where="show")
    built = entry.module.build
    family = entry.module.__name__.split(".")[1].replace("_", "-")
    needs = ", ".join(sorted(built.needs)) or "nothing beyond the images"
    lines = [method, "", inspect.cleandoc(entry.module.__doc__ or ""), ""]
    lines += [f"family: {family}", f"needs: {needs}", "", "settings:", *_settings(entry)]
    path = CONFIGS / "method" / f"{method}.yaml"
    if path.exists():
        lines += ["", f"{path.relative_to(ROOT)}:", *_indented(path.read_text())]
    return "\n".join(lines)


def _settings(entry: Entry) -> list[str]:
    fields = dataclasses.fields(entry.config)
    if not fields:
        return ["  none of its own"]
    comments = _field_comments(Path(inspect.getfile(entry.module)))
    # Resolved, so that a name such as `Growth` shows what may be chosen.
    types = typing.get_type_hints(entry.config)
    lines: list[str] = []
    for field in fields:
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        source = comments.get(field.name)
        note = f"   # {source}" if source else ""
        lines.append(f"  {field.name}: {_type(types[field.name])} = {json.dumps(default)}{note}")
    return lines


def _type(hint: object) -> str:
    plain = isinstance(hint, type) and not typing.get_args(hint)
    return inspect.formatannotation(hint) if plain else str(hint).replace("typing.", "")


def _field_comments(path: Path) -> dict[str, str]:
    """The comment at the end of each field's line in `Config`."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    found: dict[str, str] = {}
    for node in ast.parse(text).body:
        if not isinstance(node, ast.ClassDef) or node.name != "Config":
            continue
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                match = re.search(r"  # (.*)$", lines[(statement.end_lineno or 1) - 1])
                if match:
                    found[statement.target.id] = match[1]
    return found


def _source(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def _docstring_line(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return doc.partition("\n")[0]


def _comment_line(path: Path) -> str:
    """The first line of a YAML file's leading comment."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]
