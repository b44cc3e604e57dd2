"""What reports say of searches, from made-up documents and trials."""

import json
from dataclasses import replace

import numpy as np
import pytest
from stores import Trial, rows, seen, write_suite, write_trial

from analysis.figures.searches import STUDY_FIGURES
from analysis.load import StoreError, read
from analysis.report import write_report
from analysis.search_tables import bought, configurations, rung_table, sentence, settings
from analysis.searches import importance, studies
from analysis.tuned import once_more, rest

OPTIONS = {"metric": "FA", "seeds": [100], "grace": 1, "eta": 3, "scheduler": "asha"}
OPTIONS |= {"algorithm": "tpe", "search_seed": 0, "first_tasks": None}
SPACE = {
    "lr": {"low": 0.001, "high": 1.0, "whole": False, "log": True, "points": None},
    "slots": {"low": 1, "high": 9, "whole": True, "log": False, "points": None},
    "policy": {"values": ["fifo", "$\\frac{", None]},
}
POLICIES = SPACE["policy"]["values"]


def one(number, end="done", value=0.5, lr=0.1, tasks=3):
    """A configuration; its value so far is the same after every task."""
    return {
        "number": number,
        "configuration": {"lr": lr, "slots": 1 + number % 9, "policy": POLICIES[number % 3]},
        "end": end,
        "value": value if end == "done" else None,
        "values": {} if value is None else dict.fromkeys(range(1, tasks + 1), value),
        "trial_ids": [f"{number:016x}"],
        "tasks": tasks,
        "seconds": 36.0,
        "detail": "a loss" if end == "diverged" else "",
    }


def write(root, *tried, label="er", **changes):
    """A search of one study."""
    best = max((t for t in tried if t["value"] is not None), key=lambda t: t["value"], default=None)
    study = {
        "name": f"{label} digits/3",
        "method": label,
        "label": label,
        "cell": "digits/3",
        "tasks": 3,
        "options": OPTIONS,
        "rungs": [1],
        "space": SPACE,
        "default": tried[0]["configuration"],
        "configurations": 20,
        "tried": list(tried),
        "best": best and best["number"],
        "trainings": sum(t["tasks"] for t in tried) / 3,
        "hours": 0.25,
        **changes,
    }
    (root / "searches").mkdir(parents=True, exist_ok=True)
    document = {"schema": 1, "search": "some", "suite": "some_tuned", "studies": [study]}
    (root / "searches" / "some.json").write_text(json.dumps(document))


TRIED = (
    one(0, value=0.5),
    one(1, "stopped", value=0.3, lr=0.001, tasks=1),
    one(2, value=0.75, lr=1.0),
    one(3, "diverged", value=None, tasks=0),
    one(4, "failed", value=0.2, tasks=2),
    one(5, "running", value=0.9, tasks=1),
)


def test_what_the_budget_bought(tmp_path):
    write(tmp_path, *TRIED)
    table = bought(studies(tmp_path))
    assert dict(zip(table.heads, table.lines[0], strict=True)) == {
        "method": "er",
        "data set": "digits/3",
        "own settings": "50.00",
        "best": "75.00",
        "gain": "+25.00",
        "done": "2",
        "stopped": "1",
        "diverged": "1",
        "failed": "1",
        "running": "1",
        "trainings": "3.3",
        "of": "6",
        "hours": "0.25",
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"default": None}, "outside the space"), ({"default": {"lr": 9}}, "not tried")],
)
def test_own_settings_that_were_not_tried_are_said_to_be(tmp_path, changes, said):
    write(tmp_path, *TRIED, **changes)
    table = bought(studies(tmp_path))
    assert (table.lines[0][2], table.lines[0][4]) == (said, "")


def test_the_best_settings_stand_beside_the_methods_own_and_edges_are_named(tmp_path):
    write(tmp_path, *TRIED)
    (study,) = studies(tmp_path)
    table = settings(study)
    assert [line[:4] for line in table.lines] == [
        ["lr", "1", "0.1", "0.001 to 1, logarithmic"],
        ["slots", "3", "1", "1 to 9"],
        ["policy", "null", "fifo", "fifo, $\\frac{, null"],
    ]
    assert "Edge of the range" in table.caption
    assert "too few configurations" in table.caption


def test_rungs_count_who_came_and_who_was_stopped(tmp_path):
    write(tmp_path, *TRIED)
    (study,) = studies(tmp_path)
    assert rung_table(study).lines == [["1", "5", "1", "90.00"], ["3", "2", "0", "75.00"]]
    assert len(configurations(study).lines) == 6
    assert "6 of 20 configurations by tpe (seed 0), 1 seed of 3 tasks each" in sentence(study)


