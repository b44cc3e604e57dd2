"""Tables: what is averaged, what a cell says, what is marked, and how it is written."""

import csv as csv_format
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from stores import Trial, rows, seen, write_failure, write_suite, write_trial

from analysis.aggregate import cells, distinct_labels
from analysis.grid import BEST, SECOND, TIED
from analysis.load import read, trials
from analysis.tables import (
    ResultTable,
    caption,
    csv,
    differences,
    latex,
    markdown,
    result_tables,
    table,
    wide,
)
from analysis.terminal import terminal_tables
from analysis.verdicts import Rules


def constant(value: float, tasks: int = 3) -> np.ndarray:
    """A matrix of which CA and FA are `value`."""
    return np.full((tasks, tasks), value)


def store(root: Path, scores: dict[Trial, float | str | None], suite: str = "demo") -> Path:
    """A suite: a score is stored, a word is the class of a failure, None is missing."""
    write_suite(root, list(scores), suite)
    for trial, score in scores.items():
        if isinstance(score, str):
            write_failure(root, trial, score, "why")
        elif score is not None:
            write_trial(root, trial, rows(trial, constant(score, trial.num_tasks)))
    return root


def only(root: Path, **kwargs) -> ResultTable:
    (found,) = result_tables(root, **kwargs)
    return found


def cell(root: Path, label: str, metric: str = "CA"):
    grid = only(root).grid
    (column,) = [column for column in grid.columns if column.metric == metric]
    return grid.cells[label, column]


def test_a_cell_is_mean_and_sample_deviation_over_seeds(tmp_path):
    store(tmp_path, {Trial("er", 0): 0.5, Trial("er", 1): 0.6, Trial("er", 2): 0.7})
    found = table(tmp_path)
    assert found["metric"].tolist() == ["CA", "FA"]
    assert found["mean"].tolist() == pytest.approx([0.6, 0.6])
    assert found["std"].tolist() == pytest.approx([0.1, 0.1])
    assert found["n"].tolist() == [3, 3]
    assert cell(tmp_path, "er").text() == "60.00 ± 10.00"


def test_one_seed_has_no_deviation(tmp_path):
    store(tmp_path, {Trial("er"): 0.5})
    assert cell(tmp_path, "er").text() == "50.00 ± -"


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ([0.5, 0.6, "diverged"], "55.00 ± 7.07 (2 of 3, 1 diverged)"),
        ([0.5, 0.6, None], "55.00 ± 7.07 (2 of 3, 1 missing)"),
        ([0.5, "user", "lost"], "50.00 ± - (1 of 3, 2 failed)"),
        ([0.5, "user", None], "50.00 ± - (1 of 3, 1 failed, 1 missing)"),
        (["diverged", "diverged", "diverged"], "training failed (0 of 3, 3 diverged)"),
        ([None, None, None], "- (0 of 3, 3 missing)"),
    ],
)
def test_a_cell_says_which_seeds_are_wanting(tmp_path, ends, text):
    store(tmp_path, {Trial("er", seed): end for seed, end in enumerate(ends)})
    assert cell(tmp_path, "er").text() == text


def with_costs(root: Path, held: dict[Trial, tuple[float, float]]) -> Path:
    """Trials of two tasks which hold so many bytes after each of them, half of it exemplars."""
    write_suite(root, list(held), metrics=["FA", "forgetting", "held_MB"])
    for trial, values in held.items():
        lines = rows(trial, constant(0.5, 2))
        for after, value in enumerate(values):
            cost = replace(
                lines[0],
                after_task=after,
                on_task=-1,
                evaluator="cost",
                metric="method_memory_bytes",
            )
            lines += [
                replace(cost, value=value),
                replace(cost, value=value / 2, condition="exemplars"),
            ]
        write_trial(root, trial, lines)
    return root


def test_a_suite_chooses_the_columns_of_its_tables_and_costs_are_those_after_the_last_task(
    tmp_path,
):
    with_costs(
        tmp_path,
        {Trial("er", seed, num_tasks=2): (1e6, 2e6 + 1e6 * seed) for seed in (0, 1)},
    )
    grid = only(tmp_path).grid
    assert [column.metric for column in grid.columns] == ["FA", "forgetting", "held_MB"]
    assert cell(tmp_path, "er", "held_MB").text() == "2.50 ± 0.71"
    assert cell(tmp_path, "er", "forgetting").text() == "0.00 ± 0.00"
    assert "held_MB = MB that the method holds" in caption(only(tmp_path))


