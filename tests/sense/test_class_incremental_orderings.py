"""Orderings of the class-incremental methods that hold if they work, with a fixed seed on digits.

The gaps asserted are about half of those seen when the tests were written.
"""

import pytest

from analysis.load import load
from analysis.summary import TASK_IL, summarise
from harness.execute import Setup, execute
from harness.grid import expand
from harness.store import Store
from harness.suite import load_suite
from methods import registry

METHODS = sorted(registry.where(("methods.supervised",)))
FORGETTING = ["finetune", "si", "ewc_online", "lwf"]
REPLAYING = ["er", "der_dark", "cls_er", "gss", "rpc", "dualnet", "lucir", "hal", "fdr", "gem"]
RECALLING = ["exemplar_replay", "icarl", "der_expand", "braincl"]

SUITE = f"""
protocol: class_incremental_edd
methods: [{", ".join(METHODS)}]
datasets: [digits]
num_tasks: 5
seeds: [0]
set:
  epochs: 4
  batch_size: 16
  replay_batch: 16
  buffer_size: 100
  lr: 2e-3
  backbone: {{name: cnn, widths: [16, 32, 64]}}
  joint.stages: last
  braincl.memory_epochs: 40
  braincl.keep_per_class: 100
  braincl.sleep_epochs: 8
  braincl.sleep_milestones: [6]
"""


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """CA, FA, forgetting and the rest of every method, class- and task-incremental."""
    folder = tmp_path_factory.mktemp("class_incremental")
    path = folder / "sense.yaml"
    path.write_text(SUITE)
    trials, skips = expand(load_suite(path))
    assert not skips
    Store(folder / "results").create()
    setup = Setup(folder / "results", folder, {})
    for trial in trials:
        outcome = execute(trial, setup, lambda _: None)
        assert outcome.status == "done", outcome
    frame = load(folder / "results")
    return {
        "class": summarise(frame).set_index("label"),
        "task": summarise(frame, TASK_IL).set_index("label"),
    }


def final(scores, name):
    """Final class-incremental accuracy."""
    return scores["class"]["FA"][name]


@pytest.mark.parametrize("name", METHODS)
def test_no_method_is_above_joint_training(scores, name):
    # Within three of the 360 test images, which chance decides about.
    assert final(scores, name) <= final(scores, "joint") + 3 / 360


@pytest.mark.parametrize("name", FORGETTING)
def test_without_a_memory_of_images_little_but_the_last_task_is_known(scores, name):
    assert 0.15 < final(scores, name) < 1 / 5 + 0.15
    assert scores["class"]["learning_accuracy"][name] > 0.95  # each task was learned
    assert scores["class"]["forgetting"][name] > 0.7


@pytest.mark.parametrize("name", [*REPLAYING, *RECALLING])
def test_replay_beats_methods_without_it(scores, name):
    assert final(scores, name) > max(final(scores, other) for other in FORGETTING) + 0.25


def test_a_gem_forgets_less_than_finetuning(scores):
    assert final(scores, "agem") > final(scores, "finetune") + 0.2


def test_a_sigmoid_for_every_class_distils_better_than_a_softmax(scores):
    assert final(scores, "lwf_mc") > final(scores, "lwf") + 0.14


def test_edd_keeps_old_classes_without_their_images(scores):
    assert final(scores, "edd") > max(final(scores, name) for name in FORGETTING) + 0.1


@pytest.mark.parametrize("name", ["pec", "pnn"])
def test_within_a_task_what_has_its_own_networks_forgets_nothing(scores, name):
    assert scores["task"]["forgetting"][name] == 0
    assert scores["task"]["BWT"][name] == 0


def test_a_network_for_every_class_forgets_next_to_nothing_among_all_classes(scores):
    assert scores["class"]["forgetting"]["pec"] < 0.04
    assert final(scores, "pec") > 0.9


@pytest.mark.parametrize("name", METHODS)
def test_knowing_the_task_never_hurts(scores, name):
    assert scores["task"]["FA"][name] >= final(scores, name)
