"""What the documents say works."""

import importlib
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from harness import plugins
from harness.config import CONFIGS, ROOT, fields
from harness.execute import Setup, execute
from harness.grid import expand
from harness.seeds import Randomness
from harness.spec import ProtocolSettings
from harness.store import Store
from harness.suite import load_suite
from methods.base import Backbone, Batch, Context, Training
from methods.learners import ClassifierMethod

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_within_the_project_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "docs" / "suites.md"])
def test_the_suites_shown_can_be_planned(path, tmp_path):
    for number, text in enumerate(blocks(path, "yaml")):
        suite = tmp_path / f"shown_{number}.yaml"
        suite.write_text(text)
        trials, skips = expand(load_suite(suite))
        assert trials
        assert not skips


@pytest.mark.parametrize("path", sorted((CONFIGS / "suite").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_suites_that_come_along_can_be_planned(path):
    trials, skips = expand(load_suite(path))
    assert trials
    assert not skips


def test_the_table_of_protocol_settings_is_complete():
    text = (ROOT / "docs" / "suites.md").read_text().partition("## Protocol settings")[2]
    assert fields(ProtocolSettings) == set(re.findall(r"`(\w+)`", _first_column(text)))


def test_the_table_of_data_sets_is_complete():
    text = (ROOT / "docs" / "data.md").read_text().partition("## Decoded once")[0]
    assert set(plugins.names("data set")) == set(re.findall(r"`(\w+)`", _first_column(text)))


def _first_column(table: str) -> str:
    return " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))


class Pixels(Backbone):
    feature_dim = 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


def plain(x, *_):
    return x.float() / 255


def test_the_method_shown_learns(tmp_path, monkeypatch):
    (tmp_path / "half.py").write_text(blocks(ROOT / "docs" / "adding.md", "python")[0])
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("half")
    context = Context(
        backbone=Pixels,
        objective=pytest.fail,
        image_shape=(1, 2, 2),
        num_classes=2,
        num_tasks=1,
        augment=plain,
        normalize=plain,
        device=torch.device("cpu"),
        random=Randomness(0),
        training=Training(lr=1.0),
    )
    method = module.build(module.Config(), context)
    assert isinstance(method, ClassifierMethod)
    assert isinstance(method.net, nn.Module)
    y = torch.tensor([0, 1] * 8)
    x = (y * 255).to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    for _ in range(20):
        method.observe(Batch(x, y, torch.arange(16)))
    assert torch.equal(method.predict(x).argmax(1), y)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """A folder with a store that was run, where the documents look for it."""
    folder = tmp_path_factory.mktemp("notebook")
    suite = folder / "quickstart.yaml"
    suite.write_text(
        "{protocol: class_incremental, methods: [finetune], datasets: [digits], num_tasks: 2,"
        " seeds: [0, 1], set: {epochs: 1, batch_size: 256}}"
    )
    results = folder / "results" / "quickstart"
    Store(results).create()
    for trial in expand(load_suite(suite))[0]:
        assert execute(trial, Setup(results, folder, {}), lambda _: None).status == "done"
    return folder


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "docs" / "analysis.md"])
def test_the_notebook_examples_run(path, quickstart, monkeypatch):
    monkeypatch.chdir(quickstart)
    (example,) = [text for text in blocks(path, "python") if "from analysis" in text]
    names = {}
    exec(compile(example, str(path), "exec"), names)  # noqa: S102 - our own documents
    assert len(names["results"].trials) == 2
