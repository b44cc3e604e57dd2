"""EDD from task to task: what is frozen, what the teacher is, what each loss term says."""

import copy
import io
from dataclasses import replace

import pytest
import torch
from tiny import difference, tiny_run, view
from torch import nn
from torch.nn import functional as F

from methods.supervised.edd import EDD, Config

SMALL = {"slots": 20, "ba_epochs": 1}


def fresh(*, changes=None, **settings):
    """A trial whose method has these settings; nothing is learned yet."""
    run = tiny_run("edd", **(changes or {}))
    run.method = EDD(replace(Config(**SMALL), **settings), run.method.ctx)
    return run


def learn(run, *positions):
    for position in positions:
        run._learn(run.scenario.tasks[position])
    return run


def begun(position=1, **settings):
    """A trial in which a task begins after those before it were learned."""
    run = learn(fresh(**settings), *range(position))
    run.random.start_task(position)
    run.method.begin_task(view(run, position))
    return run


def a_batch(run, position):
    return next(iter(run._batches(run.scenario.tasks[position])))


def plain_views(run):
    """Replace augmentation by nothing, so that a test sees the views of the method."""
    run.method.ctx = replace(run.method.ctx, augment=lambda x, _: run.method.ctx.normalize(x))
    return run.method.ctx.normalize


def terms(run, batch):
    run.method.net.train()
    return {name: term.detach() for name, term in run.method.loss(batch).items()}


def memories(run):
    return run.method.memories.all()


def frozen_rows(run):
    return [copy.deepcopy((m.frozen_keys, m.frozen_values)) for m in memories(run)]


def test_the_loss_of_the_first_task_is_binary_cross_entropy_alone():
    run = fresh()
    normalize = plain_views(run)
    run.method.begin_task(view(run, 0))
    batch = a_batch(run, 0)
    found = terms(run, batch)
    assert set(found) == {"stream"}
    p = run.method.model(normalize(batch.x)).logits[:, :2].detach().sigmoid()
    right = torch.where(torch.arange(2) == batch.y[:, None], p, 1 - p)
    torch.testing.assert_close(found["stream"], -right.log().mean())


def test_old_classes_follow_the_sigmoids_of_the_teacher_in_later_tasks():
    run = begun()
    normalize = plain_views(run)
    batch = a_batch(run, 1)
    old = run.method.teacher.net(normalize(batch.x)).logits[:, :2].sigmoid()
    found = terms(run, batch)["stream"]
    q = torch.cat([old, F.one_hot(batch.y - 2, 2).float()], 1)
    p = run.method.model(normalize(batch.x)).logits[:, :4].detach().sigmoid()
    torch.testing.assert_close(found, -(q * p.log() + (1 - q) * (1 - p).log()).mean())


def test_ce_kd_adds_distillation_at_a_temperature_to_cross_entropy():
    run = begun(base_loss="ce_kd", kd_weight=3.0, temperature=2.0)
    normalize = plain_views(run)
    batch = a_batch(run, 1)
    old = run.method.teacher.net(normalize(batch.x)).logits[:, :2]
    found = terms(run, batch)["stream"]
    logits = run.method.model(normalize(batch.x)).logits[:, :4].detach()
    right = logits.softmax(1)[torch.arange(len(batch.y)), batch.y]
    kept = -((old / 2).softmax(1) * (logits[:, :2] / 2).softmax(1).log()).sum(1)
    torch.testing.assert_close(found, -right.log().mean() + 3 * kept.mean())


def naive_attention(queries, memory):
    keys = torch.cat([memory.frozen_keys, memory.keys.detach()])
    cosines = F.cosine_similarity(queries[:, :, None], keys[None, None], dim=3)
    return cosines.softmax(2).double()


