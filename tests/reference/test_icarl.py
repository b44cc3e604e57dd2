"""iCaRL: its losses against loops, herding by brute force, the nearest mean one by one."""

from types import SimpleNamespace

import pytest
import torch
from tiny import CPU, difference, finish, tiny_run, tiny_trial, view
from torch.nn import functional as F

from harness import protocol
from harness.errors import UserError
from methods.base import Batch, Training
from methods.parts.exemplars import herded_of_each, herding
from methods.parts.rehearsal import Rehearsal
from methods.supervised.icarl import UNSEEN, Config, ICaRL


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def learned(tasks, config=None, **changes):
    """A run whose method has learned so many tasks, and began the next."""
    run = tiny_run("icarl", **changes)
    if config is not None:
        run.method = ICaRL(config, run.method.ctx)
    for task in run.scenario.tasks[:tasks]:
        run._learn(task)
    run.random.start_task(tasks)
    run.method.begin_task(view(run, tasks))
    return run


def first_batch(run, task):
    return next(iter(run._batches(run.scenario.tasks[task])))


def terms_and_inputs(run, task):
    """Loss terms of a batch, and the images and labels that went into them."""
    method, batch = run.method, first_batch(run, task)
    method.net.train()
    method.before_passes(batch)
    terms = {name: float(term.detach()) for name, term in method.loss(batch).items()}
    x, y = method.drawn
    return terms, torch.cat([batch.x, x]), torch.cat([batch.y, y]).tolist()


# The loss


@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 2.0), (0.3, 5.0)])
def test_the_softmax_loss_of_a_later_task_against_loops(weight, temperature):
    config = Config(kd_weight=weight, kd_temperature=temperature)
    run = learned(2, config)
    for batch in list(run._batches(run.scenario.tasks[2]))[:2]:
        run.method.observe(batch)  # so that network and teacher differ
    terms, x, y = terms_and_inputs(run, 2)
    method = run.method
    views = method.ctx.normalize(x)
    with torch.no_grad():
        new, old = method.net(views).double(), method.teacher(views).double()
    ce = kd = 0.0
    for row, before, label in zip(new, old, y, strict=True):
        ce += float(row[:6].exp().sum().log() - row[label])
        targets = [float((before[c] / temperature).exp()) for c in range(4)]
        scores = [float((row[c] / temperature).exp()) for c in range(4)]
        for target, score in zip(targets, scores, strict=True):
            probability = torch.tensor(score / sum(scores))
            kd -= target / sum(targets) * float(probability.log())
    assert terms.keys() == {"cross_entropy", "distillation"}
    assert terms["cross_entropy"] == pytest.approx(ce / len(y), rel=1e-5)
    assert terms["distillation"] == pytest.approx(weight * kd / len(y), rel=1e-5)
    assert not torch.allclose(new[:, :4], old[:, :4])


def test_the_sigmoid_loss_of_a_later_task_against_loops():
    run = learned(2, Config(icarl_loss="bce"))
    for batch in list(run._batches(run.scenario.tasks[2]))[:2]:
        run.method.observe(batch)
    terms, x, y = terms_and_inputs(run, 2)
    method = run.method
    views = method.ctx.normalize(x)
    with torch.no_grad():
        new, old = method.net(views).double(), method.teacher(views).double()
    loss = 0.0
    for row, before, label in zip(new, old, y, strict=True):
        for c in range(6):
            target = before[c].sigmoid() if c < 4 else torch.tensor(float(c == label))
            p = row[c].sigmoid()
            loss -= float(target * p.log() + (1 - target) * (1 - p).log())
    assert any(label < 4 for label in y)
    assert terms == {"stream": pytest.approx(loss / (6 * len(y)), rel=1e-5)}


@pytest.mark.parametrize(
    ("kind", "name", "naive"),
    [
        ("softmax", "cross_entropy", F.cross_entropy),
        (
            "bce",
            "stream",
            lambda z, y: F.binary_cross_entropy_with_logits(z, F.one_hot(y, 2).float()),
        ),
    ],
)
def test_the_first_task_has_nothing_to_distil(kind, name, naive):
    run = learned(0, Config(icarl_loss=kind))
    method, batch = run.method, first_batch(run, 0)
    method.net.train()
    method.before_passes(batch)
    terms = method.loss(batch)
    logits = method.net(method.ctx.normalize(batch.x))[:, :2]
    assert terms.keys() == {name}
    torch.testing.assert_close(terms[name], naive(logits, batch.y))


@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize("kind", ["softmax", "bce"])
def test_the_teacher_is_the_network_before_the_task_and_has_no_part_in_the_gradient(kind, tasks):
    run = learned(tasks, Config(icarl_loss=kind))
    method = run.method
    before = {name: value.clone() for name, value in method.net.state_dict().items()}
    assert difference(method.teacher.net.state_dict(), before) is None
    for batch in run._batches(run.scenario.tasks[tasks]):
        method.observe(batch)
    assert difference(method.teacher.net.state_dict(), before) is None
    assert difference(method.net.state_dict(), before) is not None


