"""The files that say what the project needs agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
CONDA = {"matplotlib-base": "matplotlib", "ray-tune": "ray[tune]", "pytorch": "torch"}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_yml_asks_for_what_pyproject_asks_for():
    listed = YAML(typ="safe").load((ROOT / "environment.yml").read_text())["dependencies"]
    python, *packages = listed
    assert python == "python" + project()["requires-python"]
    renamed = set()
    for package in packages:
        name, bound = re.fullmatch(r"([\w.-]+)(>=.*)", package).groups()
        renamed.add(CONDA.get(name, name) + bound)
    assert renamed == set(project()["dependencies"])


@pytest.mark.parametrize("extra", [None, "dev"])
def test_constraints_fix_every_package_within_its_bound(extra):
    wanted = project()["optional-dependencies"][extra] if extra else project()["dependencies"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    fixed = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    for requirement in wanted:
        name, bound = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", requirement).groups()
        numbers = [[int(n) for n in v.split(".")[:2]] for v in (fixed[name], bound)]
        assert numbers[0] >= numbers[1], name
