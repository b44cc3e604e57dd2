"""CLIMB's memory by hand: a few images on a circle, whose places can be told in advance."""

import math

import numpy as np
import pytest
import torch
from centroid_cases import feed, images, long, look, memory, numbers, plane, short

from harness.seeds import generator
from methods.parts.centroid_vectors import Vectors
from methods.self_supervised.climb import Config


def cosine(degrees):
    return 1 - math.cos(math.radians(degrees))


def promoted(**rules):
    """Images 0, 2, 3 at 0 degrees in the LTM; 1 at 90 degrees in slot 1; slot 0 is free."""
    return feed(memory(**rules), 0, 90, 0, 0)


# Novelty


def test_the_first_images_open_a_centroid_each_and_their_distances_are_observed():
    held = feed(memory(stm_centroids=3), 0, 60, 60)
    assert short(held) == {0: [0], 1: [1], 2: [2]}
    assert look(held).window == pytest.approx([cosine(60), 0], abs=1e-6)  # none for the first
    assert [look(held).stm[slot].matches for slot in range(3)] == [0, 0, 0]


def test_without_filling_the_threshold_decides_from_the_second_distance_on():
    held = feed(memory(stm_centroids=3, cold_start="threshold"), 0, 60)
    assert short(held) == {0: [0], 1: [1]}  # the second image has no threshold to be below
    assert held.threshold == pytest.approx(cosine(60))
    feed(held, 59.9)
    assert short(held) == {0: [0], 1: [1, 2]}
    feed(held, 180)
    assert short(held) == {0: [0], 1: [1, 2], 2: [3]}


def test_a_novel_image_takes_the_slot_of_the_oldest_and_starts_with_one_match():
    held = feed(memory(), 0, 60, 200)
    assert short(held) == {0: [2], 1: [1]}
    found = look(held).stm[0]
    assert (found.matches, found.age) == (1, 1)
    assert torch.equal(found.c, plane(200)[0])
    assert len(held) == 2


def test_a_match_renews_the_age_that_decides_who_is_evicted():
    held = feed(memory(examples=5), 0, 60, 0)
    assert {slot: c.age for slot, c in look(held).stm.items()} == {0: 1, 1: 2}
    feed(held, 200)
    assert short(held) == {0: [0, 2], 1: [3]}


def test_an_image_at_the_threshold_is_no_novelty():
    held = feed(memory(window=1, examples=9), 0, 90)
    assert held.threshold == 1
    feed(held, 180)  # exactly as far from its nearest as the threshold
    assert short(held) == {0: [0], 1: [1, 2]}


# Matches and promotion


def test_a_match_moves_the_centroid_by_the_rate_and_stores_the_image():
    held = feed(memory(stm_rate=0.25), 0, 90, 30)
    found = look(held).stm[0]
    assert torch.allclose(found.c, 0.75 * plane(0)[0] + 0.25 * plane(30)[0], atol=1e-7)
    assert (found.images, found.matches, found.age) == ([0, 2], 1, 1)


def test_a_centroid_with_enough_images_moves_to_the_long_term_memory():
    held = promoted()
    assert short(held) == {1: [1]}
    assert long(held) == [[0, 2, 3]]
    found = look(held).ltm[0]
    assert torch.equal(found.c, plane(0)[0])
    assert (found.matches, found.arrivals) == (0, [1, 1, 1])
    assert len(held) == 4


def test_promotion_by_matches_needs_one_more_in_a_slot_that_was_free():
    held = promoted(promote_on="matches")
    assert (short(held), long(held)) == ({0: [0, 2, 3], 1: [1]}, [])
    feed(held, 0)
    assert (short(held), long(held)) == ({1: [1]}, [[0, 2, 3]])  # 3 are kept of 4


def test_promotion_by_matches_counts_the_image_that_took_an_evicted_place():
    held = feed(memory(promote_on="matches", stm_centroids=1), 0, 180, 180, 180)
    assert long(held) == [[1, 2, 3]]


def test_a_freed_slot_is_filled_by_the_next_image_whatever_its_distance():
    held = feed(promoted(cold_start="fill"), 80)  # near slot 1, and not novel
    assert short(held) == {0: [4], 1: [1]}
    feed(held, 80)  # no slot is free any more
    assert short(held) == {0: [4, 5], 1: [1]}


def test_a_freed_slot_waits_for_a_novel_image_if_only_the_first_images_are_let_in_unasked():
    held = feed(promoted(), 80)  # near slot 1
    assert short(held) == {1: [1, 4]}
    feed(held, 230)
    assert short(held) == {0: [5], 1: [1, 4]}  # in the free slot, not in that of the oldest
    assert look(held).stm[0].matches == 0


