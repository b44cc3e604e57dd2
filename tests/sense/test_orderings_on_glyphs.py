"""A broken method must look broken: orderings of drawn characters, with fixed seeds.

The gaps asserted are about half of those seen when the tests were written.
"""

import pytest
from orderings import final_accuracies, write

from harness.config import ROOT

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
  epochs: 12
  passes: 1
  batch_size: 128
  optimizer: adam
  lr: 2e-3
  weight_decay: 0.0
  backbone: {{name: cnn, widths: [16, 32, 64]}}
  objective: {{name: simclr, projection_dim: 128}}
  evaluators: [probe_ridge]
  primary: probe_ridge
"""


OBJECTIVES = {"simsiam": "predictor_dim: 64, ", "byol": "", "barlow_twins": ""}


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_on_glyphs_every_objective_beats_a_random_encoder(tmp_path, data_root, objective):
    head = f"{{name: {objective}, {OBJECTIVES[objective]}projection_dim: 128}}"
    text = SELF_SUPERVISED.replace("{name: simclr, projection_dim: 128}", head)
    suite = write(tmp_path, text.replace("epochs: 12", "epochs: 20"))
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


def test_on_glyphs_joint_beats_replay_beats_finetuning(tmp_path, data_root):
    suite = write(tmp_path, CLASS_INCREMENTAL)
    accuracy = final_accuracies(suite, tmp_path / "results", data_root)
    assert accuracy["joint", 0] > accuracy["er", 0] + 0.1
    assert accuracy["er", 0] > accuracy["finetune", 0] + 0.08
    assert accuracy["finetune", 0] < 1 / 5 + 0.03


def test_on_glyphs_a_trained_encoder_beats_a_random_one(tmp_path, data_root):
    suite = write(tmp_path, SELF_SUPERVISED)
    accuracy = final_accuracies(suite, tmp_path / "results", data_root)
    assert accuracy["trained", 0] > accuracy["random", 0] + 0.1
