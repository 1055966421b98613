"""The report in a real browser: it asks for nothing, fits a phone, can be searched, and can be read
in light, in dark and on paper.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from domainfusion.reports import RunSummary, render_html
from reports.pages import hostile_run
from reports.real_run import DOMAINS, build_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

SIZES = {"phone": (360, 740), "desk": (1280, 900)}
NETWORK_OFF = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", *NETWORK_OFF)

CONTRASTS = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return rgb(getComputedStyle(document.documentElement).getPropertyValue("color-scheme") === "dark" ? "#000" : "#fff");
  };
  const poor = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest("title, desc, script, option")) continue;
    const style = getComputedStyle(element);
    const ink = rgb(element.closest("svg") ? style.fill : style.color);
    const [low, high] = [luminance(ink), luminance(behind(element))].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5) poor.push(`${contrast.toFixed(2)} ${element.tagName} ${element.textContent.trim().slice(0, 40)}`);
  }
  return poor;
}
"""
"""Every text that stands out from what is behind it by less than 4.5 (WCAG 2.2, level AA)."""


@dataclass
class Shown:
    """A page in the browser, and what it did that it must not do."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


Show = Callable[..., Shown]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or whichever the machine has; without one there is nothing to test, but on
    CI that is a failure.
    """
    found = next(
        (
            path
            for name in ("chromium", "chromium-browser", "google-chrome")
            if (path := shutil.which(name))
        ),
        None,
    )
    if found is None:
        missing = "Chromium is not installed: apt-get install chromium"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield running
        running.close()