def test_a_match_with_the_long_term_memory_leaves_the_centroid_where_it_is():
    held = feed(promoted(), 20, 20)
    assert torch.equal(look(held).ltm[0].c, plane(0)[0])
    assert look(held).ltm[0].matches == 2
    assert look(held).stm[1].age == 5  # the short-term memory waits on
    assert (len(long(held)[0]), short(held)) == (3, {1: [1]})


def test_the_oldest_replaced_is_the_first_of_the_earliest_cycle():
    held = promoted(ltm_replace="oldest")
    held.consolidate(lambda x: plane(*[90 if n == 1 else 0 for n in numbers(x)]))
    feed(held, 10)
    assert long(held) == [[4, 2, 3]]
    assert look(held).ltm[0].arrivals == [2, 1, 1]
    feed(held, 10, 10)
    assert long(held) == [[4, 5, 6]]


def test_nothing_is_replaced_where_the_first_images_stay():
    held = feed(promoted(ltm_replace="none"), *[10] * 8)
    assert long(held) == [[0, 2, 3]]
    assert look(held).ltm[0].matches == 8


@pytest.mark.parametrize(("mode", "most"), [("random", 250), ("reservoir", 60)])
def test_a_random_replacement_takes_half_of_the_images_and_a_reservoir_ever_fewer(mode, most):
    held = promoted(ltm_replace=mode)
    changes, before = 0, long(held)
    for _ in range(400):
        feed(held, 10)
        changes += long(held) != before
        before = long(held)
    expected = {"random": 200, "reservoir": 3 + sum(3 / n for n in range(4, 401))}[mode]
    assert abs(changes - expected) < 4 * math.sqrt(expected)
    assert changes < most


# Merges


def three_in_the_long_term(**rules):
    """Of three promoted centroids, at 0, 90 and 120 degrees, two must merge."""
    held = memory(stm_centroids=3, **rules)
    feed(held, 0, 90, 120)
    return feed(held, 0, 0, 90, 90, 120, 120)


def test_the_two_most_similar_of_the_long_term_merge_into_their_mean():
    held = three_in_the_long_term()
    first, merged = look(held).ltm
    assert first.images == [0, 3, 4]
    assert torch.allclose(merged.c, (plane(90)[0] + plane(120)[0]) / 2, atol=1e-6)
    assert len(merged.images) == 3
    assert set(merged.images) <= {1, 2, 5, 6, 7, 8}
    assert merged.images == sorted(merged.images, key=[1, 5, 6, 2, 7, 8].index)
    assert len(held) == 6
    assert merged.matches == 0


def test_a_merge_keeps_any_of_the_pooled_images():
    kept = [set(long(three_in_the_long_term(seed=seed))[1]) for seed in range(40)]
    assert set().union(*kept) == {1, 2, 5, 6, 7, 8}
    assert len({frozenset(k) for k in kept}) > 8


def test_a_balanced_merge_keeps_the_shares_of_the_cycles():
    held = memory(stm_centroids=3, ltm_merge="balanced", ltm_centroids=1)
    feed(held, 0, 90, 120, 90, 90)
    angles = {n: plane(a)[0] for n, a in {0: 0, 1: 90, 2: 120, 3: 90, 4: 90}.items()}
    held.consolidate(lambda x: torch.stack([angles[n] for n in numbers(x)]))
    feed(held, 120, 120)  # in cycle 2; 3 images of each cycle for 3 places
    (merged,) = look(held).ltm
    assert merged.arrivals == [1, 1, 2]  # quotas of 1.5; the cycle that comes first is given more
    assert merged.images == [1, 3, 2]


def test_a_centroid_that_diverged_is_similar_to_none():
    values = plane(0, 0, 90, 180, 80).numpy()
    values[1] = math.nan
    assert Vectors(values, np.ones(5, dtype=bool)).closest_pair(1, 5) == (2, 4)


# Consolidation


def test_a_consolidation_puts_centroids_at_the_mean_of_all_their_images_and_keeps_one_each():
    held = feed(promoted(), 80)  # slot 1 has images 1 and 4, the LTM 0, 2 and 3
    before = held.threshold
    held.consolidate(lambda x: torch.tensor([[n, -1.0] for n in numbers(x)]))
    found = look(held)
    assert torch.equal(found.stm[1].c, torch.tensor([2.5, -1.0]))
    assert torch.allclose(found.ltm[0].c, torch.tensor([5 / 3, -1.0]))
    assert (short(held), long(held)) == ({1: [1]}, [[0, 2, 3]])
    assert (found.stm[1].matches, found.stm[1].age, found.cycle) == (0, 1, 2)
    assert held.threshold == before
    assert len(held) == 4


