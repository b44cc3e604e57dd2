"""Part and Select against a version on plain lists, and by hand."""

import numpy as np
import pytest
import torch

from harness.seeds import generator
from methods.parts.part_and_select import part_and_select

INF, NAN = float("inf"), float("nan")


def select(points, count, seed=0):
    return part_and_select(points, count, rng=generator(seed, "psa")).tolist()


def line(*numbers):
    """Points on a line."""
    return torch.tensor(numbers, dtype=torch.float32)[:, None]


def cloud(kind, n=60, d=3):
    rng = np.random.default_rng(0)
    points = {
        "normal": rng.normal(size=(n, d)),
        "clusters": rng.normal(size=(4, d))[rng.integers(4, size=n)] + rng.normal(size=(n, d)) / 20,
        "rectified": np.maximum(rng.normal(size=(n, 3 * d)), 0),
        "heavy": rng.standard_t(1, size=(n, d)),
        "grid": rng.integers(0, 4, size=(n, d)),  # ties everywhere, and the same point twice
    }
    return points[kind].astype(np.float32)


def naive(points, count):
    """Boxes in a list, each split searched for anew; Python's own numbers, which are float64."""
    points = points.tolist()

    def sides(box):
        return [(min(axis), max(axis)) for axis in zip(*(points[i] for i in box), strict=True)]

    def widest(box):
        extents = [high - low for low, high in sides(box)]
        return max(extents), extents.index(max(extents))

    def distance(row, box):
        middle = [(low + high) / 2 for low, high in sides(box)]
        return sum((p - m) ** 2 for p, m in zip(points[row], middle, strict=True))

    boxes = [list(range(len(points)))]
    while len(boxes) < count:
        box = max(boxes, key=lambda b: widest(b)[0])  # the first of equal ones
        extent, axis = widest(box)
        if extent == 0:
            break
        low, high = sides(box)[axis]
        below = [i for i in box if points[i][axis] < (low + high) / 2]
        boxes.remove(box)
        boxes += [below, [i for i in box if i not in below]]
    return sorted(min(box, key=lambda i: distance(i, box)) for box in boxes)


@pytest.mark.parametrize("kind", ["normal", "clusters", "rectified", "heavy"])
@pytest.mark.parametrize("count", [1, 2, 7, 30, 55, 59])
def test_the_selection_is_that_of_the_algorithm_on_plain_lists(kind, count):
    assert select(cloud(kind), count) == naive(cloud(kind), count)


@pytest.mark.parametrize("count", [1, 2, 5, 9, 20, 30])
def test_ties_between_boxes_axes_and_points_go_to_the_first(count):
    points = cloud("grid")
    assert len(np.unique(points, axis=0)) >= 30
    assert select(points, count) == naive(points, count)


@pytest.mark.parametrize("count", [3, 2000])
def test_it_works_at_the_size_of_a_real_memory(count):
    rng = np.random.default_rng(1)
    points = rng.normal(size=(2010, 128)).astype(np.float32)
    found = part_and_select(torch.from_numpy(points), count, rng=generator(0, "psa"))
    assert found.dtype == torch.int64
    assert len(found) == count
    assert (found.diff() > 0).all()


def test_a_box_is_split_in_the_middle_of_what_it_spans():
    assert select(line(0, 1, 2, 10), 2) == [1, 3]  # {0, 1, 2} and {10}
    assert select(line(0, 1, 2, 10), 3) == [0, 1, 3]  # 1 is not strictly below 1


def test_the_widest_dimension_is_split():
    points = [[0.0, 0.0], [1.0, 0.0], [0.0, 3.0], [1.0, 3.0]]
    assert select(points, 2) == [0, 2]


def test_the_box_of_the_largest_extent_is_split_however_few_points_it_holds():
    crowd = [i / 100 for i in range(20)]
    assert select(line(*crowd, 5, 8), 3)[1:] == [20, 21]


def test_kept_is_the_point_closest_to_the_centre_of_the_box_and_not_to_the_mean():
    assert select(line(0, 0.1, 0.2, 0.3, 0.6, 1.0), 1) == [4]


