"""Figures: looks that stay, what is drawn, and bytes that do not change."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from stores import Trial, rows, seen, write_suite, write_trial

from analysis.figures import draw, names
from analysis.figures.curves import accuracy_curves
from analysis.figures.heatmap import heat_maps
from analysis.figures.panels import panels
from analysis.figures.style import METHODS, PALETTE, logarithmic, looks, save
from analysis.load import read
from analysis.paper import papers

A = np.array([[0.9, 0.2], [0.6, 0.8]])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three labels: two seeds, one seed, and one measured after the last task alone."""
    root = tmp_path_factory.mktemp("store")
    last = A.copy()
    last[0] = np.nan
    wanted = {
        Trial("er", 0, num_tasks=2): seen(A),
        Trial("er", 1, num_tasks=2): seen(A / 2),
        Trial("agem", num_tasks=2, label="a label\nwith <markup> & $math"): seen(A),
        Trial("joint", num_tasks=2): last,
    }
    for trial, a in wanted.items():
        write_trial(root, trial, rows(trial, a))
    write_suite(root, list(wanted))
    return root


@pytest.fixture(scope="module")
def panel(store):
    (found,) = panels(read(store))
    return found


def test_every_known_method_has_a_look_of_its_own():
    found = looks(METHODS)
    assert len({(look.color, look.marker) for look in found.values()}) == len(METHODS)


def test_a_method_looks_the_same_whatever_else_is_drawn():
    alone = {name: looks([name])[name] for name in METHODS}
    assert looks(reversed(METHODS)) == alone
    crowd = [*METHODS, *(f"variant {i}" for i in range(20))]
    assert {name: looks(crowd)[name] for name in METHODS} == alone


def test_an_unknown_label_keeps_its_look_beside_known_methods():
    alone = looks(["er (replay_weight=0.5)"])
    for name in METHODS:
        assert looks([name, *alone])["er (replay_weight=0.5)"] == alone["er (replay_weight=0.5)"]


def test_unknown_labels_never_look_alike():
    found = looks([f"variant {i}" for i in range(30)])
    assert len({(look.color, look.marker) for look in found.values()}) == 30


def test_variants_of_a_method_are_shades_of_its_colour_with_marks_of_their_own():
    found = looks({"braincl_50": "braincl", "braincl_200": "braincl", "er": "er"})
    own = looks(["braincl", "er"])
    assert found["braincl_50"] == own["braincl"]
    assert found["er"] == own["er"]
    assert len({(look.color, look.marker) for look in found.values()}) == 3
    assert found["braincl_50"].marker != found["braincl_200"].marker
    paler = [sum(to_rgb(found[label].color)) for label in ("braincl_50", "braincl_200")]
    assert paler[0] < paler[1]


def test_one_label_of_a_method_has_its_colour_whatever_it_is_called():
    assert looks({"ours": "braincl"})["ours"] == looks(["braincl"])["braincl"]


@pytest.mark.parametrize("paper", papers().values(), ids=lambda paper: paper.name)
def test_the_methods_of_a_comparison_are_told_apart(paper):
    labels = next(item.labels for item in paper.items)
    found = looks(labels)
    assert len({(look.color, look.marker) for look in found.values()}) == len(labels)
    if len(labels) <= len(PALETTE):
        assert len({look.color for look in found.values()}) == len(labels)


def test_looks_do_not_depend_on_the_order_of_labels():
    names = [f"variant {i}" for i in range(20)]
    assert looks(names) == looks(names[::-1])


def test_more_labels_than_looks_are_still_drawn():
    assert len(looks([f"variant {i}" for i in range(200)])) == 200


def test_a_line_is_the_mean_over_seeds_of_the_tasks_seen(panel):
    axes = accuracy_curves(panel.rows).axes[0]
    er = next(line for line in axes.lines if line.get_label() == "er")
    np.testing.assert_allclose(er.get_xdata(), [1, 2])
    np.testing.assert_allclose(er.get_ydata(), [(90 + 45) / 2, (70 + 35) / 2])
    assert er.get_color() == looks(["er"])["er"].color


def test_only_labels_with_several_seeds_have_a_band(panel):
    axes = accuracy_curves(panel.rows).axes[0]
    assert len(axes.collections) == 1
    assert to_hex(axes.collections[0].get_facecolor()[0]).upper() == looks(["er"])["er"].color


def test_every_label_is_in_the_legend_in_the_suites_order(panel):
    (legend,) = accuracy_curves(panel.rows).legends
    assert [text.get_text() for text in legend.get_texts()] == list(
        dict.fromkeys(panel.rows["label"])
    )


