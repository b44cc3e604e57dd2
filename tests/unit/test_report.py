"""The report: complete, self-contained, safe and the same each time."""

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from stores import Trial, rows, write_failure, write_suite, write_trial

from analysis.load import StoreError
from analysis.report import write_report

HOSTILE = "<script>alert('x')</script> & co"


def make_store(root: Path) -> None:
    wanted = [
        Trial("er", 0),
        Trial("er", 1),
        Trial("agem", label=HOSTILE),
        Trial("climb", protocol="online_ssl", primary="probe_linear"),
    ]
    for number, trial in enumerate(wanted):
        write_trial(root, trial, rows(trial, np.full((3, 3), 0.5 + number / 10)))
    lost, gone, away = Trial("er", 2), Trial("gem"), Trial("si")
    write_failure(root, lost, "diverged", "the loss is not finite")
    write_failure(root, gone, "user", f"{HOSTILE}\nsecond line")
    write_suite(root, [*wanted, lost, gone, away])
    write_suite(root, [Trial("er", 9, label="theirs")], "other")


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("store")
    make_store(root)
    return write_report(root, root / "report")


@pytest.fixture(scope="module")
def page(report) -> str:
    return report.read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Every start tag with its attributes, and whether all elements were closed."""

    VOID = frozenset({"meta", "link", "img", "br", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_tables_and_figures_lie_beside_the_page(report):
    files = {str(path.relative_to(report.parent)) for path in report.parent.rglob("*.*")}
    for kind in ("md", "tex", "csv"):
        assert f"tables/demo-class_incremental.{kind}" in files
        assert f"tables/demo-online_ssl.{kind}" in files
        assert f"tables/other-class_incremental.{kind}" in files
    for kind in ("png", "pdf"):
        assert f"figures/accuracy_curves-demo-online_ssl-digits-3-regular.{kind}" in files
        assert f"figures/heat_maps-demo-class_incremental-digits-3-regular.{kind}" in files


def test_every_link_leads_to_a_file(report, page):
    elements = Elements(page).found
    links = [attrs["href"] for tag, attrs in elements if tag == "a"]
    ids = {attrs["id"] for _, attrs in elements if "id" in attrs}
    assert {link[0] for link in links} == {"#", "t", "f"}
    for link in links:
        assert link[1:] in ids if link[0] == "#" else (report.parent / link).is_file()


def test_every_element_is_closed(page):
    assert Elements(page).open == []


def test_the_page_asks_nothing_of_anywhere(page):
    for tag, attrs in Elements(page).found:
        for name in ("src", "srcset", "action", "data", "poster"):
            assert attrs.get(name, "data:").startswith("data:"), (tag, attrs)
        if tag == "link":
            assert attrs["href"] == "data:,"
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest", page)


def test_every_image_says_what_it_shows(page):
    images = [attrs for tag, attrs in Elements(page).found if tag == "img"]
    assert len(images) == 2 * 4
    assert all("digits, 3 tasks" in (attrs["alt"] or "") for attrs in images)


def test_labels_and_messages_are_text_and_never_markup(page):
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; co" in page


def test_the_state_of_a_suite_is_told(page):
    demo = page[page.index("<h2>Suite demo") : page.index("<h2>Suite other")]
    for state in ("4 done", "1 diverged", "1 failed", "1 missing"):
        assert f"<li>{state}</li>" in demo
    assert "the loss is not finite" in demo
    assert "second line" not in demo


def test_numbers_definitions_and_provenance_are_on_the_page(page):
    assert "55.00 ± 7.07" in page
    assert "(2 of 3, 1 diverged)" in page
    assert "mean over i of A[T-1,i]" in page
    assert "0123456789abcdef" in page
    assert "2.9.0 (4)" in page


def test_each_suite_has_its_own_section_and_labels(page):
    other = page[page.index("Suite other") :]
    assert "theirs" in other
    assert "Suite other" in page


def test_the_same_store_gives_the_same_bytes(tmp_path):
    for root in (tmp_path / "first", tmp_path / "second"):
        write_trial(root, Trial("er"), rows(Trial("er"), np.full((3, 3), 0.5)))
        write_suite(root, [Trial("er"), Trial("agem")])
    first = write_report(tmp_path / "first", tmp_path / "first" / "report").parent
    second = write_report(tmp_path / "second", tmp_path / "elsewhere").parent
    for path in sorted(first.rglob("*.*")):
        other = second / path.relative_to(first)
        digests = [hashlib.sha256(one.read_bytes()).hexdigest() for one in (path, other)]
        assert digests[0] == digests[1], path.name


def test_a_suite_of_which_nothing_is_stored_is_reported(tmp_path):
    write_suite(tmp_path, [Trial("er")])
    page = write_report(tmp_path, tmp_path / "out").read_text()
    assert "<li>1 missing</li>" in page
    assert "(0 of 1, 1 missing)" in page


def test_an_empty_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no trial is stored and no suite wants any"):
        write_report(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_many_failures_are_counted(tmp_path):
    wanted = [Trial("er", seed) for seed in range(60)]
    write_suite(tmp_path, wanted)
    for trial in wanted:
        write_failure(tmp_path, trial, "user", "why")
    page = write_report(tmp_path, tmp_path / "out").read_text()
    assert "and 10 more" in page


def test_every_table_that_a_suite_asks_for_has_files_of_its_own(tmp_path):
    trial = Trial("er")
    write_trial(tmp_path, trial, rows(trial, np.full((3, 3), 0.5)))
    write_suite(tmp_path, [trial], metrics=[["CA", "FA"], ["BWT"]])
    page = write_report(tmp_path, tmp_path / "report").read_text(encoding="utf-8")
    files = {path.name for path in (tmp_path / "report" / "tables").iterdir()}
    tables = {name for name in files if name.endswith(".csv") and "differences" not in name}
    assert tables == {
        "demo-class_incremental.csv",
        "demo-class_incremental-2.csv",
        "demo-class_incremental-more.csv",
    }
    more = (tmp_path / "report" / "tables" / "demo-class_incremental-more.md").read_text()
    assert "forgetting" in more
    assert "BWT" not in more.split("\n\n")[0]  # the suite has it in a table of its own
    assert page.count("Intervals, and differences from the best") == 3
