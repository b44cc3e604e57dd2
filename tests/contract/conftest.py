"""Trials of contract tests run as an executor runs them."""

import pytest

from harness.device import reproducible


@pytest.fixture(autouse=True, scope="session")
def deterministic():
    with reproducible(threads=1):
        yield
