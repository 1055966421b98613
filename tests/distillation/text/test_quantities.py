"""Quantities: each is read wherever it is written and however, and no text raises or takes long."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domainfusion.distillation.text.digits import (
    _DIGITS,
    _FOREIGN_VALUES,
    _PORTIONS,
    _RUSSIAN_VALUES,
    NUMBER_WORDS,
    SCALES,
    _runs_of_digits,
    matches_in_words,
)
from domainfusion.distillation.text.quantities import Stated, read_quantities
from domainfusion.distillation.text.units import base_units_of, parse_unit, unit_at
from domainfusion.distillation.text.words import render


def read(text: str) -> list[tuple[float, float, str]]:
    return [(stated.first, stated.last, stated.unit) for stated in read_quantities(text)]


def only(text: str) -> Stated:
    (stated,) = read_quantities(text)
    return stated


@pytest.mark.parametrize(
    ("text", "number", "unit"),
    [
        ("It melts at 1.064 × 10³ °C.", 1064, "degree_Celsius"),
        ("It melts at 1,064 °C.", 1064, "degree_Celsius"),
        ("It melts at 1\u202f064 °C.", 1064, "degree_Celsius"),
        ("It melts at 1 064 °C.", 1064, "degree_Celsius"),
        ("Es schmilzt bei 1.064,5 °C.", 1064.5, "degree_Celsius"),
        ("Der Berg ist 1.064 m hoch.", 1064, "meter"),
        ("The wire is 1.064 m long.", 1.064, "meter"),
        ("It is 1'000 m away.", 1000, "meter"),
        ("Es wiegt 3,5 kg.", 3.5, "kilogram"),
        ("It is –40 °C.", -40, "degree_Celsius"),
        ("It is −40 °C.", -40, "degree_Celsius"),
        ("It is minus 40 °C.", -40, "degree_Celsius"),
        (r"It is $-40\,^{\circ}\mathrm{C}$.", -40, "degree_Celsius"),
        ("about twenty-one km", 21, "kilometer"),
        ("two hundred and six bones", 206, ""),
        ("a 4-door car", 4, ""),
        ("half an hour", 0.5, "hour"),
        ("one year", 1, "year"),
        ("8 minutos", 8, "minute"),
        ("zwölf Stunden", 12, "hour"),
        ("重さは4克です", 4, "gram"),
        ("三十分钟", 30, "minute"),
        ("約3万円", 30_000, "yen"),
        ("около 5 км", 5, "kilometer"),
        ("１２ ％", 12, "percent"),
        ("٤٢ كيلومتر", 42, "kilometer"),
        ("12 per cent", 12, "percent"),
        ("12 Prozent", 12, "percent"),
        ("20 million euros", 2e7, "euro"),
        ("$1.5bn", 1.5e9, "US_dollar"),
        ("CHF 1'500", 1500, "swiss_franc"),
        ("2½ km", 2.5, "kilometer"),
        (r"\frac{1}{2} km", 0.5, "kilometer"),
        (r"$3 \times 10^{8}$ m/s", 3e8, "meter / second"),
        ("10^6 J", 1e6, "joule"),
        ("3.0e8 m s⁻¹", 3e8, "meter * second ** -1"),
        ("2 mg per kg", 2, "milligram / kilogram"),
        ("1.6 g of protein per kilogram of body weight", 1.6, "gram / kilogram"),
        ("2 hours and 30 minutes", 2.5, "hour"),
        ("5 &times; 10<sup>3</sup>&nbsp;m", 5000, "meter"),
        ("**42** km", 42, "kilometer"),
        ("at 10:30 pm", 22.5, "hour"),
        ("30 square metres", 30, "meter ** 2"),
        ("3 cm per decade", 3, "centimeter / decade_of_years"),
    ],
)
def test_a_quantity_is_read_however_it_is_written(text: str, number: float, unit: str) -> None:
    stated = only(text)
    assert (stated.first, stated.last) == pytest.approx((number, number))
    assert stated.unit == unit


@pytest.mark.parametrize(
    ("text", "first", "last", "unit"),
    [
        ("1.6 to 2.2 g", 1.6, 2.2, "gram"),
        ("1,6 bis 2,2 g", 1.6, 2.2, "gram"),
        ("between 5 and 7 km", 5, 7, "kilometer"),
        ("zwischen 5 und 7 km", 5, 7, "kilometer"),
        ("de 5 à 7 km", 5, 7, "kilometer"),
        ("5–7 km", 5, 7, "kilometer"),
        ("5 km to 7,000 m", 5000, 7000, "meter"),
        ("−10 to −5 °C", -10, -5, "degree_Celsius"),
        ("15 % - 20 %", 15, 20, "percent"),
        ("1.6 to 2.2 million people", 1.6e6, 2.2e6, ""),
        ("5 ± 0.5 mm", 4.5, 5.5, "millimeter"),
        ("$5-$7", 5, 7, "US_dollar"),
        ("10至15分钟", 10, 15, "minute"),
    ],
)
def test_a_range_is_one_quantity(text: str, first: float, last: float, unit: str) -> None:
    stated = only(text)
    assert stated.kind == "range"
    assert (stated.first, stated.last) == pytest.approx((first, last))
    assert stated.unit == unit


@pytest.mark.parametrize(
    "text",
    [
        "1,2-dichloroethane",
        "K2, B7 and CO₂ in 3D",
        "version 1.2.3 at 192.168.1.1",
        "one of the best",
        "9" * 310,
        "1e999",
        "10^99999",
    ],
)
def test_what_is_not_a_number_or_fits_in_none_is_not_read(text: str) -> None:
    assert read_quantities(text) == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Come at 3 in the morning.", [3]),
        ("a score of 3-2", [3, 2]),
        ("call 555-1234-99", [555, 1234, 99]),
        ("in the 1990s", [1990]),
        ("It is 10\n\nPassage: the 2011 census", [10, 2011]),
        ("2 km, 3000 m", [2, 3000]),
    ],
)
def test_numbers_that_do_not_belong_together_stay_apart(text: str, numbers: list[float]) -> None:
    assert [first for first, _, _ in read(text)] == numbers


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("at least 5 km", [5e3, 9e9], [4e3]),
        ("5 km or more", [5e3, 9e9], [4e3]),
        ("10+ km", [10e3, 9e9], [9e3]),
        ("less than 5 km", [4e3, -1], [6e3]),
        ("höchstens 5 km", [4e3], [6e3]),
        ("about 100 km", [98e3, 102e3], [90e3, 110e3]),
        ("100 km", [96e3, 104e3], [94e3, 106e3]),
        ("100 km to 200 km", [100e3, 150e3, 200e3], [90e3, 210e3]),
    ],
)
def test_bounds_and_roughness_are_an_interval(
    text: str, inside: list[float], outside: list[float]
) -> None:
    interval = only(text).quantity
    assert interval.dimension == "[length]"
    assert all(interval.low <= metres <= interval.high for metres in inside)
    assert not any(interval.low <= metres <= interval.high for metres in outside)


LOOKALIKES = {"i": "ıİ", "s": "ſ", "k": "\u212a", "µ": "μ"}
"""Letters that patterns take for another one when case does not matter."""


@pytest.mark.parametrize("space", ["\n", "\x0b", "\x1c", "\x85", "\u2009", "\u3000", "-", ""])
def test_a_word_for_a_number_or_a_scale_may_stand_on_the_next_line(space: str) -> None:
    """As where an answer's lines are wrapped."""
    for word in (*SCALES, *_FOREIGN_VALUES, *_PORTIONS):
        for text in (f"It is 5{space}{word} now.", f"five{space}{word}", f"one{space}{word} km"):
            read_quantities(text)
    assert only(f"It has 5{space}million people.").first == 5e6


