"""LUCIR: its losses against loops, what stays fixed in each phase, which exemplars it keeps."""

import copy
from dataclasses import replace
from math import sqrt
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import CPU, difference, finish, tiny_run, tiny_trial, view
from torch import nn
from torch.nn import functional as F

from harness import plugins, protocol
from harness.errors import UserError
from harness.trial import TrialRun
from methods.parts.cosine_head import CosineHead, margin_ranking
from methods.parts.deck import Deck
from methods.parts.finetuning import Finetuning
from methods.parts.signed_features import remove_last_relu, require_last_relu
from methods.supervised.lucir import LUCIR, Config


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def learned(tasks, config=None, **changes):
    """A run whose method has learned so many tasks, and began the next."""
    run = tiny_run("lucir", **changes)
    if config is not None:
        run.method = LUCIR(config, run.method.ctx)
    for task in run.scenario.tasks[:tasks]:
        run._learn(task)
    run.random.start_task(tasks)
    run.method.begin_task(view(run, tasks))
    return run


def cosine(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))


def state_of(module):
    return copy.deepcopy(module.state_dict())


def test_logits_are_scaled_cosines(rng):
    head = CosineHead(3, 4)
    head.scale.data.fill_(2.5)
    features = torch.randn(5, 3, generator=rng)
    wanted = [[2.5 * cosine(f, w) for w in head.weight.detach()] for f in features]
    torch.testing.assert_close(head(features).detach(), torch.tensor(wanted))
    torch.testing.assert_close(
        2.5 * head.cosines(features, range(2)).detach(), torch.tensor(wanted)
    )


def test_only_the_trained_class_weights_have_gradients(rng):
    head = CosineHead(3, 6)
    head.cosines(torch.randn(5, 3, generator=rng), range(2, 4)).square().sum().backward()
    assert not head.weight.grad[[0, 1, 4, 5]].any()
    assert head.weight.grad[2:4].any()


@pytest.mark.parametrize("hardest", [1, 2, 5])
def test_the_margin_ranking_is_the_mean_over_old_images_and_their_closest_new_classes(hardest, rng):
    cosines = torch.rand(8, 7, generator=rng) * 2 - 1
    y = torch.tensor([0, 5, 2, 3, 6, 1, 3, 4])  # 4 of 7 classes are old
    terms = []
    for row, label in zip(cosines.tolist(), y.tolist(), strict=True):
        if label >= 4:
            continue
        rivals = sorted(row[4:], reverse=True)[:hardest]
        terms += [max(0, 0.5 - row[label] + rival) for rival in rivals]
    ours = margin_ranking(cosines, y, 4, hardest=hardest, margin=0.5)
    assert float(ours) == pytest.approx(sum(terms) / len(terms))


def test_without_old_images_there_is_no_margin_to_keep():
    cosines = torch.ones(3, 4, requires_grad=True)
    loss = margin_ranking(cosines, torch.tensor([2, 3, 3]), 2, hardest=2, margin=0.5)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not cosines.grad.any()


def test_imprinted_weights_are_mean_directions_as_long_as_the_old_weights(rng):
    head = CosineHead(3, 6)
    before = head.weight.detach().clone()
    features, y = torch.randn(7, 3, generator=rng), torch.tensor([3, 2, 3, 3, 2, 3, 2])
    head.imprint(range(2, 4), features, y)
    length = (before[0].norm() + before[1].norm()) / 2
    for label in (2, 3):
        mean = torch.stack(
            [f / f.norm() for f, own in zip(features, y, strict=True) if own == label]
        )
        mean = mean.mean(0)
        torch.testing.assert_close(head.weight[label].detach(), mean / mean.norm() * length)
    assert torch.equal(head.weight[[0, 1, 4, 5]].detach(), before[[0, 1, 4, 5]])


def test_a_task_begins_with_the_imprint_of_its_plain_images():
    run = learned(2)
    method, dataset = run.method, run.scenario.dataset.train
    rows = run.scenario.tasks[2].train
    features = F.normalize(method.embed(dataset.x[rows]))
    for label in (4, 5):
        mean = features[dataset.y[rows] == label].mean(0)
        assert cosine(method.head.weight[label].detach(), mean) == pytest.approx(1, abs=1e-5)


