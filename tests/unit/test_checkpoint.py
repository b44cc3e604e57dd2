"""Checkpoints: whole or not there, the newest whole one wins, nothing pickled."""

import dataclasses
import os

import pytest
import torch

from harness.checkpoint import CheckpointFolder
from methods.base import Signal


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path / "checkpoints")


def payload(number):
    weights = torch.full((50,), float(number))
    return {"trial_id": "a", "state": {"net": {"w": weights}, "tasks": [number, None, 0.5]}}


def files(folder):
    return sorted(path for path in folder.folder.iterdir())


def newest_number(folder):
    found = folder.newest()
    return None if found is None else int(found["state"]["net"]["w"][0])


def test_what_was_saved_comes_back(folder):
    folder.save(3, payload(7))
    found = folder.newest()
    assert found["position"] == 3
    assert found["trial_id"] == "a"
    assert found["state"]["tasks"] == [7, None, 0.5]
    assert torch.equal(found["state"]["net"]["w"], torch.full((50,), 7.0))


def test_there_is_none_at_first_and_after_clearing(folder):
    assert folder.newest() is None
    folder.clear()
    folder.save(0, payload(0))
    folder.clear()
    assert folder.newest() is None
    assert not folder.folder.exists()


def test_the_two_newest_are_kept_and_no_part_of_a_file(folder):
    for position in range(12):
        folder.save(position, payload(position))
    assert newest_number(folder) == 11
    assert [path.name[:9] for path in files(folder)] == ["task_0010", "task_0011"]


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace_by_another(path):
    path.write_bytes(files(CheckpointFolder(path.parent))[0].read_bytes())


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_bit, replace_by_another])
def test_a_damaged_newest_is_passed_over_for_the_one_before(folder, damage):
    folder.save(0, payload(0))
    folder.save(1, payload(1))
    damage(files(folder)[-1])
    assert newest_number(folder) == 0


def test_if_all_are_damaged_there_is_none(folder):
    folder.save(0, payload(0))
    folder.save(1, payload(1))
    for path in files(folder):
        flip_a_bit(path)
    assert folder.newest() is None


def test_a_task_saved_again_after_damage_is_the_newest(folder):
    folder.save(0, payload(0))
    folder.save(1, payload(1))
    flip_a_bit(files(folder)[-1])
    folder.save(1, payload(5))
    assert newest_number(folder) == 5


def test_a_file_half_written_is_not_read(folder):
    folder.save(0, payload(0))
    (folder.folder / ".abc.tmp").write_bytes(b"half a file")
    assert newest_number(folder) == 0


def test_a_file_of_another_format_is_passed_over(folder):
    folder.save(0, payload(0))
    folder.save(1, {**payload(1), "format": 0})
    assert newest_number(folder) == 0


@dataclasses.dataclass
class Unknown:
    number: int = 3


@pytest.mark.parametrize("thing", [Unknown(), torch.nn.Linear(1, 1), frozenset(Signal)])
def test_what_would_have_to_be_pickled_is_not_read_back(folder, thing):
    folder.save(0, {"state": thing})
    with pytest.raises(Exception, match=r"[Ww]eights.?only"):
        folder.newest()
