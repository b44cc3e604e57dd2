"""Every objective keeps these promises, alone and under a method; a new one is covered at once."""

import copy
import dataclasses
import inspect
import io
import re
from functools import cache

import pytest
import torch
from tiny import difference, tiny_run

from harness import plugins
from harness.measure import Checkpoint, Cost
from methods import registry
from methods.base import Objective
from methods.parts.alignment import Alignment

OBJECTIVES = registry.names(registry.OBJECTIVES)
SHAPE = (1, 8, 8)
CNN = {"name": "cnn", "widths": [4, 8]}
SETTINGS = {  # a network of seconds, where the defaults are one of hours
    "mae": {"decoder_depth": 1, "decoder_heads": 2, "decoder_dim": 16},
    "byol": {"projection_dim": 16, "predictor_dim": 8, "momentum": 0.9},
    "simsiam": {"projection_dim": 16, "predictor_dim": 8},
}
BACKBONES = {"mae": {"name": "vit_tiny", "patch_size": 2, "dim": 16, "depth": 2, "heads": 2}}

every_objective = pytest.mark.parametrize("name", OBJECTIVES)
aligning = pytest.mark.parametrize(
    "name", [n for n in OBJECTIVES if registry.entry(n, registry.OBJECTIVES).module.build.alignable]
)


def entry(name):
    return registry.entry(name, registry.OBJECTIVES)


def changes(name):
    """What a tiny trial of this objective has in its protocol."""
    settings = SETTINGS.get(name, {"projection_dim": 16})
    return {"objective": {"name": name, **settings}, "backbone": BACKBONES.get(name, CNN)}


def run_with(name, **more):
    return tiny_run("no_strategy", **changes(name), **more)


def part(kind, settings, *args):
    settings = dict(settings)
    component = plugins.component(kind, settings.pop("name"), settings, where="tests")
    return plugins.build(kind, component, *args)


def build(name):
    """A backbone and this objective, small and on the default device."""
    backbone = part("backbone", changes(name)["backbone"], SHAPE)
    return backbone, part("objective", changes(name)["objective"], backbone)