def test_images_drawn_are_counted_until_the_end_of_the_last_task(tmp_path):
    trial = Trial("er", num_tasks=2)
    lines = rows(trial, constant(0.5, 2))
    lines += rows(trial, constant(7.0, 2), metric="parameters", evaluator="cost")
    write_trial(tmp_path, trial, lines)
    write_suite(tmp_path, [trial], metrics=["FA", "images_k"])
    assert cell(tmp_path, "er", "images_k").mean == pytest.approx(0.1)  # 50 a task


def test_seeds_that_differ_are_named_and_not_ranked(tmp_path):
    wanted = [Trial("er", 0), Trial("er", 1), Trial("gem", 1), Trial("gem", 2)]
    for trial in wanted:
        write_trial(tmp_path, trial, rows(trial, constant(0.5 + trial.seed / 10)))
    write_suite(tmp_path, wanted)
    assert {cell(tmp_path, name).rank for name in ("er", "gem")} == {0}
    notes = {cell(tmp_path, name).note() for name in ("er", "gem")}
    assert len(notes & {"", "(seeds 0, 1)", "(seeds 1, 2)"}) == 2
    assert "Not ranked, since seeds differ or are missing: CA on digits, 3 tasks" in caption(
        only(tmp_path)
    )
    (asked,) = result_tables(tmp_path, rules=Rules(unequal=True))
    ranks = {label: one.rank for (label, column), one in asked.grid.cells.items()}
    assert set(ranks.values()) == {BEST, SECOND}


@pytest.mark.parametrize(
    ("third", "ranked"), [(None, False), ("user", False), ("diverged", True), (0.1, True)]
)
def test_nothing_is_ranked_while_a_rival_is_awaited(tmp_path, third, ranked):
    root = store(tmp_path, {Trial("er"): 0.5, Trial("gem"): 0.6, Trial("si"): third})
    assert (cell(root, "gem").rank == BEST) is ranked
    assert ("Not ranked, since seeds differ or are missing" in caption(only(root))) is not ranked


def test_what_is_no_worse_than_the_best_is_marked_in_every_form(tmp_path):
    levels = {"er": 0.5, "gem": 0.499, "agem": 0.2}
    wanted = [Trial(name, seed) for name in levels for seed in range(8)]
    for trial in wanted:
        swing = 0.02 * (-1) ** trial.seed if trial.method == "gem" else 0.0
        write_trial(tmp_path, trial, rows(trial, constant(levels[trial.method] + swing)))
    write_suite(tmp_path, wanted)
    source = only(tmp_path)
    assert {label for (label, _), one in source.grid.cells.items() if one.tied} == {"gem"}
    assert markdown(source).count(TIED) == 2 + 1  # two metrics, and the caption
    assert latex(source).count(r"$^\dagger$") == 3
    assert f"{TIED} not significantly worse than the best" in caption(source)
    found = differences(source).set_index(["metric", "label"])
    assert found.loc[("CA", "agem"), "p_holm"] == pytest.approx(2 * 2 / 256)
    assert np.isnan(found.loc[("CA", "er"), "difference"])
    assert found.loc[("CA", "gem"), "low"] < 49.9 < found.loc[("CA", "gem"), "high"]


def test_too_few_seeds_mark_nothing_and_say_so(tmp_path):
    wanted = [Trial(name, seed) for name in ("er", "gem") for seed in range(3)]
    for trial in wanted:
        write_trial(tmp_path, trial, rows(trial, constant(0.5 + trial.seed / 10)))
    write_suite(tmp_path, wanted)
    assert TIED not in markdown(only(tmp_path))
    assert "No verdict on differences: with 3 seeds" in caption(only(tmp_path))
    (t,) = result_tables(tmp_path, rules=Rules(test="t"))
    assert "t-test of differences paired by seed" in caption(t)


def test_costs_are_not_ranked(tmp_path):
    held = {Trial(name, num_tasks=2): (0, size) for name, size in (("er", 1e6), ("gem", 2e6))}
    with_costs(tmp_path, held)
    assert cell(tmp_path, "er", "FA").rank == BEST
    assert {cell(tmp_path, name, "held_MB").rank for name in ("er", "gem")} == {0}


