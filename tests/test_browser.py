"""The report in the system's Chromium: draws everything, asks nobody, sorts, speaks to the keyboard, fits and prints."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import detmetrics as dm
import test_report
from browsing import Tab, chromium, why_no_page_can_be_opened
from detmetrics.synth import make_boxes

pytestmark = pytest.mark.browser
pytest.importorskip("jinja2")
if why := why_no_page_can_be_opened():
    pytest.skip(why, allow_module_level=True)

MARKS = ".scatterlayer path, .barlayer path, .heatmaplayer image"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of two runs, of one frame, of nothing, and of names that try to break out."""
    folder = tmp_path_factory.mktemp("reports")
    truth, strong = make_boxes(n_frames=40, samples_per_scene=5, boxes_per_sample=40, seed=1)
    _, weak = make_boxes(n_frames=40, samples_per_scene=5, boxes_per_sample=40, seed=1, quality=0.5)
    runs = [dm.match(truth, pred, dm.NUSCENES) for pred in (weak, strong)]
    dm.report(runs, folder / "two.html", names=["weak", "strong"], n=20)
    dm.report(test_report.odd()["one frame"][0], folder / "one frame.html")
    dm.report(test_report.odd()["nothing"][0], folder / "nothing.html")
    nasty = test_report.NASTY
    dm.report(test_report.many(3, named=nasty), folder / "nasty.html", names=[nasty, nasty + "2"], title=nasty, n=5)
    return folder


def opened(browser: Any, path: Path, **options: Any) -> Tab:
    """Open a report, and wait until everything is drawn."""
    return Tab(browser, path, ready="html[data-drawn=all]", **options)


@pytest.fixture(scope="module")
def tab(browser: Any, folder: Path) -> Iterator[Tab]:
    """One page for all tests that leave it usable; none of them may leave a fault behind."""
    tab = opened(browser, folder / "two.html")
    yield tab
    tab.close()


def charts(page: Any) -> Any:
    return page.locator(".chart").all()


def test_everything_is_drawn_soon(tab: Tab) -> None:
    taken_ms = tab.page.evaluate("performance.now()")
    assert taken_ms < 8000, taken_ms  # 2 s on a quiet machine, see tests/bench/results.md; this one may be busy
    for chart in charts(tab.page):
        assert chart.locator(MARKS).count() > 0


def test_the_keyboard_comes_first_to_a_skip_link(tab: Tab) -> None:
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.className") == "skip"
    tab.page.keyboard.press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == "main"
    tab.page.locator("#theme").focus()
    assert tab.page.locator("#theme").evaluate("e => getComputedStyle(e).outlineStyle") != "none"


@pytest.mark.parametrize("name", ["one frame", "nothing", "nasty"])
def test_every_chart_is_drawn(browser: Any, folder: Path, name: str) -> None:
    tab = opened(browser, folder / f"{name}.html")
    assert len(charts(tab.page)) >= 7
    for chart in charts(tab.page):
        assert chart.locator("svg.main-svg").count() >= 1
        if name == "nasty":
            assert chart.locator(MARKS).count() > 0
    if name == "nasty":
        assert tab.page.title().strip() == test_report.NASTY.strip()
        assert test_report.NASTY.split("`")[0] in tab.page.locator("h1").inner_text()
        assert tab.page.locator("main img, main script").count() == 0
    tab.close()


def test_light_dark_and_print(browser: Any, folder: Path, tab: Tab) -> None:
    def colors(page: Any) -> tuple[str, str]:
        text = page.locator("#precision-recall .xtick text").first
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return background, text.evaluate("e => getComputedStyle(e).fill")

    light = colors(tab.page)
    tab.page.locator("#theme").click()
    dark = colors(tab.page)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    tab.page.locator("#theme").click()
    assert colors(tab.page) == light
    tab.page.emulate_media(media="print")
    head = tab.page.locator("#classes-table thead th").first
    assert head.locator("button").is_hidden()  # with one in it, Chromium would print the head on the first page alone
    assert head.evaluate("e => getComputedStyle(e, '::before').content") == '"class"'
    tab.page.emulate_media(media="screen")
    by_system = opened(browser, folder / "two.html", color_scheme="dark")
    assert colors(by_system.page) == dark
    by_system.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert colors(by_system.page)[1] == light[1], "paper is white"
    by_system.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert colors(by_system.page) == dark
    content = by_system.page.pdf(format="A4")
    assert content.startswith(b"%PDF")
    assert len(content) > 100_000  # with the charts
    assert by_system.page.locator("details[open]").count() == 0  # as before
    assert colors(by_system.page) == dark
    by_system.close()


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext here: sudo apt-get install poppler-utils")
def test_a_printed_table_has_its_head_on_every_page(browser: Any, folder: Path, tmp_path: Path) -> None:
    page = opened(browser, folder / "two.html")
    page.page.pdf(path=tmp_path / "two.pdf", width="210mm", height="105mm")
    page.close()
    told = ["pdftotext", "-layout", tmp_path / "two.pdf", "-"]
    sheets = subprocess.run(told, capture_output=True, text=True, check=True).stdout.split("\f")
    heads = [i for i, sheet in enumerate(sheets) if re.search(r"class +run +AP +curve +ATE", sheet)]
    assert len(heads) > 1
    assert heads == list(range(heads[0], heads[-1] + 1))


