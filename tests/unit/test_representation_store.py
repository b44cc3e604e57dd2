"""From stored features to tables and figures of representations."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ortho_group
from stores import Trial, rows, write_suite, write_trial
from tiny import tiny_trial

from analysis.figures.representations import (
    alignment_maps,
    by_setting,
    displacement_curves,
    similarity_to_joint,
)
from analysis.figures.style import save
from analysis.load import StoreError
from analysis.representations import alignment, compare, displacement
from analysis.representations.agreement import correlation, linear_cka, mean_difference
from analysis.representations.class_measures import MEASURES
from harness import schema
from harness.execute import Setup, execute
from harness.records import write_records
from harness.store import Store

TASKS, CLASSES, IMAGES, WIDTH = 3, 6, 10, 8
LABELS = np.repeat(np.arange(CLASSES), IMAGES)
TASK_OF = LABELS // 2


def checkpoint(after_task: int, vectors, image, label) -> SimpleNamespace:
    """As much of a checkpoint as the writer of records asks for."""
    return SimpleNamespace(
        after_task=after_task,
        split="test",
        rows=lambda _: torch.tensor(image),
        labels=lambda _: torch.tensor(label),
        task=lambda _: torch.tensor(label // 2),
        features=lambda _: torch.tensor(vectors),
    )


def keep(root: Path, trial: Trial, vectors, *, first=0, image=None) -> None:
    """Store a trial and its features (S, N, D) after the tasks from `first` on."""
    write_trial(root, trial, rows(trial, np.full((TASKS, TASKS), 0.5)))
    folder = root / schema.RECORDS / trial.trial_id
    for stage, part in enumerate(vectors):
        ids = np.arange(len(LABELS)) if image is None else image[stage]
        write_records("features", checkpoint(first + stage, part, ids, LABELS), folder)


def cloud(seed: int = 0, scale: float = 3.0):
    """Features (N, D) with a place for every class, as float32."""
    rng = np.random.default_rng(seed)
    places = scale * rng.standard_normal((CLASSES, WIDTH))
    return (places[LABELS] + rng.standard_normal((len(LABELS), WIDTH))).astype(np.float32)


TURN = ortho_group.rvs(WIDTH, random_state=3).astype(np.float32)


def drifting(step: float = 1.0):
    """Features (S, N, D) of joint training, moved along the first axis by `step` a task."""
    moves = step * np.arange(TASKS, dtype=np.float32)[:, None, None] * np.eye(WIDTH)[0]
    return (cloud() + moves).astype(np.float32)


@pytest.fixture
def root(tmp_path):
    """Two seeds of joint training, of its last stage alone, and of two learners."""
    wanted = []
    for seed in (0, 1):
        joint, turned, moved = (Trial(name, seed) for name in ("joint", "edd", "finetune"))
        keep(tmp_path, joint, cloud()[None], first=TASKS - 1)
        keep(tmp_path, turned, np.stack([cloud() @ TURN] * TASKS))
        keep(tmp_path, moved, drifting())
        wanted += [joint, turned, moved]
    write_suite(tmp_path, sorted(wanted, key=lambda trial: trial.method != "joint"))
    return tmp_path


def test_a_comparison_has_a_row_for_every_trial_beside_joint_and_measure(root):
    found = compare(root)
    assert list(found.columns) == [
        *("suite", "protocol", "label", "method", "dataset", "num_tasks", "distribution"),
        *("seed", "trial_id", "joint", "metric", "difference", "correlation"),
    ]
    assert not found.duplicated(["label", "dataset", "num_tasks", "seed", "metric"]).any()
    assert set(found["label"]) == {"edd", "finetune"}
    assert list(dict.fromkeys(found["metric"])) == ["cosine", "euclidean", "wasserstein", "kl"]
    assert len(found) == 2 * 2 * 4
    for row in found.itertuples():
        assert row.joint == Trial("joint", row.seed).trial_id


def test_a_comparison_is_that_of_the_matrices_after_the_last_task(root):
    found = compare(root, measures=list(MEASURES)).set_index(["label", "seed", "metric"])
    ours, joint = drifting()[-1], cloud()
    for name, measure in MEASURES.items():
        pair = measure(ours, LABELS), measure(joint, LABELS)
        row = found.loc[("finetune", 0, name)]
        assert row["difference"] == pytest.approx(mean_difference(*pair), rel=1e-6, abs=1e-9)
        assert row["correlation"] == pytest.approx(correlation(*pair), rel=1e-6)


def test_a_rotated_network_has_the_same_geometry_as_joint_training(root):
    found = compare(root, measures=["cosine", "euclidean", "wasserstein"])
    turned = found[found["label"] == "edd"]
    np.testing.assert_allclose(turned["difference"], 0, atol=1e-5)
    np.testing.assert_allclose(turned["correlation"], 1, atol=1e-5)


def test_alignment_goes_over_tasks_and_the_classes_seen_by_then(root):
    found = alignment(root)
    one = found[(found["label"] == "finetune") & (found["seed"] == 0)]
    cosines = one[one["metric"] == "cosine"]
    table = cosines.pivot_table(index="after_task", columns="class", values="value")
    expected = np.full((TASKS, CLASSES), np.nan)
    for after, label in np.ndindex(expected.shape):
        if label // 2 <= after:
            ours = drifting()[after][label == LABELS].mean(0)
            theirs = cloud()[label == LABELS].mean(0)
            expected[after, label] = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
    np.testing.assert_allclose(table.to_numpy(), expected, rtol=1e-5)
    assert (one["joint_after_task"] == TASKS - 1).all()


def test_the_companions_of_alignment_see_through_a_rotation(root):
    found = alignment(root)
    turned = found[found["label"] == "edd"]
    values = {name: part["value"] for name, part in turned.groupby("metric")}
    np.testing.assert_allclose(values["rotated_cosine"], 1, rtol=1e-5)
    np.testing.assert_allclose(values["cka"], 1, rtol=1e-5)
    assert (values["cosine"] < 0.95).any()


def test_cka_is_of_the_images_of_classes_seen(root):
    found = alignment(root)
    cka = found[(found["metric"] == "cka") & (found["label"] == "finetune")]
    assert (cka["class"] == -1).all()
    for row in cka.itertuples():
        seen = row.after_task >= TASK_OF
        expected = linear_cka(drifting()[row.after_task][seen], cloud()[seen])
        assert row.value == pytest.approx(expected)


def test_joint_training_of_every_stage_is_taken_after_the_same_task(tmp_path):
    keep(tmp_path, Trial("joint"), np.stack([cloud(stage) for stage in range(TASKS)]))
    keep(tmp_path, Trial("edd"), np.stack([cloud(stage) for stage in range(TASKS)]))
    found = alignment(tmp_path)
    assert (found["joint_after_task"] == found["after_task"]).all()
    np.testing.assert_allclose(found["value"], 1, rtol=1e-6)


def test_a_network_of_another_width_has_no_cosine_and_a_blank_map(root, tmp_path):
    keep(root, Trial("pec"), drifting()[..., :5])
    write_suite(root, [Trial("pec"), Trial("edd")], name="widths")
    found = alignment(root, "widths")
    values = {
        name: part["value"] for name, part in found[found["label"] == "pec"].groupby("metric")
    }
    assert values["cosine"].isna().all()
    assert values["rotated_cosine"].notna().all()
    assert values["cka"].notna().all()
    save(alignment_maps(found), tmp_path / "maps")
    assert np.isfinite(compare(root, "widths")["difference"]).all()


def test_a_displacement_counts_from_the_task_that_brought_the_class(root):
    found = displacement(root)
    assert set(found["label"]) == {"edd", "finetune"}
    moved = found[found["label"] == "finetune"]
    assert (moved["after_task"] >= moved["first_task"]).all()
    assert len(moved) == 2 * (2 * 3 + 2 * 2 + 2)
    np.testing.assert_allclose(
        moved["distance"], moved["after_task"] - moved["first_task"], rtol=1e-5, atol=1e-5
    )
    assert (moved["first_task"] == moved["class"] // 2).all()
    np.testing.assert_allclose(found.loc[found["label"] == "edd", "distance"], 0, atol=1e-6)


def test_a_displacement_in_a_plane_is_repeatable_and_takes_some_images(tmp_path):
    keep(tmp_path, Trial("finetune"), drifting())
    found = displacement(tmp_path, space="tsne")
    assert (found["space"] == "tsne").all()
    again = displacement(tmp_path, space="tsne", images=IMAGES)
    pd.testing.assert_frame_equal(again, found)
    fewer = displacement(tmp_path, space="tsne", images=4)
    assert len(fewer) == len(found)
    assert (fewer["distance"] != found["distance"]).any()


def test_an_unknown_space_or_measure_is_named(root):
    with pytest.raises(ValueError, match="unknown space 'umap'; there are features, tsne"):
        displacement(root, space="umap")
    with pytest.raises(ValueError, match="unknown measure 'l1'; there are cosine"):
        compare(root, measures=["l1"])


def test_only_the_trials_of_the_suite_asked_for_are_compared(root):
    write_suite(root, [Trial("edd", 1)], name="small")
    found = compare(root, "small", measures=["cosine"])
    assert list(zip(found["suite"], found["label"], found["seed"], strict=True)) == [
        ("small", "edd", 1)
    ]
    with pytest.raises(StoreError, match="no suite 'large'; there are demo, small"):
        compare(root, "large")


def test_a_trial_without_its_joint_training_is_left_out(root):
    keep(root, Trial("edd", 2), drifting())
    write_suite(root, [Trial("edd", 2), Trial("edd", 1)], name="more")
    assert set(compare(root, "more", measures=["cosine"])["seed"]) == {1}


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"dataset": "glyphs"}, {"distribution": "irregular"}, {"protocol": "other"}],
    ids=lambda other: next(iter(other)),
)
def test_joint_training_of_another_setting_does_not_count(tmp_path, other):
    keep(tmp_path, Trial("edd"), drifting())
    keep(tmp_path, Trial("joint", **other), cloud()[None], first=TASKS - 1)
    for analysis in (compare, alignment):
        with pytest.raises(StoreError, match=r"has beside it a joint trial .* edd_representations"):
            analysis(tmp_path)


def test_a_store_without_features_says_which_suite_makes_them(tmp_path):
    write_trial(tmp_path, Trial("edd"), rows(Trial("edd"), np.eye(TASKS)))
    for analysis in (compare, alignment, displacement):
        with pytest.raises(StoreError, match=r"no finished trial .* suite edd_representations"):
            analysis(tmp_path)


def test_features_of_a_trial_that_is_not_finished_do_not_count(root):
    (root / schema.TRIALS / f"{Trial('edd', 0).trial_id}.parquet").unlink()
    found = compare(root, measures=["cosine"])
    assert set(found.loc[found["label"] == "edd", "seed"]) == {1}


def backbone(name: str) -> dict:
    return {"settings": {"protocol.backbone": {"name": name}}}


def test_of_several_joint_trials_the_one_with_the_same_backbone_counts(tmp_path):
    wanted = [
        *(Trial("joint", **backbone(name)) for name in ("cnn", "mlp")),
        *(Trial("edd", **backbone(name)) for name in ("cnn", "mlp")),
    ]
    for trial in wanted:
        keep(tmp_path, trial, drifting())
    write_suite(tmp_path, wanted)
    found = compare(tmp_path, measures=["cosine"])
    assert dict(zip(found["trial_id"], found["joint"], strict=True)) == {
        wanted[2].trial_id: wanted[0].trial_id,
        wanted[3].trial_id: wanted[1].trial_id,
    }


def test_of_several_joint_trials_the_one_of_the_same_suite_counts(root):
    longer = Trial("joint", settings={"protocol.epochs": 9})
    keep(root, longer, drifting())
    learner = Trial("edd", settings={"protocol.epochs": 9})
    keep(root, learner, drifting())
    write_suite(root, [longer, learner], name="longer")
    assert set(compare(root, "longer", measures=["cosine"])["joint"]) == {longer.trial_id}
    assert longer.trial_id not in set(compare(root, "demo", measures=["cosine"])["joint"])


def test_joint_trials_that_nothing_decides_between_are_named(tmp_path):
    wanted = [
        Trial("edd"),
        Trial("joint", settings={"protocol.epochs": 5}),
        Trial("joint", settings={"protocol.epochs": 9}),
    ]
    for trial in wanted:
        keep(tmp_path, trial, drifting())
    write_suite(tmp_path, wanted)
    with pytest.raises(StoreError, match="several joint trials") as caught:
        compare(tmp_path)
    assert all(trial.trial_id in str(caught.value) for trial in wanted)


def test_features_of_other_images_are_not_compared(tmp_path):
    keep(tmp_path, Trial("joint"), cloud()[None], first=TASKS - 1)
    keep(tmp_path, Trial("edd"), drifting(), image=[np.arange(len(LABELS)) + 1] * TASKS)
    with pytest.raises(StoreError, match="of other images or classes"):
        compare(tmp_path)


def test_files_of_different_images_are_refused(tmp_path):
    ids = [np.arange(len(LABELS)) + stage for stage in range(TASKS)]
    keep(tmp_path, Trial("edd"), drifting(), image=ids)
    with pytest.raises(StoreError, match="of different images"):
        displacement(tmp_path)


def test_a_feature_that_is_not_finite_is_refused(tmp_path):
    vectors = drifting()
    vectors[1, 3, 2] = np.nan
    keep(tmp_path, Trial("edd"), vectors)
    with pytest.raises(StoreError, match="infinite or not a number"):
        displacement(tmp_path)


def test_trials_that_were_run_can_be_compared(tmp_path):
    """Joint training and a learner on digits, from the harness's own records."""
    setup = Setup(tmp_path / "results", tmp_path / "data", {"revision": None, "dirty": None})
    Store(setup.results).create()
    for name in ("joint", "finetune"):
        trial = tiny_trial(name, records=["features"])
        assert execute(trial, setup, lambda _: None).status == "done"
    found = compare(setup.results)
    assert set(found["label"]) == {"finetune"}
    assert np.isfinite(found[["difference", "correlation"]].to_numpy()).all()
    assert (found["difference"] > 0).all()
    aligned = alignment(setup.results)
    first = aligned[(aligned["after_task"] == 0)]
    # After the first task, joint training has seen what finetuning has, from the same weights.
    np.testing.assert_allclose(first["value"], 1, atol=1e-3)
    assert aligned["value"].max() <= 1 + 1e-9
    assert set(displacement(setup.results)["label"]) == {"finetune", "joint"}


