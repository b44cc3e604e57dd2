"""DER: a new backbone for every task, old ones frozen (Yan et al., CVPR 2021, arXiv:2103.16788).

Dynamically Expandable Representation, not Dark Experience Replay (`der_dark`). One classifier over
the features of all backbones learns the task's images and exemplars of past classes; a second one
has the newest backbone tell the task's classes from each other and from all past ones. Afterwards
the classifier is trained anew on equally many images of every class.

WITHOUT the paper's channel masks and pruning, which were never released: the network grows by a
whole backbone a task, as in github.com/Rhyssiyan/DER-ClassIL.pytorch (the code of the paper),
github.com/G-U-N/PyCIL (models/der.py) and the comparison of BrainCL (arXiv:2504.14727).

Deviations from the paper's code:
- exemplars join the batches of the stream, so many each that an epoch passes over all of them
  about once; there the union of both is shuffled;
- the classifier is trained anew on the exemplars, those of the task among them; there on a random
  choice from all images of the task, and before the exemplars are chosen;
- no warm-up, after which classifiers are made anew; the classifier has a bias and PyTorch's initial
  values; the weights of old classes are inherited (`reuse_old_head: false`: they are not);
- the classifier has an output for every class from the start; those not seen yet are left out of
  all losses, and made anew with the task that brings them.
Every task has a new optimizer, since what is trained is new. Features are super-features: a task
adds as many as the backbone has.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import (
    Backbone,
    Batch,
    Batches,
    Context,
    Losses,
    StagedBackbone,
    Stateful,
    TaskView,
)
from methods.learners import evaluating
from methods.parts.exemplars import first_of_each, herded_of_each
from methods.parts.expanding_net import (
    AuxiliaryHead,
    FrozenBackbones,
    OlderWeights,
    SuperHead,
    told_apart,
)
from methods.parts.finetuning import Finetuning
from methods.parts.grad_cam import grad_cam, last_maps
from methods.parts.rehearsal import Quota, RehearsalMethod, directions, joined
from methods.parts.requirements import require_finite
from methods.parts.transfers import sent

FINETUNE_MOMENTUM = 0.9  # the paper's code, inclearn/convnet/utils.py


@dataclass(frozen=True, slots=True)
class Config:
    """The `finetune_` settings and `temperature` are those of `head_stage: balanced_finetune`."""

    aux_weight: float = 1.0  # the paper's code; 0 leaves the second classifier out
    init_from_previous: bool = True  # a new backbone begins as the last one ended; the paper's code
    reuse_old_head: bool = True  # PyCIL; the paper's code: false
    quota: Quota = "per_class"  # BrainCL's comparison; the code: total
    head_stage: Literal["balanced_finetune", "weight_align", "none"] = "balanced_finetune"
    finetune_epochs: int = 30  # this and the next four: the paper's code for ImageNet-100
    finetune_lr: float = 0.1
    finetune_decay_after: int = 15  # epochs, then a tenth of finetune_lr
    finetune_weight_decay: float = 5e-4
    temperature: float = 1.0  # by which logits are divided; for CIFAR-100: 5

    def __post_init__(self) -> None:
        require_finite(self, "aux_weight", "finetune_lr", "finetune_weight_decay")
        require_finite(self, "temperature", above_zero=True)
        for name in ("finetune_epochs", "finetune_decay_after"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def finetuning(self, batch_size: int) -> Finetuning:
        """Of the classifier, with batches of the protocol's size."""
        return Finetuning(
            self.finetune_epochs,
            batch_size,
            self.finetune_lr,
            "epoch",
            self.finetune_decay_after,
            FINETUNE_MOMENTUM,
            self.finetune_weight_decay,
        )