def test_a_tooltip_says_the_number(tab: Tab) -> None:
    chart = tab.page.locator("#class-scores .chart")
    chart.scroll_into_view_if_needed()
    chart.locator("path.point").first.hover(force=True)
    hover = chart.locator(".hoverlayer .hovertext")
    hover.first.wait_for(timeout=5000)
    assert "car" in hover.first.text_content()
    assert " to " in hover.first.text_content()


def column(page: Any, table: str, at: int) -> list[float]:
    values = page.locator(f"#{table} tbody tr > :nth-child({at})").evaluate_all("cells => cells.map(c => c.dataset.v)")
    return [float(value) for value in values if value is not None]


def test_tables_sort_by_click_and_by_keyboard(tab: Tab) -> None:
    heads = tab.page.locator("#points thead th")
    names = [name.strip() for name in heads.all_inner_texts()]
    at = names.index("recall")
    heads.nth(at).locator("button").click()
    assert heads.nth(at).get_attribute("aria-sort") == "descending"
    values = column(tab.page, "points", at + 1)
    assert values == sorted(values, reverse=True)
    heads.nth(at).locator("button").focus()
    tab.page.keyboard.press("Enter")
    assert heads.nth(at).get_attribute("aria-sort") == "ascending"
    assert column(tab.page, "points", at + 1) == sorted(values)
    heads.nth(0).locator("button").focus()
    tab.page.keyboard.press("Space")
    assert heads.nth(0).get_attribute("aria-sort") == "ascending"
    assert heads.nth(at).get_attribute("aria-sort") is None
    classes = tab.page.locator("#points tbody tr > :first-child").all_inner_texts()
    assert classes == sorted(classes)
    assert "sorted by class" in tab.page.locator("#said").inner_text()


def test_choices_redraw(tab: Tab) -> None:
    chart = tab.page.locator("#precision-recall")
    before = chart.locator("path.js-line").first.get_attribute("d")
    chart.locator("select").first.select_option("1")
    assert chart.locator("path.js-line").first.get_attribute("d") != before
    chart.locator("select").nth(1).select_option(label="all")
    assert chart.locator(".scatterlayer path.js-line").count() == 8


def test_it_fits_a_phone(browser: Any, folder: Path) -> None:
    tab = opened(browser, folder / "nasty.html", viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert tab.page.evaluate("window.innerWidth") <= 360
    tab.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_a_confusion_matrix_names_every_column(browser: Any, folder: Path, width: int) -> None:
    tab = opened(browser, folder / "two.html", viewport={"width": width, "height": 900})
    chart = tab.page.locator("#confusion-0 .chart")
    names = chart.locator(".xtick text")
    shown = names.evaluate_all(
        "all => all.filter(e => getComputedStyle(e).visibility != 'hidden' && e.getBBox().width).map(e => e.textContent)"
    )
    assert shown == [*dm.NUSCENES.labels, "missed"]
    edge = chart.bounding_box()
    for name in names.all():
        box = name.bounding_box()
        assert edge["x"] <= box["x"]
        assert box["x"] + box["width"] <= edge["x"] + edge["width"]
        assert edge["y"] <= box["y"]
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_count_of_a_confusion_matrix_can_be_read(browser: Any, folder: Path, scheme: str) -> None:
    """In both themes, on every shade."""
    tab = opened(browser, folder / "two.html", color_scheme=scheme)
    figure = tab.page.locator("#confusion-0 .chart")
    figure.scroll_into_view_if_needed()
    counts = figure.locator(".annotation text")
    places = [(one.bounding_box(), one.evaluate("e => getComputedStyle(e).fill")) for one in counts.all()]
    picture = np.asarray(Image.open(io.BytesIO(tab.page.screenshot())).convert("RGB"))
    tab.close()

    def luminance(color: Any) -> float:
        share = np.asarray(color, float) / 255
        return float(
            np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    assert len(places) > 10
    for box, ink in places:
        ground = picture[int(box["y"]) + 1, int(box["x"]) - 3]
        dark, light = sorted((luminance(ground), luminance(re.findall(r"\d+", ink)[:3])))
        assert (light + 0.05) / (dark + 0.05) > 3.4, (box, ink, ground)


def saved(tab: Tab, button: Any, path: Path) -> str:
    with tab.page.expect_download() as download:
        button.click()
    download.value.save_as(path)
    return path.read_text()


def test_figures_and_tables_can_be_saved(tab: Tab, tmp_path: Path) -> None:
    svg = saved(tab, tab.page.locator("#error-recall .svg"), tmp_path / "figure.svg")
    assert svg.startswith("<svg")
    assert "ATE" in svg
    box = tab.page.locator("#classes-table")
    rows = list(csv.DictReader(saved(tab, box.locator("[data-as=csv]"), tmp_path / "t.csv").splitlines()))
    assert len(rows) == 22
    assert {"class", "run", "AP", "AP low", "AP high", "AAE"} <= set(rows[0])
    assert rows[0]["class"] == "car"
    assert float(rows[0]["AP low"]) < float(rows[0]["AP"]) < float(rows[0]["AP high"])
    assert rows[-1]["class"] == "mean"
    markdown = saved(tab, box.locator("[data-as=md]"), tmp_path / "t.md").splitlines()
    assert markdown[0].startswith("| class | run | AP | ATE |")
    assert markdown[1].startswith("| --- | --- | ---: |")
    assert len(markdown) == 24
    assert len({line.count(" | ") for line in markdown}) == 1