def test_importance_finds_what_the_value_depends_on(tmp_path):
    rng = np.random.default_rng(0)
    rates = 10.0 ** rng.uniform(-3, 0, 30)
    write(tmp_path, *(one(n, value=0.5 + 0.1 * np.log10(lr), lr=lr) for n, lr in enumerate(rates)))
    (study,) = studies(tmp_path)
    shares, step, count = importance(study)
    assert (step, count) == (3, 30)
    assert next(iter(shares)) == "lr"
    assert shares["lr"] > 0.8
    assert importance(study)[0] == shares  # the forest is seeded


def test_importance_of_what_came_furthest(tmp_path):
    ends = [one(n, value=0.1 * n, tasks=3) for n in range(4)]
    stopped = [one(n, "stopped", value=0.01 * n, tasks=1) for n in range(4, 12)]
    write(tmp_path, *ends, *stopped)
    assert importance(studies(tmp_path)[0])[1:] == (1, 12)
    write(tmp_path, *(one(n, value=0.5) for n in range(12)))
    assert importance(studies(tmp_path)[0]) is None  # all did as well


@pytest.mark.parametrize("kind", STUDY_FIGURES, ids=lambda kind: kind.name)
def test_figures_of_any_outcome_are_drawn_or_left_out(tmp_path, kind):
    for tried in (TRIED, TRIED[:1], TRIED[3:4], [one(n, value=n / 20) for n in range(12)]):
        write(tmp_path, *tried)
        figure = kind.draw(studies(tmp_path)[0])
        if figure is not None:
            figure.canvas.draw()
    assert figure is not None


def test_a_store_of_a_search_alone_has_a_report_without_strays(tmp_path):
    write(tmp_path, *TRIED)
    trial = Trial(num_tasks=3)
    write_trial(tmp_path, trial, rows(trial, np.eye(3)))
    tried = [{**TRIED[0], "trial_ids": [trial.trial_id]}, *TRIED[1:]]
    write(tmp_path, *tried)
    results = read(tmp_path)
    assert results.trials.empty
    assert results.unwanted == 0
    page = write_report(tmp_path, tmp_path / "report").read_text()
    assert "Search some" in page
    assert "a loss" in page
    assert "$\\frac{" in page


def test_a_damaged_document_is_named(tmp_path):
    write(tmp_path, *TRIED)
    path = tmp_path / "searches" / "some.json"
    text = path.read_text()
    for broken, message in (
        (text[:100], "cannot be read as JSON"),
        (text.replace('"schema": 1', '"schema": 9'), "schema 9, and this program reads up to 1"),
        (text.replace('"hours"', '"days"'), "damaged: 'hours'"),
    ):
        path.write_text(broken)
        with pytest.raises(StoreError, match=message):
            studies(tmp_path)


def tuned(root, matrices, first_tasks=None, value=0.5):
    """A suite that a search wrote: a validation trial, whose accuracies are 0.5, and tests."""
    chosen = Trial(seed=100, protocol="p (validation)")
    half = rows(chosen, seen(np.full((3, 3), 0.5)))
    write_trial(root, chosen, [replace(row, split="validation") for row in half])
    tests = [Trial(seed=seed, protocol="p") for seed in range(len(matrices))]
    for trial, matrix in zip(tests, matrices, strict=True):
        write_trial(root, trial, rows(trial, matrix))
    write_suite(root, [chosen, *tests], "some_tuned")
    path = root / "suites" / "some_tuned.json"
    selected = [{"study": "er digits/3", "value": value, "trial_ids": [chosen.trial_id]}]
    origin = {"name": "some", "metric": "FA", "first_tasks": first_tasks, "selected": selected}
    path.write_text(json.dumps({**json.loads(path.read_text()), "search": origin}))


@pytest.mark.parametrize(("value", "said"), [(0.5, "the same"), (0.51, "differs")])
def test_a_suite_says_whether_it_gives_the_selected_value_again(tmp_path, value, said):
    tuned(tmp_path, [np.eye(3)], value=value)
    (line,) = once_more(read(tmp_path), "some_tuned").lines
    assert line[2:] == ["50.00", said]


def test_tasks_that_the_search_did_not_see_have_a_table_of_their_own(tmp_path):
    rng = np.random.default_rng(0)
    matrices = rng.random((2, 3, 3))
    tuned(tmp_path, matrices, first_tasks=1)
    (line,) = rest(read(tmp_path), "some_tuned").lines
    late = matrices[:, 1:, 1:]
    final = 100 * late[:, 1, :].mean(-1)
    curve = 100 * np.mean([late[:, 0, 0], late[:, 1, :].mean(-1)], 0)
    assert line[2] == f"{curve.mean():.2f} ± {curve.std(ddof=1):.2f}"
    assert line[3] == f"{final.mean():.2f} ± {final.std(ddof=1):.2f}"
    assert line[4] == "2"
    tuned(tmp_path, matrices)
    assert rest(read(tmp_path), "some_tuned") is None
