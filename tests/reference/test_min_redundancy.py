"""MinRed's buffer against a version on plain lists that compares everything anew."""

import io
import math

import numpy as np
import pytest
import torch

from harness.seeds import generator
from methods.parts.buffers import Buffer, reservoir
from methods.parts.min_redundancy import MinRedBuffer

CPU = torch.device("cpu")
META = torch.device("meta")  # has no numbers: what asks it for one, as `.item()` does, fails
INF, NAN = math.inf, math.nan


def images(first, last):
    """Images that say which of the stream they are."""
    number = torch.arange(first, last)
    return torch.stack([number // 256, number % 256], 1).to(torch.uint8).view(-1, 1, 1, 2)


def numbers(x):
    return (x[:, 0, 0, 0].long() * 256 + x[:, 0, 0, 1].long()).tolist()


def held_rows(buffer):
    """Row of each image held."""
    return {number: row for row, number in enumerate(numbers(filled(buffer)["x"]))}


def contents(buffer):
    return sorted(held_rows(buffer))


def filled(buffer):
    return buffer.state_dict()["filled"]


def put(buffer, number, z):
    """Write the features of one image anew."""
    row = torch.tensor([held_rows(buffer)[number]])
    buffer.put(row, z=torch.tensor([z], dtype=torch.float32))


def feed(buffer, z):
    """Add a batch of features; its images are the next of the stream."""
    z = torch.as_tensor(z, dtype=torch.float32)
    buffer.add(x=images(buffer.seen, buffer.seen + len(z)), z=z)
    return buffer


def at(*degrees):
    """Unit features at these angles."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], 1).float()


def held_at(*degrees, capacity=None):
    """A buffer, full if not told otherwise, of features at these angles."""
    return feed(MinRedBuffer(capacity or len(degrees), CPU), at(*degrees))


class Naive:
    """(number, features) from old to young; each removal compares all pairs again."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.seen = 0
        self.kept = []

    def add(self, z):
        for _ in range(len(self.kept) + len(z) - self.capacity):
            self.kept.pop(self.most_redundant())
        for features in z.tolist():
            self.kept.append([self.seen, features])
            self.seen += 1

    def most_redundant(self):
        if len(self.kept) == 1:
            return 0
        unit = np.array([features for _, features in self.kept])
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        distance = [[1 - math.fsum(a * b) for b in unit] for a in unit]
        nearest = [min(d for j, d in enumerate(row) if i != j) for i, row in enumerate(distance)]
        return nearest.index(min(nearest))

    def put(self, number, features):
        next(row for row in self.kept if row[0] == number)[1] = features.tolist()

    def contents(self):
        return [number for number, _ in self.kept]


def features(count, rng, d=6):
    return torch.randn(count, d, generator=rng)


def refresh(buffer, rng, *, size=7, passes=3):
    """Draw rows and move their features, as a training step does; gives (number, features)."""
    moved = []
    for _ in range(passes):
        rows = buffer.draw(size, rng)
        held = buffer.take(rows)
        z = torch.lerp(features(len(rows), rng, held["z"].shape[1]), held["z"], 0.5)
        buffer.put(rows, z=z)
        moved += zip(numbers(held["x"]), z, strict=True)
    return moved


@pytest.mark.parametrize("size", [1, 3, 10, 24])
@pytest.mark.parametrize("drawn", [1, 7])
def test_it_keeps_what_the_version_on_plain_lists_keeps(size, drawn):
    rng = generator(0, "features", size)
    ours, naive = MinRedBuffer(24, CPU), Naive(24)
    for _ in range(60 // size + 8):
        z = features(size, rng)
        feed(ours, z)
        naive.add(z)
        assert contents(ours) == naive.contents()
        for number, moved in refresh(ours, rng, size=drawn):
            naive.put(number, moved)
    assert ours.seen > 2 * len(ours)


def test_images_and_features_stay_together():
    rng = generator(0, "features")
    ours, latest = MinRedBuffer(20, CPU), {}
    for _ in range(12):
        z = features(7, rng)
        latest |= dict(enumerate(z, start=ours.seen))
        feed(ours, z)
        latest |= refresh(ours, rng)
    for number, z in zip(numbers(filled(ours)["x"]), filled(ours)["z"], strict=True):
        assert torch.equal(z, latest[number])


def test_of_the_closest_pair_the_older_goes():
    assert contents(feed(held_at(0, 90, 40, 45), at(200))) == [0, 1, 3, 4]


def test_of_two_identical_images_the_older_goes_wherever_it_lies():
    buffer = held_at(0, 1, 90, 180)
    feed(buffer, at(120))  # takes the row of 0
    assert held_rows(buffer)[4] == 0
    put(buffer, 1, [-1.0, 1.0])
    put(buffer, 4, [-2.0, 2.0])  # the same direction; the older of the two has the higher row
    assert contents(feed(buffer, at(300))) == [2, 3, 4, 5]


def test_of_many_pairs_of_equal_similarity_the_oldest_image_goes_first():
    buffer = held_at(0, 90, 180, 270)  # the cosine is exactly the same for each pair in reach
    z = [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]
    for number in range(4):
        put(buffer, number, z[number])
    assert contents(feed(buffer, at(45))) == [1, 2, 3, 4]
    assert contents(feed(buffer, at(200))) == [1, 3, 4, 5]  # 1 has lost its twin


def test_removals_are_decided_one_after_the_other():
    # 0 and 1 are closest, then 1 and 2; once 0 is gone 1 still has 2, once 1 is gone 2 is alone.
    assert contents(feed(held_at(10, 12, 15, 90, 130), at(200, 300))) == [2, 3, 4, 5, 6]
    # Both of the two closest pairs lose one, and not the first pair both.
    assert contents(feed(held_at(10, 11, 90, 92, 180), at(250, 300))) == [1, 3, 4, 5, 6]


def test_only_the_direction_of_features_counts():
    same_direction = [[1.0, 0.0], [50.0, 0.5]]
    small_difference = [[-0.1, 0.0], [-0.1, 0.1]]
    large_product = [[0.0, -100.0], [70.0, -70.0]]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        pairs = [[same_direction, small_difference, large_product][i] for i in order]
        buffer = feed(MinRedBuffer(6, CPU), [z for pair in pairs for z in pair])
        feed(buffer, [[0.0, 1.0]])
        assert set(range(6)) - set(contents(buffer)) == {2 * order.index(0)}


def test_a_new_image_is_never_removed_when_it_comes():
    buffer = held_at(0, 60, 110)
    assert contents(feed(buffer, at(200, 200))) == [2, 3, 4]  # the new ones are twins
    assert contents(feed(buffer, at(200))) == [2, 4, 5]  # and the older may go when the third comes


def test_new_features_change_what_is_removed_next():
    before = held_at(0, 5, 90, 180)
    after = held_at(0, 5, 90, 180)
    put(after, 0, [0.0, -1.0])
    put(after, 2, [-1.0, 0.1])
    assert contents(feed(before, at(300))) == [1, 2, 3, 4]
    assert contents(feed(after, at(300))) == [0, 1, 3, 4]


def test_new_features_count_although_all_were_compared_before():
    buffer = feed(held_at(0, 5, 90, 180), at(270))
    put(buffer, 2, [-1.0, 0.01])
    assert contents(feed(buffer, at(45))) == [1, 3, 4, 5]


def test_of_features_written_several_times_the_last_count():
    buffer = held_at(0, 5, 90, 180)
    put(buffer, 0, [0.0, -1.0])
    put(buffer, 0, [1.0, 0.0])
    assert contents(feed(buffer, at(300))) == [1, 2, 3, 4]


def test_features_of_zero_are_at_a_right_angle_to_all_others():
    buffer = held_at(0, 0, 120, 240)
    put(buffer, 0, [0.0, 0.0])
    assert contents(feed(buffer, at(60))) == [1, 2, 3, 4]


def test_a_removed_image_is_nobodys_neighbour_any_more():
    buffer = feed(held_at(0, 3, 90, 140), at(230))  # without 0, 1 is at 87 degrees from the next
    assert contents(buffer) == [1, 2, 3, 4]
    assert contents(feed(buffer, at(300))) == [1, 3, 4, 5]


def test_similarities_are_the_same_from_either_side():
    rng = generator(0, "features")
    buffer = MinRedBuffer(203, CPU)
    while buffer.seen < 800:
        feed(buffer, features(37, rng, d=129))
        refresh(buffer, rng, size=41)
    similarity = filled(buffer)["similarity"]
    assert torch.equal(similarity, similarity.T)


def test_similarities_of_unchanged_images_are_not_computed_again():
    rng = generator(0, "features")
    buffer = MinRedBuffer(40, CPU)
    while buffer.seen < 40:
        feed(buffer, features(10, rng))
    feed(buffer, features(4, rng))
    rows = buffer.draw(6, rng)
    buffer.put(rows, z=features(6, rng))
    quiet = [r for r in range(40) if not filled(buffer)["stale"][r]]
    assert len(quiet) >= 30
    marked = buffer.state_dict()
    marked["filled"]["similarity"][quiet[-1], quiet[-2]] = 0.25
    buffer.load_state_dict(marked)
    feed(buffer, features(1, rng))
    assert not filled(buffer)["stale"][quiet[-2:]].any()  # neither was removed
    assert filled(buffer)["similarity"][quiet[-1], quiet[-2]] == 0.25


def test_memory_is_constant_once_the_buffer_is_full():
    rng = generator(0, "features")
    buffer, sizes = MinRedBuffer(20, CPU), set()
    for _ in range(30):
        feed(buffer, features(7, rng))
        refresh(buffer, rng)
        assert len(buffer) == min(buffer.seen, 20)
        if buffer.seen > 20:
            sizes.add(buffer.nbytes)
    assert sizes == {20 * (2 + 6 * 4 + 8 + 1) + 20 * 20 * 4}


def test_bytes_are_those_of_the_tensors_saved():
    rng = generator(0, "features")
    buffer = MinRedBuffer(20, CPU)
    assert buffer.nbytes == 0
    for size in (5, 5, 5, 9, 9):
        feed(buffer, features(size, rng))
        assert buffer.nbytes == sum(tensor.nbytes for tensor in filled(buffer).values())
    assert MinRedBuffer.kind == "exemplars"


def saved_and_loaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same_state(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours["filled"].keys() == theirs["filled"].keys()
    for name, tensor in ours["filled"].items():
        assert torch.equal(tensor, theirs["filled"][name]), name
    assert (ours["seen"], ours["changed"]) == (theirs["seen"], theirs["changed"])


@pytest.mark.parametrize("batches", [0, 3, 15, 16, 40])
@pytest.mark.parametrize("passes", [0, 2])
def test_a_restored_buffer_goes_on_bit_for_bit(batches, passes):
    rng = generator(0, "features")
    first, second = MinRedBuffer(150, CPU), MinRedBuffer(150, CPU)
    for _ in range(batches):
        feed(first, features(10, rng, d=65))
        refresh(first, rng, size=20)
    if batches:
        refresh(first, rng, size=20, passes=passes)  # the state is taken with features just moved
    second.load_state_dict(saved_and_loaded(first.state_dict()))
    assert_same_state(first, second)
    state = rng.get_state()
    for buffer in (first, second):
        rng.set_state(state)
        for _ in range(20):
            feed(buffer, features(10, rng, d=65))
            refresh(buffer, rng, size=20)
    assert_same_state(first, second)


def test_taking_a_state_changes_nothing():
    rng = generator(0, "features")
    watched, alone = MinRedBuffer(50, CPU), MinRedBuffer(50, CPU)
    state = rng.get_state()
    for buffer in (watched, alone):
        rng.set_state(state)
        for _ in range(20):
            feed(buffer, features(10, rng, d=65))
            refresh(buffer, rng)
            if buffer is watched:
                buffer.state_dict()
    assert_same_state(watched, alone)


def test_a_saved_state_is_not_changed_by_what_follows():
    rng = generator(0, "features")
    first, second = MinRedBuffer(20, CPU), MinRedBuffer(20, CPU)
    feed(feed(first, features(20, rng)), features(5, rng))
    state = first.state_dict()
    before = saved_and_loaded(state)
    second.load_state_dict(state)
    for buffer in (first, second):
        feed(buffer, features(5, rng))
        refresh(buffer, rng)
    assert state["seen"] == before["seen"] == 25
    for name, tensor in before["filled"].items():
        assert torch.equal(tensor, state["filled"][name])


def test_a_used_buffer_takes_up_an_earlier_state_whole():
    rng = generator(0, "features")
    first, second = MinRedBuffer(20, CPU), MinRedBuffer(20, CPU)
    feed(first, features(15, rng))
    feed(feed(second, features(20, rng)), features(8, rng))
    second.load_state_dict(first.state_dict())
    z = features(15, rng)
    for buffer in (first, second):
        feed(buffer, z)
    assert_same_state(first, second)


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
def test_images_without_finite_features_leave_first_the_oldest_before(broken):
    rng = generator(0, "features")
    buffer = feed(MinRedBuffer(12, CPU), features(12, rng))
    for number in (7, 3, 5):
        put(buffer, number, [broken, *[1.0] * 5])
    feed(buffer, features(2, rng))
    assert contents(buffer) == [i for i in range(14) if i not in (3, 5)]
    feed(buffer, features(1, rng))
    assert 7 not in contents(buffer)


def test_one_broken_image_does_not_change_how_the_others_are_judged():
    buffer = held_at(0, 90, 40, 45, 200)
    put(buffer, 1, [NAN, 1.0])
    assert contents(feed(buffer, at(250, 300))) == [0, 3, 4, 5, 6]


@pytest.mark.parametrize("value", [NAN, INF, 0.0, 3e38, 1e-30])
def test_a_diverged_run_goes_on_with_the_newest_images(value):
    rng = generator(0, "features")
    buffer = feed(MinRedBuffer(10, CPU), features(10, rng))
    for _ in range(6):
        feed(buffer, torch.full((4, 6), value))
        refresh(buffer, rng, size=3, passes=1)
        assert len(contents(buffer)) == 10
        assert set(range(buffer.seen - 4, buffer.seen)) <= set(contents(buffer))
    buffer = MinRedBuffer(10, CPU)
    for _ in range(6):
        feed(buffer, torch.full((4, 6), value))
    assert contents(buffer) == list(range(14, 24))


@pytest.mark.parametrize("capacity", [1, 4])
@pytest.mark.parametrize("size", [4, 9])
def test_a_batch_that_fills_the_buffer_leaves_its_last_images(capacity, size):
    rng = generator(0, "features")
    buffer = MinRedBuffer(capacity, CPU)
    for _ in range(3):
        feed(buffer, features(size, rng))
        assert contents(buffer) == list(range(buffer.seen - capacity, buffer.seen))


@pytest.mark.parametrize("size", [7, 40])
def test_nothing_is_read_from_the_device(size):
    buffer, rng = MinRedBuffer(16, META), generator(0, "draws")
    for _ in range(6):
        buffer.add(x=images(0, size).to(META), z=torch.empty(size, 6, device=META))
        for _ in range(3):
            rows = buffer.draw(5, rng)
            buffer.put(rows, z=buffer.take(rows)["z"] / 2)
        assert buffer.sample(3, rng)["x"].device.type == "meta"
    assert len(buffer) == 16


def test_a_restored_buffer_is_on_its_device_again():
    rng = generator(0, "features")
    buffer = MinRedBuffer(10, META)
    buffer.load_state_dict(
        feed(feed(MinRedBuffer(10, CPU), features(10, rng)), features(3, rng)).state_dict()
    )
    assert {tensor.device.type for tensor in filled(buffer).values()} == {"meta"}
    assert buffer.take(buffer.draw(3, rng))["x"].device.type == "meta"


def test_a_sample_has_no_row_twice_and_at_most_all_there_are():
    rng = generator(0, "features")
    buffer = feed(MinRedBuffer(30, CPU), features(12, rng))
    for _ in range(30):
        found = numbers(buffer.sample(7, rng)["x"])
        assert len(found) == len(set(found)) == 7
    assert sorted(numbers(buffer.sample(99, rng)["x"])) == list(range(12))
    assert buffer.sample(5, rng)["x"].dtype == torch.uint8


def clusters(count, shares, rng):
    """Features in as many arcs of 40 degrees as there are shares, and the arc of each."""
    which = torch.multinomial(torch.tensor(shares), count, replacement=True, generator=rng)
    degrees = which * 360 / len(shares) + 40 * torch.rand(count, generator=rng)
    return at(*degrees.tolist()), which


def test_clusters_of_very_different_sizes_end_nearly_balanced_unlike_in_a_reservoir():
    shares, capacity = [0.8, 0.15, 0.035, 0.015], 40
    rng = generator(0, "clusters")
    ours = MinRedBuffer(capacity, CPU)
    plain = Buffer(capacity, reservoir, generator(0, "buffer"), CPU)
    seen = []
    for _ in range(1000):
        z, which = clusters(3, shares, rng)
        seen += which.tolist()
        feed(ours, z)
        plain.add(which=which)
    balanced = np.bincount([seen[n] for n in contents(ours)], minlength=4) / capacity
    uniform = np.bincount(plain.state_dict()["columns"]["which"], minlength=4) / capacity
    assert balanced.min() > 0.15
    assert balanced.max() < 0.4
    assert uniform.max() > 0.65
    assert uniform.min() < 0.05


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_buffer_without_room_is_refused(capacity):
    with pytest.raises(ValueError, match="at least 1"):
        MinRedBuffer(capacity, CPU)
