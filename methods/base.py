"""What a method sees (Batch, TaskView, Context) and what it must do (Method)."""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar, final, runtime_checkable

import torch
from torch import Tensor, nn

Losses = Mapping[str, Tensor]
T = TypeVar("T")


class Signal(enum.StrEnum):
    """Side information that a scenario may reveal; the harness hides what a method does not need.

    LABELS: class labels of the batch and the classes of a task. BOUNDARIES: `begin_task` and
    `end_task` are called. TASK_ID: the position of a batch's task. TASK_DATA: the training data of
    the current task as a whole. ALL_DATA: the stream runs over all tasks so far. IID: the stream
    of each task is one of equal parts of a shuffle of all tasks, past and future, with
    `batch_size` + `replay_batch` images for every optimizer step. Both are for upper references.
    """

    LABELS = "labels"
    BOUNDARIES = "boundaries"
    TASK_ID = "task_id"
    TASK_DATA = "task_data"
    ALL_DATA = "all_data"
    IID = "iid"


@dataclass(frozen=True, slots=True)
class Batch:
    """Raw uint8 images of shape (B, C, H, W), labels of shape (B,) if revealed, row numbers."""

    x: Tensor
    y: Tensor | None
    index: Tensor
    task: int | None = None

    def labels(self) -> Tensor:
        """The labels; an error in a method that did not declare that it needs them."""
        if self.y is None:
            raise RuntimeError("this stream hides labels; declare Signal.LABELS in `needs`")
        return self.y


class Batches(Sized, Iterable[Batch], Protocol):
    """A stream of known length: every image drawn from it counts in `samples_seen`.

    It passes `epochs` times over its images; `milestones` are the epochs after which a `multistep`
    schedule multiplies the learning rate.
    """

    @property
    def epochs(self) -> int: ...
    @property
    def milestones(self) -> tuple[int, ...]: ...


class TaskView(Protocol):
    """The current task, as far as the method declared that it needs to know.

    `position` counts from 0 and needs BOUNDARIES or TASK_ID; `classes`, the labels that the task
    holds, needs LABELS beside one of them; `data` and `batches` need TASK_DATA. An attribute
    that was not asked for raises RuntimeError.
    """

    @property
    def position(self) -> int: ...
    @property
    def classes(self) -> range: ...
    @property
    def data(self) -> Batch: ...
    def batches(self, size: int, *, epochs: int, rng: torch.Generator) -> Batches: ...


class RandomStreams(Protocol):
    """A trial's named random streams; see `harness.seeds.Randomness`."""

    def __call__(self, purpose: str) -> torch.Generator: ...
    def weights(self, make: Callable[[], T], *purpose: str | int) -> T: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> object: ...


