"""Numbers in a text: how digits, separators, powers, fractions and words are read as one number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import inf, isfinite
from typing import Literal, NamedTuple

from domainfusion.distillation.text.numerals import NUMBER_WORDS, number_in_words
from domainfusion.distillation.text.units import UNSPACED

Kind = Literal["number", "range", "ordinal", "clock"]
"""How a quantity is given: as a number, as a range of them, as a place in a row, or as a time of
day.
"""


class Number(NamedTuple):
    """A number in a rendered text.

    Attributes:
        start: Where it begins, its sign included.
        end: Where it ends.
        value: The number.
        step: What its last digit that counts is worth.
        is_whole: Whether it has neither decimals nor a power of ten.
        in_words: Whether it is written in words.
        kind: A number, an ordinal or a time of day.
        needs_unit: Whether it is a quantity only where a unit follows, as "one" and numbers in
            other languages are.
        is_signed: Whether it has a sign of its own.
    """

    start: int
    end: int
    value: float
    step: float
    is_whole: bool
    in_words: bool = False
    kind: Kind = "number"
    needs_unit: bool = False
    is_signed: bool = False


_LEAST_DIGITS = 2
"""Significant digits that a rounded number keeps at least: 100 stands for 95 to 105, not for 50 to
150.
"""

LETTER = rf"[^\W\d_{UNSPACED}]"
"""A letter of a script that sets words apart: a number that touches one is a part of a word, such
as K2.
"""
_NOT_IN_WORD = rf"(?<!{LETTER})(?<![\d_])"
_SIGN = r"(?P<sign>(?<![\w)\]%°'\"])[-+–](?=[\d.]))?"
_DIGITS = re.compile(
    rf"{_NOT_IN_WORD}(?<![.,/:^]){_SIGN}{_NOT_IN_WORD}"
    r"(?P<digits>(?:[1-9]\d{0,2}(?: \d{3}(?!\d)){1,8}|\d+)(?:[.,']\d+)*|(?<![\d.])\.\d+)"
)
_POWER_OF_TEN = re.compile(r"\s?[x×·*]\s?10\s?\^\s?([-+–]?\d{1,6})|[eE]([-+]?\d{1,6})(?!\w)")
_POWER = re.compile(r"\^\s?([-+]?\d{1,6})(?!\w)")
_FRACTION = re.compile(r" ?/ ?(\d{1,6})(?![\d/]|[.,]\d)")
_MIXED = re.compile(r" (\d{1,3})/(\d{1,3})(?![\d/]|[.,]\d)")
_CLOCK = re.compile(r":([0-5]\d)(?::([0-5]\d))?(?![\d:])(?:\s?([ap])\.?m\b\.?)?", re.IGNORECASE)
_HALF_DAY = re.compile(r"\s?([ap])\.?m\b\.?", re.IGNORECASE)
_ORDINAL = re.compile(r"(?:st|nd|rd|th|\.º|º|ª|er|ème|th)(?!\w)")
_LOCANT = re.compile(
    r"(?:,\d+)*-(?=[A-Za-z(])[a-z]*(?:meth|eth|prop|but(?:an|en|yl|yr)|pent|hex|hept|oct|benz|phen|tolu|chlor|brom|fluor"
    r"|iod|nitro|hydroxy|amino|oxo|cyclo)[a-z]*"
)
"""A place in a molecule: 1,2-dichloroethane has no number."""

_MINUS = re.compile(
    r"(?:(?<!\w)(?:minus|negative|moins|menos|meno|минус)\s|零下|负|負|マイナス|영하\s?)$",
    re.IGNORECASE,
)


def numbers_in(text: str) -> Iterator[Number]:
    """Yields the numbers of a rendered text in order."""
    has_decimal_comma = _writes_decimal_commas(text)
    found = [*_in_digits(text, has_decimal_comma), *_in_words(text)]
    end = 0
    for number in sorted(found, key=lambda number: (number.start, -number.end)):
        if number.start >= end:
            yield number
            end = number.end


_CERTAIN_COMMA = re.compile(
    r"(?<![\d.,])(?:0,\d|\d+,(?:\d{1,2}|\d{4,})(?![\d,])|\d{1,3}(?:\.\d{3})+,\d)"
)
_CERTAIN_POINT = re.compile(
    r"(?<![\d.,])(?:0\.\d|\d+\.(?:\d{1,2}|\d{4,})(?![\d.])|\d{1,3}(?:,\d{3})+\.\d)"
)
_FOREIGN = re.compile(
    r"\b(?:ist|sind|beträgt|liegt|und|bis|etwa|ungefähr|zwischen|eine?[nmrs]?|est|sont|entre|jusqu|environ|une|des|tiene|hasta|"
    r"aproximadamente|según|los|las|sono|della|het|een|tussen|são|uma|от|до|составляет|около|в|на)\b",
    re.IGNORECASE,
)
_ENGLISH = re.compile(r"\b(?:is|are|the|of|about|and|it|its|at|with|has|was)\b", re.IGNORECASE)
_AMBIGUOUS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}[.,]\d{3}(?![\d.,]\d|\d)")
"""1.064 or 1,064: which of the two has decimals is for the rest of the text to say."""


def _writes_decimal_commas(text: str) -> bool:
    """Whether a text sets decimals apart with a comma: by its other numbers, else by its
    language.
    """
    if not _AMBIGUOUS.search(text):
        return False
    if _CERTAIN_POINT.search(text):
        return False
    if _CERTAIN_COMMA.search(text):
        return True
    return len(_FOREIGN.findall(text)) > len(_ENGLISH.findall(text))


def _in_digits(text: str, has_decimal_comma: bool) -> Iterator[Number]:
    skip_to = 0
    for match in _DIGITS.finditer(text):
        if match.start() < skip_to:
            continue
        if locant := _LOCANT.match(text, match.end("digits")):
            skip_to = locant.end()
            continue
        for number in _read_run(text, match, has_decimal_comma):
            skip_to = number.end
            if isfinite(number.value):
                yield number


def _read_run(text: str, match: re.Match[str], has_decimal_comma: bool) -> Iterator[Number]:
    """Yields the number that a run of digits and separators is; where it is a list, the numbers in
    it.
    """
    plain = _plain(match["digits"], has_decimal_comma)
    if plain is None:
        if "." in match["digits"] or "'" in match["digits"]:
            return  # a version, an address, a date
        for digits in re.finditer(r"\d+", text[match.start("digits") : match.end("digits")]):
            start = match.start("digits") + digits.start()
            yield Number(start, start + len(digits[0]), *_value_of(digits[0]))
        return
    yield _completed(text, match, plain)


def _plain(run: str, has_decimal_comma: bool) -> str | None:
    """Returns a run of digits and separators with a decimal point alone; None where it is not one
    number.
    """
    whole = run.replace(" ", "")
    if "'" in whole:
        groups = re.fullmatch(r"(\d{1,3}(?:'\d{3})+)((?:[.,]\d+)?)", whole)
        return groups[1].replace("'", "") + groups[2].replace(",", ".") if groups else None
    points, commas = whole.count("."), whole.count(",")
    if not points and not commas:
        return whole
    if points and commas:
        decimal, thousands = (".", ",") if whole.rindex(".") > whole.rindex(",") else (",", ".")
        if whole.count(decimal) > 1 or not re.match(
            rf"\d{{1,3}}(?:[{thousands}]\d{{3}})+[{decimal}]\d+\Z", whole
        ):
            return None
        return whole.replace(thousands, "").replace(decimal, ".")
    separator = "." if points else ","
    is_grouped = (
        re.fullmatch(rf"[1-9]\d{{0,2}}(?:[{separator}]\d{{3}})+", whole) is not None
        and " " not in run
    )
    if whole.count(separator) > 1:
        return whole.replace(separator, "") if is_grouped else None
    marks_thousands = is_grouped and (separator == ",") != has_decimal_comma
    return whole.replace(separator, "") if marks_thousands else whole.replace(separator, ".")


def _value_of(plain: str, power: str = "0") -> tuple[float, float, bool]:
    """Returns a number, the step it is rounded to as far as its digits tell, and whether it is a
    whole number.
    """
    value = float(f"{plain}e{power}")
    ten = float(f"1e{power}")
    whole, _, decimals = plain.partition(".")
    if decimals:
        return value, float(f"1e-{len(decimals)}") * ten, False
    zeros = len(whole) - len(whole.rstrip("0"))
    counted = max(0, min(zeros, len(whole) - _LEAST_DIGITS))
    return value, float(f"1e{counted}") * ten, power == "0"


def _completed(text: str, match: re.Match[str], plain: str) -> Number:
    """Returns a number with the power, fraction, time of day or ordinal ending that follows its
    digits.
    """
    start, end, sign = match.start(), match.end("digits"), match["sign"]
    value, step, is_whole = _value_of(plain)
    kind: Kind = "number"
    is_integer = plain.isdigit() and len(plain) <= 6
    if power := _POWER_OF_TEN.match(text, end):
        value, step, is_whole = _value_of(plain, (power[1] or power[2]).replace("–", "-"))
        end = power.end()
        if value == 0 and plain.strip("0."):
            value = inf  # no float holds it
    elif power := _POWER.match(text, end):
        value, is_whole, end = _raised(value, power[1]), False, power.end()
        step = 0.0
    elif (
        is_integer
        and (fraction := _FRACTION.match(text, end))
        and _is_fraction(int(plain), int(fraction[1]))
    ):
        value, step, is_whole, end = int(plain) / int(fraction[1]), 0.0, False, fraction.end()
    elif is_integer and (mixed := _MIXED.match(text, end)) and 0 < int(mixed[1]) < int(mixed[2]):
        value, step, is_whole, end = (
            int(plain) + int(mixed[1]) / int(mixed[2]),
            0.0,
            False,
            mixed.end(),
        )
    elif (
        is_integer
        and int(plain) < 25
        and not sign
        and (clock := _CLOCK.match(text, end) or _HALF_DAY.match(text, end))
    ):
        kind, value, step, end = "clock", _hours(int(plain), clock), 0.0, clock.end()
    elif is_integer and (ordinal := _ORDINAL.match(text, end)):
        kind, end = "ordinal", ordinal.end()
    is_negative = sign in ("-", "–")
    if not sign and (minus := _MINUS.search(text, max(0, start - 10), start)):
        start, is_negative = minus.start(), True
    return Number(
        start,
        end,
        -value if is_negative else value,
        step,
        is_whole,
        kind=kind,
        is_signed=bool(sign),
    )


def _is_fraction(top: int, under: int) -> bool:
    """Whether two numbers with a stroke between them are a fraction, and not a blood pressure of
    120/80.
    """
    return under > 0 and not (top > under and top >= 60)


def _raised(value: float, power: str) -> float:
    try:
        return float(value ** int(power))
    except (OverflowError, ZeroDivisionError):
        return inf


def _hours(hour: int, clock: re.Match[str]) -> float:
    parts = clock.groups()
    half = (parts[-1] or "").casefold()
    if half and hour <= 12:
        hour = hour % 12 + (12 if half == "p" else 0)
    minutes, seconds = (int(parts[0]), int(parts[1] or 0)) if len(parts) == 3 else (0, 0)
    return hour + minutes / 60 + seconds / 3600


def _in_words(text: str) -> Iterator[Number]:
    for match in NUMBER_WORDS.finditer(text):
        read = number_in_words(match)
        if read is None:
            continue
        step = _value_of(f"{read.value:.0f}")[1] if read.value.is_integer() else 0.0
        start, value = match.start(), read.value
        if minus := _MINUS.search(text, max(0, start - 10), start):
            start, value = minus.start(), -value
        yield Number(
            start, match.end(), value, step, read.is_exact, True, needs_unit=read.needs_unit
        )
