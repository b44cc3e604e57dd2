"""What each online self-supervised method does in a step, on digits."""

import copy

import pytest
import tiny
import torch
from scipy.stats import chi2
from tiny import difference, finish, tiny_run

from harness import plugins, protocol
from harness.errors import UserError
from harness.seeds import generator
from harness.trial import DivergedError
from methods import registry
from methods.base import Batch
from methods.self_supervised.lump import beta

FAMILY = registry.names(("methods.self_supervised",))
ALIGNING = ["cla_b", "cla_e", "cla_r", "cassle", "cassle_r", "climb"]
AVERAGING = ["cla_b", "cla_e", "climb"]


def stream(run, task=0):
    run.random.start_task(task)
    return list(run._batches(run.scenario.tasks[task]))


def learned(name, tasks=1, **changes):
    """A trial that has learned its first tasks, with the stream of the next one."""
    run = tiny_run(name, **changes)
    for task in run.scenario.tasks[:tasks]:
        run._learn(task)
    batches = stream(run, tasks)
    if registry.entry(name).module.build.needs:
        run.method.begin_task(tiny.view(run, tasks))
    return run.method, batches


def states(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("name", ALIGNING)
def test_replay_aligns_and_the_head_gets_a_gradient(name):
    method, batches = learned(name)
    assert method.observe(batches[0]).keys() == {"ssl", "alignment"}
    for parameter in method.alignment.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ALIGNING)
def test_omega_weighs_the_alignment(name):
    method, batches = learned(name)
    twin = copy.deepcopy(method)
    twin.config = method.config.__class__(**{**_settings(method.config), "omega": 3.0})
    single, triple = method.loss(batches[0]), twin.loss(batches[0])
    torch.testing.assert_close(triple["alignment"], 3 * single["alignment"])
    torch.testing.assert_close(triple["ssl"], single["ssl"])


def _settings(config):
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


@pytest.mark.parametrize("name", AVERAGING)
def test_the_averaged_network_follows_every_optimizer_step_and_gets_no_gradient(name):
    method, batches = learned(name, passes=1)
    tau = method.config.tau
    for batch in batches[:2]:
        before = [p.clone() for p in method.teacher.parameters()]
        method.observe(batch)
        live = [*method.backbone.parameters(), *method.objective.projector.parameters()]
        for was, now, follows in zip(before, method.teacher.parameters(), live, strict=True):
            torch.testing.assert_close(now, tau * was + (1 - tau) * follows)
            assert now.grad is None
            assert not now.requires_grad


@pytest.mark.parametrize("name", AVERAGING)
def test_the_averaged_network_moves_once_a_pass(name, monkeypatch):
    method, batches = learned(name, passes=3)
    calls = []
    monkeypatch.setattr(method.teacher, "follow", lambda *_: calls.append(1))
    method.observe(batches[0])
    assert len(calls) == 3


