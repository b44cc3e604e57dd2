"""A broken method must look broken: orderings that hold for working ones, with fixed seeds.

The gaps asserted are about half of those seen when the tests were written.
"""

from pathlib import Path

import pytest

from analysis.load import load
from analysis.summary import summarise
from harness.config import ROOT
from harness.execute import Setup, execute
from harness.grid import expand, select
from harness.store import Store
from harness.suite import load_suite

GLYPHS = """
datasets: [{name: glyphs100_easy, label: glyphs20, set: {classes: 20, per_class: 100}}]
seeds: [0]
"""

CLASS_INCREMENTAL = f"""
protocol: class_incremental
methods: [finetune, er, joint]
num_tasks: 5
{GLYPHS}
set:
  epochs: 5
  batch_size: 20
  replay_batch: 20
  buffer_size: 400
  optimizer: adam
  lr: 1e-3
  backbone: {{name: cnn, widths: [16, 32, 64]}}
  joint.stages: last
"""

SELF_SUPERVISED = f"""
protocol: online_ssl
num_tasks: 1
methods:
  - {{name: no_strategy, label: random, set: {{lr: 0.0, epochs: 1}}}}
  - {{name: no_strategy, label: trained}}
{GLYPHS}
set:
  epochs: 20
  passes: 1
  batch_size: 128
  optimizer: adam
  lr: 2e-3
  weight_decay: 0.0
  backbone: {{name: cnn, widths: [16, 32, 64]}}
  objective: {{name: simclr, projection_dim: 128}}
  evaluators: [probe_linear, probe_ridge]
"""


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
def data_root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def final_accuracies(suite_path, folder, data_root, **only):
    """FA by label (one seed) or by label and seed, after running the suite's trials."""
    trials, skips = expand(load_suite(suite_path))
    assert not skips
    store = Store(folder)
    store.create()
    for trial in select(trials, {key: frozenset(values) for key, values in only.items()}):
        outcome = execute(trial, Setup(folder, data_root, {}), lambda _: None)
        assert outcome.status == "done", outcome
    scores = summarise(load(folder))
    return scores.set_index(["label", "seed"])["FA"]


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


OBJECTIVES = {"simsiam": "predictor_dim: 64, ", "byol": "", "barlow_twins": ""}


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_on_glyphs_every_objective_beats_a_random_encoder(tmp_path, data_root, objective):
    head = f"{{name: {objective}, {OBJECTIVES[objective]}projection_dim: 128}}"
    text = SELF_SUPERVISED.replace("{name: simclr, projection_dim: 128}", head)
    suite = write(tmp_path, text.replace("probe_linear, ", "") + "  primary: probe_ridge\n")
    accuracy = final_accuracies(suite, tmp_path / "results", data_root)
    assert accuracy["trained", 0] > accuracy["random", 0] + 0.03


# CLA-E and CLA-R need a longer stream than that of digits: their alignment slows the first steps.
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_on_glyphs_the_family_of_climb_is_in_order(tmp_path, data_root):
    suite = ROOT / "configs" / "suite" / "climb_small.yaml"
    accuracy = final_accuracies(suite, tmp_path / "results", data_root, seed=["0"]).xs(0, level=1)
    references, low_budget = ["iid"], ["cla_b", "cassle", "lump", "no_strategy"]
    replaying = accuracy.drop([*references, *low_budget])
    assert len(replaying) == 9
    assert replaying.min() > accuracy["no_strategy"] + 0.05
    assert accuracy["iid"] > replaying.max() + 0.02


def write(folder: Path, text: str) -> Path:
    path = folder / "sense.yaml"
    path.write_text(text)
    return path


def test_on_glyphs_joint_beats_replay_beats_finetuning(tmp_path, data_root):
    suite = write(tmp_path, CLASS_INCREMENTAL)
    accuracy = final_accuracies(suite, tmp_path / "results", data_root)
    assert accuracy["joint", 0] > accuracy["er", 0] + 0.1
    assert accuracy["er", 0] > accuracy["finetune", 0] + 0.08
    assert accuracy["finetune", 0] < 1 / 5 + 0.03


def test_on_glyphs_a_trained_encoder_beats_a_random_one(tmp_path, data_root):
    suite = write(tmp_path, SELF_SUPERVISED)
    accuracy = final_accuracies(suite, tmp_path / "results", data_root)
    assert accuracy["trained", 0] > accuracy["random", 0] + 0.08