def test_without_imprint_new_weights_stay_as_they_were_made():
    run = learned(1, Config(imprint=False))
    fresh = LUCIR(Config(), run.method.ctx)
    assert torch.equal(run.method.head.weight[2:4], fresh.head.weight[2:4])


@pytest.mark.parametrize(("tasks", "weight"), [(1, 5.0), (2, 5 * sqrt(2)), (3, 5 * sqrt(3))])
def test_the_distillation_weighs_more_the_more_classes_are_old(tasks, weight):
    assert learned(tasks).method.distillation_weight == pytest.approx(weight)


def test_the_weight_of_the_distillation_counts_the_classes_of_unequal_tasks():
    method = tiny_run("lucir").method
    method.current.begin(SimpleNamespace(position=1, classes=range(6, 8)))
    assert method.distillation_weight == pytest.approx(5 * sqrt(6 / 2))


@pytest.mark.parametrize("outputs", ["seen", "all"])
def test_the_loss_of_a_later_task_against_loops(outputs):
    config = Config(outputs=outputs)
    run = learned(2, config)
    method = run.method
    batch = next(iter(run._batches(run.scenario.tasks[2])))
    saved = copy.deepcopy(method.state_dict())
    method.net.train()
    method.before_passes(batch)
    terms = {name: float(term.detach()) for name, term in method.loss(batch).items()}
    method.load_state_dict(saved)
    method.net.train()
    stored = method.exemplars.everything()
    rows = method.deck.draw(len(method.exemplars), method.ctx.random("replay"))
    x = method.ctx.normalize(torch.cat([batch.x, stored["x"][rows]]))
    y = torch.cat([batch.y, stored["y"][rows]]).tolist()
    with torch.no_grad():
        features, targets = method.backbone(x), method.teacher(x)
    seen = 6 if outputs == "seen" else 10
    ce, distance, ranking = 0.0, 0.0, []
    for phi, target, label in zip(features, targets, y, strict=True):
        cosines = [cosine(phi, w) for w in method.head.weight[:seen].detach()]
        scaled = torch.tensor(cosines) * method.head.scale.detach()
        ce -= float(scaled.log_softmax(0)[label])
        distance += 1 - cosine(phi, target)
        if label < 4:
            rivals = sorted(cosines[4:], reverse=True)[:2]
            ranking += [max(0, 0.5 - cosines[label] + rival) for rival in rivals]
    assert len(ranking) == 2 * len(rows)
    assert terms["cross_entropy"] == pytest.approx(ce / len(y), rel=1e-4)
    assert terms["distillation"] == pytest.approx(5 * sqrt(2) * distance / len(y), rel=1e-3)
    assert terms["margin"] == pytest.approx(sum(ranking) / len(ranking), rel=1e-4)


def test_the_first_task_has_the_cross_entropy_alone():
    run = learned(0)
    batch = next(iter(run._batches(run.scenario.tasks[0])))
    assert set(run.method.observe(batch)) == {"cross_entropy"}


@pytest.mark.parametrize(
    "protocol_changes",
    [
        {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1},
        {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1, "fresh_optimizer": False},
        {"momentum": 0.9, "weight_decay": 0.1, "fresh_optimizer": False},
    ],
)
def test_other_class_weights_stay_bit_for_bit_while_a_task_is_learned(protocol_changes):
    run = learned(2, **protocol_changes)
    weight = run.method.head.weight
    before = weight.detach().clone()
    for batch in run._batches(run.scenario.tasks[2]):
        run.method.observe(batch)
        assert not weight.grad[:4].any()
        assert torch.equal(weight[:4], before[:4])
        assert torch.equal(weight[6:], before[6:])
    assert not torch.equal(weight[4:6], before[4:6])