def test_outputs_of_classes_to_come_have_no_gradient():
    run = learned(1)
    run.method.observe(first_batch(run, 1))
    for parameter in run.method.head.parameters():
        assert parameter.grad[:4].any()
        assert not parameter.grad[4:].any()


# Herding


def brute_force(features, count):
    """Rows in the order of the paper's Algorithm 4, one candidate at a time."""
    mean, chosen = features.mean(0), []
    for _ in range(count):
        free = [i for i in range(len(features)) if i not in chosen]
        distance = {i: float((mean - features[[*chosen, i]].mean(0)).norm()) for i in free}
        chosen.append(min(free, key=distance.get))
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_herding_is_the_brute_force_one_and_fewer_are_a_prefix(seed):
    rng = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(30, 4, generator=rng, dtype=torch.float64).relu())
    whole = brute_force(features, 30)
    assert sorted(whole) == list(range(30))
    for count in (0, 1, 7, 20, 30):
        assert herding(features, count).tolist() == whole[:count]


def test_the_first_exemplar_of_herding_is_the_image_nearest_to_the_mean(rng):
    features = torch.randn(50, 3, generator=rng)
    nearest = (features - features.mean(0)).norm(dim=1).argmin()
    assert herding(features, 1).item() == nearest


def test_herded_exemplars_follow_the_mean_better_than_random_ones(rng):
    features = F.normalize(torch.randn(200, 8, generator=rng))
    mean = features.mean(0)
    herded = float((features[herding(features, 20)].mean(0) - mean).norm())
    drawn = [
        float((features[torch.randperm(200, generator=rng)[:20]].mean(0) - mean).norm())
        for _ in range(50)
    ]
    assert herded < min(drawn)


def test_exemplars_are_herded_on_the_directions_of_plain_images_in_eval_mode():
    run = learned(1)
    method, train = run.method, run.scenario.dataset.train
    held, rows = method.rehearsal.everything(), run.scenario.tasks[0].train
    for label in (0, 1):
        images = train.x[rows[train.y[rows] == label]]
        features = method.embed(images).double()
        features = features / features.norm(dim=1, keepdim=True)
        assert torch.equal(held["x"][held["y"] == label], images[brute_force(features, 4)])


def test_a_shrinking_quota_keeps_the_best_exemplars():
    run = tiny_run("icarl")
    run.method = ICaRL(Config(quota="total"), run.method.ctx)
    run._learn(run.scenario.tasks[0])
    first = {name: column.clone() for name, column in run.method.rehearsal.everything().items()}
    run._learn(run.scenario.tasks[1])
    held = run.method.rehearsal.everything()
    assert held["y"].bincount().tolist() == [10] * 4
    for label in (0, 1):
        ours, theirs = held["x"][held["y"] == label], first["x"][first["y"] == label]
        assert len(theirs) == 20
        assert torch.equal(ours, theirs[:10])


# The nearest mean


def naive_scores(method, images, *, flip=False):
    """Minus the squared distances, image by image and class by class."""

    def direction(image):
        feature = method.embed(image[None])[0].double()
        return feature / feature.norm()

    held = method.rehearsal.everything()
    means = []
    for label in held["y"].unique().tolist():
        own = held["x"][held["y"] == label]
        found = [direction(image) for image in own]
        found += [direction(image.flip(-1)) for image in own] if flip else []
        mean = sum(found) / len(found)
        means.append(mean / mean.norm())
    rows = [
        [-float((direction(image) - mean).square().sum()) for mean in means] for image in images
    ]
    return torch.tensor(rows)


@pytest.mark.parametrize("flip", [False, True])
def test_scores_are_squared_distances_to_the_means_of_exemplars(flip):
    run = learned(2, Config(flip_means=flip))
    method, x = run.method, run.scenario.dataset.test.x[:30]
    scores = method.predict(x)
    torch.testing.assert_close(
        scores[:, :4], naive_scores(method, x, flip=flip), rtol=1e-4, atol=1e-5
    )
    assert scores.shape == (30, 10)
    assert (scores[:, 4:] == UNSEEN).all()
    assert scores[:, :4].min() >= -4 - 1e-5
    assert scores[:, :4].max() <= 1e-5


def test_mirrored_exemplars_change_the_means():
    plain, mirrored = learned(1), learned(1, Config(flip_means=True))
    assert difference(plain.method.state_dict(), mirrored.method.state_dict()) is None
    x = plain.scenario.dataset.test.x[:8]
    assert not torch.allclose(plain.method.predict(x), mirrored.method.predict(x), atol=1e-4)


class Plain:
    """What `ICaRL.predict` needs of a method whose features are the pixels of its images."""

    def __init__(self, images, labels, share):
        self.ctx = SimpleNamespace(num_classes=4, device=CPU)
        self.config = Config()
        self.rehearsal = Rehearsal(Training(buffer_size=4 * share), 4, "per_class", CPU)
        y = torch.tensor(labels)
        x = torch.tensor(images, dtype=torch.uint8)[:, :, None, None]
        self.rehearsal.renew(Batch(x, y, y), 2, lambda y, n: herded_of_each(y, n, x.flatten(1) / 1))
        self._means = None

    def embed(self, x):
        return x.flatten(1).float()

    class_means = ICaRL.class_means
    predict = ICaRL.predict