@dataclass(frozen=True, slots=True)
class Training:
    """How the protocol trains: the same for every method of a comparison.

    `passes` optimizer steps are made on each stream batch; `replay_batch` images are drawn from a
    memory of at most `buffer_size` images. `fresh_optimizer` starts every task with new optimizer
    state. `milestones` are epochs of a task at which a `multistep` schedule multiplies the
    learning rate by `gamma`; a `cosine` schedule anneals to 0 over each task. `first_epochs` and
    `first_milestones` are those of the first task, if it is trained differently.
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: Literal["constant", "multistep", "cosine"] = "constant"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    fresh_optimizer: bool = False
    batch_size: int = 10
    epochs: int = 1
    first_epochs: int | None = None
    first_milestones: tuple[int, ...] | None = None
    passes: int = 1
    replay_batch: int = 10
    buffer_size: int = 200

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "passes", "replay_batch", "buffer_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "momentum", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.first_epochs is not None and self.first_epochs < 1:
            raise ValueError(f"first_epochs must be at least 1, got {self.first_epochs}")

    def epochs_of(self, position: int) -> int:
        """Epochs of the task at `position`, counted from 0."""
        return self.epochs if position or self.first_epochs is None else self.first_epochs

    def milestones_of(self, position: int) -> tuple[int, ...]:
        """Likewise the epochs at which its learning rate falls."""
        first = self.first_milestones
        return self.milestones if position or first is None else first


@dataclass(frozen=True, slots=True)
class Context:
    """Everything a method is given besides its own settings.

    `backbone` builds the protocol's network with seeded weights, the same at every call with the
    same purpose (none for the network that all methods share); `objective` builds the protocol's
    self-supervised objective around a backbone; `augment` turns raw uint8 images into one
    normalised random view, `normalize` into the plain normalised images.
    """

    backbone: Callable[..., Backbone]
    objective: Callable[[Backbone], Objective]
    image_shape: tuple[int, int, int]
    num_classes: int
    num_tasks: int
    augment: Callable[[Tensor, torch.Generator], Tensor]
    normalize: Callable[[Tensor], Tensor]
    device: torch.device
    random: RandomStreams
    training: Training


class Backbone(nn.Module):
    """A network from normalised images (B, C, H, W) to features (B, `feature_dim`)."""

    feature_dim: int


class StagedBackbone(Backbone):
    """A convolutional network whose feature maps can be taken, or replaced, between its stages.

    Attributes:
        stem: from normalised images (B, C, H, W) to the input of the first stage.
        stages: modules from map to map, each (B, `stage_channels[i]`, H_i, W_i) behind stage i.
        pool: from the last map to features (B, `feature_dim`).
    """

    stem: nn.Module
    stages: nn.ModuleList
    pool: nn.Module
    stage_channels: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.pool(x)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What an objective computed: its loss, and per view the features and projections (B, D)."""

    loss: Tensor
    features: tuple[Tensor, ...]
    projections: tuple[Tensor, ...]

    def mean_projection(self) -> Tensor:
        """The mean of all views' projections (B, D), without gradient."""
        return torch.stack(self.projections).mean(0).detach()