def test_herding_keeps_the_images_that_follow_the_mean_direction():
    run = tiny_run("lucir")
    run._learn(run.scenario.tasks[0])
    method, train = run.method, run.scenario.dataset.train
    stored = method.exemplars.everything()
    rows = run.scenario.tasks[0].train
    for label in (0, 1):
        images = train.x[rows[train.y[rows] == label]]
        # Fine-tuning leaves the features as they were when the exemplars were chosen.
        features = method.embed(images)
        features = (features / features.norm(dim=1, keepdim=True)).double()
        mean, chosen = features.mean(0), []
        for _ in range(20):
            distances = {
                i: float((mean - features[[*chosen, i]].mean(0)).norm())
                for i in range(len(images))
                if i not in chosen
            }
            chosen.append(min(distances, key=distances.get))
        assert torch.equal(stored["x"][stored["y"] == label], images[chosen])


def test_old_classes_keep_their_best_exemplars_and_all_classes_have_equally_many():
    run = tiny_run("lucir")
    run._learn(run.scenario.tasks[0])
    first = {k: v.clone() for k, v in run.method.exemplars.everything().items()}
    run._learn(run.scenario.tasks[1])
    stored = run.method.exemplars.everything()
    assert stored["y"].bincount().tolist() == [10, 10, 10, 10]
    for label in (0, 1):
        ours, theirs = stored["x"][stored["y"] == label], first["x"][first["y"] == label]
        assert torch.equal(ours, theirs[:10])