@pytest.fixture(scope="module")
def run_directory(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "real"
    build_run(tiny_llama, directory).distill()
    return directory


@pytest.fixture(scope="module", params=["real", "by hand"])
def report(
    request: pytest.FixtureRequest,
    run: RunSummary,
    run_directory: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The report of a real run, and that of one written by hand in which everything occurs."""
    if request.param == "real":
        return run_directory / "report.html"
    path = tmp_path_factory.mktemp("by-hand") / "report.html"
    path.write_text(render_html(run), encoding="utf-8")
    return path


@pytest.fixture
def show(browser: Browser, report: Path) -> Iterator[Show]:
    contexts = []

    def opened(size: str = "desk", theme: Any = "light", **options: Any) -> Shown:
        width, height = SIZES[size]
        contexts.append(
            browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=theme, **options
            )
        )
        shown = Shown(contexts[-1].new_page())
        shown.page.on("request", lambda found: shown.requests.append(found.url))
        shown.page.on("console", lambda found: shown.complaints.append(found.text))
        shown.page.on("pageerror", lambda found: shown.complaints.append(str(found)))
        shown.page.goto(report.as_uri())
        return shown

    yield opened
    for context in contexts:
        context.close()


def open_everything(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")


def visible_articles(page: Page) -> list[str]:
    return [
        article.inner_text()
        for article in page.locator("#answers article").all()
        if article.is_visible()
    ]


def test_the_page_asks_for_nothing_but_itself_and_complains_of_nothing(
    show: Show, report: Path
) -> None:
    shown = show()
    open_everything(shown.page)
    shown.page.fill("#answers-search", "protein")
    shown.page.click("nav a >> nth=1")
    assert {url.split("#")[0] for url in shown.requests} == {report.as_uri()}
    assert shown.complaints == []


@pytest.mark.parametrize("size", SIZES)
def test_nothing_makes_the_page_scroll_sideways(show: Show, size: str) -> None:
    page = show(size).page
    open_everything(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(show: Show, theme: str) -> None:
    page = show(theme=theme).page
    open_everything(page)
    assert page.evaluate(CONTRASTS) == []
    brightness = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert (max(brightness) < 64) is (theme == "dark")


def test_search_and_filters_show_what_they_say_and_nothing_else(show: Show) -> None:
    page = show().page
    open_everything(page)
    every = every_article(page)
    total = len(every)
    assert total > 20
    assert len(visible_articles(page)) == 20
    word = sorted(every)[0].split()[3]
    page.fill("#answers-search", word.upper())
    found = every_article(page)
    assert sorted(found) == sorted(text for text in every if word.lower() in text.lower())
    page.fill("#answers-search", "no such words anywhere")
    assert visible_articles(page) == []
    assert page.locator("#answers output").inner_text() == "none"
    page.fill("#answers-search", "")
    page.select_option("#answers-state", "wrong")
    wrong = every_article(page)
    assert 0 < len(wrong) < total
    page.select_option("#answers-group", "cross-domain")
    across = every_article(page)
    assert set(across) <= set(wrong) and len(across) < len(wrong)
    page.select_option("#answers-group", "")
    page.select_option("#answers-state", "")
    assert every_article(page) == every


def every_article(page: Page) -> list[str]:
    """Pages through all questions that the filters leave, and back; folded answers are in the
    texts too.
    """
    texts = "[...document.querySelectorAll('#answers article')].map((found) => found.textContent)"
    found: list[str] = page.evaluate(texts)
    while page.locator("#answers button[name=next]").is_enabled():
        page.click("#answers button[name=next]")
        found += page.evaluate(texts)
    while page.locator("#answers button[name=before]").is_enabled():
        page.click("#answers button[name=before]")
    return found


def test_a_link_opens_the_part_that_it_leads_to(show: Show) -> None:
    page = show().page
    assert not page.locator("#answers").is_visible()
    page.click("nav a[href='#answers']")
    page.wait_for_selector("#answers", state="visible")
    page.click("nav a[href='#domain-2']")
    page.wait_for_selector("#domain-2", state="visible")
    link = page.locator("#domain-2 a[data-group]")
    domain = link.get_attribute("data-group")
    link.click()
    assert page.locator("#answers-group").input_value() == domain


def test_hostile_text_stays_text_when_the_script_draws_it(
    browser: Browser, run: RunSummary, tmp_path: Path
) -> None:
    assert run.evaluation is not None
    path = tmp_path / "hostile.html"
    path.write_text(render_html(hostile_run(run, run.evaluation)), encoding="utf-8")
    page = browser.new_page()
    requests: list[str] = []
    page.on("request", lambda found: requests.append(found.url))
    page.goto(path.as_uri())
    open_everything(page)
    page.click("#answers button[name=next]")
    assert len(visible_articles(page)) == 20
    assert page.locator("article img, article script").count() == 0
    assert page.title() != "owned"
    assert requests == [path.as_uri()]
    page.close()


def test_the_contents_stay_in_sight(show: Show) -> None:
    for size in SIZES:
        page = show(size).page
        open_everything(page)
        page.mouse.wheel(0, 3000)
        page.wait_for_function("scrollY > 1000")
        box = page.locator("nav").bounding_box()
        assert box is not None and 0 <= box["y"] < 40


def test_without_scripts_every_figure_is_there_and_folds_open(show: Show) -> None:
    page = show(java_script_enabled=False).page
    assert page.locator("#verdict .dots").is_visible()
    part = page.locator("details.part", has=page.locator("#answers"))
    part.locator("summary").first.click()
    assert page.locator("#answers article").first.is_visible()
    assert not page.locator("#answers form").is_visible()
    assert page.locator("#answers noscript").is_visible()
    training = page.locator("details.part", has=page.locator("#training"))
    training.locator("summary").first.click()
    for chart in page.locator("#training svg.chart").all():
        box = chart.bounding_box()
        assert box is not None and box["width"] > 300


def test_on_paper_there_are_figures_and_no_controls(show: Show) -> None:
    page = show(theme="dark").page
    page.emulate_media(media="print")
    assert not page.locator("#answers form").is_visible() and not page.locator("nav").is_visible()
    assert page.locator("#verdict").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_the_real_run_shows_what_it_did(run_directory: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto((run_directory / "report.html").as_uri())
    assert page.locator("h1").inner_text() == "Sleep, nutrition and training in one student"
    open_everything(page)
    assert page.locator("#conflicts article").count() == 4
    assert all(domain in page.locator("#retention").inner_text() for domain in DOMAINS)
    assert "no question" in page.locator("#data").inner_text()
    page.close()
