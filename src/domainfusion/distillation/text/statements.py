"""Whether a text states an answer: it stands there as whole words, in one of its forms, and is not
denied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from domainfusion.distillation.text.denial import MOST_SPANS, is_denied
from domainfusion.distillation.text.quantities import Stated, read_quantities
from domainfusion.distillation.text.sentences import Span
from domainfusion.distillation.text.units import UNSPACED
from domainfusion.distillation.text.words import (
    ARTICLES,
    MARKS,
    MONTHS,
    Rendered,
    fold,
    folded,
    render,
)

_SPACED = rf"[^\W{UNSPACED}]"
"""A letter or digit of a script that sets words apart."""
_KATAKANA = "\u30a1-\u30ff"
_HANGUL = "\uac00-\ud7a3"
_MOST_SYMBOL_LETTERS = 3


def states(text: str, answer: str) -> bool:
    """Whether a text says that an answer is right: it stands there as whole words, and is not
    denied.

    Case, accents, articles, markup, and the form of quotes, dashes and digits aside. An `A` that
    ends an answer is not an article. An answer of up to three letters, such as a symbol or a code,
    has to be there in its own case: indium's `In` is not the word "in". Where words are not set
    apart by spaces, the answer may stand inside of a longer run; and a number is the same in every
    form.

    Example:
        >>> states("It is in Niger.", "Niger"), states("It is in Nigeria.", "Niger"), states("Dial +4420.", "+44")
        (True, False, False)
        >>> states("It is found in ores.", "In"), states("Its symbol is **In**.", "In"), states("日本の首都は東京です。", "東京")
        (False, True, True)
        >>> states("It is 3.5.", "3"), states("It is –40 °C.", "40 °C"), states("It is 1,064 °C.", "1064 °C")
        (False, False, True)
        >>> states("It is not Lima.", "Lima"), states("Lima is wrong.", "Lima"), states("Not Quito, but Lima.", "Lima")
        (False, False, True)
    """
    seen = render(text).text
    return any(not is_denied(seen, span) for span in islice(spans_of(seen, answer), MOST_SPANS))


def spans_of(seen: str, answer: str) -> Iterator[Span]:
    """Yields where an answer stands in a rendered text."""
    wanted = render(answer).text.strip()
    words = fold(wanted).split()
    if not words:
        return
    found = False
    plain = _folded(seen)
    flags = _FLAG.findall(wanted)
    for span in _spans_in_its_words(seen, plain, wanted, words):
        found = True
        if not flags or _FLAG.findall(seen[span.start : span.end]) == flags:
            yield span
    if len(wanted) > _LONGEST_PATTERN:
        return
    others = "" if found else _forms_of_date(fold(wanted)) or _forms_of_world_war(fold(wanted))
    if others:
        # Not inside of a longer number, path or word.
        for match in re.finditer(rf"(?<![\w./-])(?:{others})(?![\w/-])", plain.text):
            found = True
            yield Span(plain.places[match.start()], plain.places[match.end() - 1] + 1)
    if not found:
        yield from _same_quantity(seen, wanted)


_LONGEST_KEPT = 20_000
"""Characters of a text that is kept as it is compared: one answer is looked at for several others in a
row, and the places of a long one take 40 bytes a character.
"""


def _folded(text: str) -> Rendered:
    """Returns a text as it is compared."""
    return _kept(text) if len(text) <= _LONGEST_KEPT else folded(render(text))


@lru_cache(maxsize=8)
def _kept(text: str) -> Rendered:
    return folded(render(text))


_LONGEST_PATTERN = 2_000
"""Characters of an answer from which on only its own words are looked for, with its articles and in
the forms that it has them in.
"""


def _spans_in_its_words(
    seen: str, plain: Rendered, wanted: str, words: Sequence[str]
) -> Iterator[Span]:
    """Yields where an answer stands in a text in its own words, or in forms of these.

    Args:
        seen: The rendered text.
        plain: The same, folded.
        wanted: The rendered answer.
        words: Its words, folded.
    """
    bounds = _bounds_of(wanted, is_ascii=seen.isascii())
    if len(wanted) > _LONGEST_PATTERN:
        yield from _long_spans(plain, _folded(wanted).text, bounds)
        return
    text, places = plain.text, plain.places
    if len(words) == 1 and (words[0] in ARTICLES or is_symbol(wanted)):
        # Without the caret before a raised symbol: m^2 as m2.
        text, pattern = _CARET.sub("", seen), re.escape(_CARET.sub("", wanted))
        places = [place for place in range(len(seen) + 1) if not _is_power(seen, place)]
    else:
        folded_words = _folded(wanted).text.split()
        kept = [word for word in folded_words[:-1] if word not in ARTICLES] + folded_words[-1:]
        forms = _forms_of_words(kept)
        if any(
            word not in text and form == re.escape(word)
            for word, form in zip(kept, forms, strict=True)
        ):
            return  # to compile a pattern takes longer than all else
        pattern = r" (?:(?:a|an|the) )*".join(forms)
    for match in re.finditer(f"{bounds.begins}(?:{pattern}){bounds.ends}", text):
        yield Span(places[match.start()], places[match.end() - 1] + 1)


def _long_spans(plain: Rendered, wanted: str, bounds: _Bounds) -> Iterator[Span]:
    """Yields where a long answer stands in a text; both are folded."""
    begins, ends = re.compile(bounds.begins), re.compile(bounds.ends)
    start = plain.text.find(wanted)
    for _ in range(MOST_SPANS):
        if start < 0:
            return
        end = start + len(wanted)
        if begins.match(plain.text, start) and ends.match(plain.text, end):
            yield Span(plain.places[start], plain.places[end - 1] + 1)
        start = plain.text.find(wanted, start + 1)


# The caret before a raised symbol.
_CARET = re.compile(r"(?<=[^\W\d_)])\^")
_FLAG = re.compile(r"(?<!\S)-{1,2}[A-Za-z][\w-]*")
"""A flag of a command, which has a case of its own: -a is not -A."""


def has_same_flags(text: str, answer: str) -> bool:
    """Whether two commands have the same flags, in the same case; true of all that has none."""
    return _FLAG.findall(text) == _FLAG.findall(answer)


# The ways to write which of the two world wars it is.
_WORLD_WAR = re.compile(
    r"(?:the )?(?:world war (?P<roman>i{1,2})|world war (?P<number>1|2|one|two)"
    r"|(?P<nth>first|second|1st|2nd) world war|ww ?(?P<short>i{1,2}|1|2))"
)


def _forms_of_world_war(answer: str) -> str:
    """Returns a pattern of the names of one of the two world wars; empty for other answers.

    Example:
        >>> bool(re.fullmatch(_forms_of_world_war("wwii"), "second world war")), _forms_of_world_war("war")
        (True, '')
    """
    said = _WORLD_WAR.fullmatch(answer)
    if said is None:
        return ""
    if next(name for name in said.groups() if name) in ("i", "1", "one", "first", "1st"):
        return r"world war (?:i|1|one)|(?:first|1st) world war|ww ?(?:i|1)"
    return r"world war (?:ii|2|two)|(?:second|2nd) world war|ww ?(?:ii|2)"


_NUMBERINGS = """
    1 one first i
    2 two second ii
    3 three third iii
    4 four fourth iv
    5 five fifth v
    6 six sixth vi
    7 seven seventh vii
    8 eight eighth viii
    9 nine ninth ix
    10 ten tenth x
    11 eleven eleventh xi
    12 twelve twelfth xii