def test_a_cost_that_one_method_did_not_store_is_a_dash(tmp_path):
    with_costs(tmp_path, {Trial("er", num_tasks=2): (0, 1e6)})
    other = Trial("gem", num_tasks=2)
    write_trial(tmp_path, other, rows(other, constant(0.5, 2)))
    write_suite(tmp_path, [Trial("er", num_tasks=2), other])
    (found,) = result_tables(tmp_path, metrics=["FA", "held_MB"])
    assert wide(found).loc["gem"].tolist() == ["50.00 ± -", "-"]


def test_what_nobody_measured_has_no_column_and_a_table_of_it_alone_is_left_out(tmp_path):
    store(tmp_path, {Trial("er"): 0.5})
    (found,) = result_tables(tmp_path, metrics=["FA", "epoch_s"])
    assert [column.metric for column in found.grid.columns] == ["FA"]
    assert result_tables(tmp_path, metrics=["AUROC"]) == []


def test_a_suite_may_ask_for_several_tables(tmp_path):
    with_costs(tmp_path, {Trial("er", num_tasks=2): (0, 2**20)})
    write_suite(tmp_path, [Trial("er", num_tasks=2)], metrics=[["held_MiB", "extra_MiB"], ["FA"]])
    first, second = result_tables(tmp_path)
    assert wide(first).iloc[0].tolist() == ["1.00 ± -", "0.50 ± -"]
    assert wide(second).iloc[0].tolist() == ["50.00 ± -"]


def test_a_method_without_exemplars_or_cues_has_no_extra_memory(tmp_path):
    trial = Trial("ewc", num_tasks=2)
    lines = rows(trial, constant(0.5, 2))
    cost = replace(
        lines[0], after_task=1, on_task=-1, evaluator="cost", metric="method_memory_bytes"
    )
    held = [replace(cost, value=8.0), replace(cost, value=8.0, condition="importance")]
    write_trial(tmp_path, trial, [*lines, *held])
    write_suite(tmp_path, [trial])
    (found,) = result_tables(tmp_path, metrics=["extra_MiB"])
    assert wide(found).iloc[0].tolist() == ["0.00 ± -"]


def test_a_metric_that_is_not_defined_is_a_dash(tmp_path):
    trial = Trial("joint")
    last = constant(0.9)
    last[:-1] = np.nan
    write_suite(tmp_path, [trial])
    write_trial(tmp_path, trial, rows(trial, last))
    assert cell(tmp_path, "joint", "CA").text() == "-"
    assert cell(tmp_path, "joint", "FA").text() == "90.00 ± -"


def test_a_cell_with_another_number_of_seeds_says_its_own(tmp_path):
    scores = {Trial(name, seed): 0.5 for name in ("agem", "er") for seed in range(3)}
    store(tmp_path, {**scores, Trial("gem", 0): 0.5})
    assert cell(tmp_path, "er").note() == ""
    assert cell(tmp_path, "gem").note() == "(n = 1)"
    assert "n = 3 (seeds 0 to 2) unless a cell says otherwise" in caption(only(tmp_path))


def test_groups_with_other_settings_are_never_averaged(tmp_path):
    light = {"method.replay_weight": 0.5, "protocol.lr": 0.1}
    heavy = {"method.replay_weight": 1.0, "protocol.lr": 0.1}
    store(
        tmp_path,
        {
            Trial("er", 0, settings=light): 0.4,
            Trial("er", 1, settings=light): 0.6,
            Trial("er", 0, settings=heavy): 0.8,
            Trial("agem", 0): 0.3,
        },
    )
    found = table(tmp_path, ["FA"]).set_index("label")["mean"]
    assert found.to_dict() == pytest.approx(
        {"er (replay_weight=0.5)": 0.5, "er (replay_weight=1)": 0.8, "agem": 0.3}
    )


def test_settings_that_differ_between_data_sets_are_one_line(tmp_path):
    store(
        tmp_path,
        {
            Trial("er", dataset="digits", settings={"protocol.lr": 0.1}): 0.4,
            Trial("er", dataset="glyphs", settings={"protocol.lr": 0.3}): 0.6,
        },
    )
    assert only(tmp_path).grid.labels == ["er"]


def labels(*variants: Trial, root: Path) -> list[str]:
    write_suite(root, variants)
    return list(distinct_labels(trials(root)))


def test_nested_settings_are_named_by_their_path(tmp_path):
    narrow, broad = ({"protocol.backbone": {"name": "mlp", "width": w}} for w in (64, 128))
    found = labels(Trial("er", settings=narrow), Trial("er", settings=broad), root=tmp_path)
    assert found == ["er (backbone.width=64)", "er (backbone.width=128)"]


