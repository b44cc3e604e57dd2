"""Every registered method keeps these promises; a new one is covered the day it is added."""

import dataclasses
import inspect
import io
import random
import re
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from tiny import difference, finish, numbers, tiny_run, trained

from harness import plugins
from harness.checkpoint import CheckpointFolder
from harness.config import fields
from harness.data.base import Split
from harness.measure import Checkpoint, Cost
from harness.seeds import generator
from harness.spec import ProtocolSettings
from methods import registry
from methods.base import Method, Signal

KINDS = {"exemplars", "cues", "cue index", "teachers", "importance", "extra parameters"}
NETWORK = {"net", "optimizer", "random"}  # parts that finetuning has as well
METHODS = registry.names()
LABEL_FREE = [n for n in METHODS if Signal.LABELS not in registry.entry(n).module.build.needs]
EVALUATORS = {
    e: plugins.find("evaluator", e, where="").module.build for e in plugins.names("evaluator")
}

every_method = pytest.mark.parametrize("name", METHODS)


class Interrupted(BaseException):
    """Ends a trial as Ctrl-C does."""


def saved_and_loaded(state):
    """A state after a way through a file that holds nothing pickled."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


FOREIGN = {"name": "glyphs100_easy", "classes": 2, "per_class": 1, "test_per_class": 5}
SETTINGS = {  # of evaluators that need some, or would take long
    "corruption": {"corruptions": ["shot_noise", "fog"], "severities": [1], "max_images": 20},
    "ood": {"dataset": FOREIGN},
    "embedding": {"per_class": 4},
}
MAY_BE_SILENT = {"attention", "recall"}  # about methods without maps, or without cues


def evaluators_for(name):
    """Every evaluator there is that this method can be measured by."""
    predicts = registry.entry(name).module.build.predicts
    return [e for e, build in EVALUATORS.items() if predicts or not build.needs_predictions]


def images(run, count=24):
    return run.scenario.dataset.test.x[:count]


def outputs(run, x):
    """What a method says about images."""
    found = {"embed": run.method.embed(x)}
    if run.method.predicts:
        found["predict"] = run.method.predict(x)
    return found


def global_states():
    return {
        "torch": torch.get_rng_state(),
        "numpy": [str(part) for part in np.random.get_state()],  # noqa: NPY002
        "python": [str(part) for part in random.getstate()],
    }


@every_method
def test_the_same_trial_gives_the_same_numbers(name):
    first = trained(name)
    second = tiny_run(name)
    assert numbers(finish(second)) == numbers(first.rows)
    assert difference(second.method.state_dict(), first.state) is None


@every_method
def test_the_seed_matters(name):
    first, second = tiny_run(name), tiny_run(name, seed=1)
    x = images(first)
    assert difference(outputs(first, x), outputs(second, x)) is not None
    streams = [next(iter(run._batches(run.scenario.tasks[0]))) for run in (first, second)]
    assert not torch.equal(streams[0].index, streams[1].index)


@every_method
def test_training_changes_the_features(name):
    x = images(trained(name).run)
    assert not torch.equal(tiny_run(name).method.embed(x), trained(name).run.method.embed(x))


@every_method
def test_a_state_taken_in_the_middle_of_a_task_continues_bit_for_bit(name):
    first, second = tiny_run(name), tiny_run(name)
    stream = midway(first)
    second.method.load_state_dict(saved_and_loaded(first.method.state_dict()))
    assert difference(first.method.state_dict(), second.method.state_dict()) is None
    for batch in stream:
        ours, theirs = first.method.observe(batch), second.method.observe(batch)
        assert difference(ours, theirs) is None
    assert difference(first.method.state_dict(), second.method.state_dict()) is None
    x = images(first)
    assert difference(outputs(first, x), outputs(second, x)) is None


def midway(run):
    """Learn the first task and two batches of the second; gives the batches that follow."""
    run._learn(run.scenario.tasks[0])
    run.random.start_task(1)
    if Signal.BOUNDARIES in run.method.needs:
        run.method.begin_task(tiny.view(run, 1))
    stream = list(run._batches(run.scenario.tasks[1]))
    for batch in stream[:2]:
        run.method.observe(batch)
    return stream[2:]


@every_method
def test_a_trial_interrupted_between_tasks_goes_on_as_if_nothing_had_happened(name, tmp_path):
    def interrupt(progress):
        if progress.tasks_done == 2:
            raise Interrupted

    folder = CheckpointFolder(tmp_path)
    with pytest.raises(Interrupted):
        tiny_run(name).run(folder, interrupt, started="before")
    again = tiny_run(name)
    rows = again.run(folder, lambda _: None, started="after")
    assert again.position.attempts == 2
    assert numbers(rows) == numbers(trained(name).rows)
    assert difference(again.method.state_dict(), trained(name).state) is None


@every_method
def test_evaluation_changes_neither_the_method_nor_its_random_streams(name):
    run = trained(name).run
    checkpoint = Checkpoint(
        run.method,
        run.scenario,
        tiny.NUM_TASKS - 1,
        split="test",
        seed=0,
        cost=lambda: Cost(0.0, 0.0, None, 0),
    )
    for evaluator in evaluators_for(name):
        settings = SETTINGS.get(evaluator, {})
        component = plugins.component("evaluator", evaluator, settings, where="tests")
        measure = plugins.build("evaluator", component)
        measure.prepare(run.scenario, tiny.DATA)
        assert list(measure.evaluate(checkpoint)) or evaluator in MAY_BE_SILENT
        assert difference(run.method.state_dict(), trained(name).state) is None, evaluator


@every_method
def test_more_evaluation_trains_the_same_weights(name):
    bare = tiny_run(name, evaluators=["cost"], primary="cost")
    finish(bare)
    assert difference(bare.method.state_dict(), trained(name).state) is None


@every_method
def test_a_trial_with_every_evaluator_leaves_the_global_generators_alone(name):
    before = global_states()
    every = [{"name": e, "when": "last", **SETTINGS.get(e, {})} for e in evaluators_for(name)]
    run = tiny_run(name, evaluators=every)
    finish(run)
    assert difference(before, global_states()) is None


@every_method
def test_a_trial_does_not_write_to_its_data(name):
    dataset = trained(name).run.scenario.dataset
    fresh = plugins.find("data set", "digits", where="tests").module
    original = fresh.load(fresh.Config(), None)
    assert torch.equal(dataset.train.x.cpu(), original.train.x)
    assert torch.equal(dataset.test.x.cpu(), original.test.x)


@pytest.mark.parametrize("name", LABEL_FREE)
def test_a_method_without_labels_learns_the_same_from_wrong_ones(name):
    run = tiny_run(name, evaluators=["cost"], primary="cost")
    train = run.scenario.dataset.train
    labels = torch.randint(0, 10, train.y.shape, generator=generator(0, "wrong"))
    wrong = Split(train.x, labels.to(train.y.device))
    run.scenario = replace(run.scenario, dataset=replace(run.scenario.dataset, train=wrong))
    finish(run)
    assert difference(run.method.state_dict(), trained(name).state) is None


@every_method
def test_batches_show_what_was_declared_and_nothing_else(name):
    needs = trained(name).run.method.needs
    batches = [batch for task in trained(name).seen for batch in task]
    fresh = tiny_run(name)  # a method that works in phases may leave the stream alone
    batches.append(next(iter(fresh._batches(fresh.scenario.tasks[0]))))
    assert {batch.y is not None for batch in batches} == {Signal.LABELS in needs}
    assert {batch.task is not None for batch in batches} == {Signal.TASK_ID in needs}


@every_method
def test_a_task_shows_what_was_declared_and_nothing_else(name):
    run = trained(name).run
    needs, task = run.method.needs, tiny.view(run, 1)
    told = bool(needs & {Signal.BOUNDARIES, Signal.TASK_ID})
    has_data = bool(needs & {Signal.TASK_DATA, Signal.ALL_DATA})
    for what, allowed in {
        "position": told,
        "classes": told and Signal.LABELS in needs,
        "data": has_data,
    }.items():
        assert can_read(task, what) == allowed, what
    if has_data:
        assert (task.data.y is not None) == (Signal.LABELS in needs)


def can_read(task, what):
    try:
        getattr(task, what)
    except RuntimeError:
        return False
    return True


@every_method
def test_memory_is_the_bytes_of_everything_held_beside_the_network(name):
    held = trained(name).run.method.memory()
    kept = {part: state for part, state in trained(name).state.items() if part not in NETWORK}
    tensors = [leaf for _, leaf in tiny.leaves(kept) if isinstance(leaf, torch.Tensor)]
    assert sum(held.values()) == sum(tensor.nbytes for tensor in tensors)
    assert set(held) <= KINDS
    assert all(type(nbytes) is int for nbytes in held.values())


@every_method
def test_no_more_images_are_kept_than_the_protocol_allows(name):
    run = trained(name).run
    kept = {part: state for part, state in trained(name).state.items() if part not in NETWORK}
    tensors = [leaf for _, leaf in tiny.leaves(kept) if isinstance(leaf, torch.Tensor)]
    raw = [t for t in tensors if t.dtype == torch.uint8 and t.shape[1:] == (1, 8, 8)]
    assert sum(len(images) for images in raw) <= run.settings.buffer_size


@every_method
def test_embeddings_have_a_row_an_image_and_no_gradient(name):
    run = trained(name).run
    features = run.method.embed(images(run))
    assert features.ndim == 2
    assert len(features) == 24
    assert not features.requires_grad
    assert features.isfinite().all()


@pytest.mark.parametrize("name", [n for n in METHODS if registry.entry(n).module.build.predicts])
def test_predictions_have_a_score_a_class_and_no_gradient(name):
    run = trained(name).run
    scores = run.method.predict(images(run))
    assert scores.shape == (24, 10)
    assert not scores.requires_grad
    assert not scores.isnan().any()


@every_method
def test_an_image_is_judged_alone_as_in_a_batch(name):
    run = trained(name).run
    x = images(run, 8)
    for what, together in outputs(run, x).items():
        alone = torch.cat([outputs(run, image[None])[what] for image in x])
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


@every_method
def test_losses_are_named_detached_finite_scalars(name):
    steps = trained(name).steps
    assert steps
    for losses in steps:
        for term, value in losses.items():
            assert value.shape == (), term
            assert not value.requires_grad, term
            assert value.isfinite(), term


@every_method
def test_a_family_starts_from_the_same_weights(name):
    first, second = (tiny_run(n).method for n in (tiny.family(name)[0], name))
    if not hasattr(second, "backbone"):
        pytest.skip("has no single backbone")
    assert difference(first.backbone.state_dict(), second.backbone.state_dict()) is None


@every_method
def test_a_family_sees_the_same_stream_of_images(name):
    others = [n for n in tiny.family(name) if widened(n) == widened(name)]
    ours, theirs = trained(name).seen, trained(others[0]).seen
    assert len(ours) == len(theirs) == tiny.NUM_TASKS
    for mine, other in zip(ours, theirs, strict=True):
        # A method that works in phases may draw less of the stream, but no other images.
        for one, two in zip(mine, other, strict=False):
            assert torch.equal(one.index, two.index)
            assert torch.equal(one.x, two.x)


def widened(name):
    """Whether, and in which way, an upper reference has a stream of its own."""
    return needs_of(name) & {Signal.ALL_DATA, Signal.IID}


def needs_of(name):
    return registry.entry(name).module.build.needs


@every_method
def test_every_drawn_image_is_counted(name):
    drawn = sum(len(batch.x) for task in trained(name).seen for batch in task)
    counted = trained(name).run.position.tally.samples
    if Signal.TASK_DATA in needs_of(name):
        assert counted >= drawn
    else:
        assert counted == drawn


@every_method
def test_a_module_cites_its_paper_or_says_that_it_is_a_bound(name):
    doc = registry.entry(name).module.__doc__
    assert doc
    assert re.search(r"\(.*\b(19|20)\d\d\b.*\)", doc) or re.search(r"bound|upper reference", doc)


@every_method
def test_settings_are_a_frozen_dataclass_with_defaults(name):
    config = registry.entry(name).config
    assert dataclasses.is_dataclass(config)
    assert config.__dataclass_params__.frozen
    config()


@every_method
def test_no_setting_hides_behind_one_of_the_protocol(name):
    # What a suite sets by such a name would go to the protocol.
    assert not fields(registry.entry(name).config) & fields(ProtocolSettings)


@every_method
def test_build_is_a_class_so_that_needs_can_be_read_without_building(name):
    build = registry.entry(name).module.build
    assert inspect.isclass(build)
    assert issubclass(build, Method)
    assert build.needs <= frozenset(Signal)


@every_method
def test_random_streams_start_anew_with_every_task(name):
    plain, greedy = tiny_run(name), tiny_run(name)
    for run in (plain, greedy):
        run._learn(run.scenario.tasks[0])
    for purpose in plain.random.state_dict()["streams"]:
        torch.rand(99, generator=greedy.random(purpose))
    for run in (plain, greedy):
        run._learn(run.scenario.tasks[1])
    assert difference(plain.method.state_dict(), greedy.method.state_dict()) is None
