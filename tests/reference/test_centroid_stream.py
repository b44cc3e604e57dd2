"""CLIMB's memory over long streams: a naive version beside it, invariants, and checkpoints."""

import io
import math
import random

import numpy as np
import pytest
import torch
from centroid_cases import clusters, images, leaves, look, memory, numbers, same

from harness.seeds import generator
from methods.parts.novelty import NoveltyWindow

SMALL = {"stm_centroids": 8, "ltm_centroids": 4, "examples": 5, "window": 60}
VARIANTS = [
    {},
    {"cold_start": "fill"},
    {"cold_start": "threshold"},
    {"promote_on": "matches"},
    {"pruning": "reset_stm"},
    {"pruning": "reset"},
    {"ltm_merge": "balanced", "ltm_replace": "oldest"},
    {"ltm_replace": "reservoir", "ratio_ltm": -1},
    {"ltm_replace": "none", "percentile": 0.5},
    {"examples": 1},
    {"stm_centroids": 1, "ltm_centroids": 1, "window": 1},
]
TOTAL, BATCH, CAPACITY = 600, 10, 30  # 29 is what SMALL needs


class Naive:
    """The README's rules on lists of Python numbers, one image at a time, with nothing clever."""

    def __init__(self, rules, rng):
        self.rules, self.rng = rules, rng
        self.stm, self.ltm, self.window = [None] * rules.stm_centroids, [], []
        self.seen, self.cycle, self.tau = 0, 1, -1.0

    def insert(self, number, z):
        everyone = [c for c in self.stm if c is not None] + self.ltm
        near = min(everyone, key=lambda c: distance(c["c"], z), default=None)
        nearest = distance(near["c"], z) if near else math.inf
        filling = {
            "fill": None in self.stm,
            "first": self.seen < self.rules.stm_centroids,
            "threshold": False,
        }
        if filling[self.rules.cold_start] or nearest > self.tau:
            near = self.open(number, z)
        elif any(near is c for c in self.ltm):
            self.match_ltm(near, number)
        else:
            self.match_stm(near, number, z)
        for c in self.stm:
            if c is not None:
                c["age"] += 1
        self.seen += 1
        if nearest < math.inf:
            self.observe([nearest])
        for slot, c in enumerate(self.stm):
            if c is near:
                self.promote(slot)

    def open(self, number, z):
        new = {"c": z, "images": [(number, self.cycle)], "matches": 0, "age": 0}
        if None in self.stm:
            slot = self.stm.index(None)
        else:
            slot = max(range(len(self.stm)), key=lambda s: self.stm[s]["age"])
            new["matches"] = 1
        self.stm[slot] = new
        return new

    def match_stm(self, near, number, z):
        near["c"] = toward(near["c"], z, self.rules.stm_rate)
        if len(near["images"]) < self.rules.examples:
            near["images"].append((number, self.cycle))
        near["matches"] += 1
        near["age"] = 0

    def observe(self, distances):
        self.window = (self.window + distances)[-self.rules.window :]
        self.tau = float(np.quantile(self.window, self.rules.percentile)) if self.window else -1.0

    def match_ltm(self, near, number):
        near["matches"] += 1
        held, mode = near["images"], self.rules.ltm_replace
        new = (number, self.cycle)
        if len(held) < self.rules.examples:
            held.append(new)
        elif mode == "oldest":
            held[min(range(len(held)), key=lambda i: held[i][1])] = new
        elif mode != "none":
            accept = 0.5 if mode == "random" else self.rules.examples / near["matches"]
            if torch.rand((), generator=self.rng, dtype=torch.float64) < accept:
                held[torch.randint(len(held), (), generator=self.rng)] = new

    def promote(self, slot):
        c, rules = self.stm[slot], self.rules
        count = len(c["images"]) if rules.promote_on == "examples" else c["matches"]
        if count < rules.examples:
            return
        moved = [(number, self.cycle) for number, _ in c["images"][: rules.examples]]
        self.ltm.append({"c": c["c"], "images": moved, "matches": 0})
        self.stm[slot] = None
        if len(self.ltm) > rules.ltm_centroids:
            pairs = [(i, j) for j in range(len(self.ltm)) for i in range(j)]
            i, j = min(pairs, key=lambda p: distance(self.ltm[p[0]]["c"], self.ltm[p[1]]["c"]))
            one, other = self.ltm[i], self.ltm.pop(j)
            pool = one["images"] + other["images"]
            mean = [(a + b) / 2 for a, b in zip(one["c"], other["c"], strict=True)]
            self.ltm[i] = {"c": mean, "images": self.kept(pool), "matches": 0}

    def kept(self, pool):
        room = self.rules.examples
        if self.rules.ltm_merge == "random":
            picks = torch.randperm(len(pool), generator=self.rng)[:room].tolist()
            return [pool[i] for i in sorted(picks)]
        cycles = list(dict.fromkeys(cycle for _, cycle in pool))
        share = {c: room * sum(p[1] == c for p in pool) / len(pool) for c in cycles}
        quota = {c: int(share[c]) for c in cycles}
        while sum(quota.values()) < room:
            quota[max(cycles, key=lambda c: (share[c] - quota[c], -cycles.index(c)))] += 1
        of = {c: [p for p in pool if p[1] == c] for c in cycles}
        return [p for c in cycles for p in of[c][: quota[c]]]

    def drift(self, drawn, z):
        home = {n: c for c in [*self.stm, *self.ltm] if c for n, _ in c["images"]}
        for number, new in zip(drawn, z, strict=True):
            c = home[number]
            c["c"] = toward(c["c"], new, self.rules.replay_rate / len(c["images"]))

    def consolidate(self, table):
        skips = self.rules.pruning == "reset_stm"
        every = [] if skips else [c for c in self.stm if c]
        everything = []
        for c in every + self.ltm:
            found = [table[number] for number, _ in c["images"]]
            everything += found
            if found:
                c["c"] = [sum(values) / len(found) for values in zip(*found, strict=True)]
        if self.rules.pruning == "reset":
            order = torch.randperm(len(everything), generator=self.rng).tolist()
            picked = [everything[i] for i in order]
            self.window = []
            self.observe([nearest_other(picked, i) for i in range(len(picked))])
        for c in self.stm:
            if c:
                c["images"] = [] if skips else c["images"][:1]
                c["matches"] = 0
        self.cycle += 1


