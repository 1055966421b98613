"""Numbers in words: English in full, small numbers of other languages before a unit, and Chinese
and Japanese numerals.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_SMALL = (
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS = ("one", *_SMALL[:8])
_VALUES = {
    "one": 1,
    **{word: number for number, word in enumerate(_SMALL, start=2)},
    **{word: 10 * number for number, word in enumerate(_TENS, start=2)},
}
_BIG = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_PORTIONS = {
    "half": 2,
    "halves": 2,
    "third": 3,
    "thirds": 3,
    "quarter": 4,
    "quarters": 4,
    "fifths": 5,
    "sixths": 6,
    "tenths": 10,
}

SCALES = {
    **_BIG,
    "hundred": 1e2,
    "dozen": 12.0,
    "thousands": 1e3, "millions": 1e6, "billions": 1e9, "mn": 1e6, "bn": 1e9, "mio.": 1e6, "mio": 1e6, "mrd.": 1e9, "mrd": 1e9,
    "mln": 1e6, "hundert": 1e2, "tausend": 1e3, "millionen": 1e6, "milliarde": 1e9, "milliarden": 1e9, "billionen": 1e12,
    "mille": 1e3, "mil": 1e3, "mil millones": 1e9, "millón": 1e6, "millones": 1e6, "milliard": 1e9, "milliards": 1e9,
    "milione": 1e6, "milioni": 1e6, "miliardi": 1e9, "milhões": 1e6, "miljoen": 1e6, "miljard": 1e9, "тысяча": 1e3,
    "тысячи": 1e3, "тысяч": 1e3, "тыс.": 1e3, "миллион": 1e6, "миллиона": 1e6, "миллионов": 1e6, "млн": 1e6, "миллиард": 1e9,
    "миллиарда": 1e9, "миллиардов": 1e9, "млрд": 1e9, "万": 1e4, "萬": 1e4, "만": 1e4, "亿": 1e8, "億": 1e8, "억": 1e8,
    "百万": 1e6, "千万": 1e7, "लाख": 1e5, "करोड़": 1e7, "lakh": 1e5, "crore": 1e7, "مليون": 1e6, "ألف": 1e3, "مليار": 1e9,
}  # fmt: skip
"""Words after a number that multiply it."""

_FOREIGN = """
    1 ein eine einer einem einen un une una uno um uma een один одна одно
    2 zwei deux dos due dois duas twee два две
    3 drei trois tres tre três drie три
    4 vier quatre cuatro quattro quatro четыре
    5 fünf cinq cinco cinque vijf пять
    6 sechs seis sei zes шесть
    7 sieben sept siete sette sete zeven семь
    8 acht huit ocho otto oito восемь
    9 neun neuf nueve nove negen девять
    10 zehn dix diez dieci dez tien десять
    11 elf onze once undici одиннадцать
    12 zwölf douze doce dodici doze twaalf двенадцать
    15 fünfzehn quinze quince quindici vijftien пятнадцать
    20 zwanzig vingt veinte venti vinte twintig двадцать
    30 dreißig dreissig trente treinta trenta trinta dertig тридцать
    40 vierzig quarante cuarenta quaranta quarenta veertig сорок
    50 fünfzig cinquante cincuenta cinquanta cinquenta vijftig пятьдесят
    60 sechzig soixante sesenta sessanta sessenta zestig шестьдесят
    100 hundert cent cien cento honderd сто
