"""The networks of a trial, built without memory when planning, to see whether they fit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from harness import plugins
from harness.spec import Component
from methods.base import Backbone


@dataclass(frozen=True, slots=True)
class Networks:
    """A backbone on the meta device, and whether it or its heads normalise vectors over a batch.

    Batch normalisation of vectors, or of maps of one pixel, cannot train on a single image.
    """

    backbone: Backbone
    normalises_vectors: bool


def planned_networks(
    image_shape: tuple[int, int, int], backbone: Component, objective: Component | None
) -> Networks:
    """The networks for images (C, H, W): a backbone, with an objective's heads if any.

    Raises:
        UserError: if they do not suit the images or each other.
    """
    return _planned(image_shape, _key(backbone), None if objective is None else _key(objective))


def _key(component: Component) -> str:
    return json.dumps([component.name, component.settings], sort_keys=True)


@cache
def _planned(image_shape: tuple[int, int, int], backbone: str, objective: str | None) -> Networks:
    with torch.device("meta"):
        net = plugins.build("backbone", Component(*json.loads(backbone)), image_shape)
        modules = list(net.modules())
        if objective is not None:
            heads = plugins.build("objective", Component(*json.loads(objective)), net)
            modules += heads.modules()
    vectors = any(isinstance(module, nn.BatchNorm1d) for module in modules)
    return Networks(net, vectors or not _trains_on_one(net, image_shape))


def _trains_on_one(net: Backbone, image_shape: tuple[int, int, int]) -> bool:
    try:
        net(torch.zeros(1, *image_shape, device="meta"))
    except ValueError:  # what batch normalisation raises
        return False
    return True
