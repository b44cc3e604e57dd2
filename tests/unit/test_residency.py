"""Images come in the order asked for, with the same numbers wherever they lie."""

import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import DATA, finish, numbers, tiny_run, tiny_trial

from harness.data import residency
from harness.data.base import Dataset, Split, Traits
from harness.data.residency import AHEAD, in_turn, placed
from harness.device import MOST_IMAGES, image_budget, reproducible
from harness.spec import Resources
from harness.trial import TrialRun

CPU = torch.device("cpu")
ORDER = torch.tensor([5, 0, 29, 7, 7, 3, 18, 2, 11, 28, 1])
STOPS = range(3, 11, 3)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture
def split(tmp_path):
    """30 images mapped from a file; every pixel of an image is its row."""
    np.save(tmp_path / "x.npy", np.arange(30, dtype=np.uint8)[:, None, None, None].repeat(12, 3))
    x = torch.from_numpy(np.load(tmp_path / "x.npy", mmap_mode="c"))
    return Split(x, torch.arange(30) % 3)


@pytest.fixture
def ahead(monkeypatch):
    """Every split counts as large."""
    monkeypatch.setattr(residency, "LARGE", 0)


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("images")]


def toy(split):
    return Dataset("toy", split, split.only(torch.arange(10)), tuple("abc"), Traits((0.5,), (0.5,)))


def check_batches(split, batches, device="cpu"):
    batches = list(batches)
    assert [len(rows) for rows, _ in batches] == [3, 3, 3, 2]
    assert torch.equal(torch.cat([rows for rows, _ in batches]).cpu(), ORDER)
    for rows, x in batches:
        assert rows.device.type == x.device.type == device
        place = rows.cpu() if split.place is None else split.place[rows.cpu()]
        assert torch.equal(x.cpu(), place.byte()[:, None, None, None].expand(-1, 1, 1, 12))


def test_batches_are_the_images_of_their_rows(split):
    check_batches(split, in_turn(split, ORDER, STOPS))
    assert not readers()


def test_batches_that_are_read_ahead_are_the_same(split, ahead):
    check_batches(split, in_turn(split, ORDER, STOPS))
    other = Split(split.x, split.y, place=torch.arange(30).flip(0))
    check_batches(other, in_turn(other, ORDER, STOPS))
    assert not readers()


def test_no_more_than_a_few_batches_are_read_ahead(split, ahead, monkeypatch):
    read = []
    gathered = residency._gathered
    monkeypatch.setattr(
        residency, "_gathered", lambda s, rows: (read.append(len(rows)), gathered(s, rows))[1]
    )
    stream = in_turn(split, torch.arange(30), range(1, 30))
    for taken in range(1, 5):
        next(stream)
        assert len(read) <= taken + AHEAD


def test_a_stream_that_is_left_early_ends_its_thread(split, ahead):
    stream = in_turn(split, torch.arange(30), range(1, 30))
    next(stream)
    assert readers()
    stream.close()
    assert not readers()


def test_what_goes_wrong_in_the_thread_reaches_the_trial(split, ahead):
    stream = in_turn(split, torch.tensor([0, 1, 30]), [1, 2])
    next(stream)
    next(stream)
    with pytest.raises(IndexError):
        next(stream)
    assert not readers()


@pytest.mark.parametrize("name", ["er", "climb", "icarl", "iid", "joint"])
def test_reading_ahead_changes_no_number_of_a_trial(name, ahead, monkeypatch):
    read = []
    gathered = residency._gathered
    monkeypatch.setattr(
        residency, "_gathered", lambda s, rows: (read.append(len(rows)), gathered(s, rows))[1]
    )
    found = numbers(finish(tiny_run(name)))
    assert read
    monkeypatch.setattr(residency, "LARGE", 1 << 40)
    assert numbers(finish(tiny_run(name))) == found


def test_nothing_is_moved_on_a_cpu(split):
    dataset = toy(split)
    assert placed(dataset, CPU, 0) is dataset
    assert image_budget(CPU, Resources(gpu=0)) == 0


