"""The two families on one skeleton: methods that follow the gradient of a loss."""

from __future__ import annotations

import abc
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from methods.base import (
    Backbone,
    Batch,
    Batches,
    Context,
    Embeddings,
    Held,
    Losses,
    Method,
    Objective,
    Signal,
    StagedBackbone,
    Stateful,
    TaskView,
    Training,
)
from methods.parts.grad_cam import grad_cam, last_maps


def build_optimizer(
    parameters: Iterable[nn.Parameter], training: Training
) -> torch.optim.Optimizer:
    """The protocol's optimizer over `parameters`; `momentum` concerns SGD alone."""
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    lr, decay = training.lr, training.weight_decay
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=training.momentum, weight_decay=decay)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[training.optimizer](parameters, lr=lr, weight_decay=decay)


def build_schedule(
    optimizer: torch.optim.Optimizer, training: Training, batches: Batches
) -> LRScheduler | None:
    """A schedule over the batches of one task, stepped after each; None: constant.

    It starts from the learning rate that `optimizer` was made with, wherever the last one ended.
    """
    for group in optimizer.param_groups:
        group["lr"] = group.get("initial_lr", group["lr"])
    if training.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=len(batches))
    if training.schedule == "multistep":
        an_epoch = len(batches) // batches.epochs
        steps = [epoch * an_epoch for epoch in batches.milestones]
        return MultiStepLR(optimizer, steps, gamma=training.gamma)
    return None


class GradientMethod(Method):
    """A method that minimises a sum of named loss terms; leaves override `loss` and the hooks."""

    def __init__(self, ctx: Context, net: nn.Module) -> None:
        self.ctx = ctx
        self.net = net.to(ctx.device)
        self._trained = [self.net]
        self.optimizer = self.make_optimizer()

    def make_optimizer(self) -> torch.optim.Optimizer:
        """A new optimizer; override it for parameter groups or a method's native optimizer."""
        parameters = chain.from_iterable(module.parameters() for module in self._trained)
        return build_optimizer(parameters, self.ctx.training)

    @final
    def train_also(self, module: nn.Module) -> None:
        """Train a module on the device beside the network; the method adds it to its `parts`."""
        self._trained.append(module)
        self.optimizer = self.make_optimizer()

    def rebuild(self, state: Mapping[str, Any]) -> None:
        """Grow the network and its optimizer to the shapes in a saved `state`, before loading."""

    def before_passes(self, batch: Batch) -> None:
        """Look at a batch once, before any pass over it (MinRed, SCALE)."""

    @abc.abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named loss terms of one pass; their sum is minimised."""

    def adjust_gradients(self) -> None:
        """Edit `.grad` in place between backward and step (A-GEM, GEM)."""

    def after_step(self) -> None:
        """Follow the optimizer (path integrals, EMA teachers)."""

    def remember(self, batch: Batch) -> None:
        """Store the batch once, after all passes over it (replay methods)."""

    def learn_task(self, task: TaskView, batches: Batches) -> Iterator[Losses]:
        """Observe every batch under the protocol's schedule, which restarts with each task."""
        del task
        if self.ctx.training.fresh_optimizer:
            self.optimizer = self.make_optimizer()
        schedule = build_schedule(self.optimizer, self.ctx.training, batches)
        for batch in batches:
            yield self.observe(batch)
            if schedule is not None:
                schedule.step()

    @final
    def observe(self, batch: Batch) -> Losses:
        self.net.train()
        terms: dict[str, Tensor] = {}
        self.before_passes(batch)
        for _ in range(self.ctx.training.passes):
            terms = self.loss(batch)
            self.optimizer.zero_grad(set_to_none=True)
            total(terms).backward()
            self.adjust_gradients()
            self.optimizer.step()
            self.after_step()
        self.remember(batch)
        return {name: term.detach() for name, term in terms.items()}

    def parts(self) -> dict[str, Stateful]:
        """Everything a checkpoint must carry; leaves add their buffers and teachers."""
        return {"net": self.net, "optimizer": self.optimizer, "random": self.ctx.random}

    @final
    def finite(self) -> bool:
        weights = [*self.net.parameters()]
        return bool(torch.stack([weight.isfinite().all() for weight in weights]).all())

    @final
    def memory(self) -> dict[str, int]:
        held: dict[str, int] = {}
        for part in self.parts().values():
            if isinstance(part, Held):
                held[part.kind] = held.get(part.kind, 0) + part.nbytes
        return held

    @final
    def parameters(self) -> int:
        groups = self.optimizer.param_groups
        return sum(parameter.numel() for group in groups for parameter in group["params"])

    @final
    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts().items()}

    @final
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rebuild(state)
        for name, part in self.parts().items():
            part.load_state_dict(state[name])