@pytest.mark.parametrize(("align", "divisor"), [("sum", 1), ("mean", 2)])
def test_alignment_compares_flattened_attention_with_the_teacher_in_both_memories(align, divisor):
    run = begun(align=align, lambda_mem=20.0)
    normalize = plain_views(run)
    learn_a_little(run)
    batch = a_batch(run, 1)
    found = terms(run, batch)["alignment"]
    ours = run.method.model(normalize(batch.x)).targets
    theirs = run.method.teacher.net(normalize(batch.x)).targets
    wanted = 0.0
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        known = run.method.teacher.net.memories.all()[number]
        a = naive_attention(mine[0], memories(run)[number])[..., : len(known)].flatten(1)
        b = naive_attention(other[0], known).flatten(1)
        wanted += (1 - F.cosine_similarity(a, b)).mean().item() / divisor
    assert wanted > 0
    assert found.item() == pytest.approx(20 * wanted, rel=1e-3)


def learn_a_little(run):
    for batch in list(run._batches(run.scenario.tasks[1]))[:3]:
        run.method.observe(batch)


def test_alignment_with_a_teacher_that_is_the_same_network_is_0():
    run = begun(ba_epochs=0, pruning_ratio=0.0)
    batch = a_batch(run, 1)
    run.method.net.train()
    run.method.teacher.net.train()
    assert run.method.loss(batch)["alignment"].item() == 0


def test_the_orthogonality_of_the_second_memory_alone_is_a_term():
    run = begun(lambda_ortho=10.0)
    found = terms(run, a_batch(run, 1))["orthogonality"]
    torch.testing.assert_close(found, 10 * memories(run)[1].orthogonality().detach())


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"lambda_mem": 0.0, "lambda_ortho": 0.0}, {"stream"}),
        ({"lambda_ortho": 0.0}, {"stream", "alignment"}),
        ({"lambda_mem": 0.0}, {"stream", "orthogonality"}),
        ({}, {"stream", "alignment", "orthogonality"}),
    ],
)
def test_a_weight_of_0_leaves_a_term_out(settings, names):
    run = begun(ba_epochs=0, **settings)
    assert set(terms(run, a_batch(run, 1))) == names


SGD = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1, "lr": 0.05}
ADAM = {"optimizer": "adam", "weight_decay": 0.1, "lr": 0.01}


@pytest.mark.parametrize("changes", [SGD, ADAM])
@pytest.mark.parametrize("fresh_optimizer", [True, False])
def test_frozen_slots_stay_the_same_bit_for_bit(changes, fresh_optimizer):
    run = begun(changes={**changes, "fresh_optimizer": fresh_optimizer})
    before, learning = frozen_rows(run), memories(run)[0].keys.detach().clone()
    assert all(len(keys) for keys, _ in before)
    run = learn(run, 1, 2)
    for old, new in zip(before, frozen_rows(run), strict=True):
        for ours, theirs in zip(old, new, strict=True):
            assert len(theirs) > len(ours)
            assert torch.equal(ours, theirs[: len(ours)])
    assert not torch.equal(learning, memories(run)[0].keys)


def test_slots_learn_after_growth_even_if_the_protocol_keeps_its_optimizer():
    run = begun(changes={**SGD, "fresh_optimizer": False})
    before = [(m.keys.detach().clone(), m.values.detach().clone()) for m in memories(run)]
    run.method.observe(a_batch(run, 1))
    for memory, (keys, values) in zip(memories(run), before, strict=True):
        assert (memory.keys != keys).any(1).all()
        assert (memory.values != values).any(1).all()


def test_as_many_slots_are_added_as_frozen_by_the_recurrence():
    run = fresh(slots=100, expand_at="task_end", ba_epochs=0)
    for position, total in enumerate((115, 123, 129, 133, 136)):
        learn(run, position)
        assert [len(memory) for memory in memories(run)] == [total, total]
        assert [len(memory.keys) for memory in memories(run)] == [100, 100]
        assert run.method.parameters() == parameters(run)


def parameters(run):
    """Of backbone, head, and slots that learn."""
    slots = 100 * 2 * sum(memory.keys.shape[1] for memory in memories(run))
    return slots + sum(p.numel() for p in run.method.net.parameters())


def test_the_released_rule_divides_by_the_tasks_of_the_stream():
    run = learn(fresh(growth="code_class", expand_at="task_end"), 0, 1)
    assert [memory.frozen for memory in memories(run)] == [8, 8]


