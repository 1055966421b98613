"""How a text is read: its words, its sentences, and what it states."""

from __future__ import annotations

import re
import unicodedata

_ARTICLES = frozenset(("a", "an", "the"))
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'“(]?[A-Z0-9])")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|approx|e\.g|i\.e)|(?<!°)\b[A-Z])\.$")


def normalize(text: str) -> str:
    """Returns `text` without case, accents, articles and repeated white space; a text of articles alone keeps them.

    Example:
        >>> normalize("The  Élan"), normalize("A")
        ('elan', 'a')
    """
    words = _fold(text).split()
    return " ".join([word for word in words if word not in _ARTICLES] or words)


def _fold(text: str) -> str:
    if text.isascii():
        return " ".join(text.casefold().split())
    decomposed = unicodedata.normalize("NFKD", text)
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    return " ".join(plain.casefold().split())


def states(text: str, answer: str) -> bool:
    """Whether `text` contains `answer` as whole words, case, accents and articles aside.

    An `A` that ends an answer is no article. An answer of up to three letters, such as a symbol or a code, has to be there in its
    own case: indium's `In` is not the word "in".

    Example:
        >>> states("It is in Niger.", "Niger"), states("It is in Nigeria.", "Niger"), states("Dial +4420.", "+44")
        (True, False, False)
        >>> states("It is in the Gambia.", "Gambia, The"), states("Hepatitis B.", "Hepatitis A"), states("It is a B.", "A")
        (False, False, False)
        >>> states("It is found in ores.", "In"), states("Its symbol is In.", "In"), states("In EUR.", "EUR")
        (False, True, True)
        >>> states("It is 3.5.", "3"), states("It is 3.5.", "5"), states("It is 3.", "3"), states("It is 3.5.", "3.5")
        (False, False, True, True)
    """
    words = _fold(answer).split()
    if not words:
        return False
    if len(words) == 1 and (words[0] in _ARTICLES or (len(words[0]) <= 3 and answer != answer.lower())):
        return _has_whole(re.escape(answer.strip()), text)
    wanted = [word for word in words[:-1] if word not in _ARTICLES] + words[-1:]
    between = r" (?:(?:a|an|the) )*"
    return _has_whole(between.join(map(re.escape, wanted)), _fold(text))


def _has_whole(pattern: str, text: str) -> bool:
    """Whether `text` has the pattern as whole words and whole numbers: 3 and 5 are no part of 3.5."""
    begins = r"(?<!\w)(?:(?!\d)|(?<!\d[.,]))"
    ends = r"(?!\w)(?:(?<!\d)|(?![.,]\d))"
    return re.search(f"{begins}(?:{pattern}){ends}", text) is not None


def sentences(text: str) -> list[str]:
    """Splits a text into sentences; line breaks end a sentence too.

    Example:
        >>> sentences("Dr. Li came. It was 3.5 km!")
        ['Dr. Li came.', 'It was 3.5 km!']
        >>> sentences("It melts at 420 °C. Then it flows.")
        ['It melts at 420 °C.', 'Then it flows.']
    """
    found: list[str] = []
    for line in text.splitlines():
        pending: list[str] = []
        for piece in _SENTENCE_END.split(line.strip()):
            pending.append(piece)
            if not _ABBREVIATION.search(piece, len(piece) - 8):
                found.append(" ".join(pending))
                pending = []
        found.append(" ".join(pending))
    return [sentence for sentence in found if sentence]