def test_an_epoch_passes_over_every_exemplar_about_once():
    run = learned(1)
    task = run.scenario.tasks[1]
    batches = list(run._batches(task))
    assert run.method.deck.share == -(-40 // len(batches))
    drawn = torch.cat([run.method.deck.draw(40, run.random("replay")) for _ in batches])
    counts = drawn.bincount(minlength=40)
    assert set(counts.tolist()) <= {1, 2}


def test_a_dealt_row_does_not_come_again_before_all_others_and_a_state_goes_on(rng):
    deck = Deck()
    deck.begin(10, batches=4)
    drawn = torch.cat([deck.draw(10, rng) for _ in range(10)])
    assert deck.share == 3
    for start in range(0, 30, 10):
        assert sorted(drawn[start : start + 10].tolist()) == list(range(10))
    deck.draw(10, rng)
    other = Deck()
    other.load_state_dict(deck.state_dict())
    assert torch.equal(other.draw(10, rng), deck.draw(10, rng))


@pytest.mark.parametrize(("blocks", "fixed"), [("all", range(0)), ("new", range(2))])
def test_finetuning_leaves_features_and_batch_statistics_alone(blocks, fixed):
    run = learned(1, Config(finetune_epochs=0, finetune_blocks=blocks))
    method = run.method
    list(method.learn_task(view(run, 1), run._batches(run.scenario.tasks[1])))
    method.net.train()
    backbone, weight = state_of(method.backbone), method.head.weight.detach().clone()
    finetuning = replace(method.finetuning, epochs=2)
    list(finetuning.run(method.head, method._finetune_loss, 40, run.random("finetune")))
    assert difference(method.backbone.state_dict(), backbone) is None
    assert method.backbone.training
    moved = (method.head.weight != weight).any(1)
    assert moved.tolist() == [c not in fixed for c in range(4)] + [False] * 6


def test_the_teacher_is_the_network_at_the_end_of_the_last_task():
    run = tiny_run("lucir")
    run._learn(run.scenario.tasks[0])
    run._learn(run.scenario.tasks[1])
    method = run.method
    assert difference(method.teacher.net.state_dict(), method.backbone.state_dict()) is None
    x = method.ctx.normalize(run.scenario.dataset.test.x[:9])
    before = method.teacher(x)
    run.random.start_task(2)
    method.begin_task(view(run, 2))
    for batch in run._batches(run.scenario.tasks[2]):
        method.observe(batch)
    assert torch.equal(method.teacher(x), before)


@pytest.mark.parametrize(
    ("decay_by", "travelled"),
    [("epoch", 10 * 2 * 1.0 + 10 * 2 * 0.1), ("step", 10 * 1.0 + 30 * 0.1)],
)
def test_the_rate_of_finetuning_falls_after_ten_epochs_or_steps(decay_by, travelled, rng):
    module = nn.Linear(1, 1, bias=False)
    start = float(module.weight.detach())
    finetuning = Finetuning(20, batch_size=4, lr=1.0, decay_by=decay_by, decay_after=10)
    steps = list(finetuning.run(module, lambda _: {"x": module.weight.sum()}, 7, rng))
    assert len(steps) == 40
    assert start - float(module.weight.detach()) == pytest.approx(travelled, rel=1e-4)


def test_finetuning_sees_every_row_once_an_epoch(rng):
    module, seen = nn.Linear(1, 1), []

    def loss(rows):
        seen.append(rows)
        return {"x": module.weight.sum()}

    list(Finetuning(2, 4, 0.1, "epoch", 10).run(module, loss, 7, rng))
    assert [len(rows) for rows in seen] == [4, 3, 4, 3]
    assert sorted(torch.cat(seen[:2]).tolist()) == list(range(7))


def test_tasks_of_one_class_are_learned():
    trial = tiny_trial("lucir")
    trial = replace(trial, spec=replace(trial.spec, num_tasks=10))
    run = TrialRun(trial, Path("/nowhere"), CPU)
    rows = finish(run)
    assert run.method.exemplars.everything()["y"].bincount().tolist() == [4] * 10
    last = [r.value for r in rows if r.metric == "accuracy" and r.after_task == 9]
    assert sum(last) / len(last) > 0.2
    assert run.method.head.weight.isfinite().all()


def test_the_native_optimizer_is_sgd_with_momentum():
    run = tiny_run("lucir", optimizer="adam", weight_decay=0.1)
    native = LUCIR(Config(native_optimizer=True), run.method.ctx).optimizer
    assert isinstance(native, torch.optim.SGD)
    group = native.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.03, 0.9, 0.1)
    assert isinstance(run.method.optimizer, torch.optim.Adam)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cnn", {"widths": [4, 8]}),
        ("mlp", {"hidden": [12]}),
        ("mammoth_resnet18", {"width": 4}),
        ("resnet18", {"zero_init_residual": False}),
    ],
)
def test_without_its_last_relu_a_backbone_has_signed_features_and_the_same_weights(name, settings):
    component = plugins.component("backbone", name, settings, where="tests")
    net = plugins.build("backbone", component, (3, 16, 16)).eval()
    signed = copy.deepcopy(net)
    remove_last_relu(signed)
    assert difference(net.state_dict(), signed.state_dict()) is None
    x = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    features = signed(x)
    assert (features < 0).any()
    assert (features > 0).any()
    if name == "mlp":
        assert torch.equal(features.relu(), net(x))
    else:
        pooled = []
        for network in (net, signed):
            hook = network.pool.register_forward_pre_hook(lambda _, maps: pooled.append(maps[0]))
            network(x)
            hook.remove()
        assert torch.equal(pooled[1].relu(), pooled[0])


def test_a_backbone_whose_relu_cannot_be_taken_is_refused():
    changes = {"backbone": {"name": "vit_tiny"}}
    with pytest.raises(UserError, match=r"remove_last_relu: false"):
        protocol.check_method(tiny_trial("lucir", **changes).spec, where="suite")
    net = plugins.build("backbone", plugins.component("backbone", "cnn", {}, where=""), (1, 8, 8))
    before = str(net)
    require_last_relu(net)
    assert str(net) == before


def test_a_memory_without_room_for_every_class_and_tasks_that_share_classes_are_refused():
    spec = tiny_trial("lucir", buffer_size=9).spec
    with pytest.raises(UserError, match="buffer_size must hold an image of each of the 10 classes"):
        protocol.check_method(spec, where="suite")
    with pytest.raises(ValueError, match="classes of their own"):
        LUCIR.check(Config(), SimpleNamespace(num_classes=10, task_classes=(10, 10)))


@pytest.mark.parametrize("wrong", [{"margin": 0.5, "hardest": 0}, {"lambda_base": -1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        Config(**wrong)