def test_only_the_second_memory_may_grow():
    run = begun(freeze="task")
    assert [memory.frozen for memory in memories(run)] == [0, 3]
    assert [len(memory) for memory in memories(run)] == [20, 23]


def test_the_memories_stop_growing_at_max_slots():
    run = begun(max_slots=22)
    assert [len(memory) for memory in memories(run)] == [22, 22]


def test_the_slots_that_moved_most_in_the_task_are_frozen():
    run = fresh()
    run.method.begin_task(view(run, 0))
    with torch.no_grad():
        memories(run)[0].keys[[3, 7, 11]] += 10
        memories(run)[1].values[[0, 1, 19]] += 10
    moved = memories(run)[0].keys[[3, 7, 11]], memories(run)[1].values[[0, 1, 19]]
    run.method.end_task(view(run, 0))
    run.method.begin_task(view(run, 1))
    assert torch.equal(memories(run)[0].frozen_keys, moved[0])
    assert torch.equal(memories(run)[1].frozen_values, moved[1])


@pytest.mark.parametrize(("reference", "frozen"), [("prev_task", 5), ("init", 4)])
def test_movement_counts_from_the_task_before_or_from_the_start(reference, frozen):
    run = fresh(importance_ref=reference, pruning_ratio=0.1, ba_epochs=0, slots=10, growth="topk")
    run.method.begin_task(view(run, 0))
    keys = memories(run)[0].keys.data
    keys[3] += 9
    keys[4] += 5
    fourth, fifth = keys[4].clone(), keys[5] + 2
    next_task(run, 1)  # 3 is frozen, those behind it move up
    memories(run)[0].keys.data[4] += 2
    next_task(run, 2)
    torch.testing.assert_close(memories(run)[0].frozen_keys[1], {4: fourth, 5: fifth}[frozen])


def next_task(run, position):
    run.method.end_task(view(run, position - 1))
    run.method.begin_task(view(run, position))


def test_growth_at_the_next_task_leaves_the_outputs_as_they_were_until_then():
    run, images = learn(fresh(), 0), tiny_run("edd").scenario.dataset.test.x[:20]
    before = run.method.predict(images)
    task = view(run, 1)
    run.method.end_task(view(run, 0))
    assert torch.equal(run.method.predict(images), before)
    run.method.begin_task(task)
    assert not torch.equal(run.method.predict(images), before)


def test_growth_at_the_end_of_a_task_changes_the_outputs_that_are_measured():
    images = tiny_run("edd").scenario.dataset.test.x[:20]
    early, late = (learn(fresh(expand_at=at), 0) for at in ("task_end", "next_task_begin"))
    assert not torch.equal(early.method.predict(images), late.method.predict(images))
    for run in (early, late):
        run.random.start_task(1)
        run.method.begin_task(view(run, 1))
    assert torch.equal(early.method.predict(images), late.method.predict(images))


def test_adaptation_changes_the_running_statistics_of_the_teacher_and_nothing_else():
    plain, adapted = begun(ba_epochs=0), begun(ba_epochs=2)
    before, after = (r.method.teacher.net.state_dict() for r in (plain, adapted))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {name for name in before if name.endswith(statistics)}
    assert difference(plain.method.net.state_dict(), adapted.method.net.state_dict()) is None
    assert not any(module.training for module in adapted.method.teacher.net.modules())
    assert not any(p.requires_grad for p in adapted.method.teacher.net.parameters())