@pytest.mark.parametrize("name", ["replay", "cla_e", "cla_r", "cassle_r", "osiris_r"])
def test_replay_begins_when_there_is_enough_and_comes_before_the_stream(name):
    run = tiny_run(name, batch_size=10, replay_batch=16)
    sizes, first = [], []
    augment = run.method.ctx.augment

    def noted(x, rng):
        sizes.append(len(x))
        first.append(x[-1])
        return augment(x, rng)

    object.__setattr__(run.method.ctx, "augment", noted)
    batches = stream(run)[:4]
    for batch in batches:
        run.method.observe(batch)
    # Two views and two passes a batch; 10, then 20 images are stored before 26 are seen.
    assert sizes == [10] * 8 + [26] * 8
    assert all(torch.equal(x, batches[i // 4].x[-1]) for i, x in enumerate(first))


def spied(method):
    """Notes what a method's steps embed and align."""
    seen, embeddings, align = {}, method.embeddings, method.alignment.forward

    def embed(views):
        seen["views"], seen["found"] = views, embeddings(views)
        return seen["found"]

    def compare(projections, targets):
        seen["aligned"], seen["targets"] = projections, targets
        return align(projections, targets)

    object.__setattr__(method, "embeddings", embed)
    method.alignment.forward = compare
    return seen


def assert_first_are_aligned(seen, targets, count):
    for found, aligned in zip(seen["found"].projections, seen["aligned"], strict=True):
        assert torch.equal(aligned, found[:count])
    for target, wanted in zip(seen["targets"], targets, strict=True):
        assert torch.equal(target, wanted)


@pytest.mark.parametrize("name", ["cla_e", "cassle_r", "climb"])
def test_replayed_images_align_with_what_a_teacher_makes_of_them(name):
    method, batches = learned(name, passes=1)
    replayed, seen = method.ctx.training.replay_batch, spied(method)
    twin = copy.deepcopy(method.before.teacher if name == "cassle_r" else method.teacher)
    method.loss(batches[0])
    targets = twin(tuple(view[:replayed] for view in seen["views"]))
    assert_first_are_aligned(seen, targets, replayed)


def test_replayed_images_of_cla_r_align_with_what_was_stored_with_them():
    method, batches = learned("cla_r", passes=1)
    replayed, seen, before = method.ctx.training.replay_batch, spied(method), stored(method)
    draw, rows = method.buffer.draw, []
    method.buffer.draw = lambda *a: (rows.append(draw(*a)), rows[-1])[1]
    method.loss(batches[0])
    assert_first_are_aligned(seen, [before[rows[0]]] * 2, replayed)


def test_minred_trains_on_its_buffer_alone():
    run = tiny_run("minred", batch_size=10, replay_batch=16)
    sizes = []
    augment = run.method.ctx.augment
    object.__setattr__(
        run.method.ctx, "augment", lambda x, rng: (sizes.append(len(x)), augment(x, rng))[1]
    )
    for batch in stream(run)[:3]:
        run.method.observe(batch)
    assert sizes == [10] * 4 + [16] * 8


@pytest.mark.parametrize("name", ["cla_r", "minred"])
def test_a_replayed_projection_moves_halfway_to_the_current_one(name):
    method, batches = learned(name, passes=1)
    before = stored(method)
    seen = {}
    embeddings = method.embeddings
    object.__setattr__(method, "embeddings", lambda v: seen.setdefault("found", embeddings(v)))
    drawn = {}
    draw = method.buffer.draw
    method.buffer.draw = lambda *a: drawn.setdefault("rows", draw(*a))
    if name == "minred":
        method.before_passes(batches[0])
        before = stored(method)
    method.loss(batches[0])
    after, rows = stored(method), drawn["rows"]
    current = torch.stack(seen["found"].projections).mean(0)[: len(rows)].detach()
    torch.testing.assert_close(after[rows], (before[rows] + current) / 2)
    others = torch.ones(len(after), dtype=torch.bool)
    others[rows] = False
    assert torch.equal(after[others], before[others])


def stored(method):
    """The projections that a buffer holds."""
    return method.buffer.take(torch.arange(len(method.buffer)))["z"]


def test_cla_r_stores_the_projection_of_the_last_pass():
    run = tiny_run("cla_r", passes=2)
    found = []
    embeddings = run.method.embeddings
    object.__setattr__(
        run.method, "embeddings", lambda v: (found.append(embeddings(v)), found[-1])[1]
    )
    batches = [Batch(b.x[:12], None, b.index[:12]) for b in stream(run)[:3]]
    for batch in batches:
        run.method.observe(batch)
    # The third batch comes after 16 replayed images; 24 are stored before it.
    last = [torch.stack(found[i].projections).mean(0).detach() for i in (1, 5)]
    kept = stored(run.method)
    assert len(last[1]) == 28
    assert torch.equal(kept[24:], last[1][16:])
    assert not torch.equal(kept[24:], torch.stack(found[4].projections).mean(0).detach()[16:])
    assert len(last[0]) == 12


@pytest.mark.parametrize("name", ["cassle", "cassle_r"])
def test_cassle_does_not_align_with_a_random_network_unless_asked(name):
    for skip in (True, False):
        run = tiny_run(name)
        run.method.config = run.method.config.__class__(skip_first_task=skip)
        batches = stream(run)
        run.method.begin_task(tiny.view(run, 0))
        losses = [run.method.observe(batch) for batch in batches]
        assert ("alignment" in losses[-1]) != skip


def test_cassle_s_earlier_network_is_that_of_the_end_of_the_last_task():
    method, batches = learned("cassle")
    frozen = states(method.before.teacher)
    live = [*method.backbone.parameters(), *method.objective.projector.parameters()]
    for ours, theirs in zip(method.before.teacher.parameters(), live, strict=True):
        assert torch.equal(ours, theirs)
    for batch in batches:
        method.observe(batch)
    assert difference(frozen, states(method.before.teacher)) is None
    assert not torch.equal(next(method.before.teacher.parameters()), live[0])


def test_lump_mixes_both_views_by_one_weight():
    method, batches = learned("lump", passes=1)
    views, mixed = [], []
    augment = method.ctx.augment
    object.__setattr__(
        method.ctx, "augment", lambda x, rng: (views.append(augment(x, rng)), views[-1])[1]
    )
    embeddings = method.embeddings
    object.__setattr__(method, "embeddings", lambda v: (mixed.extend(v), embeddings(v))[1])
    method.loss(batches[0])
    weights = []
    for view, mixture in zip(views, mixed, strict=True):
        replayed, fresh = view.chunk(2)
        weights.append(
            ((mixture - replayed) * (fresh - replayed)).sum() / (fresh - replayed).square().sum()
        )
        torch.testing.assert_close(mixture, weights[-1] * fresh + (1 - weights[-1]) * replayed)
    torch.testing.assert_close(weights[0], weights[1])
    assert 0 < weights[0] < 1


def test_mixing_weights_follow_the_beta_distribution():
    rng, alpha, count = generator(0, "mix"), 0.4, 4000
    draws = torch.tensor([beta(alpha, rng) for _ in range(count)])
    variance = 1 / (4 * (2 * alpha + 1))
    assert draws.mean().item() == pytest.approx(0.5, abs=4 * (variance / count) ** 0.5)
    assert draws.var().item() == pytest.approx(variance, rel=0.05)


def test_osiris_begins_its_second_head_as_a_copy_and_trains_it():
    run = tiny_run("osiris_r", batch_size=10, replay_batch=16)
    first, second, batches = run.method.objective.projector, run.method.h.head, stream(run)
    start = states(second)
    run.method.observe(batches[0])
    assert difference(start, states(second)) is None
    run.method.observe(batches[1])  # 20 images are stored now: the next batch replays
    assert difference(states(first), states(second)) is None
    found = run.method.observe(batches[2])
    assert found.keys() == {"present", "cross", "past"}
    assert difference(states(first), states(second)) is not None
    assert all(p.grad.abs().sum() > 0 for p in second.parameters())


def test_osiris_as_released_leaves_its_second_head_random():
    run = tiny_run("osiris_r")
    released = plugins.component("method", "osiris_r", {"train_h": False}, where="tests")
    method = plugins.build("method", released, run.method.ctx)
    before = [p.clone() for p in method.h.parameters()]
    for batch in stream(run):
        method.observe(batch)
    for was, now in zip(before, method.h.parameters(), strict=True):
        assert torch.equal(was, now)
        assert now.grad is None


def test_scale_fixes_the_weight_of_its_distillation_in_the_first_step():
    run = tiny_run("scale", passes=1)
    batches = stream(run)
    assert run.method.losses.weight == 0
    first = run.method.observe(batches[0])
    torch.testing.assert_close(first["distillation"], 0.15 * first["contrast"])
    weight = run.method.losses.weight.clone()
    run.method.observe(batches[1])
    assert torch.equal(run.method.losses.weight, weight)
    assert weight > 0


def test_scale_compares_with_the_encoder_at_the_beginning_of_the_mini_batch():
    method, batches = learned("scale", passes=2)
    before = states(method.backbone)
    method.observe(batches[0])
    assert difference(before, states(method.past)) is None
    assert difference(before, states(method.backbone)) is not None
    assert not method.past.training


def test_scale_s_memory_is_full_of_different_images():
    method, _ = learned("scale", tasks=3)
    kept = method.buffer.everything()["x"]
    assert len(kept) == method.ctx.training.buffer_size
    assert len(kept.unique(dim=0)) == len(kept)


def test_iid_makes_as_many_steps_with_fresh_images_of_every_class():
    iid, other = tiny_run("iid"), tiny_run("replay")
    mine = [list(iid._batches(task)) for task in iid.scenario.tasks]
    theirs = [list(other._batches(task)) for task in other.scenario.tasks]
    assert sum(map(len, mine)) == sum(map(len, theirs))
    assert max(map(len, mine)) - min(map(len, mine)) <= 1
    size = iid.settings.passes * (iid.settings.batch_size + iid.settings.replay_batch)
    assert {len(batch.x) for task in mine for batch in task} == {size}
    labels = iid.scenario.dataset.train.y
    for task in mine:
        assert len(labels[torch.cat([batch.index for batch in task])].unique()) == 10


def test_iid_draws_every_image_once_before_any_comes_again():
    run = tiny_run("iid")
    batches = [b.index for task in run.scenario.tasks for b in run._batches(task)]
    drawn = torch.cat(batches).cpu()
    rows = torch.cat([task.train for task in run.scenario.tasks])
    total = len(rows)
    assert len(drawn) > 2 * total
    for start in range(0, len(drawn) - total, total):
        assert torch.equal(drawn[start : start + total].sort().values, rows.sort().values)
    assert not torch.equal(drawn[:total], drawn[total : 2 * total])
    counts = torch.bincount(drawn[:200] % 2)  # no order by row number either
    assert (counts - 100).square().sum() / 50 < chi2.ppf(0.999, 1)


@pytest.mark.parametrize("name", FAMILY)
def test_a_learning_rate_beyond_all_bounds_ends_as_diverged(name):
    with pytest.raises(DivergedError):
        finish(tiny_run(name, lr=1e30))


@pytest.mark.parametrize("objective", registry.names(registry.OBJECTIVES))
@pytest.mark.parametrize("name", FAMILY)
def test_a_method_trains_with_an_objective_or_says_why_not(name, objective):
    backbone = tiny.BACKBONE
    if objective == "mae":
        backbone = {"name": "vit_tiny", "dim": 12, "depth": 1, "heads": 2}
    settings = {"objective": objective, "backbone": backbone}
    trial = tiny.tiny_trial(name, **settings)
    chosen = plugins.find("objective", objective, where="tests").module.build
    build = registry.entry(name).module.build
    fits = chosen.alignable if name in ALIGNING else True
    fits = chosen.contrastive if name in {"scale", "osiris_r"} else fits
    if not fits:
        with pytest.raises(UserError, match=f"method {name}: .*objective"):
            protocol.check_method(trial.spec, where="suite.yaml")
        return
    protocol.check_method(trial.spec, where="suite.yaml")
    run = tiny_run(name, **settings)
    if build.needs and hasattr(run.method, "before"):
        run.method.begin_task(tiny.view(run, 1))
    for batch in stream(run, 1)[:2]:
        losses = run.method.observe(batch)
    assert all(value.isfinite() for value in losses.values())


REPLAYING = ["replay", "cla_e", "cla_r", "cassle_r", "osiris_r", "climb"]


@pytest.mark.parametrize("name", REPLAYING)
def test_a_replay_batch_as_large_as_the_buffer_is_refused_when_planning(name):
    with pytest.raises(UserError, match=f"method {name}: buffer_size must be above replay_batch"):
        check(name, replay_batch=40)


def test_minred_which_trains_on_its_buffer_alone_may_replay_all_of_it_but_not_one_image():
    check("minred", replay_batch=40)
    with pytest.raises(UserError, match="buffer_size must not be below replay_batch"):
        check("minred", replay_batch=41)
    with pytest.raises(UserError, match=r"replay_batch: .* 1 is too few"):
        check("minred", replay_batch=1)


def test_lump_compares_the_buffer_with_the_batch_of_the_stream():
    check("lump", replay_batch=40)
    with pytest.raises(UserError, match="buffer_size must be above batch_size"):
        check("lump", batch_size=40)


@pytest.mark.parametrize("name", FAMILY)
def test_a_stream_batch_of_one_image_is_refused_when_planning(name):
    with pytest.raises(UserError, match="batch_size: batch normalisation cannot train on 1 image"):
        check(name, batch_size=1)


def test_climb_s_memory_must_have_room_after_a_consolidation():
    too_small = r"buffer_size: a memory of 30 images is too small: .* room for 35"
    with pytest.raises(UserError, match=too_small):
        check("climb", buffer_size=30)


def test_a_backbone_that_does_not_suit_the_images_is_refused_when_planning():
    with pytest.raises(UserError, match="backbone cnn: 6 widths do not suit 8x8 images"):
        check("replay", backbone={"name": "cnn", "widths": [2] * 6})


def test_mae_with_a_backbone_without_patches_is_refused_when_planning():
    with pytest.raises(UserError, match="needs a backbone of patches"):
        check("replay", objective="mae")


def check(name, **changes):
    protocol.check_method(tiny.tiny_trial(name, **changes).spec, where="suite.yaml")


@pytest.mark.parametrize("fidelity", ["clean", "upstream"])
def test_climb_judges_novelty_in_the_mode_of_its_fidelity(fidelity):
    method = climb(tiny_run("climb"), fidelity)
    batch = stream(tiny_run("climb"))[0]
    before = [b.clone() for b in method.net.buffers()]
    method.remember(batch)
    changed = any(
        not torch.equal(was, now) for was, now in zip(before, method.net.buffers(), strict=True)
    )
    assert changed == (fidelity == "upstream")


def test_climb_as_released_goes_on_from_a_state_bit_for_bit():
    first, second = climb(tiny_run("climb"), "upstream"), climb(tiny_run("climb"), "upstream")
    batches = stream(tiny_run("climb"))
    for batch in batches[:-1]:
        first.observe(batch)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for method in (first, second):
        method.observe(batches[-1])
    assert difference(first.state_dict(), second.state_dict()) is None


def climb(run, fidelity):
    settings = {**tiny.scaled("climb"), "fidelity": fidelity}
    component = plugins.component("method", "climb", settings, where="tests")
    return plugins.build("method", component, run.method.ctx)


@pytest.mark.parametrize(("mode", "moves"), [("batch", True), ("eval", False)])
def test_minred_stores_projections_in_the_mode_it_is_told(mode, moves):
    run = tiny_run("minred")
    component = plugins.component("method", "minred", {"novelty_bn": mode}, where="tests")
    method = plugins.build("method", component, run.method.ctx)
    before = [b.clone() for b in method.net.buffers()]
    method.before_passes(stream(run)[0])
    same = [torch.equal(was, now) for was, now in zip(before, method.net.buffers(), strict=True)]
    assert all(same) != moves


def test_climb_as_released_leaves_its_alignment_head_random():
    run = tiny_run("climb")
    method = climb(run, "upstream")
    before = [p.clone() for p in method.alignment.parameters()]
    losses = [method.observe(batch) for batch in stream(run)]
    assert "alignment" in losses[-1]
    for was, now in zip(before, method.alignment.parameters(), strict=True):
        assert torch.equal(was, now)
