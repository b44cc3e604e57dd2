"""Methods over benchmarks, and at equal memory."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scikit_posthocs import posthoc_wilcoxon
from stores import Trial, rows, write_failure, write_suite, write_trial

from analysis.across import across
from analysis.aggregate import cells, definition
from analysis.equal_memory import equal_memory
from analysis.figures.critical_difference import critical_difference
from analysis.figures.suites import ranking
from analysis.load import read
from analysis.tables import result_tables

LEVELS = {"er": 0.5, "gem": 0.3, "agem": 0.3}


def fill(root, benchmarks, *, seeds=3, levels=LEVELS, lost=()):
    rng = np.random.default_rng(0)
    wanted = []
    for number in range(benchmarks):
        for method, level in levels.items():
            for seed in range(seeds):
                trial = Trial(method, seed, dataset=f"set{number}")
                wanted.append(trial)
                if (method, number, seed) in lost:
                    write_failure(root, trial, "user", "lost")
                    continue
                a = np.full((3, 3), level + number / 50) + rng.normal(0, 0.01, (3, 3))
                write_trial(root, trial, rows(trial, a))
    write_suite(root, wanted)
    (table,) = result_tables(read(root), ["FA"])
    return table


def test_ranks_and_means_over_benchmarks(tmp_path):
    found = across(fill(tmp_path, 4).grid, "FA")
    assert found.table["label"][0] == "er"
    assert found.table["rank"][0] == 1.0
    assert found.table["rank"].sum() == pytest.approx(6.0)
    assert (
        (found.table["low"] <= found.table["iqm"]) & (found.table["iqm"] <= found.table["high"])
    ).all()
    assert found.table["iqm"][0] == pytest.approx(53, abs=1)
    assert found.friedman < 0.05
    assert found.pairwise is None
    assert found.needed == 7  # three pairs: 3 * 2 / 2^7 < 0.05


def test_pairs_are_tested_where_benchmarks_are_enough(tmp_path):
    found = across(fill(tmp_path, 7).grid, "FA")
    long = found.scores.melt(var_name="label", value_name="score")
    expected = posthoc_wilcoxon(long, "score", "label", p_adjust="holm", zero_method="zsplit")
    for one in LEVELS:
        for other in LEVELS:
            assert found.pairwise.loc[one, other] == pytest.approx(expected.loc[one, other])
    assert found.pairwise.loc["er", "gem"] < 0.05 < found.pairwise.loc["gem", "agem"]
    figure = critical_difference(found)
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert any("er" in text for text in texts)
    again = ranking(read(tmp_path), "demo", "class_incremental", "FA")
    pd.testing.assert_frame_equal(again.table, found.table)
    assert again.methods == {name: name for name in LEVELS}


def test_methods_with_gaps_are_named_and_left_out(tmp_path):
    found = across(fill(tmp_path, 4, lost={("gem", 2, 1)}).grid, "FA")
    assert found.left_out == ["gem"]
    assert set(found.table["label"]) == {"er", "agem"}
    assert found.friedman is None


def test_one_benchmark_or_one_method_has_no_ranks(tmp_path):
    assert across(fill(tmp_path / "a", 1).grid, "FA") is None
    assert across(fill(tmp_path / "b", 3, levels={"er": 0.5}).grid, "FA") is None


def test_methods_with_the_same_numbers_share_their_rank(tmp_path):
    wanted = [Trial(name, 0, dataset=f"set{number}") for name in LEVELS for number in range(7)]
    for trial in wanted:
        write_trial(tmp_path, trial, rows(trial, np.full((3, 3), 0.5)))
    write_suite(tmp_path, wanted)
    (table,) = result_tables(read(tmp_path), ["FA"])
    found = across(table.grid, "FA")
    assert found.table["rank"].tolist() == [2.0] * 3
    assert found.friedman == 1.0
    assert (found.pairwise.to_numpy() == 1.0).all()
    assert critical_difference(found) is not None


def test_references_take_no_part(tmp_path):
    found = across(fill(tmp_path, 2, levels={**LEVELS, "joint": 0.9}).grid, "FA")
    assert "joint" not in set(found.table["label"])
    assert found.left_out == []


def with_memory(root, variants):
    """Trials of `label: (method, accuracy, MB)`."""
    wanted = []
    for label, (method, level, held) in variants.items():
        for seed in range(2):
            settings = {"method.size": label}
            trial = Trial(method, seed, label=label, settings=settings)
            wanted.append(trial)
            lines = rows(trial, np.full((3, 3), level))
            cost = np.full((3, 3), np.nan)
            cost[2, 0] = held * 1e6
            costs = rows(trial, cost, metric="method_memory_bytes", evaluator="cost")
            lines += [replace(line, on_task=-1) for line in costs]
            write_trial(root, trial, lines)
    write_suite(root, wanted)
    return cells(read(root), ["FA", "held_MB"])


def test_at_equal_memory_the_largest_variant_that_fits_counts_not_the_best(tmp_path):
    found = with_memory(
        tmp_path,
        {
            "er_small": ("er", 0.9, 0.9),
            "er_large": ("er", 0.5, 1.8),
            "gem_large": ("gem", 0.6, 4.5),
            "finetune": ("finetune", 0.1, 0.0),
            "joint": ("joint", 1.0, 0.0),
        },
    )
    chosen, columns = equal_memory(found)
    assert columns == ["FA at ≤ 1 MB", "FA at ≤ 2 MB", "FA at ≤ 5 MB"]
    table = chosen.pivot_table(index="label", columns="metric", values="mean")[columns]
    assert table.loc["er"].tolist() == [0.9, 0.5, 0.5]
    assert table.loc["finetune"].tolist() == pytest.approx([0.1, 0.1, 0.1])
    assert table.loc["gem"].isna().tolist() == [True, True, False]
    assert "joint" not in table.index
    assert definition(columns[0]).scale == 100.0
    assert "holds most within that memory" in definition(columns[0]).formula


def test_nothing_is_compared_where_hardly_anything_is_held(tmp_path):
    found = with_memory(tmp_path, {"er": ("er", 0.9, 1.0), "finetune": ("finetune", 0.1, 0.0)})
    chosen, columns = equal_memory(found)
    assert columns == []
    assert isinstance(chosen, pd.DataFrame)
    assert chosen.empty