def tables(root):
    return {
        similarity_to_joint: compare(root),
        alignment_maps: alignment(root),
        displacement_curves: displacement(root),
    }


def test_figures_are_drawn_one_a_setting_and_their_bytes_do_not_change(root, tmp_path):
    for draw, table in tables(root).items():
        ((name, part),) = by_setting(table)
        assert name == "demo, class_incremental, digits, 3 tasks"
        digests = [
            [hashlib.sha256(path.read_bytes()).hexdigest() for path in save(draw(part), stem)]
            for stem in (tmp_path / "a", tmp_path / "b")
        ]
        assert digests[0] == digests[1], draw


def test_a_mark_is_the_mean_over_seeds(root):
    table = compare(root, measures=["euclidean"])
    table.loc[table["seed"] == 1, "difference"] += 2
    axes = similarity_to_joint(table).axes
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["edd", "finetune"]
    means = table.groupby("label", sort=False)["difference"].mean()
    marks = [line.get_xdata()[0] for line in axes[0].lines if line.get_marker() != "None"]
    np.testing.assert_allclose(marks, means)


def test_a_map_holds_the_cosines_with_tasks_down_and_blanks_before_a_class_is_seen(root):
    table = alignment(root)
    figure = alignment_maps(table)
    maps = {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.images}
    assert list(maps) == ["edd", "finetune"]
    found = maps["finetune"]
    blank = np.arange(TASKS)[:, None] < np.arange(CLASSES) // 2
    np.testing.assert_array_equal(np.ma.getmaskarray(found), blank)
    one = table[(table["label"] == "finetune") & (table["metric"] == "cosine")]
    expected = one[(one["after_task"] == 2) & (one["class"] == 1)]["value"].mean()
    assert found[2, 1] == pytest.approx(expected)
    with pytest.raises(ValueError, match="metric 'cka'; there are cosine, rotated_cosine"):
        alignment_maps(table, "cka")


def test_a_curve_a_class_starts_at_its_first_task(root):
    figure = displacement_curves(displacement(root))
    axes = next(axes for axes in figure.axes if axes.get_title() == "finetune")
    lines = [line.get_xydata() for line in axes.lines]
    assert len(lines) == CLASSES
    for line, first in zip(lines, [0, 0, 1, 1, 2, 2], strict=True):
        expected = [(task + 1, task - first) for task in range(first, TASKS)]
        np.testing.assert_allclose(line, expected, atol=1e-5)


@pytest.mark.parametrize("count", [1, 7])
def test_any_number_of_labels_is_drawn_without_a_warning(root, tmp_path, count):
    for draw, table in tables(root).items():
        one = table[table["label"] == "edd"]
        names = [f"method_{i} with quite a long label" for i in range(count)]
        save(draw(pd.concat([one.assign(label=name) for name in names])), tmp_path / "figure")
