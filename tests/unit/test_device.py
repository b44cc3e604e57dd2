"""Threads and flags of a trial, and that they end with it."""

import pytest
import torch
from threadpoolctl import threadpool_info

from harness.device import device_for, reproducible
from harness.errors import UserError
from harness.spec import Resources


def flags():
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        sorted((pool["filepath"], pool["num_threads"]) for pool in threadpool_info()),
    )


def test_every_library_uses_the_trials_threads():
    with reproducible(1):
        assert torch.get_num_threads() == 1
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}


def test_everything_is_as_before_afterwards():
    with reproducible(1):  # loads what can only be limited once it is loaded
        pass
    before = flags()
    with reproducible(2):
        assert torch.are_deterministic_algorithms_enabled()
    assert flags() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_an_error_with_a_way_out():
    assert device_for(Resources()).type == "cpu"
    with pytest.raises(UserError, match=r"gpu 0\.5.*--set 'resources="):
        device_for(Resources(gpu=0.5))
