"""Figures know where they come from, and a store says whether it still gives them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pypdf import PdfReader
from stores import Trial, rows, write_suite, write_trial

from analysis.load import StoreError, read
from analysis.origin import digest, read_about, verify
from analysis.paper import papers
from analysis.report import write_report
from harness.compact import compact
from harness.store import Store

WANTED = [Trial(name, seed) for name in ("er", "gem") for seed in range(2)]


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A store with a report, which tests copy before they change it."""
    root = tmp_path_factory.mktemp("store")
    for number, trial in enumerate(WANTED):
        write_trial(root, trial, rows(trial, np.full((3, 3), 0.5 + number / 20)))
    write_suite(root, WANTED)
    write_report(root, root / "report")
    return root


@pytest.fixture
def root(reported, tmp_path):
    return shutil.copytree(reported, tmp_path / "store")


@pytest.fixture
def files(root):
    stem = root / "report" / "figures" / "accuracy_curves-demo-class_incremental-digits-3-regular"
    return [stem.with_suffix(kind) for kind in (".png", ".pdf")]


def test_a_figure_names_its_store_and_query(root, files):
    for path in files:
        _, found = read_about(path)
        assert found["query"]["figure"] == "accuracy_curves"
        assert found["query"]["num_tasks"] == 3
        assert found["store"] == digest(read(root).provenance)
        assert found["trials"] == {"count": 4, "digest": found["store"]}


def test_the_store_gives_a_figure_as_long_as_its_trials_stay(root, files):
    compact(Store(root))
    for path in files:
        found = verify(path, root)
        assert found.same
        assert "byte for byte" in found.sentence


def test_other_trials_do_not_matter_and_more_seeds_do(root, files):
    other = Trial("si", dataset="glyphs")
    write_trial(root, other, rows(other, np.full((3, 3), 0.1)))
    write_suite(root, [*WANTED, other])
    assert verify(files[0], root).same
    more = Trial("er", 7)
    write_trial(root, more, rows(more, np.full((3, 3), 0.1)))
    write_suite(root, [*WANTED, other, more])
    found = verify(files[1], root)
    assert not found.same
    assert "its trials are others now: 4 then, 5 now" in found.sentence


def test_a_number_that_changed_is_noticed(root, files):
    path = Store(root).path(WANTED[0].trial_id)
    path.unlink()
    write_trial(root, WANTED[0], rows(WANTED[0], np.full((3, 3), 0.51)))
    found = verify(files[0], root)
    assert not found.same
    assert "its trials are others now" in found.sentence


def test_a_picture_that_was_touched_is_noticed(root, files):
    with Image.open(files[0]) as image:
        changed = image.convert("RGB")
        text = image.info["Description"]
    changed.putpixel((5, 5), (255, 0, 0))
    info = PngInfo()
    info.add_text("Description", text)
    changed.save(files[0], pnginfo=info)
    found = verify(files[0], root)
    assert not found.same
    assert "its trials are the same" in found.sentence


def test_a_store_without_the_trials_says_so(files, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write_trial(other, Trial("si", dataset="x"), rows(Trial("si", dataset="x"), np.eye(3)))
    found = verify(files[0], other)
    assert not found.same
    assert "has no accuracy_curves of demo" in found.sentence


def test_what_is_no_figure_of_a_report_is_named(root, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    with pytest.raises(StoreError, match=r"plain\.png: its metadata name no query"):
        verify(tmp_path / "plain.png", root)
    (tmp_path / "text.pdf").write_text("hello")
    with pytest.raises(StoreError, match=r"text\.pdf: cannot be read"):
        verify(tmp_path / "text.pdf", root)
    with pytest.raises(StoreError, match=r"gone\.png: cannot be read"):
        verify(tmp_path / "gone.png", root)


def test_a_papers_figure_is_verified_with_its_choice_of_labels(tmp_path):
    settings = {"protocol": "class_incremental_edd", "dataset": "cifar10"}
    wanted = [Trial(name, **settings) for name in ("edd", "lwf", "stranger")]
    for trial in wanted:
        write_trial(tmp_path, trial, rows(trial, np.full((3, 3), 0.5)))
    write_suite(tmp_path, wanted)
    page = write_report(tmp_path, tmp_path / "out", papers()["edd"])
    (path,) = page.parent.glob("figures/accuracy_curves*.png")
    _, found = read_about(path)
    assert sorted(found["query"]["labels"]) == ["edd", "lwf"]
    assert verify(path, tmp_path).same


def test_ranks_over_benchmarks_are_verified_too(tmp_path):
    """The suite's table leaves out a scenario, of which the ranks must not lose sight."""
    rng = np.random.default_rng(0)
    wanted = [Trial(name, dataset=f"set{n}") for name in ("er", "gem", "si") for n in range(8)]
    for trial in wanted:
        lines = rows(trial, np.full((3, 3), 0.5) + rng.normal(0, 0.1, (3, 3)))
        if trial.dataset != "set0":
            lines += rows(trial, np.full((3, 3), 7.0), metric="parameters", evaluator="cost")
        write_trial(tmp_path, trial, lines)
    write_suite(tmp_path, wanted, metrics=["FA", "parameters_M"])
    page = write_report(tmp_path, tmp_path / "out")
    (path,) = page.parent.glob("figures/critical_difference*.pdf")
    assert "FA over 8 benchmarks" in page.read_text()
    assert verify(path, tmp_path).same


def test_fonts_are_embedded_as_outlines_of_their_own(files):
    fonts = PdfReader(files[1]).pages[0]["/Resources"]["/Font"]
    assert fonts
    for font in fonts.values():
        held = font.get_object()
        descendants = held.get("/DescendantFonts", [held])
        kinds = [one.get_object() for one in descendants]
        assert all("/FontFile2" in one["/FontDescriptor"].get_object() for one in kinds)


def test_the_metadata_are_plain_json(files):
    text, found = read_about(files[0])
    assert json.dumps(found, sort_keys=True) == text
