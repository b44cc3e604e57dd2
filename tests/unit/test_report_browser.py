"""The report in a real browser: no error, no request, sorting and filtering, a phone, the dark."""

import shutil

import numpy as np
import pytest
from stores import Trial, rows, write_suite, write_trial

from analysis.report import write_report

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: chromium)")

LEVELS = {"er": 0.5, "gem": 0.7, "agem": 0.05, "<b>&amp;": 0.6}


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    seeds = [(seed, dataset) for seed in (0, 1) for dataset in ("a", "b")]
    wanted = [Trial(name, seed, dataset=dataset) for name in LEVELS for seed, dataset in seeds]
    for trial in wanted:
        a = np.full((3, 3), LEVELS[trial.method] + trial.seed / 100)
        write_trial(root, trial, rows(trial, a))
    absent = [Trial("si", seed, dataset=d) for seed, d in seeds]
    write_suite(root, [*wanted, *absent])
    return write_report(root, root / "report")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        # As root in a container Chromium has no sandbox; the rest keeps it from phoning home.
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield found
        found.close()


@pytest.fixture
def opened(browser, page_path):
    """Opens the page as a device would; what it complains of and asks for is in `said`."""
    contexts = []

    def open_(**device):
        context = browser.new_context(**device)
        contexts.append(context)
        page = context.new_page()
        page.said = []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda asked: page.said.append(asked.url))
        page.goto(page_path.as_uri())
        page.said = [text for text in page.said if not text.startswith("data:")]
        assert page.said == [page_path.as_uri()]
        return page

    yield open_
    for context in contexts:
        context.close()


def column(page, place):
    cells = page.locator("table.sortable").first.locator("tbody tr")
    return [cells.nth(n).locator("th, td").nth(place).inner_text() for n in range(cells.count())]


def test_every_image_loads_and_has_a_text(opened):
    page = opened()
    images = page.locator("img")
    assert images.count() >= 8
    widths = page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth)")
    assert all(width > 100 for width in widths)
    assert all(page.evaluate("[...document.images].map(i => i.alt.length)"))


def test_a_click_sorts_by_numbers_and_the_next_turns_it_round(opened):
    page = opened()
    first = page.locator("table.sortable").first
    button = first.locator("thead tr").last.locator("button").nth(1)
    button.click()
    assert column(page, 0) == ["gem", "<b>&amp;", "er", "agem", "si"]
    assert first.locator("thead tr").last.locator("th").nth(1).get_attribute("aria-sort") == (
        "descending"
    )
    button.click()
    assert column(page, 0) == ["agem", "er", "<b>&amp;", "gem", "si"]  # what has none stays last


def test_names_sort_from_a_to_z_by_keyboard_too(opened):
    page = opened()
    page.locator("table.sortable").first.locator("thead tr").last.locator("button").first.focus()
    page.keyboard.press("Enter")
    assert column(page, 0)[1:] == ["agem", "er", "gem", "si"]


def test_the_filter_keeps_lines_with_one_of_its_words(opened):
    page = opened()
    page.locator("#filter").fill("gem, si")
    shown = page.locator("table.sortable").first.locator("tbody tr:visible")
    assert [text.split()[0] for text in shown.all_inner_texts()] == ["gem", "agem", "si"]
    page.locator("#filter").fill("")
    assert page.locator("table.sortable").first.locator("tbody tr:visible").count() == 5


def test_on_a_phone_nothing_but_tables_scrolls_sideways(opened):
    page = opened(viewport={"width": 360, "height": 740}, device_scale_factor=2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "auto"


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_it_follows_the_readers_colours(opened, scheme, dark):
    page = opened(color_scheme=scheme)
    script = "getComputedStyle(document.body).{}.match(/\\d+/g).slice(0, 3).map(Number)"
    paper, ink = (sum(page.evaluate(script.format(name))) for name in ("backgroundColor", "color"))
    assert (paper < ink) is dark
    assert abs(paper - ink) > 400


def test_what_is_folded_opens(opened):
    page = opened()
    details = page.locator("details", has_text="Intervals").first
    assert not details.locator("table").is_visible()
    details.locator("summary").click()
    assert details.locator("table").is_visible()
    assert "50.50" in details.inner_text()
