"""Drift of attention: two measures by hand, and trials that kept their maps."""

import numpy as np
import pytest
from stores import Trial, rows, write_suite, write_trial

from analysis.attention import cosines, drift, overlaps
from analysis.figures.attention_drift import attention_drift
from analysis.figures.panels import panels
from analysis.load import StoreError, read
from harness.measure import Details
from harness.records import write_details

FIRST = np.array([[1.0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [3, 4, 0, 0, 0], [0, 0, 0, 0, 0]])
LAST = np.array([[2.0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [4, 3, 0, 0, 0], [0, 0, 0, 0, 0]])


def test_cosines_by_hand():
    assert cosines(FIRST, LAST).tolist() == pytest.approx([1, 0, 24 / 25, 1])
    assert cosines(FIRST[:1], LAST[3:]).tolist() == [0]


def test_overlaps_by_hand():
    assert overlaps(FIRST, LAST).tolist() == [1, 0, 0, 1]  # one pixel of five
    assert overlaps(FIRST, LAST, top=0.4)[2] == 1
    first, last = np.arange(10.0)[None], np.roll(np.arange(10.0), 1)[None]
    assert overlaps(first, last, top=0.3).tolist() == [2 / 4]  # 7, 8, 9 and 8, 9, 0


def keep_maps(root, trial, after_task, maps):
    """Maps of image i of task i, for all tasks so far."""
    count = len(maps)
    columns = {
        "image": np.arange(count),
        "label": np.arange(count) + 10,
        "task": np.arange(count),
        "map": np.asarray(maps, dtype=np.float16),
    }
    write_details(Details("attention", columns), after_task, root / "records" / trial.trial_id)


@pytest.fixture
def root(tmp_path):
    whole, part, other = (Trial(name, num_tasks=2) for name in ("er", "gem", "si"))
    for trial in (whole, part, other):
        write_trial(tmp_path, trial, rows(trial, np.full((2, 2), 0.5)))
    write_suite(tmp_path, [whole, part, other])
    keep_maps(tmp_path, whole, 0, [[1, 0]])
    keep_maps(tmp_path, whole, 1, [[0.5, 0.5], [0, 1]])
    keep_maps(tmp_path, part, 1, [[1, 0], [0, 1]])  # of the last task alone
    return tmp_path


def test_every_image_is_compared_with_its_map_after_the_last_task(root):
    found = drift(root)
    assert found["label"].tolist() == ["er", "er"]
    assert found["task"].tolist() == [0, 1]
    assert found["class"].tolist() == [10, 11]
    assert found["cosine"].tolist() == pytest.approx([0.5**0.5, 1])
    assert found["overlap"].tolist() == [1, 1]


def test_the_figure_has_a_line_for_each_method_with_maps(root):
    (panel,) = panels(read(root))
    (axes,) = attention_drift(panel).axes
    (line,) = axes.lines
    assert line.get_label() == "er"
    assert line.get_xdata().tolist() == [1, 2]
    assert line.get_ydata().tolist() == pytest.approx([0.5**0.5, 1])


def test_a_store_without_maps_says_so(tmp_path):
    trial = Trial("er")
    write_trial(tmp_path, trial, rows(trial, np.full((3, 3), 0.5)))
    write_suite(tmp_path, [trial])
    with pytest.raises(StoreError, match="no trial kept maps of the evaluator attention"):
        drift(tmp_path)
    (panel,) = panels(read(tmp_path))
    assert attention_drift(panel) is None
