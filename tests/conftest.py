"""What every test gets."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Trainings of two threads each, side by side on two cores, wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
