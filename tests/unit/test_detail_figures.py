"""Figures of what evaluators keep beside numbers: drawn where it is there, left out where not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from stores import Trial, rows, seen, write_suite, write_trial

from analysis.figures.catalogue import panel_figures
from analysis.figures.class_accuracies import class_accuracies
from analysis.figures.confusion import confusion_matrices, shares
from analysis.figures.corruption_radar import corruption_radar
from analysis.figures.corruptions import corruption_accuracies, corruptions
from analysis.figures.costs_over_tasks import costs_over_tasks
from analysis.figures.memory_kinds import held_by_kind, memory_kinds
from analysis.figures.ood_histograms import ood_histograms
from analysis.figures.panels import panels
from analysis.figures.plasticity_stability import plasticity_stability
from analysis.figures.recall_by_task import recall_by_task
from analysis.figures.recalled import pixels, recalled_images
from analysis.figures.spectra import spectra
from analysis.figures.style import save
from analysis.figures.task_accuracies import task_accuracies
from analysis.figures.tradeoff import final_scores, tradeoff
from analysis.load import read
from analysis.origin import read_about
from analysis.report import write_report
from harness.measure import Details
from harness.records import write_details

TASKS, CLASSES = 2, 4
METHODS = ("finetune", "braincl")
RIGHT = {"finetune": 0.25, "braincl": 1.0}
KINDS = {"confusion", "spectrum", "ood", "class_accuracy", "embedding", "attention", "recalled"}


def details(method, rng):
    """Of every kind, as the evaluators give them, for one method."""
    label, predicted = np.divmod(np.arange(CLASSES**2), CLASSES)
    right = np.where(label == predicted, 8 * RIGHT[method], 8 * (1 - RIGHT[method]) / 3)
    edges = np.linspace(0, 1, 6)
    sides = {"channels": 1, "height": 4, "width": 6}
    per_image = {
        "image": np.arange(4),
        "label": np.arange(4),
        "task": np.repeat([0, 1], 2),
        **{name: np.full(4, side) for name, side in sides.items()},
    }
    shown = rng.integers(0, 256, (4, 24)).astype(np.uint8)
    found = {
        "confusion": {"label": label, "predicted": predicted, "count": right.round().astype(int)},
        "spectrum": {
            "index": np.arange(3),
            "eigenvalue": np.array([4.0, 3.0, 1.0]),
            "share": np.array([0.5, 0.375, 0.125]),
        },
        "ood": {
            "left": edges[:-1],
            "right": edges[1:],
            "id": np.array([0.0, 0, 0, 1, 4]),
            "ood": np.array([3.0, 2, 0, 0, 0]),
        },
        "class_accuracy": {
            "label": np.arange(CLASSES),
            "task": np.repeat([0, 1], 2),
            "accuracy": np.full(CLASSES, RIGHT[method]),
            "n": np.full(CLASSES, 8),
        },
        "embedding": {**per_image, "x": rng.random(4), "y": rng.random(4)},
        "attention": {**per_image, "map": rng.random((4, 24), np.float32), "pixels": shown},
    }
    if method == "braincl":
        recalled = {"original": shown, "recalled": shown // 2, "bits": np.full(4, 48.0)}
        found["recalled"] = {**per_image, **recalled}
    return [Details(kind, columns) for kind, columns in found.items()]


def recalled(line):
    """Bits and errors of the images of two tasks."""
    base = replace(line, evaluator="recall", after_task=TASKS - 1)
    return [
        replace(base, on_task=task, metric=metric, value=value * (task + 1))
        for task in range(TASKS)
        for metric, value in {"bits_per_pixel": 0.5, "recall_error": 0.01}.items()
    ]


def corrupted(line, value):
    """Accuracies under two corruptions at two severities, their means, and the clean one."""
    base = replace(line, on_task=-1, evaluator="corruption", after_task=TASKS - 1, value=value)
    return [
        *(replace(base, condition=f"fog/{s}", value=value - s / 10) for s in (1, 2)),
        replace(base, condition="fog", value=value - 0.15),
        replace(base, condition="pixelate", value=value - 0.05),
        replace(base, metric="clean_accuracy"),
    ]


def paid(line, method):
    """What a method costs after every task; `braincl` holds two kinds of memory."""
    base = replace(line, on_task=-1, evaluator="cost")
    held = {"cues": 2e6, "cue index": 1e6} if method == "braincl" else {}
    found = {"method_memory_bytes": sum(held.values()), "train_seconds": 4.0, "epoch_seconds": 2.0}
    if method == "braincl":
        found["train_seconds"] = 9.0
    return [
        replace(base, after_task=task, metric=metric, value=value * (task + 1), condition=kind)
        for task in range(TASKS)
        for metric, kind, value in (
            *((metric, None, value) for metric, value in found.items()),
            *(("method_memory_bytes", kind, value) for kind, value in held.items()),
        )
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    wanted = [Trial(name, seed, num_tasks=TASKS) for name in METHODS for seed in (0, 1)]
    for trial in wanted:
        lines = rows(trial, seen(np.full((TASKS, TASKS), RIGHT[trial.method])))
        more = corrupted(lines[0], RIGHT[trial.method])
        more += paid(lines[0], trial.method)
        more += recalled(lines[0]) if trial.method == "braincl" else []
        write_trial(root, trial, [*lines, *more])
        for one in details(trial.method, np.random.default_rng(trial.seed)):
            folder = root / "records" / trial.trial_id
            write_details(one, TASKS - 1, folder)
            if one.kind == "attention":  # its drift needs the maps after every task
                early = {name: values[:2] for name, values in one.columns.items()}
                write_details(Details(one.kind, early), 0, folder)
    write_suite(root, wanted)
    return root


@pytest.fixture(scope="module")
def panel(root):
    (found,) = panels(read(root))
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    root = tmp_path_factory.mktemp("bare")
    trial = Trial("er")
    write_trial(root, trial, rows(trial, np.full((3, 3), 0.5)))
    write_suite(root, [trial])
    (found,) = panels(read(root))
    return found


def quick():
    return [kind for kind in panel_figures() if not kind.slow]


@pytest.fixture(scope="module")
def report(root, tmp_path_factory):
    return write_report(root, tmp_path_factory.mktemp("report"))


def test_every_figure_is_drawn_and_always_with_the_same_bytes(panel, report, tmp_path):
    for kind in quick():
        shown = report.parent / "figures" / f"{kind.name}-demo-class_incremental-digits-2-regular"
        about, _ = read_about(shown.with_suffix(".png"))
        for path in save(kind.draw(panel), tmp_path / kind.name, about):
            assert path.read_bytes() == shown.with_suffix(path.suffix).read_bytes(), path.name


def test_what_is_not_stored_is_not_drawn(bare):
    drawn = {kind.name for kind in panel_figures() if kind.draw(bare) is not None}
    assert drawn == {"accuracy_curves", "heat_maps", "plasticity_stability", "task_accuracies"}


def test_names_of_figures_differ():
    names = [kind.name for kind in panel_figures()]
    assert len(set(names)) == len(names)


def test_details_are_those_of_every_seed_after_the_last_task(panel):
    for kind in KINDS - {"recalled"}:
        found = panel.last_details(kind)
        assert list(found) == list(METHODS)
        assert [len(frames) for frames in found.values()] == [2, 2]
    assert list(panel.last_details("recalled")) == ["braincl"]
    assert panel.last_details("nothing") == {}


def test_rows_of_a_confusion_matrix_are_shares_of_the_true_class(panel):
    frame = pd.DataFrame({"label": [0, 0, 1, 1], "predicted": [0, 1, 0, 1], "count": [3, 1, 0, 5]})
    assert shares(frame).tolist() == [[75, 25], [0, 100]]
    axes = confusion_matrices(panel).axes
    shown = {plot.get_title(): plot.images[0].get_array() for plot in axes if plot.images}
    assert np.allclose(shown["braincl"], 100 * np.eye(CLASSES))
    assert np.allclose(shown["finetune"], 25)


def test_a_spectrum_shows_its_shares_in_order(panel):
    (axes,) = spectra(panel).axes
    assert [line.get_label() for line in axes.lines] == list(METHODS)
    assert axes.lines[0].get_ydata().tolist() == [0.5, 0.375, 0.125]
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3]


def test_histograms_have_the_stored_edges_and_densities(panel):
    own, foreign = ood_histograms(panel).axes[0].patches
    assert own.get_data().values.tolist() == [0, 0, 0, 1, 4]
    assert np.allclose(foreign.get_data().edges, np.linspace(0, 1, 6))
    assert foreign.get_data().values.tolist() == [3, 2, 0, 0, 0]


def test_boxes_hold_the_accuracies_of_all_classes_and_seeds(panel):
    (axes,) = class_accuracies(panel).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == list(METHODS)
    medians = [line.get_xdata()[0] for line in axes.lines[4::6]]
    assert medians == [25, 100]


def test_recalled_images_stand_below_their_originals(panel):
    figure = recalled_images(panel)
    pictures = [plot.images[0].get_array() for plot in figure.axes if plot.images]
    assert len(pictures) == 8  # two tasks, two images, twice
    for above, below in ((0, 2), (1, 3), (4, 6), (5, 7)):
        assert (pictures[above] // 2 == pictures[below]).all()
    names = {plot.get_ylabel() for plot in figure.axes} - {""}
    assert names == {"braincl\ntask 1", "braincl\ntask 2", "2.00 bit/pixel"}


def test_bits_and_errors_of_recalled_images_are_shown_by_task(panel):
    above, below = recall_by_task(panel).axes
    for axes, value in ((above, 0.5), (below, 0.01)):
        (line,) = (one for one in axes.lines if len(one.get_xdata()) == TASKS)
        assert line.get_xdata().tolist() == [1, 2]
        assert line.get_ydata().tolist() == pytest.approx([value, 2 * value])


@pytest.mark.parametrize(
    ("channels", "shape"), [(1, (2, 3)), (2, (2, 3)), (3, (2, 3, 3)), (4, (2, 3, 3))]
)
def test_images_of_any_number_of_channels_can_be_shown(channels, shape):
    record = pd.Series({"channels": channels, "height": 2, "width": 3})
    flat = np.arange(channels * 6)
    found = pixels(flat, record)
    assert found.shape == shape
    first = found if len(shape) == 2 else found[..., 0]
    assert first.ravel().tolist() == list(range(6))


def test_corruptions_are_means_over_severities_behind_the_clean_accuracy(panel):
    table = corruption_accuracies(panel.last)
    assert list(table.columns) == ["none", "fog", "pixelate"]
    assert table.loc["braincl"].tolist() == pytest.approx([1.0, 0.85, 0.95])
    (axes,) = corruptions(panel).axes
    assert [line.get_label() for line in axes.lines] == list(METHODS)
    assert axes.lines[0].get_xdata().tolist() == pytest.approx([25, 10, 20])


def test_a_radar_closes_its_rings_through_every_corruption(panel):
    axes = corruption_radar(panel).axes[0]
    for line in axes.lines:
        angles, values = line.get_data()
        assert (angles[0], values[0]) == (angles[-1], values[-1])
        assert len(angles) == 4
    assert [text.get_text() for text in axes.get_xticklabels()] == ["none", "fog", "pixelate"]


def test_accuracy_stands_against_what_is_held_at_the_end(panel):
    found = final_scores(panel, "held_MB").groupby("label", sort=False)[["FA", "held_MB"]].mean()
    assert found.loc["finetune"].tolist() == pytest.approx([25.0, 0.0])
    assert found.loc["braincl"].tolist() == pytest.approx([100.0, 6.0])
    figure = tradeoff(panel, "held_MB", "MB")
    marks = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() != "None"]
    assert {0.0, 6.0} <= set(marks)


def test_costs_are_shown_task_by_task(panel):
    upper, lower = costs_over_tasks(panel).axes
    assert [line.get_ydata().tolist() for line in upper.lines] == [[2.0, 4.0]] * 2
    assert [line.get_ydata().tolist() for line in lower.lines] == [[0.0, 0.0], [3.0, 6.0]]


def test_kinds_of_memory_add_up(panel):
    held = held_by_kind(panel.costs)
    assert set(held["label"]) == {"braincl"}
    last = held[held["after_task"] == TASKS - 1].groupby("condition")["value"].mean()
    assert last.to_dict() == {"cues": 4e6, "cue index": 2e6}
    (axes,) = memory_kinds(panel).axes
    assert axes.get_title() == "braincl"
    assert max(p.get_paths()[0].vertices[:, 1].max() for p in axes.collections) == pytest.approx(6)


def test_tasks_are_drawn_from_the_stage_that_learned_them(panel):
    first = task_accuracies(panel).axes[0]
    assert [len(line.get_xdata()) for line in first.lines] == [2, 1]


def test_plasticity_is_the_newest_task_and_stability_the_others(panel):
    axes = plasticity_stability(panel).axes[0]
    marks = {line.get_xydata()[0].tolist()[0] for line in axes.lines if len(line.get_xdata()) == 1}
    assert {25.0, 100.0} <= marks


def test_the_report_shows_them_all_with_a_text_each(report):
    page = report.read_text(encoding="utf-8")
    for kind in quick():
        assert f'alt="{kind.title} on demo' not in page
        assert f"{kind.title} on digits, 2 tasks for finetune, braincl" in page
