"""DER without pruning: what is frozen, how the classifier grows, both losses, the last stage."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny import difference, finish, tiny_run, tiny_trial, view
from torch import nn
from torch.nn import functional as F

from harness import protocol
from harness.errors import UserError
from methods.parts.expanding_net import OlderWeights, SuperHead, told_apart
from methods.supervised.der_expand import Config, DERExpand

BACKBONE = 4 * (36 + 4 * 4 + 288 + 4 * 8) + 2 * 8  # bytes of it, with statistics and two counters
BLOCK = 4 * 10 * 8  # weights of ten classes for the features of one backbone


def run_of(config=None, **changes):
    run = tiny_run("der_expand", **changes)
    if config is not None:
        run.method = DERExpand(config, run.method.ctx)
    return run


def learned(tasks, config=None, **changes):
    run = run_of(config, **changes)
    for task in run.scenario.tasks[:tasks]:
        run._learn(task)
    return run


def begun(tasks, config=None, **changes):
    """A run whose method has learned so many tasks, and began the next."""
    run = learned(tasks, config, **changes)
    run.random.start_task(tasks)
    run.method.begin_task(view(run, tasks))
    return run


def images(run, count=30):
    return run.scenario.dataset.test.x[:count]


def state_of(module):
    return copy.deepcopy(module.state_dict())


def stream(run, position):
    return run._batches(run.scenario.tasks[position])


def logits_by_hand(method, x):
    """Every backbone by itself, and one product over all their features."""
    x = method.ctx.normalize(x)
    nets = [*method.old._backbones, method.backbone]
    with torch.no_grad():
        features = torch.cat([net(x) for net in nets], 1)
        weights = torch.cat([method.classifier.older.weight, method.head.weight], 1)
        return features @ weights.T + method.head.bias


# What is frozen


@pytest.mark.parametrize("stage", ["balanced_finetune", "weight_align", "none"])
def test_old_backbones_stay_as_they_are_to_the_last_bit_while_a_task_is_learned(stage):
    run = learned(2, Config(head_stage=stage, finetune_epochs=2), weight_decay=0.1, momentum=0.9)
    method = run.method
    newest = state_of(method.backbone)
    older = state_of(method.old)
    assert any("running_mean" in name for name in older["backbones"][0])
    assert any("num_batches_tracked" in name for name in newest)
    run._learn(run.scenario.tasks[2])
    assert len(method.old) == 2
    assert difference(method.old.state_dict()["backbones"][0], older["backbones"][0]) is None
    assert difference(method.old.state_dict()["backbones"][1], newest) is None
    assert difference(method.backbone.state_dict(), newest) is not None


def test_old_backbones_are_in_eval_mode_without_gradients_whatever_the_network_is_told():
    run = begun(2)
    run.method.net.train()
    run.method.observe(next(iter(stream(run, 2))))
    for backbone in run.method.old._backbones:
        assert not any(module.training for module in backbone.modules())
        assert not any(p.requires_grad for p in backbone.parameters())
        assert all(p.grad is None for p in backbone.parameters())
    assert run.method.backbone.training


@pytest.mark.parametrize("fresh_optimizer", [True, False])
def test_the_new_backbone_and_both_classifiers_are_all_that_is_trained(fresh_optimizer):
    run = begun(2, fresh_optimizer=fresh_optimizer)
    method = run.method
    new = [
        *method.backbone.parameters(),
        *method.head.parameters(),
        method.classifier.older.weight,
        *method.auxiliary.parameters(),
    ]
    assert method.parameters() == sum(p.numel() for p in new)
    before = [p.detach().clone() for p in new]
    method.observe(next(iter(stream(run, 2))))
    assert all(not torch.equal(b, p) for b, p in zip(before, new, strict=True))


def test_the_auxiliary_classifier_is_gone_when_the_task_is_over():
    method = learned(2).method
    assert not list(method.auxiliary.parameters())
    assert method.parameters() == (36 + 8 + 288 + 16) + 2 * 8 * 10 + 10


# How the network grows


def test_features_are_those_of_all_backbones_side_by_side():
    run = learned(3)
    method, x = run.method, images(run)
    found = method.embed(x)
    assert found.shape == (30, 3 * 8)
    method.backbone.eval()
    parts = [net(method.ctx.normalize(x)) for net in (*method.old._backbones, method.backbone)]
    for k, part in enumerate(parts):
        assert torch.equal(found[:, 8 * k : 8 * k + 8], part.detach())
    assert not torch.equal(parts[0], parts[1])
    torch.testing.assert_close(method.predict(x), logits_by_hand(method, x))


def test_a_new_backbone_begins_as_the_last_one_ended_statistics_included():
    run = learned(2)
    last = state_of(run.method.backbone)
    run.random.start_task(2)
    run.method.begin_task(view(run, 2))
    assert difference(run.method.backbone.state_dict(), last) is None
    assert all(p.requires_grad for p in run.method.backbone.parameters())
    ours = {p.data_ptr() for p in run.method.backbone.parameters()}
    assert not ours & {p.data_ptr() for p in run.method.old._backbones[-1].parameters()}


def test_a_new_backbone_may_begin_with_weights_of_its_own():
    run = begun(2, Config(init_from_previous=False))
    fresh = run.method.ctx.backbone("expansion", 2)
    assert difference(run.method.backbone.state_dict(), fresh.state_dict()) is None
    assert difference(fresh.state_dict(), run.method.ctx.backbone().state_dict()) is not None
    other = run.method.ctx.backbone("expansion", 1)
    assert difference(fresh.state_dict(), other.state_dict()) is not None


def test_weights_of_old_classes_for_old_features_are_inherited_and_the_others_new():
    run = learned(2)
    method = run.method
    old, bias = method.classifier.weights(), method.head.bias.detach().clone()
    run.random.start_task(2)
    method.begin_task(view(run, 2))
    grown = method.classifier.weights()
    assert old.shape == (10, 16)
    assert grown.shape == (10, 24)
    assert torch.equal(grown[:4, :16], old[:4])
    assert torch.equal(method.head.bias[:4], bias[:4])
    assert not torch.isin(grown[4:, :16], old[4:]).any()
    assert not torch.isin(method.head.bias[4:], bias[4:]).any()
    new = torch.cat([grown[:4, 16:].flatten(), grown[4:].flatten(), method.head.bias[4:].detach()])
    bound = 24**-0.5  # PyTorch's, by the number of all features
    assert new.abs().max() < bound
    assert new.abs().max() > 0.9 * bound
    assert grown.requires_grad is False


def test_the_weights_of_old_classes_may_be_forgotten():
    run = begun(2, Config(reuse_old_head=False))
    fresh = run.method._fresh_head("expansion")
    assert difference(run.method.classifier.state_dict(), fresh.state_dict()) is None
    inheriting = begun(2).method.classifier.weights()
    assert torch.equal(inheriting[4:], fresh.weights()[4:])
    assert not torch.equal(inheriting[:4, :16], fresh.weights()[:4, :16])


def test_a_fresh_classifier_is_one_layer_over_all_features():
    torch_layer = SuperHead.fresh(0, 5, 3)
    assert torch_layer.older.weight.shape == (3, 0)
    older, own = torch.randn(4, 6), torch.randn(4, 5)
    head = SuperHead.fresh(6, 5, 3)
    wanted = torch.cat([older, own], 1) @ head.weights().T + head.own.bias
    torch.testing.assert_close(head(older, own), wanted)
    torch.testing.assert_close(torch_layer(torch.empty(4, 0), own), torch_layer.own(own))


def test_before_training_the_scores_are_those_of_the_shared_network():
    run = run_of()
    x = images(run)
    assert torch.equal(run.method.predict(x), tiny_run("finetune").method.predict(x))


# The losses


def test_to_the_auxiliary_classifier_all_old_classes_are_one():
    y = torch.tensor([0, 3, 4, 5, 6, 2])
    assert told_apart(y, 4).tolist() == [0, 0, 1, 2, 3, 0]
    assert told_apart(torch.tensor([0, 1]), 1).tolist() == [0, 1]


@pytest.mark.parametrize("classes", [range(4, 5), range(4, 9)])
def test_the_auxiliary_classifier_has_an_output_for_each_new_class_and_one_for_the_rest(classes):
    method = learned(2).method
    method.current.begin(SimpleNamespace(position=2, classes=classes))
    method._expand()
    assert method.auxiliary.layer.out_features == len(classes) + 1
    assert method.auxiliary.layer.in_features == 8


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_the_losses_of_a_later_task_against_loops(weight):
    run = begun(2, Config(aux_weight=weight), augmentation="none")
    method = run.method
    batch = next(iter(stream(run, 2)))
    saved = copy.deepcopy(method.state_dict())
    method.net.train()
    method.before_passes(batch)
    terms = {name: float(term.detach()) for name, term in method.loss(batch).items()}
    method.load_state_dict(saved)
    method.net.train()
    old_x, old_y = method.rehearsal.draw(method.ctx.random("replay"))
    assert len(old_y) == -(-16 // len(stream(run, 2)))  # four of each of four classes
    assert set(old_y.tolist()) <= {0, 1, 2, 3}
    x = method.ctx.normalize(torch.cat([batch.x, old_x]))
    y = torch.cat([batch.y, old_y]).tolist()
    with torch.no_grad():
        older = [backbone(x) for backbone in method.old._backbones]
        own = method.backbone(x)  # by the statistics of new and old images together
    main, apart = 0.0, 0.0
    weights, bias = method.classifier.weights(), method.head.bias.detach()
    layer = method.auxiliary.layer
    for i, label in enumerate(y):
        phi = torch.cat([older[0][i], older[1][i], own[i]])
        logits = [float(weights[c] @ phi + bias[c]) for c in range(6)]
        main -= float(torch.tensor(logits).log_softmax(0)[label])
        logits = [float((layer.weight[k] @ own[i] + layer.bias[k]).detach()) for k in range(3)]
        target = {4: 1, 5: 2}.get(label, 0)
        apart -= float(torch.tensor(logits).log_softmax(0)[target])
    assert set(terms) == {"cross_entropy", "auxiliary"}
    assert terms["cross_entropy"] == pytest.approx(main / len(y), rel=1e-4)
    assert terms["auxiliary"] == pytest.approx(weight * apart / len(y), rel=1e-4)


def test_the_first_task_has_the_cross_entropy_alone():
    run = begun(0)
    assert set(run.method.observe(next(iter(stream(run, 0))))) == {"cross_entropy"}


def test_without_a_weight_there_is_no_auxiliary_classifier():
    run = begun(1, Config(aux_weight=0))
    assert not run.method.auxiliary
    assert set(run.method.observe(next(iter(stream(run, 1))))) == {"cross_entropy"}


def test_the_auxiliary_loss_does_not_reach_the_classifier():
    run = begun(1)
    batch = next(iter(stream(run, 1)))
    run.method.net.train()
    run.method.before_passes(batch)
    run.method.loss(batch)["auxiliary"].backward()
    assert run.method.head.weight.grad is None
    assert run.method.classifier.older.weight.grad is None
    assert all(p.grad.any() for p in run.method.auxiliary.parameters())
    assert next(run.method.backbone.parameters()).grad.any()


# The classifier's own stage


def test_weight_aligning_scales_the_rows_of_new_classes_alone():
    head = SuperHead(nn.Linear(1, 4), OlderWeights(4, 2))
    rows = torch.tensor([[3.0, 0.0, 4.0], [0.0, 1.0, 0.0], [6.0, 0.0, 8.0], [0.0, 2.0, 0.0]])
    bias = torch.tensor([1.0, 2.0, 3.0, 4.0])
    head.assign(rows, bias)
    head.align(range(1, 3))  # lengths 5, then 1 and 10, and a class not seen yet
    factor = 5 / 5.5
    wanted = rows * torch.tensor([1.0, factor, factor, 1.0])[:, None]
    torch.testing.assert_close(head.weights(), wanted)
    assert torch.equal(head.own.bias.detach(), bias)


def test_weight_aligning_is_all_that_the_stage_of_that_name_does():
    plain = learned(2, Config(head_stage="none")).method
    aligned = learned(2, Config(head_stage="weight_align")).method
    assert difference(plain.backbone.state_dict(), aligned.backbone.state_dict()) is None
    before, after = plain.classifier.weights(), aligned.classifier.weights()
    assert torch.equal(after[:2], before[:2])
    assert torch.equal(after[4:], before[4:])
    length = after.norm(dim=1)
    assert float(length[2:4].mean()) == pytest.approx(float(length[:2].mean()), rel=1e-5)
    ratio = after[2:4] / before[2:4]
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio[0, 0])))


@pytest.mark.parametrize("stage", ["balanced_finetune", "weight_align"])
def test_the_first_task_has_no_stage_of_its_own(stage):
    plain, other = (learned(1, Config(head_stage=s)).method for s in ("none", stage))
    assert difference(plain.state_dict(), other.state_dict()) is None


def test_finetuning_leaves_every_backbone_and_its_statistics_alone():
    plain = learned(2, Config(head_stage="none")).method
    tuned = learned(2, Config(finetune_epochs=2)).method
    assert difference(plain.backbone.state_dict(), tuned.backbone.state_dict()) is None
    assert difference(plain.old.state_dict(), tuned.old.state_dict()) is None
    assert not torch.isin(tuned.classifier.weights()[:4], plain.classifier.weights()).any()


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_finetuning_is_sgd_with_momentum_on_a_classifier_made_anew(temperature):
    config = Config(
        finetune_epochs=3,
        finetune_lr=0.1,
        finetune_decay_after=2,
        finetune_weight_decay=0.01,
        temperature=temperature,
    )
    run = learned(2, config, augmentation="none", batch_size=6)
    method = run.method
    rng = torch.Generator()
    rng.set_state(method.ctx.random("finetune").get_state())
    steps = [float(losses["classifier"]) for losses in method._finetune()]
    stored = method.rehearsal.everything()
    assert stored["y"].tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    features, y = method.embed(stored["x"]), stored["y"]
    fresh = method._fresh_head("finetune")
    w = torch.cat([fresh.weights(), fresh.own.bias.detach()[:, None]], 1)
    velocity = torch.zeros_like(w)
    wanted = []
    for rate in (0.1, 0.1, 0.01):
        for rows in torch.randperm(16, generator=rng).split(6):
            phi = torch.cat([features[rows], torch.ones(len(rows), 1)], 1)
            logits = phi @ w[:4].T / temperature
            off = logits.softmax(1) - F.one_hot(y[rows], 4)
            gradient = torch.zeros_like(w)
            gradient[:4] = off.T @ phi / len(rows) / temperature
            velocity = 0.9 * velocity + gradient + 0.01 * w
            wanted.append(float(F.cross_entropy(logits, y[rows])))
            w = w - rate * velocity
    assert steps == pytest.approx(wanted, rel=1e-4)
    torch.testing.assert_close(method.classifier.weights(), w[:, :-1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(method.head.bias.detach(), w[:, -1], rtol=1e-4, atol=1e-6)


def test_finetuning_sees_random_views_of_the_exemplars():
    method = learned(1).method
    shown = []
    method.views = lambda x: (shown.append(x), method.ctx.normalize(x) + len(shown))[1]
    rows = torch.arange(4)
    losses = [method._finetune_loss(rows).item() for _ in range(2)]
    assert losses[0] != losses[1]
    assert all(torch.equal(x, method.rehearsal.everything()["x"][:4]) for x in shown)


def test_finetuning_uses_equally_many_images_of_every_class_if_one_has_few():
    run = learned(1, Config(finetune_epochs=1))
    task = run.scenario.tasks[1]
    y = run.scenario.dataset.train.y[task.train]
    few = torch.cat([task.train[y == 2][:3], task.train[y == 3]])
    run.scenario = replace(
        run.scenario,
        tasks=(run.scenario.tasks[0], replace(task, train=few), *run.scenario.tasks[2:]),
    )
    run._learn(run.scenario.tasks[1])
    method = run.method
    labels = method.rehearsal.everything()["y"]
    assert labels.bincount().tolist() == [4, 4, 3, 4]
    seen = []
    loss = method._finetune_loss
    method._finetune_loss = lambda rows: (seen.append(rows), loss(rows))[1]
    list(method._finetune())
    assert labels[torch.cat(seen)].bincount().tolist() == [3, 3, 3, 3]
    assert len(torch.cat(seen).unique()) == 12


# Exemplars


@pytest.mark.parametrize(("quota", "each"), [("per_class", [4, 4, 4]), ("total", [20, 10, 6])])
def test_every_class_has_equally_many_exemplars_of_a_fixed_or_a_falling_number(quota, each):
    run = run_of(Config(quota=quota, head_stage="none"))
    for done, count in enumerate(each):
        run._learn(run.scenario.tasks[done])
        labels = run.method.rehearsal.everything()["y"]
        assert labels.bincount().tolist() == [count] * (2 * done + 2)


def test_exemplars_follow_the_mean_direction_of_the_super_features():
    run = learned(2)
    method, train = run.method, run.scenario.dataset.train
    stored = method.rehearsal.everything()
    rows = run.scenario.tasks[1].train
    for label in (2, 3):
        own = train.x[rows[train.y[rows] == label]]
        features = method.embed(own).double()
        features = features / features.norm(dim=1, keepdim=True)
        assert features.shape[1] == 16
        mean, chosen = features.mean(0), []
        for _ in range(4):
            distances = {
                i: float((mean - features[[*chosen, i]].mean(0)).norm())
                for i in range(len(own))
                if i not in chosen
            }
            chosen.append(min(distances, key=distances.get))
        assert torch.equal(stored["x"][stored["y"] == label], own[chosen])


def test_an_epoch_passes_over_every_exemplar_about_once():
    run = begun(2)
    method, labels = run.method, []
    for batch in stream(run, 2):
        method.before_passes(batch)
        labels.append(method.drawn[1])
    counts = torch.cat(labels).bincount(minlength=6).tolist()
    batches = len(stream(run, 2))
    assert sum(counts) == batches * -(-16 // batches)
    assert all(4 <= count <= 8 for count in counts[:4])
    assert counts[4:] == [0, 0]


# What is held


def test_memory_is_that_of_the_exemplars_and_of_all_backbones_but_one():
    for tasks in (1, 2, 3):
        held = learned(tasks).method.memory()
        assert held == {
            "exemplars": 4 * 2 * tasks * (64 + 8),  # images and labels
            "extra parameters": (tasks - 1) * (BACKBONE + BLOCK),
        }


@pytest.mark.parametrize("later", [0, 4])
def test_a_state_brings_its_number_of_backbones(later):
    run, other = learned(2), learned(later, seed=1)
    other.method.load_state_dict(run.method.state_dict())
    assert len(other.method.old) == 1
    assert difference(run.method.state_dict(), other.method.state_dict()) is None
    x = images(run)
    assert torch.equal(run.method.predict(x), other.method.predict(x))
    assert torch.equal(run.method.embed(x), other.method.embed(x))
    assert run.method.memory() == other.method.memory()
    for one in (run, other):
        one._learn(one.scenario.tasks[2])
    assert all(not p.requires_grad for p in other.method.old._backbones[0].parameters())


def test_a_state_from_the_middle_of_a_task_brings_its_auxiliary_classifier():
    run, other = begun(2), begun(1, seed=1)
    for batch in list(stream(run, 2))[:2]:
        run.method.observe(batch)
    other.method.load_state_dict(copy.deepcopy(run.method.state_dict()))
    for batch in list(stream(run, 2))[2:]:
        ours, theirs = run.method.observe(batch), other.method.observe(batch)
        assert difference(ours, theirs) is None
        assert "auxiliary" in theirs
    assert difference(run.method.state_dict(), other.method.state_dict()) is None


def test_it_remembers_what_finetuning_forgets():
    def old_tasks(name, config=None):
        run = tiny_run(name, epochs=4, evaluators=["classifier"])
        if config is not None:
            run.method = DERExpand(config, run.method.ctx)
        rows = [r for r in finish(run) if r.metric == "accuracy" and r.after_task == 4]
        return sum(r.value for r in rows if 0 <= r.on_task < 4) / 4

    assert old_tasks("finetune") < 0.1
    assert old_tasks("der_expand", Config()) > 0.3


# What is refused


def test_a_memory_without_room_for_every_class_and_tasks_that_share_classes_are_refused():
    spec = tiny_trial("der_expand", buffer_size=9).spec
    with pytest.raises(UserError, match="buffer_size must hold an image of each of the 10 classes"):
        protocol.check_method(spec, where="suite")
    with pytest.raises(ValueError, match="classes of their own"):
        DERExpand.check(Config(), SimpleNamespace(num_classes=10, task_classes=(10, 10)))


@pytest.mark.parametrize(
    "wrong",
    [{"aux_weight": -1}, {"finetune_epochs": 0}, {"temperature": 0}, {"finetune_decay_after": 0}],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
        Config(**wrong)


def test_attention_is_the_mean_over_backbones_of_the_gradients_of_the_whole_network():
    run = tiny_run("der_expand")
    for task in run.scenario.tasks[:3]:
        run._learn(task)
    method, x = run.method, run.scenario.dataset.test.x[:6]
    y = torch.tensor([0, 1, 2, 3, 4, 5])
    branches = [*method.old, method.backbone.eval()]
    maps = []
    for branch in branches:
        found = method.ctx.normalize(x)
        for stage in branch.stages:
            found = stage(found)
        maps.append(found.detach().requires_grad_())
    features = [branch.pool(found) for branch, found in zip(branches, maps, strict=True)]
    logits = method.classifier(torch.cat(features[:-1], 1), features[-1])
    logits.gather(1, y[:, None]).sum().backward()
    by_hand = [(m.grad.mean((2, 3), keepdim=True) * m).sum(1).clamp(min=0) for m in maps]
    found = method.class_attention(x, y)
    torch.testing.assert_close(found, torch.stack(by_hand).mean(0).detach())
    assert found.max() > 0