"""
_FOREIGN_VALUES = {
    word: float(number)
    for number, *words in (line.split() for line in _FOREIGN.strip().splitlines())
    for word in words
}

_HAN_DIGITS = {
    "零": 0,
    "〇": 0,
    "一": 1,
    "二": 2,
    "两": 2,
    "兩": 2,
    "三": 3,
    "四": 4,
    "五": 5,
    "六": 6,
    "七": 7,
    "八": 8,
    "九": 9,
}
_HAN_TENS = {"十": 10, "百": 100, "千": 1000}
_HAN_BIG = {"万": 10_000, "萬": 10_000, "亿": 100_000_000, "億": 100_000_000}

_BELOW_100 = (
    rf"(?:(?:{'|'.join(_TENS)})(?:[- ](?:{'|'.join(_UNITS)})(?!\w))?|{'|'.join(_SMALL[::-1])}|one)"
)
_BELOW_1000 = (
    rf"(?:(?:(?:{'|'.join(_UNITS)}|a)[- ]hundred(?:(?: and|,)? {_BELOW_100}(?!\w))?)|{_BELOW_100})"
)
_WHOLE = (
    rf"(?:{_BELOW_1000}|a(?= (?:{'|'.join(_BIG)}|dozen)\b))(?:[- ](?:{'|'.join(_BIG)})\b(?:,?(?:"
    rf" and)? {_BELOW_1000}(?!\w))?)*"
)
_AFTER_WORDS = (
    rf"(?:(?P<and_half> and a half)|[- ](?P<portion>{'|'.join(_PORTIONS)})"
    rf"|(?P<point> point(?: (?:zero|{'|'.join(_UNITS)}))+))?"
)
NUMBER_WORDS = re.compile(
    r"(?<![\w-])(?:(?P<dozen>a dozen)|(?P<half>half an?(?="
    rf" [^\W\d_]))|(?P<english>{_WHOLE}){_AFTER_WORDS}"
    rf"|(?P<foreign>{'|'.join(sorted(_FOREIGN_VALUES, key=len, reverse=True))}))(?!\w)"
    rf"|(?P<han>[{''.join((*_HAN_DIGITS, *_HAN_TENS, *_HAN_BIG))}]+)",
    re.IGNORECASE,
)
"""A number in words."""


class NumberInWords(NamedTuple):
    """A number that is written in words.

    Attributes:
        value: The number.
        is_exact: Whether it is a whole number below 10,000 that is not "a thousand" or "a dozen".
        needs_unit: Whether the words are a number only before a unit.
    """

    value: float
    is_exact: bool
    needs_unit: bool


def number_in_words(match: re.Match[str]) -> NumberInWords | None:
    """Returns the number that a match of `NUMBER_WORDS` is; None where it is none after all.

    Example:
        >>> number_in_words(NUMBER_WORDS.search("It has two hundred and six bones.")).value
        206.0
        >>> number_in_words(NUMBER_WORDS.search("四十二")).value, number_in_words(NUMBER_WORDS.search("three quarters")).value
        (42.0, 0.75)
    """
    if match["han"]:
        value = _han(match["han"])
        return None if value is None else NumberInWords(value, True, needs_unit=True)
    if match["foreign"]:
        return NumberInWords(_FOREIGN_VALUES[match["foreign"].casefold()], True, needs_unit=True)
    if match["dozen"]:
        return NumberInWords(12.0, False, needs_unit=False)
    if match["half"]:
        return NumberInWords(0.5, True, needs_unit=True)
    words = re.findall(r"[a-z]+", match["english"].casefold())
    value = _english(words)
    if match["and_half"]:
        return NumberInWords(value + 0.5, False, needs_unit=False)
    if match["portion"]:
        return NumberInWords(
            value / _PORTIONS[match["portion"].casefold()], False, needs_unit=False
        )
    if match["point"]:
        digits = "".join(
            "0" if word == "zero" else str(_VALUES[word])
            for word in match["point"].casefold().split()[1:]
        )
        return NumberInWords(float(f"{value:.0f}.{digits}"), False, needs_unit=False)
    return NumberInWords(value, words[0] != "a" and value < 10_000, needs_unit=words == ["one"])


def _english(words: list[str]) -> float:
    total, current = 0.0, 0.0
    for word in words:
        if word == "a":
            current = 1
        elif word in _VALUES:
            current += _VALUES[word]
        elif word == "hundred":
            current *= 100
        elif word in _BIG:
            total, current = total + current * _BIG[word], 0.0
    return total + current


def _han(text: str) -> float | None:
    """Returns a number in Chinese numerals; None where they are not a number."""
    if all(character in _HAN_DIGITS for character in text):
        return float("".join(str(_HAN_DIGITS[character]) for character in text[:20]))
    total, section, digit = 0, 0, 0
    for character in text[:40]:
        if character in _HAN_DIGITS:
            digit = _HAN_DIGITS[character]
        elif character in _HAN_TENS:
            section, digit = section + (digit or 1) * _HAN_TENS[character], 0
        else:
            total, section, digit = total + (section + digit or 1) * _HAN_BIG[character], 0, 0
    return float(total + section + digit)