def distance(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return 1 - dot / (math.hypot(*a) * math.hypot(*b))


def toward(c, z, rate):
    return [(1 - rate) * a + rate * b for a, b in zip(c, z, strict=True)]


def nearest_other(points, i):
    return min(distance(points[i], p) for j, p in enumerate(points) if j != i)


def agree(held, naive):
    found = look(held)
    assert list(found.stm) == [slot for slot, c in enumerate(naive.stm) if c is not None]
    pairs = [*((c, naive.stm[slot]) for slot, c in found.stm.items())]
    for ours, theirs in pairs:
        assert (ours.matches, ours.age) == (theirs["matches"], theirs["age"])
    pairs += zip(found.ltm, naive.ltm, strict=True)
    for ours, theirs in pairs:
        assert [*zip(ours.images, ours.arrivals, strict=True)] == theirs["images"]
        assert ours.matches == theirs["matches"]
        assert ours.c.tolist() == pytest.approx(theirs["c"], abs=1e-5)
    assert held.threshold == pytest.approx(naive.tau, abs=1e-5)
    assert found.cycle == naive.cycle


def embedder(table):
    return lambda x: table[numbers(x)]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_memory_is_the_naive_one_through_adding_replay_and_consolidation(variant):
    held = memory(capacity=CAPACITY, **{**SMALL, **variant})
    naive = Naive(held.rules, generator(0, "buffer"))
    z, later = clusters(TOTAL), clusters(TOTAL, spread=0.3, seed=1)
    replay = generator(0, "replay")
    for first in range(0, TOTAL, BATCH):
        if (draw := held.draw(12, replay)) is not None:
            drawn = numbers(draw.x)
            held.drift(draw, later[drawn])
            naive.drift(drawn, later[drawn].tolist())
        held.add(images(range(first, first + BATCH)), z[first : first + BATCH])
        for number in range(first, first + BATCH):
            naive.insert(number, z[number].tolist())
        if held.full:
            held.consolidate(embedder(later))
            naive.consolidate(later.tolist())
        agree(held, naive)
    assert naive.cycle > 2 or variant.get("examples") == 1 or len(naive.stm) == 1
    assert len(naive.ltm) == held.rules.ltm_centroids  # so that merges have happened


@pytest.mark.parametrize("upstream", [False, True])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_what_must_hold_holds_after_every_batch(variant, upstream):
    held = memory(capacity=CAPACITY, upstream=upstream, **{**SMALL, **variant})
    rules, z, replay = held.rules, clusters(TOTAL, seed=3), generator(0, "replay")
    for first in range(0, TOTAL, 7):
        batch = range(first, min(first + 7, TOTAL))
        held.add(images(batch), z[first : first + 7])
        if held.full:
            held.consolidate(embedder(z))
        assert not held.full
        found = look(held)
        assert len(found.stm) <= rules.stm_centroids
        assert len(found.ltm) <= rules.ltm_centroids
        every = [*found.stm.values(), *found.ltm]
        assert all(len(c.images) <= rules.examples for c in every)
        assert all(c.images for c in every) or rules.pruning == "reset_stm"
        assert all(len(c.images) == rules.examples for c in found.ltm)
        stored = [n for c in every for n in c.images]
        assert len(held) == len(stored)
        assert set(stored) <= set(range(batch.stop))
        assert upstream or len(set(stored)) == len(stored)
        if (draw := held.draw(5, replay)) is not None:
            assert all(sorted(stored).count(n) for n in numbers(draw.x))


@pytest.mark.parametrize("upstream", [False, True])
def test_a_stream_in_other_batches_leaves_the_same_memory(upstream):
    ends = []
    z = clusters(300, dim=64)
    for size in (1, 10, 30):
        held = memory(capacity=400, slack=30, upstream=upstream, **SMALL)
        for first in range(0, 300, size):
            held.add(images(range(first, first + size)), z[first : first + size])
        ends.append(held.state_dict())
    assert same(ends[0], ends[1])
    assert same(ends[0], ends[2])


def test_the_same_seed_gives_the_same_memory_and_another_one_another():
    first, second, third = (streamed(memory(seed=s, capacity=CAPACITY, **SMALL)) for s in (1, 1, 2))
    assert same(first.state_dict(), second.state_dict())
    assert not same(first.state_dict(), third.state_dict())


def streamed(held, start=0, stop=300):
    """Train on a stretch of one stream: replay, adding, consolidation."""
    z = clusters(TOTAL, seed=4)
    replay = generator(start, "replay")
    for first in range(start, stop, BATCH):
        if (draw := held.draw(12, replay)) is not None:
            held.drift(draw, z[numbers(draw.x)].flip(0))
        held.add(images(range(first, first + BATCH)), z[first : first + BATCH])
        if held.full:
            held.consolidate(embedder(z.roll(1, 1)))
    return held


@pytest.mark.parametrize("upstream", [False, True])
@pytest.mark.parametrize("stop", [0, 10, 150, 300])
@pytest.mark.parametrize("variant", [{}, {"pruning": "reset_stm"}, {"pruning": "reset"}], ids=str)
def test_a_restored_memory_goes_on_as_the_first_would_have(variant, stop, upstream):
    rules = {**SMALL, **variant, "upstream": upstream, "capacity": CAPACITY}
    first, second = streamed(memory(**rules), 0, stop), streamed(memory(**rules), 0, 100)
    stored = io.BytesIO()
    torch.save(first.state_dict(), stored)
    stored.seek(0)
    second.load_state_dict(torch.load(stored, weights_only=True))
    second.rng.set_state(first.rng.get_state())
    assert same(first.state_dict(), second.state_dict())
    for held in (first, second):
        streamed(held, stop, TOTAL)
    assert same(first.state_dict(), second.state_dict())
    draws = [held.draw(12, generator(9, "replay")) for held in (first, second)]
    assert torch.equal(draws[0].x, draws[1].x)
    assert draws[0].owners == draws[1].owners


def test_a_saved_state_is_not_changed_by_what_follows():
    held = streamed(memory(capacity=CAPACITY, **SMALL), 0, 200)
    state = held.state_dict()
    copy = torch.load(written(state), weights_only=True)
    streamed(held, 200, TOTAL)
    assert same(state, copy)
    held.load_state_dict(state)
    streamed(held, 200, 400)
    assert same(state, copy)


def written(state):
    stored = io.BytesIO()
    torch.save(state, stored)
    stored.seek(0)
    return stored


@pytest.mark.parametrize("upstream", [False, True])
def test_bytes_are_those_of_the_tensors_saved(upstream):
    held = memory(capacity=CAPACITY, upstream=upstream, **SMALL)
    assert held.nbytes == 0
    z = clusters(TOTAL)
    for first in range(0, 200, BATCH):
        held.add(images(range(first, first + BATCH)), z[first : first + BATCH])
        tensors = [t for t in leaves(held.state_dict()) if isinstance(t, torch.Tensor)]
        assert held.nbytes == sum(t.nbytes for t in tensors)
        if held.full:
            held.consolidate(embedder(z))
    saved = held.state_dict()["store"]
    assert saved["images"].dtype == torch.uint8
    centroids = len(saved["centroids"])
    assert held.nbytes == len(saved["images"]) * 4 + centroids * 3 * 4


def test_a_restored_memory_is_on_its_device_and_replay_reads_nothing_from_it():
    meta = torch.device("meta")  # stands for a GPU: whatever would read from it fails
    held = memory(capacity=CAPACITY, device=meta, **SMALL)
    held.load_state_dict(streamed(memory(capacity=CAPACITY, **SMALL)).state_dict())
    draw = held.draw(12, generator(0, "replay"))
    assert draw.x.device == meta
    held.drift(draw, torch.empty(12, 3, device=meta))
    held.consolidate(lambda x: torch.empty(len(x), 3, device=x.device))


@pytest.mark.parametrize("upstream", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
def test_embeddings_that_are_no_numbers_or_have_no_direction_crash_nothing(bad, upstream):
    rules = {"upstream": upstream, "pruning": "reset", "capacity": CAPACITY}
    held = memory(**{**SMALL, **rules})
    z, replay = clusters(TOTAL), generator(0, "replay")
    coin = random.Random(0)
    for i in range(150, 300):
        z[i, coin.randrange(3)] = bad
    z[300:] = bad
    for first in range(0, TOTAL, BATCH):
        if (draw := held.draw(12, replay)) is not None:
            held.drift(draw, z[numbers(draw.x)])
        held.add(images(range(first, first + BATCH)), z[first : first + BATCH])
        if held.full:
            held.consolidate(embedder(z))
        assert all(d is None or math.isfinite(d) for d in look(held).window)
        assert len(look(held).stm) <= 8
        assert not held.full


# The window


@pytest.mark.parametrize("size", [1, 7, 50])
@pytest.mark.parametrize("percentile", [0.05, 0.5, 0.95])
def test_the_threshold_is_the_percentile_of_the_last_distances(size, percentile):
    window, rng = NoveltyWindow(size, percentile), np.random.default_rng(0)
    assert window.threshold == -1
    values = rng.integers(0, 20, 200) / 16  # with ties
    for i, value in enumerate(values):
        window.push(float(value))
        last = values[max(0, i + 1 - size) : i + 1]
        assert window.distances == last.tolist()
        assert window.threshold == pytest.approx(np.quantile(last, percentile))


def test_images_without_a_distance_stand_above_all_others():
    window = NoveltyWindow(20, 0.5)
    for value in (None, 0.5, None, 0.25):
        window.push(value)
    assert math.isnan(window.threshold)  # between 0.5 and the first of the two
    window.push(0.75)
    assert window.threshold == 0.75
    window.restart([0.1])
    assert window.threshold == 0.1