def test_settings_of_one_name_keep_where_they_belong(tmp_path):
    first = {"method.lr": 0.1, "protocol.lr": 0.2}
    second = {"method.lr": 0.3, "protocol.lr": 0.4}
    found = labels(Trial("er", settings=first), Trial("er", settings=second), root=tmp_path)
    assert found == ["er (method.lr=0.1, protocol.lr=0.2)", "er (method.lr=0.3, protocol.lr=0.4)"]


def test_one_label_for_two_methods_shows_the_method(tmp_path):
    first = Trial("er", label="ours", settings={"method.replay_weight": 1.0})
    second = Trial("agem", label="ours", settings={"method.margin": 0.5})
    assert labels(first, second, root=tmp_path) == ["ours (method=er)", "ours (method=agem)"]


def test_a_setting_that_only_one_group_has_tells_them_apart(tmp_path):
    found = labels(Trial("er"), Trial("er", settings={"method.margin": 0.5}), root=tmp_path)
    assert len(set(found)) == 2
    assert "er (margin=0.5)" in found


def test_groups_that_differ_in_nothing_listed_show_their_digest(tmp_path):
    first, second = (Trial("er", settings={"method.omega": v}) for v in (1, 2))
    write_suite(tmp_path, [first, second])
    wanted = trials(tmp_path)
    wanted["settings"] = [{} for _ in range(2)]
    assert list(distinct_labels(wanted)) == [
        f"er (group {first.group[:6]})",
        f"er (group {second.group[:6]})",
    ]


def test_close_numbers_are_shown_in_full(tmp_path):
    values = (0.12345678, 0.12345679)
    found = labels(*(Trial("er", settings={"method.omega": v}) for v in values), root=tmp_path)
    assert found == ["er (omega=0.12345678)", "er (omega=0.12345679)"]


def test_methods_keep_the_suites_order_and_columns_sort_by_tasks(tmp_path):
    store(
        tmp_path,
        {
            Trial("si", num_tasks=10): 0.5,
            Trial("agem", num_tasks=5): 0.5,
            Trial("er", dataset="a", num_tasks=5): 0.5,
            Trial("er", dataset="digits", num_tasks=5, distribution="irregular"): 0.5,
        },
    )
    grid = only(tmp_path).grid
    assert grid.labels == ["si", "agem", "er"]
    assert [str(setting) for setting in grid.settings()] == [
        "digits, 5 tasks",
        "digits, 10 tasks",
        "digits, 5 tasks, irregular",
        "a, 5 tasks",
    ]


def test_protocols_and_suites_never_share_a_table(tmp_path):
    probed = Trial("climb", protocol="online_ssl", primary="probe_linear")
    store(tmp_path, {Trial("er"): 0.5, probed: 0.4})
    store(tmp_path, {Trial("er", label="again"): None}, "other")
    found = [(part.suite, part.protocol) for part in result_tables(tmp_path)]
    assert found == [
        ("demo", "class_incremental"),
        ("demo", "online_ssl"),
        ("other", "class_incremental"),
    ]
    assert {part.suite for part in result_tables(tmp_path, suite="other")} == {"other"}


def test_a_trial_that_two_suites_want_counts_in_both_under_its_labels(tmp_path):
    store(tmp_path, {Trial("er", label="a"): 0.5}, "first")
    write_suite(tmp_path, [Trial("er", label="b")], "second")
    found = table(tmp_path, ["FA"])[["suite", "label", "mean", "n"]]
    assert found.to_numpy().tolist() == [["first", "a", 0.5, 1], ["second", "b", 0.5, 1]]


def test_best_and_second_are_marked(tmp_path):
    store(tmp_path, {Trial("er"): 0.7, Trial("agem"): 0.8, Trial("si"): 0.6})
    ranks = {label: cell(tmp_path, label).rank for label in ("er", "agem", "si")}
    assert ranks == {"er": SECOND, "agem": BEST, "si": 0}


def test_ties_at_the_printed_precision_share_a_mark(tmp_path):
    store(tmp_path, {Trial("er"): 0.70001, Trial("agem"): 0.70002, Trial("si"): 0.6})
    assert [cell(tmp_path, label).rank for label in ("er", "agem", "si")] == [BEST, BEST, SECOND]