def test_adaptation_makes_its_passes_over_the_images_of_the_new_task():
    plain, adapted = (begun(ba_epochs=epochs) for epochs in (0, 3))
    images = len(adapted.scenario.tasks[1].train)
    task = view(adapted, 2)
    adapted.method._adapt(task)
    assert task.tally.samples == 3 * len(adapted.scenario.tasks[2].train)
    norms = [m for m in adapted.method.teacher.net.modules() if isinstance(m, nn.BatchNorm2d)]
    already = [m for m in plain.method.teacher.net.modules() if isinstance(m, nn.BatchNorm2d)]
    steps = norms[0].num_batches_tracked - already[0].num_batches_tracked
    assert steps == 3 * (-(-images // 32) + -(-len(adapted.scenario.tasks[2].train) // 32))


def test_the_network_may_take_over_the_adapted_statistics():
    run = begun(student_bn="adapted", ba_epochs=2)
    ours, theirs = run.method.backbone, run.method.teacher.net.backbone
    assert difference(dict(ours.named_buffers()), dict(theirs.named_buffers())) is None
    own = begun(ba_epochs=2)
    ours, theirs = own.method.backbone, own.method.teacher.net.backbone
    assert difference(dict(ours.named_buffers()), dict(theirs.named_buffers())) is not None


def test_the_order_of_the_slots_makes_no_difference_to_any_loss():
    run = begun()
    plain_views(run)
    learn_a_little(run)
    batch = a_batch(run, 1)
    before = terms(run, batch)
    old = torch.randperm(17, generator=torch.Generator().manual_seed(0))
    frozen, new = torch.tensor([2, 0, 1]), torch.tensor([19, 17, 18])  # which the teacher has not
    for memory in (*memories(run), *run.method.teacher.net.memories.all()):
        for name, tensor in memory.state_dict(keep_vars=True).items():
            order = old if len(tensor) == 17 else torch.cat([old, new])
            tensor.data = tensor.data[frozen if name.startswith("frozen") else order]
    for name, term in terms(run, batch).items():
        torch.testing.assert_close(term, before[name], rtol=1e-4, atol=1e-6)


def saved_and_loaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("expand_at", ["task_end", "next_task_begin"])
def test_a_state_after_growth_is_taken_up_by_a_method_that_has_not_grown(expand_at):
    first = begun(2, expand_at=expand_at, changes=ADAM)
    second = fresh(expand_at=expand_at, changes=ADAM)
    stream = list(first._batches(first.scenario.tasks[2]))
    first.method.observe(stream[0])
    second.method.load_state_dict(saved_and_loaded(first.method.state_dict()))
    assert difference(first.method.state_dict(), second.method.state_dict()) is None
    for batch in stream[1:3]:
        losses = first.method.observe(batch), second.method.observe(batch)
        assert difference(*losses) is None
    for run in (first, second):
        run.method.end_task(view(run, 2))
    again = fresh(expand_at=expand_at, changes=ADAM)
    again.method.load_state_dict(saved_and_loaded(second.method.state_dict()))
    for run in (first, again):
        run.random.start_task(3)
        run.method.begin_task(view(run, 3))
        run.method.observe(stream[0])
    assert difference(first.method.state_dict(), again.method.state_dict()) is None


@pytest.mark.parametrize(
    "settings",
    [{"query": "channel"}, {"softmax": "positions"}, {"read": "augmented"}, {"read": "resnet"}],
)
def test_other_readings_learn_two_tasks(settings):
    run = learn(fresh(**settings), 0, 1)
    scores = run.method.predict(run.scenario.dataset.test.x[:8])
    assert scores.isfinite().all()


def test_the_memories_count_as_extra_parameters_and_the_teacher_as_such():
    run = begun()
    slots = 23 + 23 + 20 + 20  # keys, values, and the references of those that learn
    held = run.method.memory()
    assert held["extra parameters"] == 4 * slots * (4 + 8)
    net = sum(t.nbytes for t in run.method.net.state_dict().values())
    known = 20 + 20 + 17 + 17  # the teacher has no new slots
    assert held["teachers"] == net + 4 * known * (4 + 8)


def test_the_teacher_says_what_the_network_said_when_it_was_measured():
    run, images = learn(fresh(ba_epochs=0), 0), tiny_run("edd").scenario.dataset.test.x[:20]
    before = run.method.predict(images)
    run.random.start_task(1)
    run.method.begin_task(view(run, 1))
    found = run.method.teacher(run.method.ctx.normalize(images)).logits
    torch.testing.assert_close(found, before)
    assert not torch.allclose(run.method.predict(images), before)


@pytest.mark.parametrize(
    "wrong",
    [
        {"slots": 0},
        {"max_slots": 19},
        {"pruning_ratio": 1.5},
        {"lambda_mem": -1.0},
        {"temperature": 0.0},
        {"ba_epochs": -1},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**{**SMALL, **wrong})
