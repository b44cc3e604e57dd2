"""A method's step taken apart: what it does between the hooks, and the same computed again."""

import copy
from contextlib import contextmanager

import numpy as np
import torch
from tiny import tiny_run, view


def started(name, tasks, *, config=None, **changes):
    """A run that has learned `tasks` tasks and begun the next; the batches of that one.

    Views are random: the augmentation that digits have by default leaves images as they are.
    """
    run = tiny_run(name, **{"augmentation": "simsiam", **changes})
    if config is not None:
        run.method = type(run.method)(config, run.method.ctx)
    for task in run.scenario.tasks[:tasks]:
        run._learn(task)
    run.random.start_task(tasks)
    run.method.begin_task(view(run, tasks))
    run.method.net.train()
    return run, list(run._batches(run.scenario.tasks[tasks]))


@contextmanager
def undone(method):
    """Put weights, batch statistics, gradients and random streams back afterwards."""
    net = copy.deepcopy(method.net.state_dict())
    streams = copy.deepcopy(method.ctx.random.state_dict())
    gradients = [p.grad for p in method.net.parameters()]
    try:
        yield
    finally:
        method.net.load_state_dict(net)
        method.ctx.random.load_state_dict(streams)
        for parameter, gradient in zip(method.net.parameters(), gradients, strict=True):
            parameter.grad = gradient


def backward(method, batch):
    """The part of a step up to the gradients of its loss; those, (P,)."""
    terms = method.loss(batch)
    method.optimizer.zero_grad(set_to_none=True)
    sum(terms.values()).backward()
    return gradient(method)


def gradient(method):
    """A copy of the gradients, float64 (P,)."""
    return np.concatenate([p.grad.double().flatten().numpy() for p in method.net.parameters()])


def weights(method):
    """A copy of the weights, float64 (P,)."""
    return np.concatenate([p.detach().double().flatten().numpy() for p in method.net.parameters()])


def naive_cross_entropy(logits, labels):
    """The mean of -log of the probability of the label, one image after the other."""
    losses = [
        torch.logsumexp(row, 0) - row[label]
        for row, label in zip(logits, labels.tolist(), strict=True)
    ]
    return sum(losses) / len(losses)


def gradient_of(method, x, y):
    """The gradient of the cross-entropy on raw images in random views, in training mode; (P,)."""
    loss = naive_cross_entropy(method.net(method.views(x)), y)
    found = torch.autograd.grad(loss, [*method.net.parameters()])
    return np.concatenate([g.double().flatten().numpy() for g in found])


def counts(labels):
    """How often each label occurs."""
    values, numbers = labels.unique(return_counts=True)
    return dict(zip(values.tolist(), numbers.tolist(), strict=True))


def rows_of(images, pool):
    """For each image, where it stands in a pool that holds it."""
    same = (images[:, None] == pool[None]).flatten(2).all(2)
    assert same.any(1).all()
    return same.int().argmax(1)
