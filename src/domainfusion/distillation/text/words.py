"""Words: one folding of letters, one tokenizer, one list of English function words, and what makes
two questions one.
"""

from __future__ import annotations

import re
import unicodedata

from domainfusion.distillation.text.rendering import Rendered, looks_like, render

ARTICLES = frozenset(("a", "an", "the"))
FUNCTION_WORDS = frozenset((
    "a", "about", "an", "and", "are", "as", "at", "be", "been", "by", "can", "could", "did", "do", "does", "for", "from",
    "had", "has", "have", "how", "i", "if", "in", "into", "is", "it", "its", "me", "my", "of", "on", "one", "or", "our",
    "should", "so", "tell", "that", "the", "their", "there", "these", "they", "this", "those", "to", "was", "we", "were",
    "what", "when", "where", "which", "who", "whom", "whose", "why", "will", "with", "would", "you", "your",
))  # fmt: skip
"""English words that say nothing about what a text is about; negations and comparisons are not
among them.
"""


def _ranges_of_marks() -> str:
    """Returns the character class of the marks that are written on or beside a letter, and belong
    to its word.
    """
    ranges: list[str] = []
    start = previous = -2
    for point in range(0x300, 0x10000):
        if unicodedata.category(chr(point))[0] != "M":
            continue
        if point != previous + 1:
            ranges.append(chr(start) + "-" + chr(previous) if start >= 0 else "")
            start = point
        previous = point
    return "".join(ranges) + chr(start) + "-" + chr(previous)


MARKS = _ranges_of_marks()
_IDEOGRAPHS = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Scripts without spaces, in which each character with its marks is taken as a word."""
_LETTER = rf"[^\W_{_IDEOGRAPHS}]"
_WORD = re.compile(
    rf"[{_IDEOGRAPHS}][{MARKS}]*"
    # letters and digits with their marks; an apostrophe or a hyphen may stand inside: isn't, X-ray
    rf"|{_LETTER}[{MARKS}]*(?:(?:{_LETTER}|[{MARKS}])|['-](?={_LETTER}))*"
)

# Marks that people leave out: the accents of Latin and Greek letters, vowel points of Hebrew and
# Arabic, and the stress of
# Cyrillic. A mark that makes another letter or word stays: ñ, й, the voicing of か, tones of Thai,
# vowels of Hindi.
_OPTIONAL = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u0652\u0670]"
)


def fold(text: str) -> str:
    """Returns a text without case, and without the accents that are left out as often as written.

    Example:
        >>> fold("Élan in São Paulo"), fold("мой") == fold("мои"), fold("が") == fold("か"), fold("año") == fold("ano")
        ('elan in sao paulo', False, False, False)
    """
    return (
        text.casefold()
        if text.isascii()
        else "".join(map(fold_character, unicodedata.normalize("NFC", text)))
    )


def fold_character(character: str) -> str:
    """Returns what one character of a composed text is folded to: nothing, one or several
    characters.
    """
    if character.isascii():
        return character.lower()
    return _FOLDED.get(character) or _fold_afresh(character)


_FOLDED: dict[str, str] = {}
_MOST_FOLDED = 20_000


def _fold_afresh(character: str) -> str:
    if _OPTIONAL.match(character):
        return ""
    is_wide = "\uff00" <= character <= "\uffef"
    letter, *marks = list(unicodedata.normalize("NFKD" if is_wide else "NFD", character))
    is_greek = "\u0370" <= letter <= "\u03ff"
    is_stressed = "\u0400" <= letter <= "\u04ff" and marks in (["\u0301"], ["\u0308"])
    is_latin = (
        letter.isascii() and letter.isalpha() and not (letter in "nN" and marks == ["\u0303"])
    )
    drops = (is_latin or is_greek or is_stressed) and all(
        unicodedata.combining(mark) for mark in marks
    )
    folded = (letter if drops else character).casefold()
    if len(_FOLDED) < _MOST_FOLDED:
        _FOLDED[character] = folded
    return folded


def normalize(text: str) -> str:
    """Returns a text as it is seen without case, optional accents, articles and repeated white
    space; articles alone stay.

    Example:
        >>> normalize("The  **Élan**"), normalize("A"), normalize("AT&amp;T’s CO₂")
        ('elan', 'a', "at&t's co2")
    """
    words = folded(render(text)).text.split()
    return " ".join([word for word in words if word not in ARTICLES] or words)


def words_of(text: str) -> list[str]:
    """Returns the words of a text in order, folded; of scripts without spaces, the characters.

    Example:
        >>> words_of("Bats aren't *blind*: Élan, K2, X-ray."), words_of("它在东京。")
        (['bats', "aren't", 'blind', 'elan', 'k2', 'x-ray'], ['它', '在', '东', '京'])
    """
    return _WORD.findall(fold(render(text).text))


def content_words(text: str) -> frozenset[str]:
    """Returns the words that say what a text is about: all but the function words of English."""
    return frozenset(words_of(text)) - FUNCTION_WORDS


_SHORT = 3


def identity(text: str) -> str:
    r"""Returns what two texts share that are one to a careful reader, who knows Co from CO, schon
    from schön and x² from x2.

    White space, invisible characters, the form of quotes and dashes, and the case of longer words
    make no difference.

    Example:
        >>> identity("Where is  To\u200bkyo?") == identity("where is Tokyo?"), identity("What is Mg?") == identity("What is mg?")
        (True, False)
    """
    composed = looks_like(unicodedata.normalize("NFC", text))
    if composed.isupper() or not composed.strip():
        return " ".join(composed.casefold().split())
    words = composed.split()
    begins = (
        words[:1]
        if any(character.isupper() for character in words[0][1:])
        else [words[0].casefold()]
    )
    return " ".join([*map(_same_case, begins), *map(_same_case, words[1:])])


def _same_case(word: str) -> str:
    """Returns a word folded, unless it is so short that its case may tell it from another: Co, CO,
    mg, vitamin A.
    """
    letters = "".join(character for character in word if character.isalpha())
    is_symbol = len(letters) <= _SHORT and letters.casefold() not in FUNCTION_WORDS - {"a"}
    return word if is_symbol else word.casefold()


def folded(seen: Rendered) -> Rendered:
    """Returns a rendered text folded, with single spaces and without the marks of powers, and the
    place of each character.
    """
    pieces: list[str] = []
    places: list[int] = []
    last = " "
    for character, place in zip(seen.text, seen.places, strict=False):
        if character.isspace():
            new = "" if last == " " else " "
        elif character == "^" and (last.isalpha() or last == ")"):
            new = ""  # x^2 and x2, Ca^2+ and Ca2+
        else:
            new = fold_character(character)
        if new:
            pieces.append(new)
            places += [place] * len(new)
            last = new[-1]
    places.append(seen.places[len(seen.text)])
    return Rendered("".join(pieces), places)
