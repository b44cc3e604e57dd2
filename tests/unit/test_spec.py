"""A trial's identity: everything that can change a number is in it, and nothing else."""

import dataclasses
import hashlib
import json

import pytest

from harness import protocol
from harness.errors import UserError
from harness.spec import Component, ProtocolSettings, Resources, Trial, TrialSpec

SPEC = TrialSpec(
    method=Component("er", {"replay_weight": 1.0}),
    dataset=Component("glyphs100", {"classes": 20, "per_class": 100}),
    num_tasks=5,
    distribution="regular",
    protocol={"lr": 0.001, "backbone": {"name": "mlp", "hidden": [64]}, "primary": "classifier"},
    seed=3,
)
SPEC_ID = "ad9ee3b41fd0a621"

CHANGES = {  # another valid value of every protocol setting that can change a number
    "optimizer": "adam",
    "lr": 0.2,
    "momentum": 0.5,
    "weight_decay": 0.1,
    "schedule": "cosine",
    "milestones": [1],
    "gamma": 0.5,
    "fresh_optimizer": True,
    "batch_size": 11,
    "epochs": 2,
    "first_epochs": 2,
    "first_milestones": [1],
    "passes": 2,
    "replay_batch": 11,
    "buffer_size": 11,
    "drop_last": True,
    "backbone": {"name": "mlp", "hidden": [7]},
    "objective": {"name": "simclr", "temperature": 0.25},
    "augmentation": "none",
    "validation": 0.2,
    "split": "validation",
    "evaluators": [{"name": "classifier", "when": "last"}, "cost"],
    "class_order": "pycil1993",
    "records": ["features"],  # a trial stored without them has to run again
}
BASE = {"validation": 0.1}


def with_protocol(**settings):
    resolved = protocol.resolve({**BASE, **settings}, where="tests")
    return dataclasses.replace(SPEC, protocol=resolved)


def trial(**changes):
    names = {
        "suite": "mine",
        "label": "er",
        "dataset_label": "glyphs20",
        "protocol_name": "plain",
    }
    return Trial(**{"spec": SPEC, **names, **changes})


def test_the_id_is_that_of_every_process_and_machine():
    assert SPEC.trial_id == SPEC_ID


def test_the_id_is_the_digest_of_the_canonical_settings():
    identity = {"version": 1, **dataclasses.asdict(SPEC)}
    del identity["protocol"]["primary"]
    for name in ("first_tasks", "stop_after"):  # None: as before there was the setting
        del identity[name]
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    assert SPEC.trial_id == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_the_order_of_keys_does_not_matter():
    def turned(mapping):
        return dict(reversed(mapping.items()))

    backbone = turned(SPEC.protocol["backbone"])
    other = dataclasses.replace(
        SPEC,
        dataset=Component("glyphs100", turned(SPEC.dataset.settings)),
        protocol=turned({**SPEC.protocol, "backbone": backbone}),
    )
    assert other.trial_id == SPEC_ID


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"lr": 1}, {"lr": 1.0}),
        ({"lr": 1e-3}, {"lr": 0.001}),
        ({"backbone": "mlp"}, {"backbone": {"name": "mlp", "hidden": [100, 100]}}),
        ({"evaluators": ["classifier", "cost"]}, {}),
        ({"evaluators": [{"name": "classifier", "when": "each"}, "cost"]}, {}),
        ({"class_order": "natural", "epochs": 1}, {}),
        ({"primary": "cost"}, {"primary": "classifier"}),
        ({"hides": ["labels"]}, {"hides": []}),
    ],
)
def test_two_ways_to_write_a_protocol_have_one_id(one, other):
    assert with_protocol(**one).trial_id == with_protocol(**other).trial_id


def test_every_protocol_setting_but_the_primary_is_tried_below():
    fields = {field.name for field in dataclasses.fields(ProtocolSettings)}
    assert fields == CHANGES.keys() | {"primary", "hides"}


@pytest.mark.parametrize("name", CHANGES)
def test_every_protocol_setting_is_in_the_id_and_in_the_group(name):
    plain, other = with_protocol(), with_protocol(**{name: CHANGES[name]})
    assert plain.trial_id != other.trial_id
    assert plain.group != other.group


@pytest.mark.parametrize(
    "changes",
    [
        {"method": Component("er", {"replay_weight": 2.0})},
        {"method": Component("finetune", {"replay_weight": 1.0})},
        {"dataset": Component("glyphs100", {"classes": 20, "per_class": 50})},
        {"dataset": Component("glyphs100_easy", {"classes": 20, "per_class": 100})},
        {"num_tasks": 10},
        {"distribution": "irregular"},
    ],
)
def test_method_data_and_scenario_are_in_the_id_and_in_the_group(changes):
    other = dataclasses.replace(SPEC, **changes)
    assert other.trial_id != SPEC.trial_id
    assert other.group != SPEC.group


def test_the_group_is_that_of_all_seeds():
    other = dataclasses.replace(SPEC, seed=4)
    assert other.trial_id != SPEC.trial_id
    assert other.group == SPEC.group != SPEC.trial_id


@pytest.mark.parametrize(
    "changes",
    [
        {"suite": "other"},
        {"label": "heavy"},
        {"dataset_label": "small"},
        {"protocol_name": "other"},
        {"resources": Resources(cpu=4, gpu=0.5)},
    ],
)
def test_names_and_resources_are_not_in_the_id(changes):
    assert trial(**changes).trial_id == trial().trial_id == SPEC_ID


def test_a_trial_survives_json():
    one = trial(resources=Resources(cpu=2, gpu=0.5))
    again = Trial.from_json(json.loads(json.dumps(one.to_json())))
    assert again == one
    assert again.trial_id == one.trial_id
    assert again.primary == "classifier"


@pytest.mark.parametrize("missing", ["method", "dataset", "seed"])
def test_settings_of_another_version_are_an_error(missing):
    data = {key: value for key, value in SPEC.to_json().items() if key != missing}
    with pytest.raises(UserError, match="not the settings of a trial of this version"):
        TrialSpec.from_json(data)


def test_flat_settings_have_dotted_names():
    flat = SPEC.flat()
    assert flat["method.replay_weight"] == 1.0
    assert flat["dataset.per_class"] == 100
    assert flat["protocol.lr"] == 0.001


@pytest.mark.parametrize(("cpu", "threads"), [(0.5, 1), (1, 1), (2.9, 2), (4, 4)])
def test_a_trial_has_at_least_one_thread_and_no_more_than_its_cores(cpu, threads):
    assert Resources(cpu=cpu).threads == threads


@pytest.mark.parametrize("resources", [{"cpu": 0}, {"cpu": -1}, {"gpu": -0.5}])
def test_resources_that_cannot_be_are_refused(resources):
    with pytest.raises(ValueError, match="resources"):
        Resources(**resources)


def test_the_first_tasks_alone_are_another_trial_and_all_of_them_the_one_that_it_was():
    assert SPEC.trial_id == SPEC_ID
    first = dataclasses.replace(SPEC, first_tasks=2)
    assert first.trial_id != SPEC_ID
    assert TrialSpec.from_json(json.loads(json.dumps(first.to_json()))) == first
    assert first.tasks_learned == 2
    assert SPEC.tasks_learned == 5