def test_a_consolidation_before_any_promotion_is_nothing_special():
    held = feed(memory(), 0, 90, 10)
    held.consolidate(lambda x: plane(*[45] * len(x)))
    assert short(held) == {0: [0], 1: [1]}
    assert torch.allclose(look(held).stm[0].c, plane(45)[0])


def test_a_consolidation_of_nothing_is_one_more_cycle():
    held = memory()
    held.consolidate(lambda x: plane(*[0] * len(x)))
    assert (len(held), look(held).cycle) == (0, 2)


def test_the_images_of_the_short_term_memory_may_be_dropped_and_its_centroids_stay():
    held = feed(promoted(pruning="reset_stm"), 80)
    before = look(held).stm[1].c
    held.consolidate(lambda x: torch.ones(len(x), 2))
    assert (short(held), long(held)) == ({1: []}, [[0, 2, 3]])
    assert torch.equal(look(held).stm[1].c, before)
    assert torch.equal(look(held).ltm[0].c, torch.ones(2))
    held.consolidate(lambda x: torch.ones(len(x), 2))  # a slot without images is passed over
    feed(held, 90)
    assert short(held) == {1: [5]}


def test_a_window_may_restart_from_the_nearest_distances_of_what_is_held():
    held = feed(memory(pruning="reset", stm_centroids=3), 0, 90, 180)
    held.consolidate(lambda x: plane(*[{0: 0, 1: 60, 2: 100}[n] for n in numbers(x)]))
    expected = [cosine(40), cosine(40), cosine(60)]
    assert sorted(look(held).window) == pytest.approx(expected, abs=1e-6)


def test_a_window_that_restarts_from_one_image_is_empty():
    held = feed(memory(pruning="reset"), 0)
    held.consolidate(lambda x: plane(*[0] * len(x)))
    assert look(held).window == []
    assert held.threshold == -1


def test_a_network_embeds_no_more_than_256_images_at_once():
    held = memory(stm_centroids=600, slack=600)
    held.add(images(range(600)), plane(*range(600)))
    sizes = []
    held.consolidate(lambda x: sizes.append(len(x)) or torch.ones(len(x), 2))
    assert sizes == [256, 256, 88]


# Replay


def stocked(stm, ltm, **rules):
    """A memory of single-image centroids in the STM and one LTM centroid of `ltm` images."""
    rules = {"examples": max(ltm, 2), "stm_centroids": stm + 1, **rules}
    held = memory(slack=stm + ltm + 1, **rules)
    angles = [0] + [90 + 180 * i / stm for i in range(stm)]
    feed(held, *angles)
    if ltm:
        held.add(images(range(stm + 1, stm + ltm)), plane(*[0] * (ltm - 1)))
    return held


@pytest.mark.parametrize(
    ("stm", "ltm", "ratio", "expected"),
    [
        (9, 9, 0.5, (4, 4)),
        (9, 9, 0.3, (2, 6)),
        (9, 9, 0.0, (0, 8)),
        (9, 9, 1.0, (8, 0)),
        (9, 2, 0.5, (2, 6)),  # the LTM has too few
        (2, 9, 0.5, (6, 2)),  # the STM has too few
        (7, 9, 0.0, (1, 7)),
        (9, 7, 1.0, (7, 1)),
    ],
)
def test_a_draw_is_shared_by_the_memories_and_what_one_lacks_the_other_gives(
    stm, ltm, ratio, expected
):
    held = stocked(stm, ltm, ratio_ltm=ratio)
    for seed in range(10):
        found = numbers(held.draw(8, generator(seed, "replay")).x)
        assert len(set(found)) == 8
        of_ltm = [n in long(held)[0] for n in found]
        assert of_ltm == [True] * expected[0] + [False] * expected[1]


def test_a_draw_before_any_promotion_is_of_the_short_term_memory():
    held = feed(memory(stm_centroids=4), 0, 90, 180)
    assert sorted(numbers(held.draw(3, generator(0, "replay")).x)) == [0, 1, 2]
    assert held.draw(4, generator(0, "replay")) is None
    assert memory().draw(1, generator(0, "replay")) is None