def test_a_heat_map_a_label_holds_the_mean_matrix(panel):
    figure = heat_maps(panel.rows)
    maps = {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.images}
    assert next(iter(maps)) == "er"
    assert len(maps) == 3
    np.testing.assert_allclose(maps["er"].filled(np.nan), 100 * seen((A + A / 2) / 2))


def test_what_was_not_measured_is_blank(panel):
    figure = heat_maps(panel.rows)
    joint = next(axes.images[0].get_array() for axes in figure.axes if axes.get_title() == "joint")
    np.testing.assert_array_equal(np.ma.getmaskarray(joint), [[True, True], [False, False]])


@pytest.mark.parametrize("draw", [accuracy_curves, heat_maps])
def test_the_same_rows_give_the_same_bytes(panel, tmp_path, draw):
    digests = [
        [hashlib.sha256(path.read_bytes()).hexdigest() for path in save(draw(panel.rows), stem)]
        for stem in (tmp_path / "first", tmp_path / "second")
    ]
    assert digests[0] == digests[1]


def test_a_saved_figure_is_sharp_and_its_text_stays_text(panel, tmp_path):
    png, pdf = save(accuracy_curves(panel.rows), tmp_path / "a.b")
    assert png.name == "a.b.png"
    width = int.from_bytes(png.read_bytes()[16:20], "big")
    assert width >= 150 * 3.25
    assert b"/Type /Font" in pdf.read_bytes()
    assert b"/Subtype /Type3" not in pdf.read_bytes()


def one_panel(root, count: int, tasks: int) -> pd.DataFrame:
    wanted = [Trial(f"method_{i} with a rather long label", num_tasks=tasks) for i in range(count)]
    for trial in wanted:
        write_trial(root, trial, rows(trial, np.full((tasks, tasks), 0.5)))
    write_suite(root, wanted)
    (found,) = panels(read(root))
    return found.rows


@pytest.mark.parametrize(("count", "tasks"), [(1, 1), (7, 12)])
@pytest.mark.parametrize("draw", [accuracy_curves, heat_maps])
def test_odd_sizes_are_drawn_without_a_warning(tmp_path, count, tasks, draw):
    figure = draw(one_panel(tmp_path, count, tasks))
    save(figure, tmp_path / "figure")
    inside = figure.bbox
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert box.x0 >= inside.x0
        assert box.x1 <= inside.x1


def test_drawing_leaves_the_settings_of_matplotlib_alone(panel):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    accuracy_curves(panel.rows)
    assert dict(mpl.rcParams) == before


def test_a_notebook_draws_one_figure_of_one_scenario(store):
    results = read(store)
    figure = draw(results, "accuracy_curves", dataset="digits")
    assert isinstance(figure, Figure)
    assert len(draw(store, "accuracy_curves", labels=["er"]).axes[0].lines) == 1
    assert set(names()) >= {"accuracy_curves", "heat_maps", "accuracy_memory"}


@pytest.mark.parametrize(
    ("name", "where", "message"),
    [
        ("accuracy_curve", {}, "did you mean 'accuracy_curves'"),
        ("accuracy_curves", {"dataset": "nowhere"}, "0 scenarios fit, name one: suite='demo'"),
        ("spectra", {}, "the store lacks what 'spectra' shows"),
        ("accuracy_curves", {"labels": ["nobody"]}, "the store lacks"),
    ],
)
def test_what_cannot_be_drawn_is_said(store, name, where, message):
    with pytest.raises(ValueError, match=message):
        draw(store, name, **where)


HOSTILE = (r"$\frac{$", "a$b$c", "100 % & <b>_x^2_</b>", r"\textbf{x} ~ #1")


def test_labels_of_any_signs_are_drawn_as_they_are(tmp_path):
    wanted = [Trial(name, num_tasks=2) for name in HOSTILE]
    for trial in wanted:
        write_trial(tmp_path, trial, rows(trial, seen(A)))
    write_suite(tmp_path, wanted)
    for number, name in enumerate(("accuracy_curves", "heat_maps", "plasticity_stability")):
        figure = draw(tmp_path, name)
        save(figure, tmp_path / str(number))
        texts = {text.get_text().replace("\n", " ") for text in figure.findobj(Text)}
        assert set(HOSTILE) <= texts


def test_logarithmic_axes_have_numbers(store, tmp_path):
    figure = Figure()
    axes = figure.add_subplot()
    axes.plot([1, 1000], [1, 2])
    axes.set_xscale("log")
    logarithmic(axes.xaxis)
    save(figure, tmp_path / "log")
    assert {"1", "100"} <= {text.get_text() for text in axes.get_xticklabels()}
