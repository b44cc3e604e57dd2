"""The networks of a trial, built without memory when planning, to see whether they fit."""

from __future__ import annotations

import json
from functools import cache
from itertools import chain

import torch
from torch import nn

from harness import plugins
from harness.spec import Component


def normalises_vectors(
    image_shape: tuple[int, int, int], backbone: Component, objective: Component | None
) -> bool:
    """Whether a network, with the objective's heads if any, has batch normalisation of vectors.

    Such a network cannot train on a single image.

    Raises:
        UserError: if they do not suit the images or each other.
    """
    return _normalises(image_shape, _key(backbone), None if objective is None else _key(objective))


def _key(component: Component) -> str:
    return json.dumps([component.name, component.settings], sort_keys=True)


@cache
def _normalises(image_shape: tuple[int, int, int], backbone: str, objective: str | None) -> bool:
    with torch.device("meta"):
        net = plugins.build("backbone", Component(*json.loads(backbone)), image_shape)
        modules = list(net.modules())
        if objective is not None:
            heads = plugins.build("objective", Component(*json.loads(objective)), net)
            modules = list(chain(modules, heads.modules()))
    return any(isinstance(module, nn.BatchNorm1d) for module in modules)
