"""A search finds the learning rate that a fine grid finds, for less than half of what it takes."""

import io

import pytest
from rich.console import Console

from harness.config import CONFIGS
from harness.search import Machines, run_search
from harness.search_file import read_search


def searched(folder, *assignments):
    search = read_search(CONFIGS / "search" / "er_digits.yaml", assignments)
    (study,), _ = run_search(search, folder, Console(file=io.StringIO()), Machines("inline"))
    return study


@pytest.mark.slow
def test_a_search_of_20_trials_comes_within_a_factor_of_3_of_a_fine_grid(tmp_path):
    fine = "space={lr: {log_uniform: [1e-4, 10], points: 21}}"
    grid = searched(tmp_path / "grid", fine, "algorithm=grid", "scheduler=none", "trials=21").best()
    for seed in range(3):
        study = searched(tmp_path / str(seed), "try_defaults=false", f"search_seed={seed}")
        best = study.best()
        assert len(study.tried()) == 20
        assert 1 / 3 < best.configuration["lr"] / grid.configuration["lr"] < 3
        trainings, _ = study.spent()
        assert trainings <= 20 * 2 / 2  # half of 20 configurations with 2 seeds each
