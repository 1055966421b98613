"""Who can read the report: names for what is drawn, an order of headings, and colours that stand
out in light and in dark.
"""

from __future__ import annotations

import itertools
import re
from importlib.resources import files

import pytest

from domainfusion.reports.evaluation_tables import HEAT_STEPS
from reports.pages import Element


@pytest.mark.parametrize("name", ["whole", "hostile"])
def test_ids_are_unique_and_everything_that_is_referred_to_is_there(
    name: str, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue(name)
    ids = [element.attributes["id"] for element in root.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    referred = [
        element.attributes[key].split()
        for element in root.all()
        for key in ("aria-labelledby", "for")
        if key in element.attributes
    ]
    assert {name for names in referred for name in names} <= set(ids)
    assert {element.attributes["href"][1:] for element in root.all("a")} <= set(ids)


def test_headings_skip_no_level(whole: Element) -> None:
    levels = [int(element.tag[1]) for element in whole.all() if re.fullmatch("h[1-6]", element.tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_charts_and_tables_have_names(whole: Element) -> None:
    assert whole.one("html").attributes["lang"] == "en"
    charts = list(whole.all("svg", role="img"))
    # Three in the training, and the loss of each domain.
    assert len(charts) == 6
    for chart in charts:
        assert chart.one("title").words and chart.one("desc").words
    assert all(element.one("caption").words for element in whole.all("table"))
    assert all("scope" in element.attributes for element in whole.all("th"))
    unnamed = [
        element
        for element in whole.all("svg")
        if "role" not in element.attributes and "aria-hidden" not in element.attributes
    ]
    inside = {id(part) for element in whole.all("svg") for part in element.all("svg")}
    assert {id(element) for element in unnamed} <= inside


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    """The contrast of WCAG 2.2, 1 to 21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def themes() -> dict[str, dict[str, str]]:
    style = files("domainfusion.reports").joinpath("report.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\n\s*\}", style, flags=re.DOTALL)[:2]
    return {
        name: dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", text))
        for name, text in (("light", light), ("dark", dark))
    }


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_stand_out_in_both_themes(theme: str) -> None:
    colours = themes()[theme]
    assert set(colours) == set(themes()["light"])
    for step in range(HEAT_STEPS):
        assert contrast(colours[f"heat-{step}"], colours[f"heat-ink-{step}"]) >= 4.5
    for name in ("ink", "quiet", "link", "right", "wrong"):
        assert contrast(colours[name], colours["paper"]) >= 4.5
    for name in ("student", "expert", "base", *(f"c{number}" for number in range(6))):
        assert contrast(colours[name], colours["paper"]) >= 3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_heat_map_goes_one_way_in_lightness(theme: str) -> None:
    steps = [luminance(themes()[theme][f"heat-{step}"]) for step in range(HEAT_STEPS)]
    assert steps == sorted(steps, reverse=theme == "light")
