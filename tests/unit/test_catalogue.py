"""`list` and `show`: read from the files themselves, so that they cannot be out of date."""

import pytest

from harness import plugins
from harness.catalogue import describe, listing
from harness.config import CONFIGS
from harness.errors import UserError
from methods import registry

PLUGINS = {
    "methods": "method",
    "datasets": "data set",
    "evaluators": "evaluator",
    "objectives": "objective",
    "backbones": "backbone",
    "augmentations": "augmentation",
}


@pytest.mark.parametrize("kind", PLUGINS)
def test_every_plug_in_is_listed_with_a_sentence(kind):
    found = listing(kind)
    assert [name for name, _ in found] == plugins.names(PLUGINS[kind])
    for name, sentence in found:
        assert len(sentence) > 20, name


@pytest.mark.parametrize(
    ("kind", "folder"), [("suites", "suite"), ("protocols", "protocol"), ("searches", "search")]
)
def test_every_configuration_file_is_listed_with_its_comment(kind, folder):
    found = listing(kind)
    assert [name for name, _ in found] == sorted(p.stem for p in (CONFIGS / folder).glob("*.yaml"))
    for name, sentence in found:
        assert sentence, name


def test_papers_can_be_listed():
    for name, sentence in listing("papers"):
        assert name
        assert sentence


@pytest.mark.parametrize("name", registry.names())
def test_a_method_is_described_by_its_paper_its_needs_and_every_setting(name):
    text = describe(name)
    entry = registry.entry(name)
    assert text.startswith(f"{name}\n")
    assert entry.module.__doc__.splitlines()[0] in text
    for signal in entry.module.build.needs:
        assert signal.value in text
    for field in entry.config.__dataclass_fields__:
        assert f"  {field}: " in text
    assert f"configs/method/{name}.yaml:" in text


def test_a_description_shows_defaults_and_where_they_come_from():
    assert "  replay_weight: float = 1.0" in describe("er")
    assert 'stages: Literal["all", "last"]' in describe("joint").replace("'", '"')
    assert "needs: nothing beyond the images" in describe("no_strategy")
    assert "family: self-supervised" in describe("no_strategy")
    assert "none of its own" in describe("no_strategy")
    assert "Chaudhry et al., 2019, Algorithm 1" in describe("er")


def test_an_unknown_method_is_an_error_with_the_nearest():
    with pytest.raises(UserError, match="unknown method 'finetun'; did you mean 'finetune'"):
        describe("finetun")