def test_less_forgetting_is_better(tmp_path):
    keeps, loses = np.array([[0.9, 0], [0.8, 0.9]]), np.array([[0.9, 0], [0.1, 0.9]])
    wanted = {Trial("er", num_tasks=2): keeps, Trial("finetune", num_tasks=2): loses}
    for trial, a in wanted.items():
        write_trial(tmp_path, trial, rows(trial, seen(a)))
    write_suite(tmp_path, list(wanted))
    grid = only(tmp_path, metrics=["forgetting"]).grid
    assert grid.cells["er", grid.columns[0]].rank == BEST
    assert grid.cells["er", grid.columns[0]].value() == "10.00 ± -"


def test_nothing_is_marked_where_seeds_are_unequal(tmp_path):
    store(tmp_path, {Trial("er", 0): 0.7, Trial("er", 1): 0.7, Trial("agem", 0): 0.8})
    assert cell(tmp_path, "er").rank == cell(tmp_path, "agem").rank == 0


def test_nothing_is_marked_without_a_rival(tmp_path):
    store(tmp_path, {Trial("er"): 0.7, Trial("agem"): "diverged"})
    assert cell(tmp_path, "er").rank == 0


def test_references_are_shown_and_not_ranked(tmp_path):
    store(tmp_path, {Trial("er"): 0.7, Trial("agem"): 0.6, Trial("joint"): 0.9})
    assert cell(tmp_path, "er").rank == BEST
    assert cell(tmp_path, "joint").rank == 0
    assert "references trained on all data: joint." in caption(only(tmp_path))


def test_the_caption_defines_its_metrics(tmp_path):
    store(tmp_path, {Trial("er", seed): 0.5 for seed in range(3)})
    text = caption(only(tmp_path))
    assert "sample standard deviation over n = 3 (seeds 0 to 2)." in text
    assert "CA = mean over k of the mean over i≤k of A[k,i]" in text
    assert "FA = mean over i of A[T-1,i]" in text
    assert "measured by classifier" in text


def test_task_incremental_accuracy_is_a_metric_of_its_own(tmp_path):
    trial = Trial("er")
    lines = rows(trial, constant(0.5)) + rows(trial, constant(0.9), metric="accuracy_task_il")
    write_trial(tmp_path, trial, lines)
    found = table(tmp_path, ["FA", "FA_task_il"]).set_index("metric")["mean"]
    assert found.to_dict() == pytest.approx({"FA": 0.5, "FA_task_il": 0.9})


def test_an_unknown_metric_is_named_with_the_choices(tmp_path):
    store(tmp_path, {Trial("er"): 0.5})
    with pytest.raises(ValueError, match=r"unknown metric 'AF'; there are CA, FA"):
        table(tmp_path, ["AF"])


def test_the_wide_form_is_a_line_a_label_and_a_column_a_metric(tmp_path):
    store(tmp_path, {Trial("er"): 0.5, Trial("agem", dataset="glyphs"): 0.25})
    found = wide(only(tmp_path))
    assert found.index.tolist() == ["er", "agem"]
    assert found.loc["er", ("digits, 3 tasks", "CA")] == "50.00 ± -"
    assert found.loc["er", ("glyphs, 3 tasks", "CA")] == ""


def test_markdown_marks_and_escapes(tmp_path):
    store(tmp_path, {Trial("er", label="a|b*"): 0.7, Trial("agem"): 0.6, Trial("si"): 0.5})
    lines = markdown(only(tmp_path)).splitlines()
    assert lines[0] == "| method | digits, 3 tasks: CA | digits, 3 tasks: FA |"
    assert lines[2] == r"| a\|b\* | **70.00 ± -** | **70.00 ± -** |"
    assert lines[3] == "| agem | <ins>60.00 ± -</ins> | <ins>60.00 ± -</ins> |"
    assert lines[4] == "| si | 50.00 ± - | 50.00 ± - |"


def test_latex_marks_and_escapes(tmp_path):
    hostile = r"a_b & 50% $x$ #1 {y} ~^\z"
    store(tmp_path, {Trial("er", label=hostile): 0.7, Trial("agem", dataset="digits"): 0.6})
    text = latex(only(tmp_path))
    escaped = r"a\_b \& 50\% \$x\$ \#1 \{y\} \textasciitilde{}\textasciicircum{}\textbackslash{}z"
    assert rf"{escaped} & \textbf{{70.00 $\pm$ -}} & \textbf{{70.00 $\pm$ -}} \\" in text
    assert r"agem & \underline{60.00 $\pm$ -} & \underline{60.00 $\pm$ -} \\" in text
    assert r"\multicolumn{2}{c}{digits, 3 tasks}" in text
    assert r"\cmidrule(lr){2-3}" in text
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


