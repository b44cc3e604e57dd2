"""BrainCL from phase to phase: what is trained on what, what is kept, and what it costs."""

import copy
import gc
import io
import math
import types
from dataclasses import replace

import pytest
import torch
from tiny import difference, finish, scaled, tiny_run, tiny_trial, view
from torch.nn import functional as F

from harness import protocol
from harness.errors import UserError
from harness.trial import DivergedError
from methods.supervised import braincl
from methods.supervised.braincl import BrainCL, Config, nearest_of_each

SMALL = {**scaled("braincl"), "memory_epochs": 1}
ONE_PIXEL = {"name": "cnn", "widths": [4, 4, 8, 8]}  # the last maps of 8x8 images


def config(**settings):
    small = {**SMALL, "sleep_milestones": tuple(SMALL["sleep_milestones"])}
    return Config(**{**small, **settings})


def fresh(changes=None, **settings):
    """A trial whose method has these settings; nothing is learned yet."""
    run = tiny_run("braincl", **(changes or {}))
    ctx = run.method.ctx
    run.method = BrainCL(config(**settings), replace(ctx, training=run.settings))
    return run


def learned(tasks, changes=None, **settings):
    """The same after its first tasks."""
    run = fresh(changes, **settings)
    for task in run.scenario.tasks[:tasks]:
        run._learn(task)
    return run


def begun(run, position):
    """The task at `position` begins; the steps it is learned by, one after the other."""
    run.random.start_task(position)
    task = view(run, position)
    run.method.begin_task(task)
    return run.method.learn_task(task, run._batches(run.scenario.tasks[position]))


def names(steps):
    """Of the first loss of every step."""
    return [next(iter(step)) for step in steps]


def network(run):
    return copy.deepcopy(run.method.backbone.state_dict())


def head(run):
    return copy.deepcopy(run.method.head.state_dict())


def class_sizes(run, position):
    labels = view(run, position).data.labels()
    return labels.bincount()[labels.unique()].tolist()


def test_the_defaults_are_the_paper_s():
    found = Config()
    assert (found.channels, found.cue_channels, found.stages) == (128, 192, 4)
    assert (found.memory_epochs, found.memory_batch) == (100, 64)
    assert (found.memory_lr, found.entropy_lr, found.rate_lambda) == (1e-4, 1e-3, 1e-2)
    assert (found.wake_epochs, found.wake_lr) == (10, 0.1)
    assert (found.sleep_epochs, found.sleep_lr, found.sleep_milestones) == (60, 0.1, (20, 40))
    assert (found.phase_momentum, found.phase_weight_decay) == (0.9, 2e-4)


# The order of the phases, and how each of them trains


@pytest.mark.parametrize("first", ["skip", "learn"])
def test_the_memory_is_learned_first_then_the_classifier_then_the_network(first):
    settings = {"memory_epochs": 2, "wake_epochs": 3, "sleep_epochs": 4, "keep_per_class": 20}
    run = fresh(first_task_wake=first, **settings)
    images = sum(class_sizes(run, 0))
    found = names(begun(run, 0))
    memory, wake, sleep = math.ceil(images / 32) * 2, math.ceil(images / 32) * 3, 2 * 4
    wake *= first == "learn"  # a classifier on random features harms the sleep behind it
    assert found == ["distortion"] * memory + ["wake"] * wake + ["sleep"] * sleep
    assert "wake" in names(begun(learned(1, first_task_wake=first), 1))


def test_the_sleep_is_over_what_is_kept_of_all_tasks():
    run = learned(2, keep_per_class=20, sleep_epochs=4)
    found = names(begun(run, 2))
    assert found.count("sleep") == 4 * math.ceil(3 * 2 * 20 / 32)


def test_the_sleep_of_the_first_task_may_come_before_the_choice():
    run = fresh(first_task_selection="post_sleep", sleep_epochs=4)
    images = sum(class_sizes(run, 0))
    assert names(begun(run, 0)).count("sleep") == 4 * math.ceil(images / 32)
    run = learned(1, first_task_selection="post_sleep", sleep_epochs=4)
    assert names(begun(run, 1)).count("sleep") == 4 * math.ceil(2 * 2 * 20 / 32)


def test_the_wake_phase_leaves_backbone_and_batch_statistics_as_they_are_bit_for_bit():
    run = learned(1)
    before, head_before, changed = network(run), head(run), False
    for step in begun(run, 1):
        if "sleep" in step:
            break
        assert difference(before, network(run)) is None
        changed |= "wake" in step and difference(head_before, head(run)) is not None
    assert changed
    assert difference(before, network(run)) is not None


