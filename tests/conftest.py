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


def pytest_collection_modifyitems(items):
    """With several processes, the tests of a file, and all that use Ray, stay in one of them.

    Files train what their tests share, and the Ray of the session has two CPUs.
    """
    for item in items:
        group = "end_to_end" if "end_to_end" in item.path.parts else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