def test_latex_has_as_many_cells_in_each_line_as_columns(tmp_path):
    store(tmp_path, {Trial("er"): 0.7, Trial("agem", dataset="glyphs"): 0.6})
    text = latex(only(tmp_path))
    assert r"\begin{tabular}{lrrrr}" in text
    lines = [line for line in text.splitlines() if line.startswith(("er ", "agem ", "Method "))]
    assert [line.count("&") for line in lines] == [4, 4, 4]
    assert text.count("{") == text.count("}")


def test_csv_holds_full_precision_and_every_count(tmp_path):
    scores = {Trial("er", 0): 1 / 3, Trial("er", 1): 0.5, Trial("er", 2): "diverged"}
    store(tmp_path, {**scores, Trial("er", 3): "user", Trial("er", 4): None})
    (first, _) = csv_format.DictReader(io.StringIO(csv(only(tmp_path))))
    assert float(first["mean"]) == (1 / 3 + 0.5) / 2
    assert float(first["std"]) == pytest.approx((0.5 - 1 / 3) / math.sqrt(2), rel=1e-15)
    named = {key: first[key] for key in ("n", "wanted", "diverged", "failed", "missing")}
    assert named == {"n": "2", "wanted": "5", "diverged": "1", "failed": "1", "missing": "1"}
    assert first["group"] == Trial("er").group


def test_the_terminal_shows_a_table_a_setting_with_seeds(tmp_path):
    scores = {Trial("er", 0): 0.5, Trial("er", 1): "diverged", Trial("[red]"): 0.4}
    store(tmp_path, {**scores, Trial("er", dataset="glyphs"): 0.3})
    found = terminal_tables(tmp_path, "demo")
    assert [str(part.title) for part in found] == [
        "demo: class_incremental, digits, 3 tasks",
        "demo: class_incremental, glyphs, 3 tasks",
    ]
    assert [str(column.header) for column in found[0].columns] == ["method", "CA", "FA", "n"]
    console = Console(file=io.StringIO(), width=100)
    console.print(found[0])
    text = console.file.getvalue()
    assert "1 of 2, 1 diverged" in text
    assert "[red]" in text


def test_an_empty_store_has_no_tables(tmp_path):
    assert result_tables(tmp_path) == []
    assert terminal_tables(tmp_path) == []
    assert len(cells(read(tmp_path))) == 0


def test_the_suites_word_on_the_primary_evaluator_counts(tmp_path):
    stored = Trial("replay", primary="probe_linear")
    both = rows(stored, constant(0.5), evaluator="probe_linear")
    both += rows(stored, constant(0.25), evaluator="probe_ridge")
    write_trial(tmp_path, stored, both)
    write_suite(tmp_path, [stored])
    document = json.loads((tmp_path / "suites" / "demo.json").read_text())
    document["trials"][0]["primary"] = "probe_ridge"
    (tmp_path / "suites" / "demo.json").write_text(json.dumps(document))
    assert cell(tmp_path, "replay").mean == pytest.approx(25.0)
    assert "measured by probe_ridge" in caption(only(tmp_path))


def test_columns_that_do_not_fit_the_terminal_have_a_table_of_their_own(tmp_path):
    store(tmp_path, {Trial("a_rather_long_name", seed): 0.5 for seed in (0, 1)})
    names = ["CA", "FA", "learning_accuracy", "plasticity", "stability"]
    wide = terminal_tables(tmp_path, metrics=names, width=200)
    assert [len(one.columns) for one in wide] == [7]
    narrow = terminal_tables(tmp_path, metrics=names, width=62)
    shown = [str(column.header) for one in narrow for column in one.columns]
    assert [name for name in shown if name not in {"method", "n"}] == names
    assert len(narrow) == 3
    for one in narrow:
        console = Console(file=io.StringIO(), width=62)
        console.print(one)
        lines = console.file.getvalue().splitlines()
        assert all("a_rather_long_name" in line for line in lines if "50.00" in line)
        assert "…" not in "".join(lines)
    tiny = terminal_tables(tmp_path, metrics=names, width=10)
    assert len(tiny) == 5  # a column at least in each