def test_letters_that_patterns_take_for_others_are_read() -> None:
    for word in (*SCALES, *_FOREIGN_VALUES, *_PORTIONS):
        for letter, others in LOOKALIKES.items():
            for other in others:
                changed = word.replace(letter, other)
                for text in ("It is 5 {} km.", "It is {} km.", "one {} of it"):
                    read_quantities(text.format(changed))
    for text in ("It has 5 mıllion people.", "It has 5 MİLLION people."):
        assert only(text).first == 5e6
    assert only("Es sind vıer km.").first == 4.0


FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")


@given(
    value=st.integers(0, 999_999),
    unit=st.sampled_from(["", " km", " %", " °C", "kg", " years"]),
    before=st.sampled_from(["It is ", "是", "*", "("]),
)
def test_a_number_is_the_same_in_every_form(value: int, unit: str, before: str) -> None:
    grouped = f"{value:,}"
    forms = [
        grouped,
        str(value),
        grouped.replace(",", "\u00a0"),
        f"{value}.0",
        str(value).translate(FULL_WIDTH),
    ]
    assert {only(f"{before}{form}{unit}.").first for form in forms} == {float(value)}


texts = st.text(
    st.one_of(st.characters(), st.sampled_from("0123456789.,'/^-–± e%°$€kmgx×·₂²½{}\\_*&;:[]()&")),
    max_size=60,
)