@pytest.mark.parametrize("ratio", [0.5, -1])
def test_each_image_of_a_memory_is_drawn_equally_often(ratio):
    held = stocked(6, 10, ratio_ltm=ratio)
    rng, times = generator(0, "replay"), 3000
    drawn = torch.stack([held.draw(4, rng).x for _ in range(times)])
    counts = torch.tensor(numbers(drawn.flatten(0, 1))).bincount(minlength=16).double()
    ltm = torch.zeros(16, dtype=torch.bool)
    ltm[long(held)[0]] = True
    for part in (ltm, ~ltm):
        p = 4 / 16 if ratio == -1 else 2 / int(part.sum())
        assert (counts[part] - times * p).abs().max() < 4 * math.sqrt(times * p * (1 - p))


def test_a_uniform_draw_puts_images_of_the_long_term_memory_first():
    held = stocked(9, 9, ratio_ltm=-1)
    shares = set()
    for seed in range(20):
        of_ltm = [n in long(held)[0] for n in numbers(held.draw(8, generator(seed, "replay")).x)]
        assert of_ltm == sorted(of_ltm, reverse=True)
        shares.add(sum(of_ltm))
    assert len(shares) > 3


@pytest.mark.parametrize("ratio", [0.5, -1])
def test_replay_moves_centroids_as_image_after_image_would(ratio):
    held = stocked(5, 6, ratio_ltm=ratio, replay_rate=0.8)
    draw = held.draw(11, generator(0, "replay"))  # all: the LTM centroid is drawn six times
    z = torch.randn(11, 2, generator=generator(0, "z"))
    before = look(held)
    held.drift(draw, z)
    homes = {n: c for c in (*before.stm.values(), *before.ltm) for n in c.images}
    for number, new in zip(numbers(draw.x), z.double(), strict=True):
        home = homes[number]
        rate = 0.8 / len(home.images)
        home.c = (1 - rate) * home.c.double() + rate * new
    after = look(held)
    for slot, found in after.stm.items():
        assert torch.allclose(found.c.double(), before.stm[slot].c.double(), atol=1e-6), slot
    assert torch.allclose(after.ltm[0].c.double(), before.ltm[0].c, atol=1e-6)


def test_replay_moves_no_other_centroid():
    held = stocked(5, 6)
    before = look(held)
    draw = held.draw(1, generator(0, "replay"))
    held.drift(draw, torch.ones(1, 2))
    moved = [s for s, c in look(held).stm.items() if not torch.equal(c.c, before.stm[s].c)]
    assert [before.stm[slot].images for slot in moved] == [numbers(draw.x)]
    assert torch.equal(look(held).ltm[0].c, before.ltm[0].c)


def test_embeddings_of_another_number_than_were_drawn_are_refused():
    held = stocked(5, 6)
    draw = held.draw(4, generator(0, "replay"))
    with pytest.raises(ValueError, match="3 embeddings for a draw of 4"):
        held.drift(draw, torch.ones(3, 2))


# Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((n, 0) for n in ("stm_centroids", "ltm_centroids", "examples", "window")),
        *(("percentile", v) for v in (0, 1, -0.1, math.nan)),
        *((n, v) for n in ("stm_rate", "replay_rate") for v in (-0.1, 1.1, math.nan)),
        *(("ratio_ltm", v) for v in (-0.5, 1.1, math.nan)),
        *((n, "other") for n in ("cold_start", "promote_on", "ltm_merge", "pruning")),
        ("ltm_replace", "similar"),
    ],
)
def test_rules_without_a_meaning_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        Config(**{name: value})


def test_the_defaults_are_those_of_the_paper():
    rules = Config().rules()
    assert (rules.stm_centroids, rules.ltm_centroids, rules.examples) == (100, 60, 30)
    assert rules.least_capacity == 1901


@pytest.mark.parametrize("pruning", ["no_reset", "reset_stm"])
def test_a_memory_that_a_consolidation_could_leave_full_is_refused(pruning):
    least = {"no_reset": 9, "reset_stm": 7}[pruning]
    memory(capacity=least, pruning=pruning)
    with pytest.raises(ValueError, match=f"room for {least}"):
        memory(capacity=least - 1, pruning=pruning)


def test_more_images_than_there_is_room_for_are_refused_and_nothing_changes():
    held = memory(capacity=9, slack=1)
    with pytest.raises(ValueError, match="11 images for 10 free rows"):
        held.add(images(range(11)), plane(*range(11)))
    assert (len(held), look(held).seen) == (0, 0)


def test_images_and_embeddings_of_different_numbers_are_refused():
    with pytest.raises(ValueError, match="2 embeddings for 3 images"):
        memory().add(images(range(3)), plane(0, 90))
