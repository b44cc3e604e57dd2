"""Exemplar replay: which images are kept, how they join the batches, over what the loss is."""

import pytest
import torch
from tiny import difference, finish, tiny_run, tiny_trial, view
from torch.nn import functional as F

from harness import protocol
from harness.errors import UserError
from methods.supervised.exemplar_replay import Config, ExemplarReplay


def learned(tasks, config=None, **changes):
    """A run whose method has learned so many tasks, and began the next."""
    run = tiny_run("exemplar_replay", **changes)
    if config is not None:
        run.method = ExemplarReplay(config, run.method.ctx)
    for task in run.scenario.tasks[:tasks]:
        run._learn(task)
    run.random.start_task(tasks)
    run.method.begin_task(view(run, tasks))
    return run


def batches_of(run, task):
    return list(run._batches(run.scenario.tasks[task]))


def names(images):
    """Something hashable for every image."""
    return [tuple(image.flatten().tolist()) for image in images]


def test_each_class_keeps_its_share_from_the_start_and_for_good():
    run, kept = tiny_run("exemplar_replay"), {}
    for position, task in enumerate(run.scenario.tasks):
        run._learn(task)
        held = run.method.rehearsal.everything()
        assert held["y"].bincount().tolist() == [4] * (2 * position + 2)
        for label in range(2 * position + 2):
            images = names(held["x"][held["y"] == label])
            assert images == kept.setdefault(label, images)
    assert len(run.method.rehearsal) == run.settings.buffer_size


def test_exemplars_are_different_training_images_of_their_class():
    run = learned(2)
    held, train = run.method.rehearsal.everything(), run.scenario.dataset.train
    for label in range(4):
        rows = run.scenario.tasks[label // 2].train
        images = names(train.x[rows[train.y[rows] == label]])
        ours = names(held["x"][held["y"] == label])
        assert len(set(ours)) == 4
        assert set(ours) <= set(images)
        assert ours != images[:4]  # drawn, not the first


def test_the_choice_is_random_but_the_seed_s():
    first, again = (learned(1).method.rehearsal.everything()["x"] for _ in range(2))
    other = learned(1, seed=1).method.rehearsal.everything()["x"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("tasks", [1, 3])
def test_the_loss_is_one_cross_entropy_over_batch_and_exemplars_and_the_classes_seen(tasks):
    run = learned(tasks)
    method = run.method
    batch = batches_of(run, tasks)[0]
    method.net.train()
    method.before_passes(batch)
    old_x, old_y = method.drawn
    assert len(old_y) == method.rehearsal._deck.share
    x, y = torch.cat([batch.x, old_x]), torch.cat([batch.y, old_y]).tolist()
    terms = method.loss(batch)
    with torch.no_grad():
        logits = method.net(method.ctx.normalize(x))[:, : 2 * tasks + 2].double()
    wanted = 0.0
    for row, label in zip(logits, y, strict=True):
        wanted += float(row.exp().sum().log() - row[label])
    assert terms.keys() == {"cross_entropy"}
    assert float(terms["cross_entropy"].detach()) == pytest.approx(wanted / len(y), rel=1e-5)


def test_an_epoch_sees_every_exemplar_about_once():
    run = learned(4)
    counts = dict.fromkeys(names(run.method.rehearsal.everything()["x"]), 0)
    assert len(counts) == 32
    batches = batches_of(run, 4)
    for batch in batches:
        run.method.before_passes(batch)
        for image in names(run.method.drawn[0]):
            counts[image] += 1
    assert set(counts.values()) <= {1, 2}
    assert sum(counts.values()) - 32 < len(batches)


def test_several_passes_see_the_same_exemplars():
    run = learned(1, passes=3)
    method, seen = run.method, []
    loss = method.loss

    def watched(batch):
        seen.append(method.drawn)
        return loss(batch)

    method.loss = watched
    method.observe(batches_of(run, 1)[0])
    assert len(seen) == 3
    assert seen[0] is seen[1] is seen[2]


def test_the_first_task_is_learned_as_by_finetuning_over_the_classes_seen():
    run = learned(0)
    method = run.method
    batch = batches_of(run, 0)[0]
    logits = method.net(method.views(batch.x))
    stated = float(method.loss(batch)["cross_entropy"].detach())
    assert stated == pytest.approx(float(F.cross_entropy(logits[:, :2], batch.y).detach()))


def test_outputs_of_classes_to_come_have_no_gradient():
    run = learned(1)
    run.method.observe(batches_of(run, 1)[0])
    for parameter in run.method.head.parameters():
        assert parameter.grad[:4].any()
        assert not parameter.grad[4:].any()


def test_the_whole_buffer_is_shared_out_if_so_wanted():
    run = learned(2, Config(quota="total"))
    assert run.method.rehearsal.everything()["y"].bincount().tolist() == [10] * 4


def test_memory_is_that_of_the_images_and_their_labels():
    assert learned(1).method.memory() == {"exemplars": 8 * (64 + 8)}


def test_it_forgets_less_than_finetuning():
    def last(name):
        rows = finish(tiny_run(name, epochs=5, momentum=0.9, buffer_size=200))
        values = [r.value for r in rows if r.metric == "accuracy" and r.evaluator == "classifier"]
        return sum(values[-5:]) / 5

    assert last("exemplar_replay") > last("finetune") + 0.2


def test_a_state_between_draws_goes_on_bit_for_bit():
    ours = learned(1)
    batches = batches_of(ours, 1)
    ours.method.observe(batches[0])
    theirs = tiny_run("exemplar_replay")
    theirs.method.load_state_dict(ours.method.state_dict())
    for batch in batches[1:]:
        ours.method.observe(batch)
        theirs.method.observe(batch)
    assert difference(ours.method.state_dict(), theirs.method.state_dict()) is None


def test_a_buffer_without_room_for_every_class_is_refused_when_planning():
    spec = tiny_trial("exemplar_replay", buffer_size=9).spec
    with pytest.raises(UserError, match="buffer_size must hold an image of each of the 10 classes"):
        protocol.check_method(spec, where="suite")