def test_the_centre_is_that_of_the_points_inside_and_not_of_the_half_cut_off():
    # [0, 8] is cut at 4: the points above span 6 to 8, with 7 in their middle; the half's is 6.
    assert select(line(0, 8, 6, 7), 2) == [0, 3]


@pytest.mark.parametrize("d", [1, 33, 512])
def test_of_two_points_in_a_box_the_first_is_kept_whatever_rounding_says(d):
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert select(rng.normal(size=(2, d)).astype(np.float32), 1) == [0]


def test_the_order_of_the_points_does_not_matter_where_nothing_ties():
    points = cloud("normal", n=60)
    order = np.random.default_rng(5).permutation(60)
    # With few boxes none holds two points, which are always equally far from its centre.
    assert sorted(order[select(points[order], 4)]) == select(points, 4)


def test_rare_points_are_kept_where_a_random_choice_would_lose_them():
    rng = np.random.default_rng(0)
    crowd = rng.normal(size=(300, 8)) / 10
    rare = 3 * np.eye(8)
    found = select(np.concatenate([crowd, rare]).astype(np.float32), 16)
    assert set(range(300, 308)) <= set(found)


@pytest.mark.parametrize("count", [4, 5, 9])
def test_no_more_points_than_wanted_are_all_kept(count):
    assert select(line(3, 3, 1, NAN), count) == [0, 1, 2, 3]


def test_without_enough_different_points_all_of_them_are_kept_and_the_rest_is_drawn():
    points = line(*[0] * 10, *[1] * 10, *[5] * 10)
    fills = set()
    for seed in range(100):
        found = select(points, 5, seed)
        assert found == sorted(set(found))
        assert len(found) == 5
        assert {0, 10, 20} <= set(found)
        fills |= set(found) - {0, 10, 20}
    assert fills == set(range(30)) - {0, 10, 20}


def test_the_same_stream_fills_up_with_the_same_points():
    points = line(*[0] * 50)
    assert select(points, 9, seed=1) == select(points, 9, seed=1)
    assert select(points, 9, seed=1) != select(points, 9, seed=2)


def test_nothing_is_drawn_where_the_points_suffice():
    rng = generator(0, "psa")
    before, everywhere = rng.get_state(), torch.get_rng_state()
    part_and_select(torch.from_numpy(cloud("normal")), 30, rng=rng)
    assert torch.equal(before, rng.get_state())
    part_and_select(line(0, 0, 0), 2, rng=rng)
    assert torch.equal(everywhere, torch.get_rng_state())


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
def test_points_that_are_not_finite_are_kept_only_to_fill_up(broken):
    points = torch.from_numpy(cloud("normal", n=20)).clone()
    points[[3, 8, 11], [0, 1, 2]] = broken
    healthy = [i for i in range(20) if i not in (3, 8, 11)]
    assert [healthy[i] for i in naive(points[healthy], 9)] == select(points, 9)
    assert select(points, 17) == healthy
    assert set(healthy) < set(select(points, 19))


@pytest.mark.parametrize("broken", [NAN, INF])
def test_with_no_finite_point_at_all_the_choice_is_random(broken):
    found = select(torch.full((30, 4), broken), 8)
    assert len(found) == len(set(found)) == 8


def test_neighbouring_numbers_and_the_largest_ones_can_be_told_apart():
    one, largest = np.float32(1), np.finfo(np.float32).max
    close = [one]
    for _ in range(6):
        close.append(np.nextafter(close[-1], np.float32(2)))
    assert select(line(*close), 6) == naive(np.array(close)[:, None], 6)
    assert select(line(-largest, largest, 0, largest), 3) == [0, 1, 2]


def test_arrays_and_tensors_are_read_alike_and_not_written_to():
    array = cloud("normal")
    array.flags.writeable = False
    tensor = torch.tensor(array)
    assert select(array, 20) == select(tensor, 20)
    assert np.array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("count", [0, -1])
def test_a_selection_of_nothing_is_refused(count):
    with pytest.raises(ValueError, match="at least 1"):
        select(line(1, 2), count)
