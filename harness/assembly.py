"""From the settings of a trial to its parts: data set, scenario, stream, method, evaluators."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from harness import plugins, protocol
from harness.data.augment import Normalizer
from harness.data.base import Dataset
from harness.data.entries import dataset_entry
from harness.data.imbalance import long_tailed
from harness.data.residency import placed
from harness.data.scenarios import Scenario, Task, class_order, split_classes, split_domains
from harness.data.shelf import load
from harness.data.shuffled import ShuffledBatches, part
from harness.data.stream import Tally, TaskBatches, training_rows
from harness.measure import Evaluator
from harness.seeds import Randomness, generator
from harness.spec import ProtocolSettings, TrialSpec
from methods.base import Context, Method, Signal


def task_stream(
    scenario: Scenario,
    task: Task,
    chosen: ProtocolSettings,
    *,
    reveal: frozenset[Signal],
    seed: int,
    tally: Tally,
) -> TaskBatches | ShuffledBatches:
    """The batches of one task, in an order that depends on the seed and the task alone.

    With Signal.IID they are one of equal parts of a shuffle of all tasks: as many batches in all as
    the tasks have, each with the stream and replay images of all its passes.
    """

    def ordered(one: Task) -> TaskBatches:
        return TaskBatches(
            split=scenario.dataset.train,
            rows=training_rows(scenario, one, reveal),
            size=chosen.batch_size,
            epochs=chosen.epochs_of(one.position),
            drop_last=chosen.drop_last,
            reveal=reveal,
            position=one.position,
            rng=generator(seed, "batch-order", one.position),
            tally=tally,
            milestones=chosen.milestones_of(one.position),
        )

    if Signal.IID not in reveal:
        return ordered(task)
    first, stop = part([len(ordered(one)) for one in scenario.tasks], task.position)
    return ShuffledBatches(
        split=scenario.dataset.train,
        rows=torch.cat([one.train for one in scenario.tasks]),
        size=chosen.passes * (chosen.batch_size + chosen.replay_batch),
        first=first,
        stop=stop,
        reveal=reveal,
        position=task.position,
        seed=seed,
        tally=tally,
        epochs=chosen.epochs_of(task.position),
        milestones=chosen.milestones_of(task.position),
    )


def build_dataset(spec: TrialSpec, data_root: Path) -> Dataset:
    """The trial's data set, on the CPU.

    A set's module may define `seeded(config, seed)`: its settings with what they leave open, such
    as a class list to draw, filled in by the trial's raw seed.

    Raises:
        DataError: if it is not there or damaged.
    """
    name, config = dataset_key(spec)
    return load(name, config, data_root)


def dataset_key(spec: TrialSpec) -> tuple[str, Any]:
    """The data set's name and its settings, complete: equal for trials that share the images."""
    name = spec.dataset.name
    module = plugins.find("data set", name, where="trial").module
    config = dataset_entry(name, spec.dataset.settings, where="trial").config
    return name, module.seeded(config, spec.seed) if hasattr(module, "seeded") else config


def build_scenario(
    spec: TrialSpec, data_root: Path, device: torch.device, *, budget: int = 0
) -> Scenario:
    """The trial's tasks, its labels on the device, and its images too if they fit the budget.

    Raises:
        DataError: if the data set is not there or damaged, or has too few images.
    """
    dataset = build_dataset(spec, data_root)
    chosen = spec.protocol["class_order"]
    order = class_order(
        chosen if isinstance(chosen, str) else tuple(chosen), dataset.num_classes, spec.seed
    )
    imbalance = dataset_entry(spec.dataset.name, spec.dataset.settings, where="trial").imbalance
    if imbalance is not None:
        dataset = long_tailed(dataset, imbalance, order=order, seed=spec.seed)
    cut = split_domains
    if spec.distribution != "domains":
        cut = partial(split_classes, distribution=spec.distribution)
    scenario = cut(
        placed(dataset, device, budget),
        num_tasks=spec.num_tasks,
        order=order,
        validation=spec.protocol["validation"],
        seed=spec.seed,
    )
    return replace(scenario, tasks=scenario.tasks[: spec.first_tasks])


def build_method(
    spec: TrialSpec,
    training: ProtocolSettings,
    scenario: Scenario,
    random: Randomness,
    device: torch.device,
) -> Method:
    dataset = scenario.dataset
    shape, traits = dataset.image_shape, dataset.traits
    parts = {name: protocol.part(spec.protocol, name) for name in protocol.PARTS}
    context = Context(
        backbone=lambda *purpose: random.weights(
            lambda: plugins.build("backbone", parts["backbone"], shape), "backbone", *purpose
        ),
        objective=lambda backbone: random.weights(
            lambda: plugins.build("objective", parts["objective"], backbone), "objective"
        ),
        image_shape=shape,
        num_classes=dataset.num_classes,
        num_tasks=len(scenario.tasks),
        augment=plugins.build("augmentation", parts["augmentation"], traits, shape),
        normalize=Normalizer(traits),
        device=device,
        random=random,
        training=training,
    )
    return plugins.build("method", spec.method, context)


def build_evaluators(
    chosen: ProtocolSettings,
) -> list[tuple[str, Literal["each", "last"], Evaluator]]:
    built: list[tuple[str, Literal["each", "last"], Evaluator]] = []
    for use in chosen.evaluators:
        name, options = plugins.split_name(use, where="evaluators")
        when = options.pop("when", "each")
        component = plugins.component("evaluator", name, options, where="evaluators")
        built.append((name, when, plugins.build("evaluator", component)))
    return sorted(built, key=lambda use: use[2].runs_last)
