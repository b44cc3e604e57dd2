"""Finetune and joint training with a cross-entropy over the classes seen so far."""

import io

import pytest
import torch
from tiny import CPU, difference, finish, tiny_run, view
from torch.nn import functional as F

from methods.base import Signal
from methods.supervised.finetune import Config, Finetune, LargestLabel
from methods.supervised.joint import Config as JointConfig
from methods.supervised.joint import Joint


def finetune(outputs, **changes):
    run = tiny_run("finetune", **changes)
    run.method = Finetune(Config(outputs=outputs), run.method.ctx)
    return run


def joint(outputs):
    run = tiny_run("joint")
    run.method = Joint(JointConfig(outputs=outputs), run.method.ctx)
    return run


def first_batch(run, task):
    return next(iter(run._batches(run.scenario.tasks[task])))


def naive_loss(method, batch, classes):
    """Cross-entropy over the first `classes` outputs, in training mode."""
    method.net.train()
    return F.cross_entropy(method.net(method.ctx.normalize(batch.x))[:, :classes], batch.y)


@pytest.mark.parametrize(("outputs", "classes"), [("all", 10), ("seen", 6)])
def test_finetuning_compares_all_classes_or_those_seen(outputs, classes):
    run = finetune(outputs)
    for position in range(2):
        run._learn(run.scenario.tasks[position])
    run.random.start_task(2)
    batch = first_batch(run, 2)
    assert set(batch.y.tolist()) == {4, 5}
    run.method.net.train()
    torch.testing.assert_close(
        run.method.loss(batch)["stream"], naive_loss(run.method, batch, classes)
    )


def test_finetuning_needs_no_boundary_for_it():
    method = finetune("seen").method
    assert method.needs == {Signal.LABELS}


def test_classes_count_as_seen_from_their_first_label_on():
    run = finetune("seen")
    batch = first_batch(run, 0)
    zeros = batch.y == 0
    method = run.method
    for rows, classes in ((zeros, 1), (~zeros, 2), (zeros, 2)):
        part = type(batch)(batch.x[rows], batch.y[rows], batch.index[rows])
        method.net.train()
        torch.testing.assert_close(method.loss(part)["stream"], naive_loss(method, part, classes))


def test_outputs_of_classes_to_come_have_no_gradient_and_the_others_a_finite_one():
    run = finetune("seen")
    run.method.observe(first_batch(run, 0))
    for parameter in run.method.head.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad[:2].any()
        assert not parameter.grad[2:].any()
    assert run.method.finite()


def test_with_all_outputs_nothing_is_noted():
    run = finetune("all")
    run.method.observe(first_batch(run, 0))
    assert run.method.largest.state_dict() == {"label": -1}


def test_the_largest_label_outlives_a_checkpoint():
    ours, theirs = finetune("seen"), finetune("seen")
    for position in range(2):
        ours._learn(ours.scenario.tasks[position])
    file = io.BytesIO()
    torch.save(ours.method.state_dict(), file)
    file.seek(0)
    theirs.method.load_state_dict(torch.load(file, weights_only=True))
    assert theirs.method.largest.state_dict() == {"label": 3}
    batch = first_batch(ours, 0)  # two of the four classes alone
    assert difference(ours.method.observe(batch), theirs.method.observe(batch)) is None


def test_the_largest_label_never_falls():
    largest = LargestLabel(CPU)
    logits = torch.zeros(1, 5)
    seen = []
    for labels in ([1], [3, 0], [2, 2], [4]):
        largest.note(torch.tensor(labels))
        seen.append(int(largest.up_to_it(logits).isfinite().sum()))
    assert seen == [2, 4, 4, 5]


def test_smoothing_over_classes_to_come_is_refused():
    Config(label_smoothing=0.1)
    with pytest.raises(ValueError, match="label_smoothing"):
        Config(label_smoothing=0.1, outputs="seen")


@pytest.mark.parametrize(("outputs", "classes"), [("all", 10), ("seen", 4)])
def test_joint_training_compares_all_classes_or_those_seen(outputs, classes):
    run = joint(outputs)
    run.method.begin_task(view(run, 0))
    run.method.begin_task(view(run, 1))
    batch = first_batch(run, 1)
    assert set(batch.y.tolist()) == {0, 1, 2, 3}
    run.method.net.train()
    torch.testing.assert_close(
        run.method.loss(batch)["stream"], naive_loss(run.method, batch, classes)
    )


def test_every_stage_of_joint_training_has_a_new_optimizer():
    run = tiny_run("joint", momentum=0.9)
    again = tiny_run("joint", momentum=0.9)
    for task in run.scenario.tasks[:2]:
        run._learn(task)
    again._learn(again.scenario.tasks[1])  # as if there had been no stage before
    assert difference(run.method.net.state_dict(), again.method.net.state_dict()) is None


def test_joint_training_is_the_same_once_all_classes_are_seen():
    seen, every = joint("seen"), joint("all")
    finish(seen)
    finish(every)
    assert difference(seen.method.net.state_dict(), every.method.net.state_dict()) is None


@pytest.mark.parametrize("make", [finetune, joint])
def test_after_the_first_task_the_two_differ(make):
    runs = [make(outputs) for outputs in ("seen", "all")]
    for run in runs:
        run._learn(run.scenario.tasks[0])
    states = [run.method.net.state_dict() for run in runs]
    assert difference(*states) is not None