def test_a_case_by_hand_in_the_plane():
    method = Plain([[9, 0], [3, 4], [0, 2]], [0, 0, 1], 2)
    # Directions (1, 0) and (0.6, 0.8); their mean (0.8, 0.4) points to (2, 1) / sqrt(5).
    root = 5**0.5
    torch.testing.assert_close(
        method.class_means(), torch.tensor([[2 / root, 1 / root], [0.0, 1.0]])
    )
    x = torch.tensor([[6, 8], [7, 0]], dtype=torch.uint8)[:, :, None, None]
    wanted = torch.tensor([[2 * 2 / root - 2, 1.6 - 2], [4 / root - 2, -2.0]])
    torch.testing.assert_close(method.predict(x)[:, :2], wanted)
    assert method.predict(x).argmax(1).tolist() == [0, 0]


def test_a_class_with_fewer_exemplars_counts_no_less():
    lonely, many = ([[9, 0], [0, 2]], [0, 1]), ([[9, 0], [9, 0], [9, 0], [0, 2]], [0, 0, 0, 1])
    x = torch.tensor([[5, 5], [5, 6]], dtype=torch.uint8)[:, :, None, None]
    one, three = (Plain(*case, 3).predict(x) for case in (lonely, many))
    torch.testing.assert_close(one, three)


def test_means_follow_the_network_and_the_exemplars():
    run = learned(1)
    method, x = run.method, run.scenario.dataset.test.x[:20]
    before = method.predict(x)
    assert torch.equal(method.predict(x), before)
    for batch in run._batches(run.scenario.tasks[1]):
        method.observe(batch)
    during = method.predict(x)
    torch.testing.assert_close(during[:, :2], naive_scores(method, x), rtol=1e-4, atol=1e-5)
    assert not torch.equal(before, during)
    assert (during[:, 2:] == UNSEEN).all()
    method.end_task(view(run, 1))
    after = method.predict(x)
    torch.testing.assert_close(after[:, :4], naive_scores(method, x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[:, :2], during[:, :2])


def test_before_the_first_task_ends_all_scores_are_alike():
    run = learned(0)
    x = run.scenario.dataset.test.x[:5]
    assert torch.equal(run.method.predict(x), torch.zeros(5, 10))
    run.method.observe(first_batch(run, 0))
    assert torch.equal(run.method.predict(x), torch.zeros(5, 10))


def test_the_head_is_told_apart_from_the_nearest_mean():
    run = learned(1)
    method, x = run.method, run.scenario.dataset.test.x[:20]
    method.net.eval()
    with torch.no_grad():
        wanted = method.net(method.ctx.normalize(x))
    found = method.class_logits(x)
    assert torch.equal(found, wanted)
    assert not found.requires_grad
    assert not torch.allclose(found, method.predict(x))


def test_both_classifiers_are_measured_under_names_of_their_own():
    rows = finish(tiny_run("icarl", evaluators=["classifier", "classifier_softmax"]))
    finals = {
        name: [r.value for r in rows if r.evaluator == name and r.after_task == 4]
        for name in ("classifier", "classifier_softmax")
    }
    assert len(finals["classifier"]) == len(finals["classifier_softmax"]) == 10
    assert finals["classifier"] != finals["classifier_softmax"]


@pytest.mark.parametrize("kind", ["softmax", "bce"])
def test_it_forgets_less_than_finetuning(kind):
    def last(run):
        rows = finish(run)
        values = [r.value for r in rows if r.metric == "accuracy" and r.evaluator == "classifier"]
        return sum(values[-5:]) / 5

    run = tiny_run("icarl", epochs=3)
    run.method = ICaRL(Config(icarl_loss=kind), run.method.ctx)
    assert last(run) > last(tiny_run("finetune", epochs=3)) + 0.2


def test_after_a_task_the_exemplars_alone_are_held():
    run = tiny_run("icarl")
    for task in run.scenario.tasks[:2]:
        run._learn(task)
    assert run.method.memory() == {"exemplars": 16 * (64 + 8), "teachers": 0}


def test_memory_is_that_of_the_exemplars_and_the_teacher():
    run = learned(1)
    memory = run.method.memory()
    state = run.method.net.state_dict()
    assert memory == {
        "exemplars": 8 * (64 + 8),
        "teachers": sum(value.nbytes for value in state.values()),
    }


# Planning


def test_a_buffer_without_room_for_every_class_and_tasks_that_share_classes_are_refused():
    spec = tiny_trial("icarl", buffer_size=9).spec
    with pytest.raises(UserError, match="buffer_size must hold an image of each of the 10 classes"):
        protocol.check_method(spec, where="suite")
    with pytest.raises(ValueError, match="classes of their own"):
        ICaRL.check(Config(), SimpleNamespace(num_classes=10, task_classes=(10, 10)))


@pytest.mark.parametrize("wrong", [{"kd_weight": -1.0}, {"kd_temperature": 0.0}])
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)