class DERExpand(RehearsalMethod):
    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx, config.quota)
        self.config = config
        self.old = FrozenBackbones()
        head = SuperHead(self.head, OlderWeights(ctx.num_classes, 0))
        self._train(self.backbone, head, AuxiliaryHead())

    def begin_task(self, task: TaskView) -> None:
        expands = self.current.position >= 0
        super().begin_task(task)
        if expands:
            self._expand()

    def learn_task(self, task: TaskView, batches: Batches) -> Iterator[Losses]:
        yield from super().learn_task(task, batches)
        self._choose_exemplars(task)
        if not self.old:
            return
        if self.config.head_stage == "weight_align":
            self.classifier.align(self.current.own)
        elif self.config.head_stage == "balanced_finetune":
            yield from self._finetune()

    def end_task(self, task: TaskView) -> None:
        super().end_task(task)
        self._train(self.backbone, self.classifier, AuxiliaryHead())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x, y = joined(batch, self.drawn)
        older, own = self._features(self.views(x))
        logits = self.classifier(older, own)[:, : self.current.seen]
        terms = {"cross_entropy": F.cross_entropy(logits, y)}
        if self.auxiliary:
            apart = F.cross_entropy(self.auxiliary(own), told_apart(y, self.current.past))
            terms["auxiliary"] = self.config.aux_weight * apart
        return terms

    def parts(self) -> dict[str, Stateful]:
        grown = {"old": self.old, "older": self.classifier.older, "auxiliary": self.auxiliary}
        return {**super().parts(), **grown}

    def rebuild(self, state: Mapping[str, Any]) -> None:
        self.old = FrozenBackbones()
        for _ in state["old"]["backbones"]:
            self.old.add(copy.deepcopy(self.backbone))
        outputs = len(state["auxiliary"].get("layer.bias", ()))
        dim = self.backbone.feature_dim
        auxiliary = self.ctx.random.weights(lambda: AuxiliaryHead(dim, outputs), "rebuilt")
        self._train(self.backbone, self._fresh_head("rebuilt"), auxiliary)

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        with evaluating(self.net):
            return torch.cat(self._features(self.ctx.normalize(x)), dim=1)

    @torch.no_grad()
    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        del task  # one head for all tasks
        with evaluating(self.net):
            return self.classifier(*self._features(self.ctx.normalize(x)))

    def class_attention(self, x: Tensor, y: Tensor) -> Tensor | None:
        """The mean over the backbones of what each of them has found."""
        branches = [*self.old, self.backbone]
        staged = [branch for branch in branches if isinstance(branch, StagedBackbone)]
        if len(staged) < len(branches):
            return None
        x = self.ctx.normalize(x)
        with evaluating(self.net):
            maps = [last_maps(branch, x) for branch in staged]
            with torch.no_grad():
                features = [branch.pool(found) for branch, found in zip(staged, maps, strict=True)]

            def scores(place: int, found: Tensor) -> Tensor:
                parts = [*features[:place], staged[place].pool(found), *features[place + 1 :]]
                return self.classifier(torch.cat([features[0][:, :0], *parts[:-1]], 1), parts[-1])

            evidence = [grad_cam(found, partial(scores, i), y) for i, found in enumerate(maps)]
        return torch.stack(evidence).mean(0)

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of all frozen backbones (B, D_old) and of the newest (B, D), of normalised images."""
        return self.old(x), self.backbone(x)

    def _expand(self) -> None:
        """Freeze the newest backbone, and begin another for the task that begins."""
        last, before = self.backbone, self.classifier
        newest = copy.deepcopy(last)
        if not self.config.init_from_previous:
            newest = self.ctx.backbone("expansion", len(self.old) + 1)
        self.old.add(last)
        head = self._fresh_head("expansion")
        if self.config.reuse_old_head:
            head.inherit(before, self.current.past)
        self._train(newest, head, self._fresh_auxiliary())

    def _train(self, newest: Backbone, classifier: SuperHead, auxiliary: AuxiliaryHead) -> None:
        """Train these from now on."""
        device = self.ctx.device
        self.backbone, self.classifier = newest.to(device), classifier.to(device)
        self.auxiliary = auxiliary.to(device)
        self.head = self.classifier.own
        self.net = nn.Sequential(self.backbone, self.head)
        self._trained = [self.net, self.classifier.older, self.auxiliary]
        self.optimizer = self.make_optimizer()

    def _fresh_head(self, purpose: str) -> SuperHead:
        """On the device, for all frozen backbones and one more."""
        older, own, classes = self.old.dim, self.backbone.feature_dim, self.ctx.num_classes
        head = self.ctx.random.weights(
            lambda: SuperHead.fresh(older, own, classes), "classifier", purpose, len(self.old)
        )
        return head.to(self.ctx.device)

    def _fresh_auxiliary(self) -> AuxiliaryHead:
        dim = self.backbone.feature_dim
        outputs = len(self.current.own) + 1 if self.config.aux_weight else 0
        return self.ctx.random.weights(
            lambda: AuxiliaryHead(dim, outputs), "auxiliary", len(self.old)
        )

    def _choose_exemplars(self, task: TaskView) -> None:
        data = task.data
        features = directions(self.embed, data.x)
        self.rehearsal.renew(
            data, self.current.seen, lambda y, share: herded_of_each(y, share, features)
        )

    def _finetune(self) -> Iterator[Losses]:
        """Train the classifier anew on equally many exemplars of each class, and nothing else."""
        self.classifier.load_state_dict(self._fresh_head("finetune").state_dict())
        y = self.rehearsal.everything()["y"].cpu()
        rows = first_of_each(y, min(count for count in y.bincount().tolist() if count))
        finetuning = self.config.finetuning(self.ctx.training.batch_size)
        yield from finetuning.run(
            self.classifier,
            lambda some: {"classifier": self._finetune_loss(rows[some])},
            len(rows),
            self.ctx.random("finetune"),
        )

    def _finetune_loss(self, rows: Tensor) -> Tensor:
        """The cross-entropy of these exemplars, on features without gradient."""
        stored, rows = self.rehearsal.everything(), sent(rows, self.ctx.device)
        with evaluating(self.net), torch.no_grad():
            features = self._features(self.views(stored["x"][rows]))
        logits = self.classifier(*features)[:, : self.current.seen] / self.config.temperature
        return F.cross_entropy(logits, stored["y"][rows])


build = DERExpand
