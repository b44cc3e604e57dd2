"""Progressive networks: what is frozen, what the adapters look like, how columns are compared."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import CPU, difference, tiny_run, tiny_trial, trained, view
from torch.nn import functional as F

from harness.trial import TrialRun
from methods.backbones import cnn, mammoth_resnet18, mlp
from methods.base import Planned, Training
from methods.objectives.simclr import SimCLR
from methods.parts.progressive_columns import Laterals, class_scores, log_probabilities
from methods.supervised import pnn

COUNTER = 8  # bytes of a batch normalisation's counter


def learned(tasks, **changes):
    run = tiny_run("pnn", **changes)
    for task in run.scenario.tasks[:tasks]:
        run._learn(task)
    return run


def images(run, count=40):
    return run.scenario.dataset.test.x[:count]


def variant(**settings):
    return pnn.PNN(pnn.Config(**settings), tiny_run("pnn", augmentation="none").method.ctx)


def test_the_columns_of_past_tasks_stay_as_they_are_to_the_last_bit():
    run = learned(2)
    run.method.begin_task(view(run, 2))
    before = copy.deepcopy(run.method.old.state_dict())
    assert any("running_mean" in name for name in before["columns"][0])
    for batch in run._batches(run.scenario.tasks[2]):
        run.method.observe(batch)
    assert difference(run.method.old.state_dict(), before) is None
    assert len(before["columns"]) == 2


def test_later_learning_does_not_change_the_scores_of_a_task_within_it():
    run = learned(2)
    x = images(run)
    before = run.method.predict(x)
    for task in run.scenario.tasks[2:4]:
        run._learn(task)
    after = run.method.predict(x)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4:], after[:, 4:])


def test_task_il_accuracy_of_a_task_never_changes_once_it_is_learned():
    rows = [r for r in trained("pnn").rows if r.metric == "accuracy_task_il"]
    for task in range(5):
        assert len({r.value for r in rows if r.on_task == task and r.after_task >= task}) == 1


def test_adapters_scale_all_older_maps_and_reduce_them_to_those_of_one_column():
    laterals = learned(3).method.column.laterals
    scale, reduce, _, stage = laterals.into[0]
    assert len(laterals.into) == 1  # two stages, one gap between them
    assert scale.alpha.shape == (2 * 4, 8, 8)
    assert reduce.weight.shape == (4, 2 * 4, 1, 1)
    assert next(stage.parameters()).shape == (8, 4, 3, 3)
    scale, reduce, _, head = laterals.outputs
    assert scale.alpha.shape == (2 * 8,)
    assert (reduce.in_features, reduce.out_features) == (2 * 8, 8)
    assert (head.in_features, head.out_features) == (8, 10)


@pytest.mark.parametrize("older", [1, 2])
def test_with_mammoths_resnet18_the_adapters_have_the_parameters_counted_by_hand(older):
    with torch.device("meta"):
        fresh = mammoth_resnet18.build(mammoth_resnet18.Config(), (3, 32, 32))
        laterals = Laterals(older, fresh, (3, 32, 32), 10)
    assert sum(p.numel() for p in fresh.parameters()) == 11_168_832
    expected = older * (64 * 32 * 32 + 128 * 16 * 16 + 256 * 8 * 8 + 512)  # scales
    expected += sum(older * c * c + c for c in (64, 128, 256, 512))  # to the channels of one
    for before, after in ((64, 128), (128, 256), (256, 512)):  # lateral stages of two blocks
        expected += 9 * (before * after + 3 * after * after) + 4 * 2 * after
        expected += before * after + 2 * after  # shortcut
    expected += 512 * 10 + 10
    assert sum(p.numel() for p in laterals.parameters()) == expected


def test_the_third_column_hears_the_two_older_ones_between_its_stages_and_in_its_outputs():
    run = learned(3)
    method, x = run.method, images(run)
    found = method.predict(x)
    newest = method.column.eval()

    def stage(column, i, h):
        pooled = F.max_pool2d(h, 2) if i else h
        convolution, norm = [m for m in column if hasattr(m, "weight")]
        h = F.conv2d(pooled, convolution.weight, padding=1)
        return F.relu(norm(h))

    def adapted(adapter, heard):
        reduce = adapter[1]
        return F.relu(F.conv2d(heard * adapter[0].alpha, reduce.weight, reduce.bias))

    maps, features, logits = [], [], []
    for column in (*method.old._columns, newest):
        laterals = column.laterals
        h1 = stage(column.backbone.stages[0], 0, method.ctx.normalize(x))
        h2 = stage(column.backbone.stages[1], 1, h1)
        if maps:
            lateral = stage(laterals.into[0][3], 1, adapted(laterals.into[0], torch.cat(maps, 1)))
            h2 = F.relu(h2 + lateral)
        phi = h2.mean((2, 3))
        out = phi @ column.head.weight.T + column.head.bias
        if maps:
            scale, reduce, _, head = laterals.outputs
            heard = torch.cat(features, 1) * scale.alpha
            hidden = F.relu(heard @ reduce.weight.T + reduce.bias)
            out = out + hidden @ head.weight.T + head.bias
        maps, features, logits = [*maps, h1], [*features, phi], [*logits, out]
    expected = torch.cat([logits[0][:, :2], logits[1][:, 2:4], logits[2][:, 4:]], 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.embed(x), features[2], rtol=1e-4, atol=1e-5)


def test_memory_is_that_of_the_frozen_columns_and_of_all_adapters():
    column = 4 * (36 + 4 * 4 + 288 + 4 * 8 + 90) + 2 * COUNTER

    def laterals(older):
        into = older * 4 * 64 + (older * 4 * 4 + 4) + 288 + 4 * 8
        return 4 * (into + older * 8 + (older * 8 * 8 + 8) + 90) + COUNTER

    assert learned(1).method.memory() == {"extra parameters": 0}
    assert learned(2).method.memory() == {"extra parameters": column + laterals(1)}
    three = {"extra parameters": 2 * column + laterals(1) + laterals(2)}
    assert learned(3).method.memory() == three


@pytest.mark.parametrize("fresh_optimizer", [True, False])
def test_a_new_column_and_its_adapters_are_all_that_is_trained(fresh_optimizer):
    run = learned(1, fresh_optimizer=fresh_optimizer)
    run.method.begin_task(view(run, 1))
    new = run.method.column
    before = [p.detach().clone() for p in new.parameters()]
    run.method.observe(next(iter(run._batches(run.scenario.tasks[1]))))
    assert all(not torch.equal(b, p) for b, p in zip(before, new.parameters(), strict=True))
    assert run.method.parameters() == sum(p.numel() for p in new.parameters())
    assert all(not p.requires_grad for c in run.method.old._columns for p in c.parameters())


@pytest.mark.parametrize("train_on", ["slice", "all"])
def test_a_column_trains_on_the_outputs_of_its_task_or_on_all(train_on):
    method = variant(train_on=train_on)
    run = tiny_run("pnn")
    for position in range(2):
        method.begin_task(view(run, position))
    batch = next(iter(run._batches(run.scenario.tasks[1])))
    found = method.loss(batch)["stream"].detach()
    x = method.ctx.normalize(batch.x)
    logits = method.column(x, method.old(x)).logits.detach().double()
    if train_on == "slice":
        logits = torch.cat([torch.full_like(logits[:, :2], -1e9), logits[:, 2:4]], 1)
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    expected = -p[torch.arange(len(p)), batch.y].log().mean()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_before_training_the_scores_are_those_of_the_shared_network():
    method = tiny_run("pnn").method
    finetuned = tiny_run("finetune").method
    x = images(tiny_run("pnn"))
    assert torch.equal(method.predict(x), finetuned.predict(x))


def test_classes_that_no_column_has_learned_have_the_newest_columns_logits():
    logits = [torch.randn(3, 6), torch.randn(3, 6)]
    for rule in ("concat_logits", "max_softmax", "min_entropy"):
        scores = class_scores(logits, [2, 4], rule, whole=False)
        assert scores.shape == (3, 6)
        assert torch.equal(scores[:, 4:].float(), logits[1][:, 4:])


def columns(*probabilities):
    """Columns with these probabilities over their own classes, each beside nonsense elsewhere."""
    stops, logits = [], []
    total = sum(map(len, probabilities))
    for own in probabilities:
        start = stops[-1] if stops else 0
        stops.append(start + len(own))
        row = torch.full((1, total), 9.0)
        row[0, start : stops[-1]] = torch.tensor(own).log()
        logits.append(row)
    return logits, stops


def test_the_rules_disagree_where_they_should():
    logits, stops = columns([0.6, 0.2, 0.2], [0.55, 0.449, 0.001])
    logits[0][:, :3] -= 3  # what says the same within the column, but less loudly
    best = {
        rule: int(class_scores(logits, stops, rule, whole=False).argmax(1))
        for rule in ("concat_logits", "max_softmax", "min_entropy")
    }
    # Loudest: the second. Likeliest class: 0.6. Entropies: 0.95 and 0.70.
    assert best == {"concat_logits": 3, "max_softmax": 0, "min_entropy": 3}


def test_probabilities_may_be_those_of_all_outputs():
    # Within its own two classes the first column is surer; among all, it does not mean them.
    logits = [torch.tensor([[5.0, 0.0, 9.0, 0.0]]), torch.tensor([[0.0, 0.0, 5.0, 4.0]])]
    for rule in ("max_softmax", "min_entropy"):
        assert int(class_scores(logits, [2, 4], rule, whole=False).argmax(1)) == 0
    among_all = class_scores(logits, [2, 4], "max_softmax", whole=True)
    torch.testing.assert_close(among_all[:, :2], logits[0].double().log_softmax(1)[:, :2])
    assert int(among_all.argmax(1)) == 2


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("rule", ["max_softmax", "min_entropy"])
def test_the_rules_agree_with_a_loop_over_images_and_columns(rule, whole):
    rng = torch.Generator().manual_seed(0)
    logits = [4 * torch.randn(50, 9, generator=rng) for _ in range(3)]
    stops = [2, 5, 9]
    own = [range(2), range(2, 5), range(5, 9)]
    found = class_scores(logits, stops, rule, whole=whole)
    for image in range(50):
        columns = []
        for row, classes in zip((one[image].tolist() for one in logits), own, strict=True):
            over = torch.tensor(row if whole else [row[c] for c in classes]).double()
            p = over.softmax(0)
            entropy = -sum(float(one) * float(one.log()) for one in p)
            best = max(classes, key=lambda c, row=row: row[c])
            likely = float(p[best if whole else best - classes.start])
            columns.append((entropy if rule == "min_entropy" else -likely, best))
        assert int(found[image].argmax()) == min(columns)[1]
        for row, classes in zip((one[image] for one in logits), own, strict=True):
            ours = found[image, classes.start : classes.stop].argsort()
            assert torch.equal(ours, row[classes.start : classes.stop].argsort())


def test_a_column_that_is_surer_wins_where_single_precision_sees_no_difference():
    logits = [torch.tensor([[20.0, 0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 60.0, 0.0]])]
    assert torch.equal(logits[0][:, :2].softmax(1).max(), logits[1][:, 2:].softmax(1).max())
    for rule in ("max_softmax", "min_entropy"):
        assert int(class_scores(logits, [2, 4], rule, whole=False).argmax(1)) == 2


def test_log_probabilities_are_the_logarithms_of_the_softmax():
    logits = 3 * torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(log_probabilities(logits), logits.double().log_softmax(1))


@pytest.mark.parametrize("later", [0, 4])
def test_a_state_brings_its_number_of_columns(later):
    run, other = learned(2), learned(later, seed=1)
    other.method.load_state_dict(run.method.state_dict())
    assert len(other.method.old) == 1
    assert other.method.old.stops == [2]
    assert difference(run.method.state_dict(), other.method.state_dict()) is None
    x = images(run)
    assert torch.equal(run.method.predict(x), other.method.predict(x))
    assert run.method.memory() == other.method.memory()


def test_tasks_of_one_class_can_be_learned():
    trial = tiny_trial("pnn")
    trial = replace(trial, spec=replace(trial.spec, num_tasks=10))
    run = TrialRun(trial, Path("/nowhere"), CPU)
    for task in run.scenario.tasks[:3]:
        run._learn(task)
    assert run.method.predict(images(run)).isfinite().all()


def planned(backbone, task_classes=(2,) * 5):
    return Planned(Training(), SimCLR, backbone, False, (1, 8, 8), 10, task_classes)


def test_tasks_that_share_their_classes_are_refused():
    net = cnn.CNN(cnn.Config((4, 8)), (1, 8, 8))
    pnn.PNN.check(pnn.Config(), planned(net))
    with pytest.raises(ValueError, match="classes of their own"):
        pnn.PNN.check(pnn.Config(), planned(net, (10, 10)))


def test_a_backbone_without_stages_is_refused():
    with pytest.raises(ValueError, match="stages"):
        pnn.PNN.check(pnn.Config(), planned(mlp.build(mlp.Config(), (1, 8, 8))))