"""
_NUMBERED = [tuple(line.split()) for line in _NUMBERINGS.strip().splitlines()]
_SHORT_TITLES = {"mount": r"mt\.?", "saint": r"st\.?", "doctor": r"dr\.?", "professor": r"prof\.?"}


def _forms_of_words(words: Sequence[str]) -> list[str]:
    """Returns a pattern for each word of an answer."""
    last = len(words) - 1
    return [
        _forms_of_word(
            word,
            is_alone=last == 0,
            is_numbering=0 < place == last and words[place - 1].isalpha(),
        )
        for place, word in enumerate(words)
    ]


@lru_cache(maxsize=4_096)
def _forms_of_word(word: str, *, is_alone: bool, is_numbering: bool) -> str:
    """Returns a pattern of the forms in which people write one word of an answer: Mt. for Mount, 1st
    for first, and after a name 2 or two for II, and the Eighth for VIII.

    Args:
        word: The word, folded.
        is_alone: Whether it is the whole answer.
        is_numbering: Whether it is the last word, and follows a name.
    """
    forms = [re.escape(word)]
    for long, short in _SHORT_TITLES.items():
        if not is_alone and re.fullmatch(rf"{long}|{short}", word):
            forms += [long, short]
    for number, cardinal, ordinal, roman in _NUMBERED:
        nth = rf"{number}(?:st|nd|rd|th)"
        if re.fullmatch(rf"{ordinal}|{nth}", word):
            forms += [ordinal, nth]
        # A single letter may be a letter: vitamin X, Malcolm X.
        if is_numbering and word in (roman, number, cardinal) and len(roman) > 1:
            forms += [roman, number, cardinal]
        if is_numbering and word == roman and len(roman) > 1:
            forms += [rf"(?:the )?(?:{ordinal}|{nth})"]
        if is_numbering and word == ordinal and len(roman) > 1:
            forms += [roman]
    return f"(?:{'|'.join(dict.fromkeys(forms))})" if len(forms) > 1 else forms[0]


_NAMED_MONTH = rf"(?P<month>{'|'.join(MONTHS)}|{'|'.join(name[:3] for name in MONTHS)}|sept)\.?"
_GOLD_DATES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?P<day>\d{{1,2}})(?:st|nd|rd|th|\.)? (?:of )?{_NAMED_MONTH},? (?P<year>\d{{4}})",
        rf"{_NAMED_MONTH} (?:the )?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<year>\d{{4}})",
        r"(?P<year>\d{4})-(?P<number>\d{2})-(?P<day>\d{2})",
    )
)
"""Forms of an accepted answer that is a whole date and nothing else: 20 July 1969, July 20, 1969,
1969-07-20. A date of numbers alone may have the day or the month first, and has no other forms.
"""
_NTH = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth",
    "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth", "twentieth",
    "twenty[- ]first", "twenty[- ]second", "twenty[- ]third", "twenty[- ]fourth", "twenty[- ]fifth", "twenty[- ]sixth",
    "twenty[- ]seventh", "twenty[- ]eighth", "twenty[- ]ninth", "thirtieth", "thirty[- ]first",
)  # fmt: skip
_NTH_IN_WORDS = rf"(?P<nth>{'|'.join(sorted(_NTH, key=len, reverse=True))})"
_GOLD_DAYS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?:the )?(?:(?P<day>\d{{1,2}})(?:st|nd|rd|th|\.)?|{_NTH_IN_WORDS}) (?:of )?{_NAMED_MONTH}",
        rf"{_NAMED_MONTH} (?:the )?(?:(?P<day>\d{{1,2}})(?:st|nd|rd|th)?|{_NTH_IN_WORDS})",
    )
)
"""Forms of an accepted answer that is a day of the year: 20 July, the twentieth of July."""
# A year with its era: 44 BC, AD 79, 79 CE.
_GOLD_ERA = re.compile(r"(?P<bc>\d{1,4} b\.?c\.?(?:e\.?)?)|a\.?d\.? ?\d{1,4}|\d{1,4} (?:ad|ce)")


def _forms_of_date(answer: str) -> str:
    """Returns a pattern of the forms of a date or of a year with its era; empty for other answers.

    Example:
        >>> bool(re.fullmatch(_forms_of_date("20 july 1969"), "july 20th, 1969")), _forms_of_date("july")
        (True, '')
    """
    if era := _GOLD_ERA.fullmatch(answer):
        year = re.sub(r"\D", "", answer)
        if era["bc"]:
            return rf"{year} ?b\.?c\.?(?:e\.?)?"
        return rf"a\.?d\.? ?{year}|{year} ?(?:a\.?d\.?|c\.?e\.?)"
    if day_of_year := _forms_of_day(answer):
        return day_of_year
    said = next((match for form in _GOLD_DATES if (match := form.fullmatch(answer))), None)
    if said is None:
        return ""
    parts = said.groupdict()
    number = (
        next(place for place, name in enumerate(MONTHS, 1) if name[:3] == parts["month"][:3])
        if parts.get("month")
        else int(parts["number"])
    )
    if not 1 <= number <= 12:
        return ""
    day, year = int(parts["day"]), parts["year"]
    name = MONTHS[number - 1]
    month = rf"(?:{name}|{name[:3]}\.?{'|sept' if number == 9 else ''})"
    nth = rf"(?:0?{day}(?:st|nd|rd|th|\.)?{_in_words(day)})"
    return (
        rf"{nth} (?:of )?{month},? {year}|{month} (?:the )?{nth},? {year}"
        rf"|{year}-{number:02}-{day:02}|0?{day}[./] ?0?{number}[./] ?{year}|0?{number}/0?{day}/{year}"
    )


def _in_words(day: int) -> str:
    return f"|{_NTH[day - 1]}" if 1 <= day <= len(_NTH) else ""


def _forms_of_day(answer: str) -> str:
    """Returns a pattern of the forms of a day of the year; empty for other answers.

    Example:
        >>> bool(re.fullmatch(_forms_of_day("20 july"), "twentieth of july")), _forms_of_day("july")
        (True, '')
    """
    said = next((match for form in _GOLD_DAYS if (match := form.fullmatch(answer))), None)
    if said is None:
        return ""
    day = int(said["day"]) if said["day"] else _place_of_nth(said["nth"])
    if not 1 <= day <= len(_NTH):
        return ""
    name = next(month for month in MONTHS if month[:3] == said["month"][:3])
    month = rf"(?:{name}|{name[:3]}\.?{'|sept' if name == 'september' else ''})"
    nth = rf"(?:0?{day}(?:st|nd|rd|th|\.)?{_in_words(day)})"
    return rf"{nth} (?:of )?{month}|{month} (?:the )?{nth}"


def _place_of_nth(word: str) -> int:
    return next(place for place, form in enumerate(_NTH, 1) if re.fullmatch(form, word))


def is_symbol(wanted: str) -> bool:
    """Whether an answer is so short that its case tells it from a word: In, Co, EUR."""
    return len(wanted) <= _MOST_SYMBOL_LETTERS and wanted != wanted.lower()


def _is_power(seen: str, place: int) -> bool:
    return (
        0 < place < len(seen)
        and seen[place] == "^"
        and (seen[place - 1].isalpha() or seen[place - 1] == ")")
    )


class _Bounds(NamedTuple):
    """Patterns of what may stand before and after an answer."""

    begins: str
    ends: str


_IS_SPACED = re.compile(_SPACED)
_IS_KATAKANA = re.compile(f"[{_KATAKANA}]+")
_IS_HANGUL = re.compile(f"[{_HANGUL}]")


def _bounds_of(wanted: str, *, is_ascii: bool) -> _Bounds:
    """Returns what has to hold around an answer, so that whole words and whole numbers are found.

    Args:
        wanted: The answer.
        is_ascii: Whether the text is ASCII, in which the classes of other letters and of marks, that
            take long to compile, find nothing.
    """
    first, last = wanted[0], wanted[-1]
    letter, mark = (r"\w", "") if is_ascii else (_SPACED, f"[{MARKS}]")
    begins = ends = ""
    if _IS_SPACED.match(first):
        # prefixes that Arabic and Hebrew write as one with the word: and, in, to, the
        glued = {"\u0600": r"(?:(?<![^\W])[\u0648\u0641]?[\u0628\u0643\u0644]?(?:\u0627\u0644)?)",
                 "\u0590": r"(?:(?<![^\W])[\u05d1\u05dc\u05de\u05d4\u05d5\u05e9\u05db]{1,2})"}  # fmt: skip
        prefix = next(
            (glued[block] for block in glued if block <= first <= chr(ord(block) + 0xFF)), ""
        )
        begins = f"(?:(?<!{letter})|{prefix})" if prefix else f"(?<!{letter})"
    if first.isdecimal():
        # no part of a longer number, no negative one, and not the second group of 1 064
        begins += r"(?<!\d[.,'/:^])(?<!\^-)(?<![^\w)][-–])(?<!\A[-–])(?<!minus )(?<!negative )"
        if re.match(r"\d{3}(?!\d)", wanted):
            begins += r"(?<!\d )"
    if _IS_SPACED.match(last):
        ends = f"(?!{letter}|{mark})" if mark else f"(?!{letter})"
    elif mark and re.match(r"\w", last):
        ends = f"(?!{mark})"
    if last.isdecimal():
        ends += r"(?![.,'/:]\d|\^[-\d]| \d{3}(?!\d)|\s?[×·*x]\s?10\^|e[-+]?\d)"
    if _IS_KATAKANA.fullmatch(wanted):
        begins, ends = f"(?<![{_KATAKANA}])", f"(?![{_KATAKANA}])"
    if _IS_HANGUL.match(first):
        begins = f"(?<![{_HANGUL}])"
    return _Bounds(begins, ends)


def _same_quantity(seen: str, wanted: str) -> Iterator[Span]:
    """Yields the quantities that are the wanted one in another form, where the answer is a number:
    1,064 and 1064.
    """
    # A number without a leading zero, which would be a code; or a text, which needs a digit or a word.
    if not re.match(r"[-–]?[$€£¥]?(?:[1-9]|0(?![\d])|[^\d+\W])", wanted) or not re.search(
        r"[\d½]|[a-z]{3}", wanted
    ):
        return
    gold = _only_quantity(wanted)
    if gold is None:
        return
    for stated in read_quantities(seen):
        if stated.kind == gold.kind and _is_equal(stated, gold):
            yield Span(stated.start, stated.end)


def _only_quantity(wanted: str) -> Stated | None:
    found = read_quantities(wanted)
    return (
        found[0] if len(found) == 1 and (found[0].start, found[0].end) == (0, len(wanted)) else None
    )


def _is_equal(one: Stated, other: Stated) -> bool:
    if one.quantity.dimension != other.quantity.dimension:
        return False
    slack = 1e-9 * max(abs(one.quantity.middle), abs(other.quantity.middle))
    return abs(one.quantity.middle - other.quantity.middle) <= slack and (
        one.first == one.last
    ) == (other.first == other.last)
