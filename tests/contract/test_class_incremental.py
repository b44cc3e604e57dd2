"""What every class-incremental method does with odd tasks, small buffers and wild settings."""

from dataclasses import replace

import pytest
import tiny
import torch
from tiny import finish, tiny_run, tiny_trial

from harness import protocol
from harness.data.scenarios import split_domains
from harness.errors import UserError
from harness.spec import Component
from harness.trial import DivergedError, TrialRun
from methods import registry
from methods.base import Signal

FAMILY = sorted(registry.where(("methods.supervised",)))
OWN_RATES = ["braincl", "pec"]  # whatever the protocol says
AN_IMAGE_A_CLASS = ["der_expand", "exemplar_replay", "gem", "icarl", "lucir", "rpc"]
AN_IMAGE_A_TASK = ["agem", "fdr", "hal"]
OWN_CLASSES = [
    "braincl",
    "der_expand",
    "ewc",
    "exemplar_replay",
    "gem",
    "icarl",
    "lucir",
    "pnn",
    "rpc",
]

every_method = pytest.mark.parametrize("name", FAMILY)


def run_of(trial, tmp_path):
    return TrialRun(trial, tmp_path, tiny.DEVICE)


@every_method
def test_tasks_of_one_class_are_learned(name, tmp_path):
    trial = tiny_trial(name)
    trial = replace(trial, spec=replace(trial.spec, num_tasks=10))
    protocol.check_method(trial.spec, where="suite.yaml")
    rows = finish(run_of(trial, tmp_path))
    last = {r.on_task: r.value for r in rows if r.metric == "accuracy" and r.after_task == 9}
    assert len([task for task in last if task >= 0]) == 10
    assert all(0 <= value <= 1 for value in last.values())


@every_method
def test_a_last_batch_of_one_image_does_no_harm(name):
    run = tiny_run(name)
    task = run.scenario.tasks[0]
    # 65 images: two batches of 32 and a single image, which joins the second.
    odd = replace(task, train=task.train[:65])
    run.scenario = replace(run.scenario, tasks=(odd, *run.scenario.tasks[1:]))
    run._learn(odd)
    assert run.position.tally.samples >= 65
    assert run.method.predict(run.scenario.dataset.test.x[:4]).isfinite().all()


@pytest.mark.parametrize("name", AN_IMAGE_A_CLASS)
def test_a_buffer_without_room_for_every_class_is_refused_when_planning(name):
    words = f"method {name}: buffer_size must hold an image of each of the 10 classes, but it is 9"
    with pytest.raises(UserError, match=words):
        check(name, buffer_size=9)
    check(name, buffer_size=10)


@pytest.mark.parametrize("name", AN_IMAGE_A_TASK)
def test_a_buffer_without_room_for_every_task_is_refused_when_planning(name):
    words = f"method {name}: buffer_size must hold an image of each of the 5 tasks, but it is 4"
    with pytest.raises(UserError, match=words):
        check(name, buffer_size=4)
    check(name, buffer_size=5)


@every_method
def test_a_buffer_that_is_not_refused_works(name):
    least = {**dict.fromkeys(AN_IMAGE_A_CLASS, 10), **dict.fromkeys(AN_IMAGE_A_TASK, 5)}
    run = tiny_run(name, buffer_size=least.get(name, 1))
    for task in run.scenario.tasks[:3]:
        run._learn(task)
    assert run.method.predict(run.scenario.dataset.test.x[:4]).isfinite().all()


ONE_PIXEL = {"name": "cnn", "widths": [4, 4, 8, 8]}  # the last maps of 8x8 images


@pytest.mark.parametrize(
    ("name", "least"),
    [("agem", 10), ("hal", 10), ("gem", 10), ("fdr", 5), ("der_dark", 2), ("dualnet", 2)],
)
def test_a_single_image_is_not_replayed_where_batch_normalisation_cannot_train_on_it(name, least):
    words = f"method {name}: buffer_size and replay_batch: a single image would be replayed"
    with pytest.raises(UserError, match=words):
        check(name, backbone=ONE_PIXEL, replay_batch=1)
    for size in {least - 1, least} if name in {"agem", "hal", "der_dark"} else {least}:
        if size < least:
            with pytest.raises(UserError, match=words):
                check(name, backbone=ONE_PIXEL, buffer_size=size)
            continue
        run = tiny_run(name, backbone=ONE_PIXEL, buffer_size=size)
        protocol.check_method(run.trial.spec, where="suite.yaml")
        for task in run.scenario.tasks[:3]:
            run._learn(task)


def test_batches_of_one_image_are_refused_where_maps_have_one_pixel():
    with pytest.raises(UserError, match="batch_size: batch normalisation cannot train on 1 image"):
        check("finetune", backbone=ONE_PIXEL, batch_size=1)
    check("finetune", batch_size=1)


@pytest.mark.parametrize("name", ["edd", "pnn", "dualnet"])
def test_a_backbone_without_feature_maps_is_refused_when_planning(name):
    with pytest.raises(UserError, match=f"method {name}: backbone: it works on feature maps"):
        check(name, backbone="mlp")


@every_method
def test_a_method_that_needs_boundaries_is_left_out_where_they_are_hidden(name):
    trial = tiny_trial(name)
    hidden = replace(trial.spec, protocol={**trial.spec.protocol, "hides": ["boundaries"]})
    needed = Signal.BOUNDARIES in registry.entry(name).module.build.needs
    reason = protocol.unsuitable(hidden)
    assert reason == (f"{name} needs boundaries, which the protocol hides" if needed else None)


@every_method
def test_tasks_that_share_their_classes_are_refused_when_planning_or_planned(name):
    trial = tiny_trial(name)
    spec = replace(
        trial.spec,
        dataset=Component("clear100", {"classes": 10, "per_class": None, "test_per_class": None}),
    )
    domains = replace(spec, distribution="domains", num_tasks=11)
    if name in OWN_CLASSES:
        with pytest.raises(UserError, match="needs tasks with classes of their own"):
            protocol.check_method(domains, where="suite.yaml")
    else:
        protocol.check_method(domains, where="suite.yaml")


@pytest.mark.parametrize("name", [name for name in FAMILY if name not in OWN_CLASSES])
def test_tasks_that_share_their_classes_are_learned_where_they_are_not_refused(name):
    run = tiny_run(name)
    whole = run.scenario.dataset
    train, test = (
        replace(split, domain=torch.arange(len(split.y)) % tiny.NUM_TASKS)
        for split in (whole.train, whole.test)
    )
    run.scenario = split_domains(
        replace(whole, train=train, test=test),
        num_tasks=tiny.NUM_TASKS,
        order="natural",
        validation=0.0,
        seed=0,
    )
    for task in run.scenario.tasks[:3]:
        run._learn(task)
    assert run.method.predict(test.x[:4]).isfinite().all()


@pytest.mark.parametrize("name", [name for name in FAMILY if name not in OWN_RATES])
def test_a_learning_rate_beyond_all_bounds_ends_as_diverged(name):
    with pytest.raises(DivergedError):
        finish(tiny_run(name, lr=1e30))


@every_method
def test_several_passes_and_one_optimizer_for_all_tasks_work_as_well(name):
    run = tiny_run(name, passes=2, fresh_optimizer=False, optimizer="adam", lr=1e-3)
    for task in run.scenario.tasks[:3]:
        run._learn(task)
    scores = run.method.predict(run.scenario.dataset.test.x[:4])
    assert scores.isfinite().all()
    assert not torch.equal(scores[0], scores[1])


def check(name, **changes):
    protocol.check_method(tiny_trial(name, **changes).spec, where="suite.yaml")