def nets(name):
    """The same with weights that are the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(name)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def views(objective, batch=8, seed=0):
    draws = rng(seed)
    return tuple(torch.randn(batch, *SHAPE, generator=draws) for _ in range(objective.num_views))


def trained(backbone, objective):
    return [p for net in (backbone, objective) for p in net.parameters() if p.requires_grad]


def saved_and_loaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def midway(run):
    """Learn two batches of the second task; gives the batches that follow."""
    run.random.start_task(1)
    batches = list(run._batches(run.scenario.tasks[1]))
    for batch in batches[:2]:
        run.method.observe(batch)
    return batches[2:5]


@cache
def learned(name):
    """A trial that has learned its first task; shared, so that nobody may train it any further."""
    run = run_with(name)
    run._learn(run.scenario.tasks[0])
    return run


@every_objective
def test_the_same_trial_gives_the_same_numbers_and_learns(name):
    run, again = learned(name), run_with(name)
    x = run.scenario.dataset.test.x[:24]
    before = again.method.embed(x)
    again._learn(again.scenario.tasks[0])
    assert difference(run.method.state_dict(), again.method.state_dict()) is None
    after = run.method.embed(x)
    assert after.isfinite().all()
    assert torch.equal(after, again.method.embed(x))
    assert not torch.equal(after, before)


@every_objective
def test_a_state_taken_in_the_middle_of_a_task_continues_bit_for_bit(name):
    first, second = run_with(name), run_with(name)
    batches = midway(first)
    second.method.load_state_dict(saved_and_loaded(first.method.state_dict()))
    assert difference(first.method.state_dict(), second.method.state_dict()) is None
    assert batches
    for batch in batches:
        assert difference(first.method.observe(batch), second.method.observe(batch)) is None
    assert difference(first.method.state_dict(), second.method.state_dict()) is None


@every_objective
def test_evaluation_changes_neither_the_features_nor_the_method(name):
    run = learned(name)
    x = run.scenario.dataset.test.x[:24]
    before = copy.deepcopy(run.method.state_dict())
    features = run.method.embed(x)
    at = Checkpoint(
        run.method, run.scenario, 0, split="test", seed=0, cost=lambda: Cost(0.0, 0.0, None, 0)
    )
    assert list(part("evaluator", {"name": "probe_ridge"}).evaluate(at))
    assert torch.equal(run.method.embed(x), features)
    assert difference(run.method.state_dict(), before) is None
    assert all(module.training for module in run.method.net.modules())


@every_objective
def test_an_image_is_measured_alone_as_in_a_batch(name):
    run = learned(name)
    x = run.scenario.dataset.test.x[:6]
    alone = torch.cat([run.method.embed(image[None]) for image in x])
    torch.testing.assert_close(alone, run.method.embed(x), rtol=1e-4, atol=1e-5)


@every_objective
def test_only_what_needs_a_gradient_is_trained_and_counted(name):
    run = run_with(name)
    method = run.method
    learns = trained(method.backbone, method.objective)
    assert method.parameters() == sum(p.numel() for p in learns)
    method.observe(next(iter(run._batches(run.scenario.tasks[0]))))
    for parameter in method.net.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad


def test_byols_target_follows_every_optimizer_step():
    run = run_with("byol", passes=3)
    method = run.method
    theta = [p.clone() for p in method.objective.target.parameters()]
    wanted, step = [theta], method.optimizer.step

    def noted():
        step()
        live = [*method.backbone.parameters(), *method.objective.projector.parameters()]
        wanted.append([0.9 * w + 0.1 * p for w, p in zip(wanted[-1], live, strict=True)])

    method.optimizer.step = noted
    method.observe(next(iter(run._batches(run.scenario.tasks[0]))))
    assert len(wanted) == 1 + 3
    found = list(method.objective.target.parameters())
    for ours, theirs, start in zip(found, wanted[-1], theta, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert not torch.equal(ours, start)


@every_objective
def test_a_view_has_features_and_projections_of_the_sizes_announced(name):
    backbone, objective = nets(name)
    given = views(objective)
    found = objective(backbone, given, rng())
    assert found.loss.shape == ()
    assert len(found.features) == len(found.projections) == objective.num_views
    for features, projections in zip(found.features, found.projections, strict=True):
        assert features.shape == (8, backbone.feature_dim)
        assert projections.shape == (8, objective.projection_dim)
    assert objective.projector(backbone(given[0])).shape == (8, objective.projection_dim)
    assert not found.mean_projection().requires_grad


@every_objective
def test_a_step_on_a_machine_without_memory_asks_for_no_number(name):
    """Planning builds networks on the meta device; there, a value on the host is an error."""
    with torch.device("meta"):
        backbone, objective = build(name)
    tensors = [*objective.parameters(), *objective.buffers(), *backbone.parameters()]
    assert all(tensor.is_meta for tensor in tensors)
    given = tuple(torch.empty(4, *SHAPE, device="meta") for _ in range(objective.num_views))
    objective(backbone, given, rng()).loss.backward()
    objective.after_step(backbone)
    assert all(p.grad is not None and p.grad.is_meta for p in trained(backbone, objective))


@every_objective
def test_a_step_draws_from_its_own_generator_alone(name):
    backbone, objective = nets(name)
    before = torch.get_rng_state()
    objective(backbone, views(objective), rng()).loss.backward()
    objective.after_step(backbone)
    assert torch.equal(torch.get_rng_state(), before)


BROKEN = {
    "black": lambda x: torch.zeros_like(x),
    "one image in all rows": lambda x: x[:1].expand_as(x).clone(),
    "half of the rows black": lambda x: torch.cat([x[: len(x) // 2], 0 * x[len(x) // 2 :]]),
    "far too bright": lambda x: 1e4 * x,
    "two images": lambda x: x[:2],
}


@every_objective
@pytest.mark.parametrize("broken", BROKEN)
def test_numbers_stay_finite_on_half_broken_images(name, broken):
    backbone, objective = nets(name)
    given = tuple(BROKEN[broken](view) for view in views(objective))
    loss = objective(backbone, given, rng()).loss
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in trained(backbone, objective))


@every_objective
def test_training_lowers_the_loss_of_a_batch(name):
    backbone, objective = nets(name)
    given = views(objective, batch=16)
    optimizer = torch.optim.Adam(trained(backbone, objective), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = objective(backbone, given, rng()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step(backbone)
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1 * abs(losses[0])


@aligning
def test_alignment_pulls_a_head_towards_fixed_targets(name):
    """CaSSLe's distillation by the objective's own loss, through the head that it trains."""
    method = run_with(name).method
    head = Alignment(method.ctx, method.objective, "ssl")
    drawn = [torch.randn(16, 16, generator=rng(seed)) for seed in (1, 2, 3, 4)]
    first, second, *targets = (x.to(method.ctx.device) for x in drawn)
    projections = [first, second]
    targets = [target.requires_grad_() for target in targets]
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = head(projections, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(target.grad is None for target in targets)


@aligning
@pytest.mark.parametrize("broken", ["zeros", "equal rows", "equal to the target"])
def test_alignment_stays_finite_on_half_broken_projections(name, broken):
    _, objective = nets(name)
    target = torch.randn(6, 16, generator=rng())
    given = {
        "zeros": torch.zeros(6, 16),
        "equal rows": target[:1].expand(6, -1).clone(),
        "equal to the target": target.clone(),
    }[broken].requires_grad_()
    loss = objective.alignment((given, given), (target, target))
    loss.backward()
    assert loss.isfinite()
    assert given.grad.isfinite().all()


@every_objective
def test_a_plug_in_has_a_paper_frozen_settings_and_a_class_to_build(name):
    assert re.search(r"\(.*\b(19|20)\d\d, arXiv:\d{4}\.\d{5}\)", entry(name).module.__doc__)
    config = entry(name).config
    assert dataclasses.is_dataclass(config())
    assert config.__dataclass_params__.frozen
    build = entry(name).module.build
    assert inspect.isclass(build)
    assert issubclass(build, Objective)
