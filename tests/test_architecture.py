"""The dependency arrows: run_benchmark -> harness -> methods, analysis -> harness.schema."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("methods", "harness", "analysis")
ALLOWED = {"methods": {"methods"}, "harness": {"harness", "methods"}, "analysis": {"analysis"}}
HEAVY = {"methods": {"ray", "pandas"}, "analysis": {"torch", "torchvision", "ray"}}
RAY = {"harness/scheduler.py", "harness/search_on_ray.py"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def modules(package):
    return [
        (p.relative_to(ROOT).as_posix(), set(imports(p))) for p in (ROOT / package).rglob("*.py")
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_point_one_way(package):
    for path, names in modules(package):
        for name in names - {"harness.schema"}:
            top = name.split(".")[0]
            assert top not in set(PACKAGES) - ALLOWED[package], f"{path} must not import {name}"


@pytest.mark.parametrize("package", sorted(HEAVY))
def test_packages_do_without_what_is_not_theirs(package):
    for path, names in modules(package):
        tops = {name.split(".")[0] for name in names}
        assert not tops & HEAVY[package], f"{path} imports {tops & HEAVY[package]}"


def test_only_the_scheduler_imports_ray():
    for path, names in modules("harness"):
        if path not in RAY:
            assert "ray" not in {name.split(".")[0] for name in names}, path


def test_the_shared_table_imports_nothing_of_ours():
    names = set(imports(ROOT / "harness" / "schema.py"))
    assert not {name for name in names if name.split(".")[0] in PACKAGES}


def test_every_method_has_a_file_of_settings_and_every_file_a_method():
    folders = (ROOT / "methods" / "supervised", ROOT / "methods" / "self_supervised")
    methods = {p.stem for folder in folders for p in folder.glob("[!_]*.py")}
    assert {p.stem for p in (ROOT / "configs" / "method").glob("*.yaml")} == methods