pieces = [
    "to",
    "and",
    "5",
    "km",
    "per",
    "decade",
    "-",
    "about",
    "one",
    "1e9",
    "million",
    "%",
    "°C",
    "between",
    "×",
    "10",
    "^",
    "at least",
]
almost = st.lists(st.sampled_from(pieces), max_size=12).map(" ".join)


@given(text=st.one_of(texts, almost))
@example("declines 3 to 8 percent per decade")
@example("9" * 5000)
@example("2^-99999999 0^-1 1/0 0/0")
@example("1 dB/dB per °C per °F per pH")
def test_any_text_is_read_and_each_quantity_stands_where_it_is_said_to(text: str) -> None:
    found = read_quantities(text)
    assert all(0 <= one.start < one.end <= len(text) for one in found)
    assert all(one.end <= other.start for one, other in itertools.pairwise(found))
    assert all(one.quantity.low <= one.quantity.middle <= one.quantity.high for one in found)
    places = render(text).places
    assert (
        list(places) == sorted(places)
        and places[-1] == len(text)
        and len(places) == len(render(text).text) + 1
    )


@pytest.mark.parametrize(
    "piece",
    [
        "It takes about 3 km or 5 kg. ",
        "9",
        " 000",
        "1.000.",
        "-",
        "^{",
        "\\frac{",
        "$a ",
        "一",
        "*",
        "&",
        "to ",
    ],
)
def test_200_kilobytes_are_read_in_a_few_seconds(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    began = time.process_time()
    read_quantities(text)
    assert time.process_time() - began < 15  # a text that took quadratic time would take hours


number_words = st.sampled_from(
    [
        *_FOREIGN_VALUES,
        *_RUSSIAN_VALUES,
        *("a", "an", "half", "dozen", "hundred", "one", "seventeen", "ninety", "million", "and"),
        *(
            "third",
            "point",
            "zero",
            "TWO",
            "ſeis",
            "MİL",
            "vıngt",
            "SIX",
            "дᲀа",
            "百万",
            "三",
            "tên",
        ),
    ]
)
between = st.sampled_from([" ", "-", ", ", "", ".", "_", "\u0301", " and ", " a half "])
numerals = st.lists(
    st.one_of(number_words, st.text("0123456789.,'- ^/–+:xaé٣", max_size=8), st.text(max_size=3)),
    max_size=8,
)


@given(words=numerals, joints=st.lists(between, min_size=8, max_size=8))
def test_looking_where_a_number_may_begin_finds_what_the_whole_pattern_finds(
    words: list[str], joints: list[str]
) -> None:
    text = "".join(map("".join, zip(words, joints, strict=False)))
    for quick, pattern in ((matches_in_words, NUMBER_WORDS), (_runs_of_digits, _DIGITS)):
        assert [found.span() for found in quick(text)] == [
            found.span() for found in pattern.finditer(text)
        ]


def test_units_are_read_to_where_they_end() -> None:
    assert unit_at("20 people", 2) is None
    assert unit_at("5 km/h on the road", 1) == ("kilometer / hour", 6)
    assert parse_unit("metres hours") == ""
    assert base_units_of("percent / decade_of_years") is not None