def test_learning_the_memory_leaves_the_network_as_it_is():
    run = learned(1)
    steps = begun(run, 1)
    before = network(run), head(run)
    for step in steps:
        if "wake" in step:
            break
        assert difference(before, (network(run), head(run))) is None


def recorded_sleep(run, position):
    """Learning rate, momentum and weight decay before every step of the sleep."""
    found = []
    observe = run.method.observe

    def record(batch):
        group = run.method.optimizer.param_groups[0]
        found.append((round(group["lr"], 9), group["momentum"], group["weight_decay"]))
        return observe(batch)

    run.method.observe = record
    list(begun(run, position))
    del run.method.observe
    return found


@pytest.mark.parametrize("position", [0, 2])
def test_the_sleep_s_learning_rate_falls_to_a_tenth_at_each_milestone(position):
    run = learned(
        position, sleep_epochs=5, sleep_lr=0.08, sleep_milestones=(2, 4), phase_weight_decay=3e-4
    )
    found = recorded_sleep(run, position)
    per_epoch = math.ceil(40 * (position + 1) / 32)
    rates = [0.08] * 2 * per_epoch + [0.008] * 2 * per_epoch + [0.0008] * per_epoch
    assert found == [(rate, 0.9, 3e-4) for rate in rates]


def test_the_classifier_wakes_by_plain_steps_of_sgd_at_a_constant_rate():
    """Two epochs by hand, on the images that the cues recall."""
    run = fresh(wake_epochs=2, wake_lr=0.07, first_task_wake="learn")
    run.method.ctx = replace(run.method.ctx, augment=lambda x, _: run.method.ctx.normalize(x))
    seen, recollect = [], braincl.recollection
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(braincl, "recollection", lambda m: seen.append(recollect(m)) or seen[-1])
        steps = begun(run, 0)
        expected = head(run)
        for step in steps:
            if "sleep" in step:
                break
            if "wake" in step:
                last = head(run)
    images, rng = seen[0], run.random("wake")
    rng.manual_seed(rng.initial_seed())
    weight, bias = expected["weight"].requires_grad_(), expected["bias"].requires_grad_()
    optimizer = torch.optim.SGD([weight, bias], lr=0.07, momentum=0.9, weight_decay=2e-4)
    backbone = fresh().method.backbone.eval()
    for _ in range(2):
        order = torch.randperm(len(images.x), generator=rng)
        for rows in order.split(32):
            features = backbone(run.method.ctx.normalize(images.x[rows])).detach()
            logits = (features @ weight.T + bias)[:, :2]
            optimizer.zero_grad()
            F.cross_entropy(logits, images.y[rows]).backward()
            optimizer.step()
    torch.testing.assert_close(last["weight"], weight.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(last["bias"], bias.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("outputs", "compared"), [("all", [0, 1, 2, 3]), ("new", [2, 3])])
def test_the_wake_loss_compares_all_seen_or_the_new_classes(outputs, compared):
    run = learned(1, wake_outputs=outputs)
    run.method.begin_task(view(run, 1))
    logits = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([2, 3, 3, 2, 2, 3])
    p = logits[:, compared].exp() / logits[:, compared].exp().sum(1, keepdim=True)
    right = torch.tensor([compared.index(label) for label in y.tolist()])
    expected = -p[torch.arange(6), right].log().mean()
    torch.testing.assert_close(run.method._wake_loss(logits, y), expected)


def test_the_sleep_s_loss_is_the_cross_entropy_of_the_classes_seen():
    run = learned(1)
    run.method.ctx = replace(run.method.ctx, augment=lambda x, _: run.method.ctx.normalize(x))
    run.method.begin_task(view(run, 1))
    run.method.net.eval()
    batch = view(run, 1).data
    p = run.method.net(run.method.ctx.normalize(batch.x))[:, :4].softmax(1)
    expected = -p[torch.arange(len(batch.y)), batch.y].log().mean()
    torch.testing.assert_close(run.method.loss(batch)["sleep"], expected)


def test_rows_of_new_classes_begin_as_they_were_made():
    initial = head(fresh())
    run = learned(2, phase_weight_decay=0.1)
    moved = head(run)
    for name in ("weight", "bias"):
        assert not torch.equal(moved[name][4:6], initial[name][4:6])
    run.random.start_task(2)
    run.method.begin_task(view(run, 2))
    now = head(run)
    for name in ("weight", "bias"):
        assert torch.equal(now[name][4:6], initial[name][4:6])
        assert torch.equal(now[name][:4], moved[name][:4])
        assert torch.equal(now[name][6:], moved[name][6:])


def test_the_protocol_s_optimizer_and_batches_play_no_part():
    plain = learned(2)
    other = learned(
        2, {"optimizer": "adam", "lr": 0.9, "epochs": 3, "batch_size": 7, "schedule": "cosine"}
    )
    assert difference(plain.method.state_dict(), other.method.state_dict()) is None


def test_images_that_the_memory_is_learned_from_are_counted():
    run = learned(1, memory_epochs=3)
    assert run.position.tally.samples == 3 * sum(class_sizes(run, 0))


# The distortion


def test_cai_weighs_error_and_bits_as_compressai_does():
    run = fresh(distortion="cai")
    a, b = torch.rand(2, 5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    squared, bits = (a - b).square().mean(), torch.tensor(0.7)
    ours = run.method._distortion(a, b) + 1e-2 * bits
    torch.testing.assert_close(ours, 1e-2 * (1e-2 * 255**2 * squared + bits))


def test_the_other_distortions_are_of_pixels_up_to_1_and_of_normalised_ones():
    a, b = torch.rand(2, 5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    squared = (a - b).square().mean()
    torch.testing.assert_close(fresh(distortion="mse").method._distortion(a, b), squared)
    run = fresh(distortion="normalised")
    deviation = run.scenario.dataset.traits.std[0]
    found = run.method._distortion(a, b)
    torch.testing.assert_close(found, squared / deviation**2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("distortion", ["cai", "mse", "normalised"])
def test_the_memory_is_trained_for_the_distortion_that_is_set(distortion):
    first = next(begun(fresh(distortion=distortion), 0))
    cai = next(begun(fresh(distortion="cai"), 0))["distortion"].item()
    std = fresh().scenario.dataset.traits.std[0]
    factor = {"cai": 2.55, "mse": 1.0, "normalised": 1 / std}[distortion]
    assert first["distortion"].item() == pytest.approx(cai * (factor / 2.55) ** 2, rel=1e-4)


# What is kept


def brute_force(features, labels, count, distance):
    """The `count` best rows of each class, as a set, by a loop over all rows."""
    found = set()
    for label in set(labels.tolist()):
        rows = [i for i, y in enumerate(labels.tolist()) if y == label]
        mean = sum(features[i] for i in rows) / len(rows)
        found |= set(sorted(rows, key=lambda i: distance(features[i], mean))[:count])
    return found


def test_those_nearest_to_the_class_mean_are_chosen():
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(60, 5, generator=rng).double()
    labels = torch.randint(0, 4, (60,), generator=rng)
    found = nearest_of_each(features, labels, 6)
    expected = brute_force(features, labels, 6, lambda f, mean: math.dist(f, mean))
    assert set(found.tolist()) == expected
    assert len(found) == 24


def test_the_nearest_of_every_class_come_first_and_small_classes_are_kept_whole():
    features = torch.tensor([0.0, 4.0, 1.0, 9.0, 7.0, 2.0, 8.0])[:, None]
    labels = torch.tensor([5, 5, 5, 2, 2, 5, 2])
    # Means: 1.75 of class 5, 8 of class 2.
    assert nearest_of_each(features, labels, 3).tolist() == [6, 5, 3, 2, 4, 0]
    assert nearest_of_each(features, labels, 99).tolist() == [6, 5, 3, 2, 4, 0, 1]
    assert nearest_of_each(features, labels, 1).tolist() == [6, 5]


def test_equal_distances_go_to_the_first_row():
    features = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None]
    assert nearest_of_each(features, torch.zeros(4).long(), 2).tolist() == [0, 1]


@pytest.mark.parametrize("select_by", ["euclidean", "cosine"])
def test_long_term_memory_has_the_cues_nearest_to_the_mean_feature(select_by):
    """Every image of the task is kept once, to see which of them a choice takes."""
    everything = learned(1, keep_per_class=1000)
    chosen = learned(1, keep_per_class=7, select_by=select_by)
    memory = everything.method.long_term.tasks()[0]
    x, y = torch.cat([*memory.images()]), memory.book.labels
    features = fresh().method.embed(x).double()  # before the sleep: those of the first network
    cosine = lambda f, mean: -F.cosine_similarity(f, mean, dim=0).item()  # noqa: E731
    distance = cosine if select_by == "cosine" else (lambda f, mean: math.dist(f, mean))
    if select_by == "cosine":
        features = F.normalize(features)
    expected = brute_force(features, y, 7, distance)
    rows = {memory.book.rows[i].item() for i in expected}
    assert set(chosen.method.long_term.books[0].rows.tolist()) == rows


def test_a_choice_after_the_sleep_is_by_the_features_learned():
    run = learned(1, keep_per_class=7, first_task_selection="post_sleep")
    whole = learned(1, keep_per_class=1000, first_task_selection="post_sleep")
    memory = whole.method.long_term.tasks()[0]
    features = run.method.embed(torch.cat([*memory.images()])).double()
    expected = brute_force(features, memory.book.labels, 7, math.dist)
    rows = {memory.book.rows[i].item() for i in expected}
    assert set(run.method.long_term.books[0].rows.tolist()) == rows


def test_classes_with_fewer_images_keep_all_of_them():
    run = fresh(keep_per_class=50)
    task = run.scenario.tasks[0]
    labels = run.scenario.dataset.train.y[task.train]
    few = (labels == 0).nonzero()[:5, 0]
    rows = torch.cat([task.train[few], task.train[labels == 1]])
    run.scenario = replace(run.scenario, tasks=(replace(task, train=rows), *run.scenario.tasks[1:]))
    run._learn(run.scenario.tasks[0])
    assert run.method.long_term.books[0].labels.bincount().tolist() == [5, 50]


def reachable_tensors(root):
    """Tensors that are held by an object, however deep, but for what modules and classes hold."""
    skipped = (types.ModuleType, type, types.FrameType)
    found, waiting, known = [], [root], set()
    while waiting:
        one = waiting.pop()
        if id(one) in known or isinstance(one, skipped):
            continue
        known.add(id(one))
        if isinstance(one, torch.Tensor):
            found.append(one)
        if isinstance(one, types.FunctionType):  # its closure, not its module's globals
            waiting += [cell.cell_contents for cell in one.__closure__ or ()]
        else:
            waiting += gc.get_referents(one)
    return found


def test_after_the_sleep_neither_images_nor_the_other_cues_are_left():
    run = learned(2, keep_per_class=3)
    held = reachable_tensors(run.method)
    weight = run.method.backbone.stages[0][0].weight
    assert any(tensor is weight for tensor in held)  # the search finds what is held
    assert not [t.shape for t in held if t.dtype == torch.uint8]
    assert not [t.shape for t in held if t.shape[1:] == (1, 8, 8)]
    books = run.method.long_term.books
    assert [len(book) for book in books] == [6, 6]
    assert all(len(book.decode()) == 6 for book in books)
    assert run.method.optimizer.state_dict()["state"] == {}


@pytest.mark.parametrize(("half", "width"), [(False, 4), (True, 2)])
def test_memory_is_what_completion_networks_payloads_and_their_index_take(half, width):
    run = learned(3, keep_per_class=9, half_precision_memory=half)
    books = run.method.long_term.books
    completion = 8 * 8 * 25 + 8 + 8 * 1 * 25 + 1
    payload = sum(int(bits) for book in books for bits in book.bits()) // 8
    assert payload == sum(len(book.payloads) for book in books) > 0
    stored = sum(len(state) for state in run.method.state_dict()["cues"]["books"])
    assert run.method.memory() == {
        "extra parameters": 3 * width * completion,
        "cues": payload,
        "cue index": stored - payload,
    }


@pytest.mark.parametrize("half", [False, True])
def test_a_method_restored_recalls_the_same_and_goes_on_bit_for_bit(half):
    settings = {"half_precision_memory": half, "first_task_selection": "post_sleep"}
    first, second = learned(2, **settings), fresh(**settings)
    file = io.BytesIO()
    torch.save(first.method.state_dict(), file)
    file.seek(0)
    second.method.load_state_dict(torch.load(file, weights_only=True))
    for run in (first, second):
        run._learn(run.scenario.tasks[2])
    assert difference(first.method.state_dict(), second.method.state_dict()) is None
    for ours, theirs in zip(first.method.recalled(10), second.method.recalled(10), strict=True):
        assert torch.equal(ours.x, theirs.x)


# What is recalled


def test_what_is_recalled_is_the_completion_of_the_integers_in_the_book():
    run = learned(2, keep_per_class=20)
    found = run.method.recalled(12)
    assert [one.task for one in found] == [0, 1]
    for position, one in enumerate(found):
        book, net = run.method.long_term.books[position], run.method.completions.nets[position]
        cues = torch.from_numpy(book.decode(range(12)))
        pixels = net(cues.float()) * 0.25 + 0.5
        wanted = (255 * pixels).round().clamp(0, 255).byte()
        assert torch.equal(one.x, wanted)
        assert one.bits.dtype == torch.float64
        assert one.bits.tolist() == book.bits()[:12].tolist()
        assert torch.equal(one.rows, book.rows[:12])
        originals = run.scenario.dataset.train
        assert torch.equal(originals.y[one.rows], book.labels[:12])
        assert set(one.rows.tolist()) <= set(run.scenario.tasks[position].train.tolist())


def test_at_most_what_is_kept_is_recalled_and_the_first_are_of_all_classes():
    run = learned(1, keep_per_class=20)
    assert len(run.method.recalled(1000)[0].x) == 40
    few = run.method.recalled(6)[0]
    labels = run.scenario.dataset.train.y[few.rows]
    assert labels.tolist() == [0, 1] * 3
    assert fresh().method.recalled(5) == []


def test_what_is_recalled_resembles_the_original():
    run = learned(1, memory_epochs=30, keep_per_class=50)
    found = run.method.recalled(100)[0]
    true = run.scenario.dataset.train.x[found.rows].float()
    error = (found.x.float() - true).square().mean()
    by_the_mean = (true - true.mean(0)).square().mean()
    assert error < 0.3 * by_the_mean


def test_recalling_changes_nothing():
    run = learned(2)
    before = copy.deepcopy(run.method.state_dict())
    run.method.recalled(5)
    assert difference(before, run.method.state_dict()) is None


# What is refused


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stages": 0}, "stages must be at least 1, got 0"),
        ({"keep_per_class": 0}, "keep_per_class must be at least 1, got 0"),
        ({"rate_lambda": -1.0}, "rate_lambda must be a finite number of at least 0, got -1.0"),
        ({"sleep_lr": math.inf}, "sleep_lr must be a finite number of at least 0, got inf"),
        ({"phase_momentum": 1.5}, "phase_momentum must be below 1, got 1.5"),
        (
            {"sleep_milestones": (50, 20)},
            r"must be ascending epochs, got \[50, 20\]",
        ),
        ({"sleep_milestones": (-3,)}, r"must be ascending epochs, got \[-3\]"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Config(**settings)


def plan(changes=None, *, num_tasks=5, **settings):
    spec = tiny_trial("braincl", **(changes or {})).spec
    method = replace(spec.method, settings={**spec.method.settings, **settings})
    spec = replace(spec, method=method, num_tasks=num_tasks)
    protocol.check_method(spec, where="suite.yaml")


def test_more_stages_than_the_images_have_pixels_for_are_refused_when_planning():
    words = "stages: 4 need images of at least 16 pixels a side, these have 8"
    with pytest.raises(UserError, match=words):
        plan(stages=4)
    plan(stages=3)


@pytest.mark.parametrize(
    ("settings", "enough"),
    [
        ({"phase_batch": 1}, {"phase_batch": 2}),
        ({"keep_per_class": 1, "num_tasks": 10}, {"keep_per_class": 1, "num_tasks": 5}),
    ],
)
def test_a_single_image_is_refused_where_batch_normalisation_cannot_train_on_it(settings, enough):
    one_pixel = {"backbone": ONE_PIXEL}
    with pytest.raises(UserError, match="phase_batch and keep_per_class: a single image"):
        plan(one_pixel, **settings)
    plan(one_pixel, **enough)
    plan(**settings)  # larger maps do with one


def test_an_image_a_class_is_enough_where_it_is_not_refused():
    run = learned(3, {"backbone": ONE_PIXEL}, keep_per_class=1)
    assert run.method.predict(run.scenario.dataset.test.x[:4]).isfinite().all()


@pytest.mark.parametrize("name", ["memory_lr", "wake_lr", "sleep_lr"])
def test_learning_rates_beyond_all_bounds_end_as_diverged(name):
    with pytest.raises(DivergedError):
        finish(fresh(**{name: 1e30}))


def test_a_memory_that_diverges_in_its_last_step_ends_the_trial_as_well():
    run = fresh(memory_lr=1e30, memory_batch=1000)  # one step, whose loss is finite
    steps = [step["distortion"].isfinite().item() for step in begun(run, 0)]
    assert steps == [True, False]
    assert run.method.long_term.books == []
    with pytest.raises(DivergedError):
        finish(fresh(memory_lr=1e30, memory_batch=1000))