class ClassifierMethod(GradientMethod):
    """A backbone with one head over all classes, seen and unseen."""

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.LABELS})
    predicts: ClassVar[bool] = True

    def __init__(self, ctx: Context) -> None:
        self.backbone = ctx.backbone()
        self.head = ctx.random.weights(lambda: self.make_head(ctx), "head")
        super().__init__(ctx, nn.Sequential(self.backbone, self.head))

    def make_head(self, ctx: Context) -> nn.Module:
        """From features (B, D) to logits (B, num_classes); override it for another classifier."""
        return nn.Linear(self.backbone.feature_dim, ctx.num_classes)

    @final
    def views(self, x: Tensor) -> Tensor:
        """One normalised random view of each raw image."""
        return self.ctx.augment(x, self.ctx.random("augment"))

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        with evaluating(self.net):
            return self.backbone(self.ctx.normalize(x))

    @torch.no_grad()
    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        del task  # one head for all tasks
        with evaluating(self.net):
            return self.net(self.ctx.normalize(x))

    def class_attention(self, x: Tensor, y: Tensor) -> Tensor | None:
        backbone = self.backbone
        # A method that embeds in another way has its evidence elsewhere.
        plain = type(self).embed is ClassifierMethod.embed
        if not plain or not isinstance(backbone, StagedBackbone):
            return None
        with evaluating(self.net):
            maps = last_maps(backbone, self.ctx.normalize(x))
            return grad_cam(maps, lambda found: self.head(backbone.pool(found)), y)


class SelfSupervisedMethod(GradientMethod):
    """A backbone trained without labels by the protocol's objective, or by `make` if given."""

    uses_objective: ClassVar[bool] = True

    def __init__(self, ctx: Context, make: Callable[[Backbone], Objective] | None = None) -> None:
        self.backbone = ctx.backbone()
        if make is None:
            self.objective = ctx.objective(self.backbone)
        else:
            self.objective = ctx.random.weights(lambda: make(self.backbone), "objective")
        super().__init__(ctx, nn.ModuleList([self.backbone, self.objective]))

    @final
    def views(self, x: Tensor) -> tuple[Tensor, ...]:
        """Fresh normalised random views of the raw images `x`, as many as the objective takes."""
        rng = self.ctx.random("augment")
        return tuple(self.ctx.augment(x, rng) for _ in range(self.objective.num_views))

    @final
    def embeddings(self, views: tuple[Tensor, ...]) -> Embeddings:
        """The objective on views (B, C, H, W)."""
        return self.objective(self.backbone, views, self.ctx.random("objective"))

    def after_step(self) -> None:
        self.objective.after_step(self.backbone)

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        with evaluating(self.net):
            return self.objective.encoder(self.backbone)(self.ctx.normalize(x))

    @torch.no_grad()
    def project(self, x: Tensor) -> Tensor:
        """Projections (B, D) of raw images without augmentation, in the mode the network is in."""
        return self.objective.projector(self.backbone(self.ctx.normalize(x)))


@contextmanager
def evaluating(net: nn.Module) -> Generator[None]:
    """Eval mode for a while; afterwards every module is in the mode it was in before."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def total(terms: Losses) -> Tensor:
    """Sum of all loss terms, a scalar on the device."""
    first, *rest = terms.values()
    return sum(rest, start=first)
