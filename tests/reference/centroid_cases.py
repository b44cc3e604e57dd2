"""Streams for CLIMB's memory, and a look into it: images carry their number in their pixels."""

from types import SimpleNamespace

import torch

from harness.seeds import generator
from methods.parts.centroid_memory import CentroidMemory
from methods.self_supervised.climb import Config

CPU = torch.device("cpu")


def images(numbers):
    """(B, 1, 2, 2), with each number in two of the four bytes."""
    high_low = torch.tensor([[n // 256, n % 256, 7, 7] for n in numbers], dtype=torch.uint8)
    return high_low.view(-1, 1, 2, 2)


def numbers(x):
    pixels = x.flatten(1).long()
    return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()


def plane(*degrees):
    """Unit vectors (B, 2); multiples of 90 are exact."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angle.cos(), angle.sin()], 1).mul(1e9).round().div(1e9).float()


def rules_of(*, upstream=False, **rules):
    """CLIMB's rules with its defaults."""
    return Config(**rules, fidelity="upstream" if upstream else "clean").rules()


def memory(capacity=None, slack=10, seed=0, device=CPU, **rules):
    small = {"stm_centroids": 2, "ltm_centroids": 2, "examples": 3, "window": 20}
    rules = rules_of(**{**small, "cold_start": "first", **rules})
    room = rules.least_capacity + 50 if capacity is None else capacity
    rng = generator(seed, "buffer")
    return CentroidMemory(rules, capacity=room, slack=slack, rng=rng, device=device)


def feed(held, *degrees):
    """Add images one after the other, numbered on from those seen; the memory."""
    for degree in degrees:
        held.add(images([look(held).seen]), plane(degree))
    return held


def look(held):
    """What is held: `stm` by slot and `ltm` in order, each with numbers of images and the rest."""
    state = held.state_dict()
    store, window = state["store"], state["window"]
    names = numbers(store["images"]) if "images" in store else []
    stm, ltm = {}, []
    for i, saved in enumerate(store["centroids"]):
        found = SimpleNamespace(
            images=[names[j] for j in saved["images"]],
            arrivals=saved["arrivals"],
            matches=saved["matches"],
            age=store["seen"] - saved["touched"],
            c=store["embeddings"][i],
        )
        if saved["number"] < held.rules.stm_centroids:
            stm[saved["number"]] = found
        else:
            ltm.append(found)
    return SimpleNamespace(
        stm=stm, ltm=ltm, window=window, seen=store["seen"], cycle=store["cycle"]
    )


def short(held):
    """Numbers of the images in each slot."""
    return {slot: found.images for slot, found in look(held).stm.items()}


def long(held):
    return [found.images for found in look(held).ltm]


def leaves(state):
    """Every tensor and number of a state, in order."""
    if isinstance(state, dict):
        return [leaf for key in sorted(state) for leaf in (key, *leaves(state[key]))]
    if isinstance(state, list):
        return [leaf for value in state for leaf in leaves(value)]
    return [state]


def same(first, second):
    """Whether two states agree in every bit."""
    ours, theirs = leaves(first), leaves(second)
    return len(ours) == len(theirs) and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(ours, theirs, strict=True)
    )


def clusters(total, *, dim=3, centres=8, spread=0.15, seed=0):
    """Embeddings (total, dim) around centres of which only a few, ever others, are seen of late."""
    rng = generator(seed, "clusters")
    means = torch.randn(centres, dim, generator=rng)
    late = torch.arange(total) * centres // total
    which = (late + torch.randint(3, (total,), generator=rng)) % centres
    return means[which] + spread * torch.randn(total, dim, generator=rng)
