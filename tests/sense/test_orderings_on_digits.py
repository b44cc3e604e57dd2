"""A broken method must look broken: orderings of real digits, with fixed seeds.

The gaps asserted are about half of those seen when the tests were written.
"""

import pytest
from orderings import final_accuracies, write

from harness.config import ROOT

REPLAYING = ["climb", "cassle_r", "minred", "replay", "osiris_r", "scale"]

ONLINE = f"""
protocol: online_ssl
methods: [no_strategy, iid, {", ".join(REPLAYING)}]
datasets: [digits]
num_tasks: 5
seeds: [0]
set:
  buffer_size: 100
  replay_batch: 32
  lr: 0.03
  backbone: {{name: cnn, widths: [16, 32, 64]}}
  objective: {{name: simclr, projection_dim: 128}}
  evaluators: [{{name: probe_linear, when: last}}]
  osiris_r.projection_dim: 128
  osiris_r.lr: 0.01
  scale.lr: 0.01
"""


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory, data_root):
    suite = ROOT / "configs" / "suite" / "quickstart.yaml"
    folder = tmp_path_factory.mktemp("quickstart")
    return final_accuracies(suite, folder, data_root, seed=["0", "1"])


@pytest.mark.parametrize("seed", [0, 1])
def test_on_digits_joint_beats_replay_beats_finetuning(quickstart, seed):
    finetune, er, joint = (quickstart[name, seed] for name in ("finetune", "er", "joint"))
    assert joint > er + 0.015
    assert er > finetune + 0.4
    assert abs(finetune - 1 / 5) < 0.05  # it knows the last of five tasks and no other


@pytest.mark.parametrize("seed", [0, 1])
def test_on_digits_replay_helps_self_supervision(quickstart, seed):
    assert quickstart["replay", seed] > quickstart["no_strategy", seed] + 0.04


@pytest.fixture(scope="module")
def online(tmp_path_factory, data_root):
    """Seed 0 of all methods, and two more of CLIMB, whose gain varies most."""
    folder = tmp_path_factory.mktemp("online")
    final_accuracies(write(folder, ONLINE), folder / "results", data_root)
    more = write(folder, ONLINE.replace("seeds: [0]", "seeds: [1, 2]"))
    labels = ["climb", "no_strategy"]
    return final_accuracies(more, folder / "results", data_root, label=labels)


@pytest.mark.parametrize("name", [name for name in REPLAYING if name != "climb"])
def test_on_digits_methods_that_replay_beat_the_stream_alone(online, name):
    assert online[name, 0] > online["no_strategy", 0] + 0.03


def test_on_digits_climb_beats_the_stream_alone_over_three_seeds(online):
    # At seed 0 alone the gain is above 0.03 on one kind of CPU and below on another.
    assert online["climb"].mean() > online["no_strategy"].mean() + 0.03


def test_on_digits_images_of_all_tasks_beat_the_stream_alone(online):
    assert online["iid", 0] > online["no_strategy", 0] + 0.05