def test_a_subset_shares_the_images(split):
    part = replace(split, domain=torch.arange(30) % 2, session=torch.arange(30) % 5)
    part = part.only(torch.tensor([4, 9, 2]))
    assert part.x.data_ptr() == split.x.data_ptr()
    assert part.y.tolist() == [1, 0, 2]
    assert (part.domain.tolist(), part.session.tolist()) == ([0, 1, 0], [4, 4, 2])
    assert part.images(torch.tensor([1, 2]))[:, 0, 0, 0].tolist() == [9, 2]
    again = part.only(torch.tensor([2, 0]))
    assert again.images(torch.tensor([0, 1]))[:, 0, 0, 0].tolist() == [2, 4]
    assert len(again) == 2


def test_a_dropped_stream_lets_go_of_its_images(split, ahead):
    held = Split(split.x.clone(), split.y)
    stream = in_turn(held, torch.arange(30), range(1, 30))
    next(stream)
    image = weakref.ref(held.x)
    del held, stream
    assert image() is None


@pytest.mark.parametrize("value", ["-1", "lots"])
def test_room_for_images_must_be_a_size(value):
    with pytest.raises((ValueError, TypeError)):
        Resources(images_gb=float(value) if value != "lots" else value)


@needs_gpu
def test_what_fits_is_moved_and_what_does_not_is_read():
    x = torch.arange(30).byte()[:, None, None, None].expand(-1, 1, 1, 12).contiguous()
    dataset = toy(Split(x, torch.arange(30) % 3))
    cuda = torch.device("cuda")
    fits = placed(dataset, cuda, 30 * 12 + 10 * 12)
    assert fits.train.x.is_cuda
    assert fits.test.x.is_cuda
    assert fits.test.place is None
    half = placed(dataset, cuda, 30 * 12)
    assert half.train.x.is_cuda
    assert not half.test.x.is_cuda
    none = placed(dataset, cuda, 30 * 12 - 1)
    assert not none.train.x.is_cuda
    for made in (fits, half, none):
        assert made.train.y.is_cuda
        check_batches(made.train, in_turn(made.train, ORDER, STOPS), "cuda")
        rows = torch.tensor([3, 1], device="cuda")
        assert made.test.images(rows)[:, 0, 0, 0].tolist() == [3, 1]
        assert made.test.images(rows).is_cuda


@needs_gpu
def test_pinned_memory_is_not_used_anew_before_it_is_copied():
    x = torch.arange(200).byte()[:, None, None, None].expand(-1, 3, 224, 224).contiguous()
    split = Split(x, torch.zeros(200, dtype=torch.int64, device="cuda"))
    order = torch.arange(200).repeat(5)
    busy = torch.randn(4096, 4096, device="cuda")
    kept = []
    for rows, images in in_turn(split, order, range(20, 1000, 20)):
        busy = busy @ busy / 64  # the device lags behind the copies
        kept.append((images.flatten(1).float().mean(1) == rows).all())
    assert torch.stack(kept).all()


@needs_gpu
@pytest.mark.parametrize("name", ["er", "climb", "icarl", "edd", "braincl", "joint", "iid"])
def test_where_images_lie_changes_no_number_of_a_trial(name):
    found = []
    for room in (None, 0.0):
        trial = replace(tiny_trial(name), resources=Resources(gpu=1, images_gb=room))
        run = TrialRun(trial, DATA, torch.device("cuda"))
        assert run.scenario.dataset.train.x.is_cuda == (room is None)
        with reproducible(threads=1):
            found.append(numbers(finish(run)))
    assert found[0] == found[1]


@needs_gpu
def test_the_room_for_images_is_a_part_of_the_trials_share():
    cuda = torch.device("cuda")
    total = torch.cuda.get_device_properties(cuda).total_memory
    assert image_budget(cuda, Resources(gpu=1)) == min(MOST_IMAGES, total // 4)
    assert image_budget(cuda, Resources(gpu=0.01)) == pytest.approx(total / 400, rel=1e-6)
    assert image_budget(cuda, Resources(gpu=1, images_gb=2)) == 2_000_000_000
