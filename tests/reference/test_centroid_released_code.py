"""Where CLIMB's released code departs from its README: each departure beside the README's way."""

import pytest
import torch
from centroid_cases import clusters, feed, images, long, look, memory, numbers, plane, short

from harness.seeds import generator

# Two images fill the short-term memory, and two more pass until the window has forgotten that they
# had no distance; then the threshold is the larger of the last two distances.
UPSTREAM = {"upstream": True, "window": 20}


def after_the_dead_zone(**rules):
    """Image 0 at 0 degrees in slot 0, 1 at 90 degrees in slot 1; 2 and 3 were passed over."""
    held = feed(memory(**{**UPSTREAM, **rules}), 0, 90, 45, 45)
    assert short(held) == {0: [0], 1: [1]}
    return held


def test_by_default_the_96_images_after_the_100th_are_passed_over():
    defaults = {"stm_centroids": 100, "ltm_centroids": 60, "examples": 30, "window": 1000}
    z = clusters(200, dim=8)
    z[[100, 196]] = z[[7, 8]]  # images that are bound to match
    kept = {}
    for upstream in (False, True):
        held = memory(upstream=upstream, slack=200, **defaults)
        for n in range(197):
            held.add(images([n]), z[n : n + 1])
            kept[upstream, n] = {i for found in short(held).values() for i in found}
    assert kept[True, 100] == kept[True, 195] == set(range(100))
    assert kept[True, 196] == {*range(100), 196}
    assert kept[False, 100] == set(range(101))
    assert len(kept[False, 195] - kept[False, 100]) > 50


def test_while_the_memory_fills_the_window_learns_that_there_was_no_distance():
    degrees = 0, 90, 135
    assert look(feed(memory(stm_centroids=3, window=100), *degrees)).window == pytest.approx(
        [1, 1 - 0.5**0.5]
    )
    assert look(feed(memory(stm_centroids=3, window=100, upstream=True), *degrees)).window == (
        [None] * 30
    )


def test_a_distance_enters_the_window_ten_times():
    held = feed(memory(upstream=True, window=25), 0, 90, 180)
    assert look(held).window == [None] * 15 + [pytest.approx(1)] * 10
    assert look(feed(memory(window=25), 0, 90, 180)).window == [pytest.approx(1)] * 2


def test_filling_does_not_ask_which_cold_start_was_chosen():
    held = feed(memory(upstream=True, cold_start="threshold"), 0, 0)
    assert short(held) == {0: [0], 1: [1]}
    assert short(feed(memory(cold_start="threshold"), 0, 90, 90)) == {0: [0], 1: [1, 2]}


def test_promotion_counts_matches_whatever_was_chosen():
    ours = feed(memory(), 0, 90, 0, 0)
    assert long(ours) == [[0, 2, 3]]
    theirs = feed(after_the_dead_zone(promote_on="examples"), 0, 0)
    assert (long(theirs), len(short(theirs)[0])) == ([], 3)
    assert long(feed(theirs, 0)) == [[0, 4, 5]]


def test_a_promotion_leaves_a_ghost_with_the_first_image_in_both_memories():
    held = feed(after_the_dead_zone(), 0, 0, 0)
    assert (short(held), long(held)) == ({0: [0], 1: [1]}, [[0, 4, 5]])
    found = look(held)
    assert found.stm[0].matches == -1
    assert torch.equal(found.stm[0].c, found.ltm[0].c)
    assert len(held) == 5  # image 0 counts twice
    assert len(held.state_dict()["store"]["images"]) == 4
    clean = feed(memory(), 0, 90, 0, 0)
    assert (short(clean), len(clean)) == ({1: [1]}, 4)


def test_a_ghost_outside_slot_0_refills_from_its_first_match_on():
    held = feed(after_the_dead_zone(), 90, 90, 90)
    assert look(held).stm[1].matches == -1
    feed(held, 90)  # as near to the ghost as to its copy
    assert (short(held), long(held)) == ({0: [0], 1: [1, 7]}, [[1, 4, 5]])
    assert look(held).stm[1].matches == 0
    feed(held, 90, 90, 90)
    assert long(held) == [[1, 4, 5], [1, 7, 8]]


def test_while_slot_0_holds_a_ghost_no_match_with_the_short_term_memory_counts():
    held = feed(after_the_dead_zone(), 0, 0, 0)
    before = look(held)
    feed(held, 90, 90)
    after = look(held)
    assert short(held) == {0: [0], 1: [1]}
    assert (after.stm[1].matches, after.stm[1].age) == (0, before.stm[1].age + 2)
    held.consolidate(lambda x: plane(*[90 * (n == 1) for n in numbers(x)]))
    assert [look(held).stm[slot].matches for slot in (0, 1)] == [0, 0]
    feed(held, 90)
    assert short(held) == {0: [0], 1: [1, 9]}
    clean = feed(memory(), 0, 90, 0, 0, 90)
    assert short(clean) == {1: [1, 4]}


def with_its_ghost_evicted(**rules):
    """Image 10 at 100 degrees in slot 0, 7 at 200 degrees in slot 1; 0, 4 and 5 in the LTM."""
    held = feed(after_the_dead_zone(**rules), 0, 0, 0)
    feed(held, 200, 0, 0)  # novel, in the place of image 1; then two that only lower the threshold
    feed(held, 100)  # novel; the ghost is the oldest now
    assert (short(held), long(held)) == ({0: [10], 1: [7]}, [[0, 4, 5]])
    return held


def test_matches_count_again_once_the_ghost_in_slot_0_is_evicted():
    held = feed(with_its_ghost_evicted(), 200)
    assert short(held) == {0: [10], 1: [7, 11]}


@pytest.mark.parametrize("ratio", [0.5, -1])
@pytest.mark.parametrize("seed", range(4))
def test_replayed_embeddings_are_consumed_by_the_short_term_memory_first(ratio, seed):
    held = with_its_ghost_evicted(ratio_ltm=ratio)
    before = look(held)
    draw = held.draw(4, generator(seed, "replay"))
    z = torch.randn(4, 2, generator=generator(seed, "z"))
    held.drift(draw, z)
    drawn, home = numbers(draw.x), {10: before.stm[0], 7: before.stm[1]}
    consumers = [n for n in drawn if n in home] + [n for n in drawn if n not in home]
    for n, new in zip(consumers, z, strict=True):
        c = home.get(n, before.ltm[0])
        rate = 0.5 / len(c.images)
        c.c = (1 - rate) * c.c + rate * new
    after = look(held)
    for found, expected in zip(
        [*after.stm.values(), *after.ltm], [*before.stm.values(), *before.ltm], strict=True
    ):
        assert torch.allclose(found.c, expected.c, atol=1e-6)


def test_a_uniform_draw_comes_as_drawn():
    held = with_its_ghost_evicted(ratio_ltm=-1)
    firsts = {numbers(held.draw(5, generator(seed, "replay")).x)[0] for seed in range(60)}
    assert firsts == {0, 4, 5, 7, 10}  # no memory comes before the other
