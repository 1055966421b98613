from __future__ import annotations

import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from domainfusion.distillation.results import Estimate
from domainfusion.errors import printable
from domainfusion.reports.tables import (
    clipped,
    command_line,
    flattened,
    interval,
    money,
    percent,
    points,
    size,
)
from domainfusion.wording import counted, duration

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(ANY_TEXT)
def test_printable_text_steers_nothing_and_can_be_written(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert not [
        character
        for character in shown
        if unicodedata.category(character) == "Cc" and character not in "\n\t"
    ]
    assert not set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068") & set(shown)


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs"))))
def test_plain_text_is_printed_as_it_is(text: str) -> None:
    assert printable(text) == text


@given(st.floats(-10, 10))
def test_a_share_is_written_to_a_tenth_of_a_per_cent(share: float) -> None:
    assert abs(float(points(share).replace("−", "-")) - 100 * share) <= 0.05 + 1e-9
    assert (
        abs(float(percent(share).removesuffix(" %").replace("−", "-")) - 100 * share) <= 0.05 + 1e-9
    )


def test_only_a_whole_figure_is_written_without_a_decimal() -> None:
    assert percent(0.29) == "29 %"
    assert percent(0.9999) == "100.0 %"


def test_an_interval_that_is_the_figure_itself_is_left_out() -> None:
    assert interval(Estimate(value=1.0, low=1.0, high=1.0)) == ""
    assert interval(Estimate(value=1.0, low=0.9, high=1.0)) == "90.0 to 100.0"
    assert interval(Estimate(value=0.5)) == interval(Estimate(value=None, low=0.0, high=1.0)) == ""


@given(st.floats(0, 10**6))
def test_a_duration_never_shows_sixty(seconds: float) -> None:
    assert not re.search(r"\b60 (s|min)\b", duration(seconds))


@given(st.integers(0, 10**13))
def test_a_size_is_within_a_per_cent(count: int) -> None:
    number, unit = size(count).split()
    assert (
        abs(float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit] - count) <= 0.01 * count
    )


@given(st.floats(1e-10, 10**9))
def test_an_amount_is_within_a_twentieth_and_its_first_figures_are_shown(amount: float) -> None:
    assert abs(float(money(amount).replace(",", "")) - amount) <= 0.051 * amount


def test_long_text_is_cut_and_tells_its_length() -> None:
    assert clipped("x" * 5000, 10) == "xxxxxxxxxx… (5,000 characters)"
    assert clipped("x" * 10, 10) == "x" * 10


def test_one_is_singular() -> None:
    assert [counted(number, "answer") for number in (0, 1, 2)] == [
        "0 answers",
        "1 answer",
        "2 answers",
    ]


def test_settings_that_are_nested_or_listed_are_all_told() -> None:
    assert flattened({"a": {"b": {"c": 1}}, "d": [1, True, None], "e": {}}) == [
        ("a · b · c", "1"),
        ("d", "1, yes, none"),
    ]


def test_a_command_in_words_is_quoted_for_a_shell() -> None:
    assert (
        command_line({"command": ["domainfusion", "demo", "--output-dir", "my run"]})
        == "domainfusion demo --output-dir 'my run'"
    )
    assert command_line({"command": "domainfusion demo"}) == "domainfusion demo"
    assert command_line({}) == ""