class Objective(nn.Module, abc.ABC):
    """A self-supervised loss with its own heads, over `num_views` views of the same images.

    Attributes:
        num_views: random views of each image that `forward` takes.
        alignable: whether its projections can be aligned with those of an earlier network.
        contrastive: whether it is the contrastive loss that SCALE and Osiris-R stand in for.
        projector: from features to the projections, (B, `projection_dim`).
    """

    num_views: ClassVar[int] = 2
    alignable: ClassVar[bool] = True
    contrastive: ClassVar[bool] = False
    projector: nn.Module
    projection_dim: int

    @abc.abstractmethod
    def forward(
        self, backbone: Backbone, views: tuple[Tensor, ...], rng: torch.Generator
    ) -> Embeddings:
        """The loss on normalised views (B, C, H, W); draws, if any, come from `rng` (CPU)."""

    @final
    def encode(
        self, backbone: Backbone, views: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Features and projections (B, D) of each view, by its own batch statistics as upstream."""
        features = tuple(backbone(view) for view in views)
        return features, tuple(self.projector(f) for f in features)

    def alignment(self, predicted: tuple[Tensor, ...], target: tuple[Tensor, ...]) -> Tensor:
        """This loss between predictions and fixed targets, (B, D) a view; a scalar.

        The distillation of CaSSLe (Fini et al., 2022, arXiv:2112.04215).
        """
        raise NotImplementedError(f"{type(self).__name__} has no alignment loss")

    def after_step(self, backbone: Backbone) -> None:
        """Follow the optimizer (momentum networks); called after every step."""

    def encoder(self, backbone: Backbone) -> nn.Module:
        """The network whose features are measured."""
        return backbone


@dataclass(frozen=True, slots=True)
class Planned:
    """What is known of a trial when planning.

    `objective` is the class of the protocol's objective, `backbone` its network on the meta
    device, which has shapes but no weights; it `normalises_vectors` if it cannot train on a single
    image. `task_classes` is the number of classes of each task.
    """

    training: Training
    objective: type[Objective]
    backbone: Backbone
    normalises_vectors: bool
    image_shape: tuple[int, int, int]
    num_classes: int
    task_classes: tuple[int, ...]


class Stateful(Protocol):
    """What modules, optimizers, buffers and random streams have in common."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Any, /) -> object: ...  # noqa: ANN401


@dataclass(frozen=True, slots=True)
class Recalled:
    """Images of one task as a method recalls them from what it keeps.

    Attributes:
        task: position of the task.
        rows: row numbers of the originals in the training data, int64 (N,).
        x: uint8 (N, C, H, W).
        bits: what each of them takes in memory, float64 (N,).
    """

    task: int
    rows: Tensor
    x: Tensor
    bits: Tensor


@runtime_checkable
class Held(Protocol):
    """A part that a method keeps beside its network; it counts in `Method.memory`.

    `kind` is "exemplars", "cues", "cue index", "teachers", "importance" or "extra parameters";
    `nbytes` the bytes filled, not those allocated.
    """

    @property
    def kind(self) -> str: ...
    @property
    def nbytes(self) -> int: ...


class Method(abc.ABC):
    """A learner that consumes a stream one batch at a time and never sees the future.

    `needs` declares the side information it uses, `predicts` whether it has a classifier,
    `uses_objective` whether it trains by the protocol's self-supervised objective.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset()
    predicts: ClassVar[bool] = False
    uses_objective: ClassVar[bool] = False

    @classmethod  # noqa: B027 - optional hook
    def check(cls, config: Any, planned: Planned) -> None:  # noqa: ANN401
        """Raise ValueError if the method cannot work with these settings; called when planning.

        Args:
            config: the method's own settings.
            planned: everything else that is known before there are data.
        """

    @classmethod
    def measured_early(cls, config: Any) -> bool:  # noqa: ANN401
        """Whether there is something to measure after every task, with these settings."""
        del config
        return True

    def begin_task(self, task: TaskView) -> None:  # noqa: B027 - optional hook
        """Prepare for a new task; called only if the method needs Signal.BOUNDARIES."""

    def learn_task(self, task: TaskView, batches: Batches) -> Iterator[Losses]:
        """Learn one task, yielding the losses of every step to the harness.

        The default observes the protocol's batches one by one. Override it to work in phases, and
        declare what that needs; a method that reads `task` must need Signal.BOUNDARIES.
        """
        del task
        for batch in batches:
            yield self.observe(batch)

    @abc.abstractmethod
    def observe(self, batch: Batch) -> Losses:
        """Learn from one batch and return detached scalar losses, still on the device."""

    def end_task(self, task: TaskView) -> None:  # noqa: B027 - optional hook
        """Consolidate after a task; called only if the method needs Signal.BOUNDARIES."""

    def finite(self) -> bool:
        """Whether every weight is a finite number; asked once a task."""
        return True

    @property
    def measurable(self) -> bool:
        """Whether there is a model to evaluate yet; rows of A before that are not stored."""
        return True

    @abc.abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Map raw uint8 images to features of shape (B, D), without gradients, in eval mode."""

    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        """Class scores of shape (B, num_classes), without gradients, in eval mode."""
        raise NotImplementedError(f"{type(self).__name__} learns representations only")

    def class_logits(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) whose softmax is the method's confidence, likewise.

        The scores of `predict`, unless the classifier is no softmax (iCaRL's nearest mean).
        """
        return self.predict(x)

    def class_attention(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Where in raw images (B, C, H, W) the evidence for classes `y` (B,) is, in eval mode.

        Maps (B, h, w) of numbers that are not negative, without gradients; None if the network
        has no feature maps to tell.
        """
        del x, y
        return None

    def recalled(self, per_task: int) -> Sequence[Recalled]:
        """At most `per_task` images of each task, recalled from what is kept; none if none are."""
        del per_task
        return ()

    @abc.abstractmethod
    def memory(self) -> dict[str, int]:
        """Bytes held between tasks besides the network that finetuning needs, by kind."""

    @abc.abstractmethod
    def parameters(self) -> int:
        """Number of trained parameters."""

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue bit for bit: buffers, optimizers, random streams."""

    @abc.abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Undo `state_dict`, in a method just built with the same settings."""
